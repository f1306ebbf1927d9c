"""The COVID-19 study's tables and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_simclr import plots
from tf_simclr.chest.covid.arms import SPLITS, TRAINS, Arms, Study
from tf_simclr.chest.covid.rows import CHOICE, ENCODER, IMAGES, ROWS, STUDY, Fit, one_class, summary
from tf_simclr.chest.model.card import NOTE
from tf_simclr.data.radiographs import MADE_UP
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.maps import curve_area, curve_band

_WIDTHS = 34, 17
"""Of the names and of a cell."""
COLUMNS = {
    "train_accuracy": "training (%)",
    "accuracy": "accuracy (%)",
    "auc": "AUC",
    "average_precision": "avg. precision",
    "sensitivity_at_90": "sensitivity (%)",
    "calibration_error": "calibr. error",
}
"""Metric → head of its column; sensitivity is that at a specificity of 90 %."""
_CLASS_COLUMNS = {"accuracy": "accuracy (%)", "macro_auc": "macro AUC"}
_PERCENT = ("train_accuracy", "accuracy", "sensitivity_at_90")
_THEIRS = "the study, by image"
"""Name of the line with the study's own numbers."""
_NAMES = {"image": "by image", "patient": "by patient"}

_Results = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Line → split → metric → mean, low and high."""


def results(arms: Arms, *, seed: int) -> _Results:
    """Means over seeds with 95 % intervals over patients."""
    return {name: {kind: summary(fits, seed=seed) for kind, fits in kinds.items()} for name, kinds in arms.items()}


def title(study: Study) -> str:
    """What is being told from what."""
    config, data = study.config, study.data
    made_up = f"{MADE_UP.capitalize()}.\n" if data.made_up else ""
    return made_up + (
        f"{config.positive}: {len(data):,} images of {len(set(data.patients)):,} patients, {study.labels.sum():,} "
        f"positive; {study.seen}; seeds: {config.seeds}"
    )


def lines(
    what: str,
    found: _Results,
    *,
    columns: dict[str, str] = COLUMNS,
    theirs: Mapping[str, Mapping[str, float | None]] | None = None,
) -> str:
    """A table: a line a row and split.

    Args:
        what: its title.
        found: the numbers.
        columns: metric → head of its column.
        theirs: row → metric → what the study printed, in %.
    """
    first = max(_WIDTHS[0], len(what) + 2)
    text = [f"{what:<{first}}" + "".join(f"{head:>{_WIDTHS[1]}}" for head in columns.values())]
    for name, kinds in found.items():
        text.append(f"  {name}")
        if printed := (theirs or {}).get(name):
            theirs_row = (f"{printed[key]:.1f}" if key in printed else "" for key in columns)
            text.append(
                (f"    {_THEIRS:<{first - 4}}" + "".join(f"{cell:>{_WIDTHS[1]}}" for cell in theirs_row)).rstrip()
            )
        for kind, metrics in kinds.items():
            cells = "".join(f"{cell(metrics[key], key) if key in metrics else '':>{_WIDTHS[1]}}" for key in columns)
            text.append(f"    {_NAMES[kind]:<{first - 4}}{cells}")
    return "\n".join(text)


def cell(value: dict[str, float], metric: str) -> str:
    """A mean and its interval: `73.6 (70–77)` per cent, or `0.78 (.75–.81)`."""
    if metric in _PERCENT:
        mean, low, high = (100 * value[key] for key in ("mean", "low", "high"))
        return f"{mean:.1f} ({low:.0f}–{high:.0f})"
    ends = "–".join(f"{value[key]:.2f}".removeprefix("0") for key in ("low", "high"))
    return f"{value['mean']:.2f} ({ends})"


def table_text(study: Study, found: _Results) -> str:
    """The study's six rows, beside what it printed; made-up radiographs are beside nothing."""
    return lines("the study's six rows", found, theirs=None if study.data.made_up else printed(study))


def printed(study: Study) -> dict[str, dict[str, float]]:
    """What the study printed, by our names of its rows."""
    return {
        f"{study.base}, {row}": {"train_accuracy": row.train, "accuracy": row.test}
        for row in ROWS
        if row.train is not None and row.test is not None
    }


def of_the_study(study: Study) -> dict[str, Any] | None:
    """The study's numbers for `result.json`; none beside made-up radiographs."""
    if study.data.made_up:
        return None
    rows = [row.form | {"train_accuracy": row.train, "test_accuracy": row.test} for row in ROWS]
    return {"source": STUDY, "encoder": ENCODER, "images": IMAGES, "rows": rows}


def classes_text(arms: Arms, names: tuple[str, ...], *, seed: int) -> tuple[str, _Results]:
    """The task with all classes: accuracy and macro AUC, and below each class against the rest."""
    whole = results(arms, seed=seed)
    text = [lines(f"{len(names)} classes", whole, columns=_CLASS_COLUMNS)]
    first = next(iter(arms))
    alone: Arms = {
        f"{name} ({sum(int((fit.labels == c).sum()) for fit in arms[first]['patient'])} test images)": {
            kind: [one_class(fit, c) for fit in fits if (fit.labels == c).any()] for kind, fits in arms[first].items()
        }
        for c, name in enumerate(names)
    }
    tested = {name: kinds for name, kinds in alone.items() if all(kinds.values())}
    found = results(tested, seed=seed)
    columns = {key: head for key, head in COLUMNS.items() if key not in ("train_accuracy", "accuracy")}
    text.append(lines(f"{first}: each class against the rest", found, columns=columns))
    return "\n\n".join(text), whole | {f"{first}, {name}": found[name] for name in found}


def footnotes(study: Study, leak: dict) -> str:
    """What the numbers are, and what they are not."""
    seconds, config, made_up = study.seconds, study.config, study.data.made_up
    siim, tunes = study.data.name.startswith("SIIM"), any(name.startswith("an epoch") for name in seconds)
    of_the_study = [
        f"The study: {STUDY}, Table 3.2: SIIM's radiographs, {IMAGES['train']:,} to train on and {IMAGES['test']:,} to "
        f"test, by image; encoder {ENCODER}.",
        *(["Its numbers are of other radiographs than these."] * (not siim)),
    ]
    text = [
        *([f"{MADE_UP.capitalize()}; no study's numbers stand beside theirs."] * made_up),
        "Means over seeds (95 % intervals over patients); sensitivity is that at a specificity of 90 %.",
        "Training accuracy is the last epoch's, with dropout on, as Keras prints it (least to most of the seeds).",
        *(of_the_study * (not made_up)),
        f"Here the split by image has {leak['patients_in_both']:,} patients in both parts: "
        f"{leak['share_of_test_images']:.0%} of the images to test on are of patients to learn from.",
        f"Images that look alike in both parts: {leak['alike_by_image']:,} by image, {leak['alike_by_patient']:,} by "
        "patient.",
        *([f"Where the encoder trains: epochs {config.tuning_epochs}, seeds {config.tuning_seeds}."] * tunes),
        f"Spent: features {seconds['features']:.0f} s, heads {seconds['heads']:.0f} s.{_ratio(study)}",
        f"{NOTE}  All numbers: {config.model_dir}/result.json",
    ]
    return "\n".join(text)


def _ratio(study: Study) -> str:
    """What the six rows would have cost with the encoder in the loop, where an epoch of it was measured."""
    an_epoch = study.seconds.get("an epoch, " + TRAINS[-1])
    if an_epoch is None or study.config.study != "all":
        return ""
    epochs = sum(row.epochs for row in ROWS) * len(SPLITS) * study.config.seeds
    spent = study.seconds["six rows"]
    return (
        f"\nAn epoch end to end took {an_epoch:.1f} s; {epochs:,} of them, for six rows, {len(SPLITS)} splits and "
        f"{study.config.seeds} seeds, are {an_epoch * epochs / 3600:.1f} h: {an_epoch * epochs / spent:,.0f} × as much."
    )


def draw(study: Study, arms: Arms, *, found: _Results) -> list[Path]:
    """Accuracy and loss by epoch (the study's Figures 3.2 and 3.3), ROC with its band, calibration, and all AUCs."""
    # Of the study's best row, its first seed: one training is drawn, and not a mean of curves.
    shown = next((arms[name] for name in arms if name.endswith(str(CHOICE))), next(iter(arms.values())))
    first = {kind: fits[0] for kind, fits in shown.items()}
    head = f"the head {CHOICE}"
    figures = {
        f"curves_{kind}": plots.curves(fit.history, title=f"Training of {head}, split {_NAMES[kind]}")
        for kind, fit in first.items()
    }
    named = {f"split {_NAMES[kind]}": fit for kind, fit in first.items()}
    counts = "; ".join(
        f"{name}: {len(fit.labels):,} test images of {len(set(fit.patients)):,} patients" for name, fit in named.items()
    )
    figures["roc"] = plots.bands(
        {name: _curve(fit) for name, fit in named.items()},
        kind="roc",
        title=f"ROC of {study.config.positive}",
        count=counts,
    )
    figures["calibration"] = plots.reliability(
        {name: reliability(fit.probabilities, fit.labels) for name, fit in named.items()},
        title=f"Calibration of {study.config.positive}",
    )
    areas = {
        name: {f"split {_NAMES[kind]}": tuple(metrics["auc"].values()) for kind, metrics in kinds.items()}
        for name, kinds in found.items()
    }
    figures["auc"] = plots.intervals(areas, metric="AUC on test images", chance=0.5)
    return [saved(study, figure, name=key) for key, figure in figures.items()]


def saved(study: Study, figure: Any, *, name: str) -> Path:
    """A figure in the study's folder; one of made-up radiographs says so."""
    return plots.save(figure, study.config.model_dir / f"{name}.png", made_up=study.data.made_up)


def draw_classes(study: Study, arms: Arms, *, names: tuple[str, ...]) -> Path:
    """The confusion matrix of the first encoder and seed, split by patient."""
    # By patient, as only that one is honest.
    fit = next(iter(arms.values()))["patient"][0]
    figure = plots.confusion(fit.labels, fit.probabilities.argmax(axis=1), class_names=names)
    return saved(study, figure, name="confusion")


def _curve(fit: Fit) -> plots.Curve:
    """The ROC curve of one fit with its band over patients."""
    asked: dict[str, Any] = {"kind": "roc", "groups": fit.patients}
    area = curve_area(fit.probabilities, fit.labels, **asked)
    return plots.Curve(*curve_band(fit.probabilities, fit.labels, **asked), area=area)
