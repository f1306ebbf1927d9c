"""`tf-simclr chest covid`: the COVID-19 study's six rows, on its split and on one that keeps patients apart.

For research, not for diagnosis.
"""

import time
from pathlib import Path

import keras
import numpy as np

from tf_simclr import diagnostics, plots
from tf_simclr.checkpoint import load_encoder
from tf_simclr.chest import prepare, siim, synthetic
from tf_simclr.chest.covid import ROWS, STUDY_BEST, Fit, Row, split, summary, train_head
from tf_simclr.chest.prepared import Prepared, load
from tf_simclr.chest.splits import shared
from tf_simclr.config import ChestCovid, plain
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.feature_cache import FeatureCache, weights_digest
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.maps import curve_band
from tf_simclr.evaluation.reports import versions
from tf_simclr.files import write_json
from tf_simclr.models.resnet import resnet
from tf_simclr.tasks.extraction import Counter
from tf_simclr.tasks.inputs import say, show

SPLITS = ("image", "patient")
NOTE = "For research, not for diagnosis."


def run(config: ChestCovid) -> None:
    """Runs every row on both splits, prints the table and draws the figures."""
    data = prepared_data(config)
    labels = data.column(config.positive)
    found: dict[str, dict] = {}
    fits: dict[tuple, list[Fit]] = {}
    for name, encoder in encoders(config).items():
        began = time.monotonic()
        values = features(config, encoder, data=data, name=name)
        middle = time.monotonic()
        rows = ROWS if name == "SimCLR" or config.checkpoint is None else ROWS[:1]
        new = {
            (name, row, kind): heads(config, values, labels=labels, data=data, row=row, kind=kind)
            for row in rows
            for kind in SPLITS
        }
        fits |= new
        found[name] = {"feature_seconds": middle - began, "head_seconds": time.monotonic() - middle, "heads": len(new)}
        say(
            f"{name}: features in {middle - began:.0f} s, {len(new) * config.seeds} heads in "
            f"{found[name]['head_seconds']:.0f} s"
        )
    results = {key: summary(fit, seed=config.seed) for key, fit in fits.items()}
    leak = leaked(config, data, labels=labels)
    note = {"/".join(map(str, key)): value for key, value in results.items()}
    write_json(
        config.model_dir / "result.json",
        {"command": plain(config), "versions": versions(), "note": NOTE, "results": note, "times": found, "leak": leak},
    )
    show(table(config, results, data=data, leak=leak))
    for path in draw(config, fits):
        show(f"figure  {path}")


def prepared_data(config: ChestCovid) -> Prepared:
    """The radiographs; made-up ones are written and prepared at first."""
    if config.data != "synthetic":
        return load(Path(config.data))
    raw, out = config.model_dir / "synthetic", config.model_dir / "synthetic_prepared"
    if not (raw / "train_image_level.csv").exists():
        say("making up 120 patients …")
        synthetic.write(raw, 120, seed=config.seed)
    prepare.prepare(siim.collection(raw), out, size=64)
    return load(out)


def encoders(config: ChestCovid) -> dict[str, keras.Model]:
    """The encoders to test: the checkpoint's, and the same with random weights."""
    found = {"SimCLR": load_encoder(config.checkpoint, ema=config.ema)} if config.checkpoint else {}
    if config.random_baseline or not found:
        keras.utils.set_random_seed(config.seed)
        found["random"] = keras.models.clone_model(found["SimCLR"]) if found else resnet(50)
    return found


def features(config: ChestCovid, encoder: keras.Model, *, data: Prepared, name: str) -> np.ndarray:
    """Features of every image `(n, d)`, in the order of the prepared folder, kept on disk."""

    def compute():
        unreadable = Unreadable()
        sizes = {"batch_size": config.eval_batch_size, "image_size": config.image_size, "crop_proportion": 1.0}
        batches = evaluation_batches(data.source(np.arange(len(data))), unreadable=unreadable, **sizes)
        counter = Counter(f"features of {len(data):,} radiographs, {name}", len(data))
        return extract(encoder, batches, progress=counter), unreadable.names

    key = {
        "weights": weights_digest(encoder),
        "image_size": config.image_size,
        "hashes": list(data.hashes),
        "size": data.size,
    }
    return FeatureCache(config.cache_dir, say).fetch(key, compute)[0].values


def heads(
    config: ChestCovid, values: np.ndarray, *, labels: np.ndarray, data: Prepared, row: Row, kind: str
) -> list[Fit]:
    """One head a seed, each on a split of its own."""
    options = {
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "batch_size": config.train_batch_size,
    }
    fits = []
    for seed in range(config.seed, config.seed + config.seeds):
        parts = split(list(data.patients), labels, kind=kind, test_share=config.test_share, seed=seed)
        fits.append(
            train_head(np.asarray(values), labels, parts=parts, patients=data.patients, row=row, seed=seed, **options)
        )
    return fits


def leaked(config: ChestCovid, data: Prepared, *, labels: np.ndarray) -> dict[str, float]:
    """How many patients the study's split has in both parts, and the share of test images that are theirs."""
    patients = list(data.patients)
    parts = split(patients, labels, kind="image", test_share=config.test_share, seed=config.seed)
    known = {patients[i] for i in parts["train"]}
    share = float(np.mean([patients[i] in known for i in parts["test"]]))
    return {"patients_in_both": shared(patients, parts)["train", "test"], "share_of_test_images": share}


def table(config: ChestCovid, results: dict, *, data: Prepared, leak: dict) -> str:
    """A line a row and encoder: both splits side by side."""
    heads = f"{'accuracy (%)':>20}{'AUC':>8}{'accuracy (%)':>20}{'AUC':>20}{'sensitivity (%)':>20}"
    lines = [
        f"{config.positive}: {len(data):,} images of {len(set(data.patients)):,} patients, {config.seeds} seeds",
        f"{'':<46}{'split by image, as the study':>28}{'split by patient':>60}",
        f"{'encoder, head':<46}{heads}",
    ]
    for name, row in dict.fromkeys((name, row) for name, row, _ in results):
        image, patient = (results[name, row, kind] for kind in SPLITS)
        cells = f"{cell(image['accuracy'], 100):>20}{image['auc']['mean']:>8.2f}{cell(patient['accuracy'], 100):>20}"
        cells += f"{cell(patient['auc'], 1):>20}{cell(patient['sensitivity_at_90'], 100):>20}"
        lines.append(f"{f'{name}, {row}':<46}{cells}")
    return "\n".join([*lines, "", *footnotes(config, leak)])


def footnotes(config: ChestCovid, leak: dict) -> list[str]:
    """What the numbers are, and what they are not."""
    share = f"{leak['share_of_test_images']:.0%}"
    return [
        "Means over seeds (95 % bootstrap intervals over patients); sensitivity is that at a specificity of 90 %.",
        f"The study reports {100 * STUDY_BEST:.1f} % for its best row on a split by image.  Here that split has "
        f"{leak['patients_in_both']:,} patients",
        f"in both parts: {share} of its test images are of patients that were seen in training.",
        f"{NOTE}  Average precision, Brier score, calibration: {config.model_dir}/result.json",
    ]


def cell(value: dict[str, float], scale: float) -> str:
    """A mean and its interval."""
    digits = 1 if scale == 100 else 2
    mean, low, high = (f"{scale * value[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}–{high})"


def draw(config: ChestCovid, fits: dict[tuple, list[Fit]]) -> list[Path]:
    """Accuracy and loss by epoch (the study's Figures 3.2 and 3.3), ROC with its band, and calibration."""
    name, row = next((name, row) for name, row, _ in fits)
    figures = {}
    for kind in SPLITS:
        first = fits[name, row, kind][0]
        figures[f"curves_{kind}"] = plots.curves(first.history)
    first = {f"split by {kind}": fits[name, row, kind][0] for kind in SPLITS}
    bands = {key: curve_band(f.probabilities, f.labels, kind="roc", groups=f.patients) for key, f in first.items()}
    figures["roc"] = diagnostics.bands(bands, kind="roc")
    figures["calibration"] = diagnostics.reliability(
        {key: reliability(f.probabilities, f.labels) for key, f in first.items()}
    )
    return [plots.save(figure, config.model_dir / f"{key}.png") for key, figure in figures.items()]
