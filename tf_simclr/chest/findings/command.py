"""`tf-simclr chest findings`: several findings of a radiograph, from frozen features and by fine-tuning.

For research, not for diagnosis.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr import replicas
from tf_simclr.chest.collections import made_up
from tf_simclr.chest.findings import published
from tf_simclr.chest.findings.fits import TITLES, Fit, Task, features_of, fitted, validation_auc
from tf_simclr.chest.findings.page import Told, written
from tf_simclr.chest.html import MADE_UP_NUMBERS, NOTICE
from tf_simclr.chest.model import of_findings
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP
from tf_simclr.chest.model.seen import answers
from tf_simclr.chest.model.trusted import words_to_open
from tf_simclr.commands.parts.networks import encoder_name
from tf_simclr.config import ChestFindings, plain
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.data.recipe import evaluation_proportion
from tf_simclr.evaluation import multi_label
from tf_simclr.evaluation.features import WHOLE
from tf_simclr.evaluation.reports import versions
from tf_simclr.files import csv_of, replacing, write_json
from tf_simclr.files.lock import hold
from tf_simclr.terminal import say, show, typed
from tf_simclr.weights import load_encoder

_Line = tuple[str, str, float]
"""Way, network, and share of the labels: a line of the table."""


def run(config: ChestFindings) -> None:
    """Trains what is not there yet, tests, and writes the report; the same command goes on where it was stopped."""
    with hold(config.model_dir, say=say):
        # 1. The radiographs, their findings and their parts.
        data = made_up.or_prepared(config.radiographs, config.model_dir, size=config.image_size, seed=config.seed)
        task = Task(config, data, replicas.find())
        write_json(config.model_dir / "config.json", plain(config))
        parts = counts(task)
        for line in _introduction(task, parts):
            say(line)

        # 2. A fit a line and seed; what is done is not done again.
        lines = [
            (way, name, share) for share in config.labels_fractions for name in task.networks for way in config.ways
        ]
        fits = {line: _trained(task, line) for line in lines}

        # 3. The test patients, once for all lines.
        rows = task.rows["test"]
        known: dict[str, Any] = {"names": task.names, "patients": task.data.patients[rows], "seed": config.seed}
        numbers = {
            line: multi_label.measured(np.stack([fit.test for fit in found]), task.truth[rows], **known)
            for line, found in fits.items()
        }

        # 4. What is left: numbers, table, page, and the model that did best on validation patients.
        # By the share of labels first: a line that learned from fewer is never left.  Without a mean AUC it comes last.
        aucs = {line: np.nan_to_num(validation_auc(task, found[0]), nan=-1.0) for line, found in fits.items()}
        chosen = max(fits, key=lambda line: (line[2], aucs[line]))
        told = _told_of(task, numbers, fits=fits, parts=parts, chosen=chosen)
        _leave(config.model_dir, told)
        left = _left_model(task, chosen, fit=fits[chosen][0])
        show(table(told, config.model_dir))
        named = words_to_open(left / "encoder.keras", encoder=encoder_name(config))
        asked = typed("chest", "evaluate", "--model", config.model_dir, *named, "--radiographs")
        show(f"model   {left}: {asked} OTHER")


def counts(task: Task) -> dict[str, dict[str, Any]]:
    """Part → images, patients, and how many have each finding and of how many it is unknown."""
    # Of each finding it may be unknown for some images: counted apart.
    found = {}
    for part, rows in task.rows.items():
        labels = task.truth[rows]
        found[part] = {
            "images": len(rows),
            "patients": len(np.unique(task.data.patients[rows])),
            "positives": dict(zip(task.names, (labels == 1).sum(axis=0).tolist(), strict=True)),
            "unknown": dict(zip(task.names, (labels < 0).sum(axis=0).tolist(), strict=True)),
        }
    return found


def _introduction(task: Task, parts: dict[str, dict[str, Any]]) -> list[str]:
    """What is about to be asked of whom."""
    split = "its own split" if official(task.data) else f"a split by patient (seed {task.config.split_seed})"
    lines = [f"{task.data.name}: {len(task.data):,} radiographs, {multi_label.findings(len(task.names))}, {split}"]
    # A finding that nobody has in a part cannot be measured there.
    for part, of in parts.items():
        without = [name for name, count in of["positives"].items() if count == 0]
        note = f"; none with {', '.join(without)}" if without else ""
        lines.append(f"  {part:<12}{of['images']:,} images of {of['patients']:,} patients{note}")
    lines += [f"  {number:,} pairs of images look the same in {names}" for names, number in task.alike.items()]
    return lines


def official(data: Prepared) -> bool:
    """Whether the collection has a split of its own."""
    return {"train", "test"} <= set(data.splits.tolist())


def _trained(task: Task, line: _Line) -> list[Fit]:
    """The fits of a line, one a seed."""
    way, network, fraction = line
    found = []
    for number in range(task.config.seeds):
        say(f"{_title(line)}, seed {task.config.seed + number} ({number + 1} of {task.config.seeds}) …")
        found.append(fitted(task, way=way, network=network, fraction=fraction, seed=task.config.seed + number))
        say(f"  mean AUC on validation patients {validation_auc(task, found[-1]):.3f}")
    return found


def _title(line: _Line) -> str:
    """What a table calls a line."""
    way, network, fraction = line
    share = "" if fraction == 1 else f", {100 * fraction:g} % of the labels"
    return f"{network}, {TITLES[way]}{share}"


def _told_of(task: Task, numbers: dict, *, fits: dict[Any, list[Fit]], parts: dict, chosen: _Line) -> Told:
    """All that the page and the files tell."""
    test = parts["test"]
    return Told(
        collection=task.data.name,
        synthetic=task.data.made_up,
        official=official(task.data),
        parts=parts,
        alike=sum(task.alike.values()),
        numbers={_title(line): of for line, of in numbers.items()},
        learned={_title(line): [fit.notes for fit in found] for line, found in fits.items()},
        chosen=_title(chosen),
        comparable=published.comparable(
            images=test["images"],
            findings=len(task.names),
            official=official(task.data),
            made_up=task.data.made_up,
        ),
        made={
            **{name.replace("_", " "): str(getattr(task.config, name)) for name in _TOLD},
            "with": ", ".join(f"{name} {version}" for name, version in versions().items()),
        },
    )


_TOLD = (
    "image_size",
    "uncertain",
    "not_mentioned",
    "seeds",
    "split_seed",
    "l2_strengths",
    "train_epochs",
    "learning_rate",
)


def _leave(folder: Path, told: Told) -> None:
    """Writes `findings.json`, `findings.csv` and `report.html`."""
    content = {
        "note": NOTICE,
        "made_up": told.synthetic,
        "collection": told.collection,
        "official_split": told.official,
        "parts": told.parts,
        "lines": told.numbers,
        "learned": told.learned,
        "chosen_on_validation": told.chosen,
        "published": None
        if told.synthetic
        else {"source": published.SOURCE, "comparable": told.comparable, "mean_auc": dict(published.ROWS)},
        "versions": versions(),
    }
    write_json(folder / "findings.json", content)
    # A row a line and finding.
    ends = ("", "_low", "_high")
    metrics = ("auc", "average_precision")
    heads = [f"{metric}{end}" for metric in metrics for end in ends]
    note = f"{NOTICE} {MADE_UP_NUMBERS}" if told.synthetic else NOTICE
    rows = [["line", "finding", "images", "positives", "unknown", "patients", *heads, "why", "note"]]
    for line, numbers in told.numbers.items():
        for name, of in numbers["findings"].items():
            values = [of.get(metric, {}).get(key, "") for metric in metrics for key in ("value", "low", "high")]
            counted = [of[key] for key in ("images", "positives", "unknown", "patients")]
            rows.append([line, name, *counted, *values, of["why"], note])
    with replacing(folder / "findings.csv", folder / "report.html") as [table_file, page_file]:
        table_file.write(csv_of(rows))
        page_file.write(written(told).encode())


def _left_model(task: Task, line: _Line, *, fit: Fit) -> Path:
    """Leaves a line's first fit as a model for `chest evaluate`."""
    config, (way, network, _) = task.config, line
    # What was not learned has NaN, and is not part of the model.
    learned = ~np.isnan(fit.bias) & ~np.isnan(fit.validation).any(axis=0)
    rows, held = task.rows["train"], task.rows["validation"]
    # A model is an encoder with the crop that it saw and features of the images that it learned from.
    if way == "linear":
        encoder, crop, features = task.networks[network], WHOLE, features_of(task, network)[rows]
    else:
        encoder = load_encoder(config.model_dir / "fits" / fit.notes["network"] / "run")
        crop = evaluation_proportion(config.image_size)
        sizes: dict[str, Any] = {"batch_size": config.eval_batch_size, "image_size": config.image_size}
        features = answers(encoder, task.data, rows=rows, crop_proportion=crop, **sizes)
    folder = config.model_dir / of_findings.FOLDER
    of_findings.save(
        folder,
        encoder=encoder,
        layer=(fit.kernel[:, learned], fit.bias[learned]),
        findings=tuple(name for name, yes in zip(task.names, learned, strict=True) if yes),
        held=(fit.validation[:, learned], task.truth[held][:, learned], task.data.patients[held]),
        cases=(task.data, rows, features),
        image_size=config.image_size,
        crop_proportion=crop,
        card={
            "title": _title(line),
            "data": task.data.name,
            "limits": [*([LEARNED_FROM_MADE_UP] * task.data.made_up), NOTICE],
        },
        seed=config.seed,
    )
    keras.backend.clear_session()
    return folder


def table(told: Told, folder: Path) -> str:
    """The findings of the chosen line, the means of all, and what papers report."""
    lines = [f"{told.chosen}, on test patients", *(f"  {row}" for row in multi_label.lines(told.numbers[told.chosen]))]
    # Published lines stand two places further in.
    width = 2 + max([*map(len, told.numbers), *(2 + len(name) for name, _ in published.ROWS)])
    lines += ["", f"{'mean AUC on test patients':<{width}}"]
    for name, of in told.numbers.items():
        mean = of["mean_auc"]
        lines.append(f"  {name:<{width}}" + (f"{multi_label.cell(mean)} of {mean['over']}" if mean else "none"))
    if not told.synthetic:
        lines.append(f"  published ({published.SOURCE}):" if told.comparable else f"  {_NOT_COMPARABLE}")
        lines += [f"    {name:<{width - 2}}{value:.3f}" for name, value in published.ROWS]
    lines += [
        *([MADE_UP_NUMBERS] * told.synthetic),
        NOTICE,
        f"report  {folder / 'report.html'}, numbers {folder / 'findings.json'}, {folder / 'findings.csv'}",
    ]
    return "\n".join(lines)


_NOT_COMPARABLE = (
    f"published, of the official test split ({published.TEST_IMAGES:,} images, 14 findings), which these are not: "
    f"no comparison ({published.SOURCE}):"
)
