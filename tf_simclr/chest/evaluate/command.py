"""`tf-simclr chest evaluate`: a finished model asked about another hospital's radiographs.

For research, not for diagnosis.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.chest.collections.collection import EMPTY, read_table
from tf_simclr.chest.evaluate import drifts, numbers
from tf_simclr.chest.evaluate.models import Asked, opened
from tf_simclr.chest.evaluate.numbers import Told
from tf_simclr.chest.evaluate.page import PATIENTS, Evaluation, written
from tf_simclr.chest.html import MADE_UP_NUMBERS, NOTICE
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP, check_told
from tf_simclr.commands.parts.images import told_seed
from tf_simclr.config import ChestEvaluate, plain
from tf_simclr.data.radiographs import partition
from tf_simclr.data.radiographs.prepared import Prepared, load
from tf_simclr.data.radiographs.settings import ALL, check_columns
from tf_simclr.errors import check
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.intervals import SEPARATED
from tf_simclr.evaluation.maps import curve_band
from tf_simclr.evaluation.multi_label import cell
from tf_simclr.evaluation.reports import versions
from tf_simclr.files import csv_of, replacing, write_json
from tf_simclr.terminal import say, show

_RULES = {
    "youden": "which has the largest sum of sensitivity and specificity",
    "sensitivity": "which finds at least {at:.0%} of the positives",
    "specificity": "which lets at least {at:.0%} of the negatives go",
}


def run(config: ChestEvaluate) -> None:
    """Asks, measures, and writes page, numbers and table."""
    # 1. The radiographs and their subgroups.
    data = load(config.radiographs)
    # Sorted: a source gives images in the order of their rows.
    rows = _rows_of(config, data)
    columns = _groups(config, data, rows=rows)

    # 2. What each model says of them; the first one is measured, the others are compared with it.
    names = _named([config.model, *config.others])
    tolds: dict[str, dict[str, Told]] = {}
    learned: dict[str, int] = {}
    for name, folder in names.items():
        say(f"{name}: {len(rows):,} radiographs of {data.name} …")
        asked = opened(folder, code=config.encoder)
        scores, features = asked.answers(data, rows, batch_size=config.eval_batch_size)
        tolds[name] = _told_of(config, asked, scores=scores, data=data, rows=rows)
        if not learned:
            # Features of this model against those that it learned from: other models have other features.
            seen, whose = drifts.looked_at(data, rows, seed=config.seed), data.patients[rows]
            draws = {"permutations": config.permutations, "seed": config.seed}
            first, moved = asked, drifts.measured(asked, seen, features=features, patients=whose, **draws)
        learned[name] = drifts.alike(asked, seen[0]) if learned else moved["alike"]
        keras.backend.clear_session()

    # 3. The numbers of each finding.
    own, findings, curves = next(iter(tolds.values())), {}, {}
    for number, (finding, told) in enumerate(own.items()):
        findings[finding] = _measured(config, first, told=told, number=first.findings.index(finding), columns=columns)
        if not findings[finding]["why"]:
            curves[finding] = drawn(told, seed=config.seed + number)
            if findings[finding]["separated"]:
                say(f"{finding}: {SEPARATED}")
    comparisons = {}
    for finding in own:
        told_by = {name: of[finding] for name, of in tolds.items() if finding in of}
        if not findings[finding]["why"] and len(told_by) > 1:
            beside = numbers.compared(told_by, seed=config.seed)
            comparisons[finding] = [row | {"second_learned_from": learned[row["second"]]} for row in beside]

    # 4. What is left; made up are the radiographs that were asked about, or that the model has learned from.
    warnings = [MADE_UP_NUMBERS] if data.made_up else []
    warnings += [f"The model: {LEARNED_FROM_MADE_UP}"] if first.made_up else []
    found = Evaluation(
        title=first.title,
        collection=data.name,
        warnings=tuple(warnings),
        part=config.split,
        images=len(rows),
        patients=len(np.unique(data.patients[rows])),
        findings=findings,
        drift=moved,
        comparisons=comparisons,
        curves=curves,
        rule=_RULES[config.operating_point].format(at=config.at_least),
        fewest=config.fewest,
        made={
            "operating point": config.operating_point,
            "subgroups": ", ".join(columns),
            "with": ", ".join(f"{name} {version}" for name, version in versions().items()),
        },
    )
    _leave(config, found)
    show(_summary(config, found))


def _rows_of(config: ChestEvaluate, data: Prepared) -> np.ndarray:
    """The radiographs that are asked about, which ascend."""
    if config.split == ALL:
        return np.arange(len(data))
    told_seed(str(data.folder), config.split_seed, drawn=partition.draws(data, config.split))
    return np.sort(partition.parts(data, seed=config.split_seed)[config.split])


def _named(folders: list[Path]) -> dict[str, Path]:
    """What tables call models: their run folders' names, with more of the path where two have one."""
    # From the last part of the path on, as much as tells them apart.
    for depth in range(1, 1 + max(len(folder.parts) for folder in folders)):
        found = {"/".join(folder.parts[-depth:]): folder for folder in folders}
        if len(found) == len(folders):
            return found
    check(len(set(folders)) == len(folders), "models to compare must differ", received=[str(path) for path in folders])
    return {str(folder): folder for folder in folders}


def _groups(config: ChestEvaluate, data: Prepared, *, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Column → a text an image, of those that say anything.

    Raises:
        InputError: a column is neither in the prepared folder nor in the table, or the table lacks an image.
    """
    # The radiographs' own columns, and those of a table beside it.
    known: dict[str, np.ndarray] = {name: values[rows] for name, values in data.attributes.items()}
    if config.subgroup_table is not None:
        told = read_table(config.subgroup_table, columns=("image",))
        twice = [image for image, count in Counter(row["image"] for row in told).items() if count > 1]
        check(not twice, f"{config.subgroup_table} must have one row for each image", twice=twice[:3], count=len(twice))
        table = {row["image"]: row for row in told}
        missing = [str(image) for image in data.images[rows] if image not in table]
        rule = f"{config.subgroup_table} must have a row for each image"
        check(not missing, rule, missing=missing[:3], count=len(missing))
        names = [name for name in next(iter(table.values())) if name != "image" and name.isprintable()]
        known |= {name: np.array([table[image][name] for image in data.images[rows]]) for name in names}
    # What programs write into an empty cell is no group.
    known = {name: np.where(np.isin(np.char.lower(of), EMPTY), "", of) for name, of in known.items()}
    check_columns(config.subgroups, list(known))
    silent = [name for name in config.subgroups if not any(known[name])]
    if silent:
        say(f"nothing is said of {', '.join(silent)}: no subgroups of it")
    return {name: known[name] for name in config.subgroups if name not in silent}


def _told_of(
    config: ChestEvaluate, asked: Asked, *, scores: np.ndarray, data: Prepared, rows: np.ndarray
) -> dict[str, Told]:
    """Finding → what the model says of the images whose label is known, and what is so.

    Raises:
        InputError: the radiographs have none of its findings.
    """
    called = dict(name.split("=") for name in config.classes)
    there = {finding: called.get(finding, finding) for finding in asked.findings}
    lacking = check_told(asked.findings, called, folder=data.folder, classes=data.classes)
    if lacking:
        say(f"not asked about, as {data.name} has no such class: {', '.join(lacking)}")
    said, found = asked.probabilities(scores), {}
    # Of each finding the images whose label is known: `places` tells which they are among all.
    for number, (finding, name) in enumerate(there.items()):
        if finding not in lacking:
            labels = partition.findings(data, [name], not_mentioned=config.not_mentioned)[0][rows, 0]
            known = labels >= 0
            patients, places = data.patients[rows][known], np.flatnonzero(known)
            found[finding] = Told(said[known, number], labels[known], patients, places)
    return found


def _measured(
    config: ChestEvaluate, asked: Asked, *, told: Told, number: int, columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The numbers of a finding, with its subgroups."""
    own = asked.calibrations[number]
    found = numbers.of_finding(told, own=own, rule=config.operating_point, at=config.at_least, seed=config.seed)
    if found["why"]:
        return found | {"subgroups": [], "small": []}
    # The threshold is the one that the model's own held-out patients have chosen.
    cut = found["operating_point"]["threshold"]
    shown, small = numbers.subgroups(told, columns, cut=cut, fewest=config.fewest)
    return found | {"subgroups": shown, "small": small}


def drawn(told: Told, *, seed: int) -> dict[str, Any]:
    """What the figures of a finding are drawn of."""
    band = curve_band(told.probabilities, told.labels, kind="roc", groups=told.patients, seed=seed)
    return {
        "roc": band,
        "reliability": reliability(told.probabilities, told.labels),
        "decision": numbers.decision_curve(told, seed=seed),
        "at": numbers.AT,
    }


def _leave(config: ChestEvaluate, found: Evaluation) -> None:
    """Writes `evaluation.json`, `subgroups.csv` and `report.html`."""
    decisions = {
        finding: {
            "threshold": numbers.AT.tolist(),
            **dict(zip(("net_benefit", "low", "high"), map(list, of["decision"]), strict=True)),
        }
        for finding, of in found.curves.items()
    }
    content = {
        "note": NOTICE,
        "made_up": found.warnings != (),
        "warnings": list(found.warnings),
        "model": found.title,
        "collection": found.collection,
        "images": found.images,
        "patients": found.patients,
        "findings": found.findings,
        "decision_curves": decisions,
        "drift": found.drift,
        "comparisons": found.comparisons,
        "patients_in_both": PATIENTS,
        "command": plain(config),
        "versions": versions(),
    }
    write_json(config.out / "evaluation.json", content)
    # A row a subgroup, also those too small to be measured: a count is no secret of a patient.
    metrics = ("auc", "sensitivity", "specificity", "called_positive")
    heads = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    counts = ("column", "value", "images", "patients", "positives")
    note = " ".join([NOTICE, *found.warnings])
    table = [["finding", *counts, *heads, "note"]]
    for finding, of in found.findings.items():
        for row in [*of["subgroups"], *of["small"]]:
            values = [row.get(metric, {}).get(key, "") for metric in metrics for key in ("value", "low", "high")]
            table.append([finding, *(row[key] for key in counts), *values, note])
    with replacing(config.out / "subgroups.csv", config.out / "report.html") as [table_file, page_file]:
        table_file.write(csv_of(table))
        page_file.write(written(found).encode())


def _summary(config: ChestEvaluate, found: Evaluation) -> str:
    """The numbers for a terminal."""
    lines = [f"{found.title}, on {found.images:,} radiographs of {found.patients:,} patients of {found.collection}"]
    for name, of in found.findings.items():
        if of["why"]:
            lines.append(f"  {name}: {of['why']}")
            continue
        point, slope = of["operating_point"], of["calibration"]["slope"]
        shares = "  ".join(
            f"{key} {100 * point[key]['value']:.0f} %"
            for key in ("sensitivity", "specificity")
            if "value" in point[key]
        )
        told = f"slope {cell(slope)}" if "low" in slope else f"slope: {slope.get('why', 'not known')}"
        lines.append(f"  {name}: AUC {cell(of['auc'])}, at home {cell(of['home']['auc'])}")
        lines.append(f"    threshold {point['threshold']:.3f} carried over: {shares}; calibration: {told}")
        if of["subgroups"] or of["small"]:
            lines.append(f"    {len(of['subgroups'])} subgroups, and {len(of['small'])} too small to be shown")
        for row in found.comparisons.get(name, []):
            gain = row["difference"]
            lines.append(f"    minus {row['second']}: {cell(gain)}, p {row['p_delong_adjusted']:.3f} (DeLong, Holm)")
            if of_second := row["second_learned_from"]:
                lines.append(f"    {of_second:,} look the same as one that {row['second']} learned from")
    moved = found.drift
    chances = ", ".join(
        f"{key} p {moved[key]['p']:.3f}" for key in ("brightness", "contrast", "features") if "p" in moved[key]
    )
    lines.append(f"  drift: {chances}; {100 * moved['features']['unlike']['value']:.0f} % unlike what was learned from")
    lines.append(
        f"  {moved['alike']:,} look the same as one that was learned from; patients in both are not known (salted)"
    )
    return "\n".join([*lines, *found.warnings, NOTICE, f"report  {config.out / 'report.html'}"])
