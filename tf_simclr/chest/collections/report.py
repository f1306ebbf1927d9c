"""What a preparation tells: its report, and a picture of what the network sees."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tf_simclr.chest.collections.collection import Collection
from tf_simclr.chest.collections.prepare import Names, beside, prepare, salt_of
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import side_by_side
from tf_simclr.config import ChestPrepare, plain
from tf_simclr.data.radiographs.duplicates import across, near_duplicates
from tf_simclr.data.radiographs.prepared import MADE_UP, Prepared, load
from tf_simclr.data.radiographs.splits import NAMES
from tf_simclr.evaluation.binary import roc_auc
from tf_simclr.files import replacing, write_json
from tf_simclr.files.contents import silent
from tf_simclr.terminal import Tally, say

_EXAMPLES = 4
"""Radiographs in the picture of what the network sees."""
_FIRST = 10
"""Lines of what was refused, or does not fit together, that are shown."""
_TOLD = 0.2
"""How far from 0.5 the AUC of a class by the mean or the spread of the grey levels is said; our choice."""
_APART = 0.15
"""How far a device's median grey level is from the others' where it is said; our choice."""
_ALL_THE_SAME = "read other modalities all the same by naming them: --modalities CR DX RG OT, or --modalities any"


def prepared(config: ChestPrepare, collection: Collection) -> str:
    """Prepares a collection, and leaves the report, which it returns as a person reads it.

    Raises:
        InputError: the folder holds another preparation, or no image could be read.
    """
    # 1. Every file to a record, in processes that may die.
    rows = prepare(
        collection,
        config.out,
        size=config.size,
        fit=config.fit,
        windowed=config.windowed,
        modalities=config.modalities,
        workers=config.workers,
        seconds=config.seconds,
        progress=Tally(f"radiographs of {collection.name}", len(collection.entries)),
        say=say,
    )
    # 2. What a person should know before training: said, and kept.
    data = load(config.out, say=silent)
    problems = [Names(salt_of(config.out), collection.private).told(problem) for problem in collection.problems]
    found = report(data, rows, problems=problems)
    command = plain(config) | {"raw": config.raw.name, "out": config.out.name}  # a path can name somebody
    write_json(config.out / "report.json", {"command": command, **found})
    look(collection, rows, config=config, made_up=data.made_up)
    return text(found, config.out)


def report(prepared: Prepared, rows: list[dict[str, Any]], *, problems: list[str]) -> dict[str, Any]:
    """What a person should know before training: counts, refusals, labels, look-alikes, patients seen often."""
    kept = [row for row in rows if not row["refused"]]
    studies, kinds = defaultdict(set), defaultdict(set)
    # By patient: how many studies each has, and whether their labels differ.
    for row, patient in zip(kept, prepared.patients, strict=True):
        studies[patient].add(row["study"])
        kinds[patient].add(tuple(row["labels"]))
    alike = near_duplicates([row["hash"] for row in kept])
    official = {part: np.flatnonzero(prepared.splits == part) for part in NAMES}
    return {
        "collection": prepared.name,
        "made_up": prepared.made_up,
        "images": len(kept),
        "studies": len({row["study"] for row in kept}),
        "patients": len(studies),
        "of_patients": list(prepared.doubts),
        "patients_with_several_studies": sum(len(s) > 1 for s in studies.values()),
        "patients_with_different_labels": sum(len(k) > 1 for k in kinds.values()),
        "labels": dict(zip(prepared.classes, prepared.labels.sum(axis=0).tolist(), strict=True)),
        "bits": counted(row["bits"] for row in kept),
        **{key: counted(prepared.attributes[key]) for key in ("sex", "age", "view", "modality", "device")},
        "grey_levels": _grey_levels(prepared),
        "doubts": _gathered(kept, "doubts"),
        "notes": _gathered(kept, "notes"),
        "refused": {row["image"]: row["refused"] for row in rows if row["refused"]},
        "problems": problems,
        "near_duplicates": [[kept[a]["image"], kept[b]["image"], bits] for a, b, bits in alike],
        "near_duplicates_of_different_patients": sum(prepared.patients[a] != prepared.patients[b] for a, b, _ in alike),
        "near_duplicates_of_different_labels": sum(kept[a]["labels"] != kept[b]["labels"] for a, b, _ in alike),
        "near_duplicates_across_official_splits": sum(across(alike, official).values()),
    }


def counted(values: Iterable[Any]) -> dict[str, int]:
    """How often each value occurs; an empty one is `unknown`."""
    return dict(sorted(Counter(str(value) or "unknown" for value in values).items()))


def _gathered(rows: list[dict[str, Any]], key: str) -> dict[str, list[str]]:
    """What was said of images → the images it was said of."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for phrase in row.get(key, ()):
            found[phrase].append(row["image"])
    return dict(sorted(found.items()))


def _grey_levels(prepared: Prepared) -> dict[str, Any]:
    """Brightness by device and by class: a network that can tell a class by it need not look at the lungs."""
    # A device or a class that a mean grey level tells is a shortcut that a network will take.
    brightness, contrast = (prepared.attributes[key].astype(float) for key in ("brightness", "contrast"))
    device = np.where(prepared.attributes["device"] == "", "unknown", prepared.attributes["device"])
    medians = {
        str(name): {
            "images": int((device == name).sum()),
            "median": round(float(np.median(brightness[device == name])), 3),
        }
        for name in np.unique(device)
    }
    areas = {
        name: {"by_brightness": told(brightness, labels), "by_contrast": told(contrast, labels)}
        for name, labels in zip(prepared.classes, prepared.labels.T, strict=True)
    }
    return {
        "median": round(float(np.median(brightness)), 3),
        "by_device": medians,
        "devices_apart": apart(medians),
        "auc_by_class": areas,
        "classes_told": {name: of for name, of in areas.items() if any(area and area["told"] for area in of.values())},
    }


def told(values: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How well one number tells a class from the rest: AUC, and whether it is far from chance and not by chance."""
    ill, well = int(labels.sum()), int((1 - labels).sum())
    if not ill or not well:
        return {}
    area = roc_auc(values, labels)
    # Of the Mann–Whitney statistic where nothing differs: by chance the area is about so far from 0.5.
    spread = np.sqrt((ill + well + 1) / (12 * ill * well))
    return {"auc": round(float(area), 3), "told": bool(abs(area - 0.5) > max(_TOLD, 3 * spread))}


def apart(medians: dict[str, dict[str, Any]]) -> list[str]:
    """Devices whose images are much brighter or darker than those of the others."""
    found = []
    for name, of in medians.items():
        # Weighted by images: a median over images, and not over devices.
        others = [other["median"] for key, other in medians.items() if key != name for _ in range(other["images"])]
        if others and abs(of["median"] - np.median(others)) > _APART:
            found.append(name)
    return found


def look(collection: Collection, rows: list[dict[str, Any]], *, config: ChestPrepare, made_up: bool) -> None:
    """Writes `seen.png`: what a viewer shows of some radiographs, and beside it what the network sees."""
    entries = sorted(collection.entries, key=lambda entry: entry.image)  # as they were prepared
    paths = [entry.path for entry, row in zip(entries, rows, strict=True) if not row["refused"]]
    # Evenly from the first to the last, so that all parts of a collection are seen.
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(_EXAMPLES, len(paths))).astype(int)]
    known: dict[str, Any] = {"windowed": config.windowed, "modalities": config.modalities}
    pairs = [side_by_side(read(path, **known), size=config.size, fit=config.fit) for path in chosen]
    width, height = max(p.shape[1] for p in pairs), max(p.shape[0] for p in pairs)
    sheet = np.full((len(pairs) * (height + 8), width), 255, np.uint8)
    for number, pair in enumerate(pairs):
        # One below the other, eight white lines apart.
        top = number * (height + 8)
        sheet[top : top + pair.shape[0], : pair.shape[1]] = pair
    picture = Image.fromarray(sheet)
    if made_up:
        ImageDraw.Draw(picture).text((4, 4), "made-up radiographs, of nobody", fill=255, stroke_width=2, stroke_fill=0)
    with replacing(config.out / "seen.png") as [file]:
        picture.save(file, "PNG")


def text(found: dict[str, Any], out: Path) -> str:
    """The report as a person reads it."""
    labels = "\n".join(f"    {name:<28}{count:>8,}" for name, count in found["labels"].items())
    known = [
        f"{key} {', '.join(f'{name} {count:,}' for name, count in found[key].items())}"
        for key in ("view", "sex", "modality")
        if set(found[key]) != {"unknown"}
    ]
    hidden = [f"files behind the names {beside(out, '.names.csv')}: for you alone"]
    lines = [
        *([MADE_UP.capitalize()] * found["made_up"]),
        f"{found['collection']}: {found['images']:,} images of {found['studies']:,} studies of "
        f"{found['patients']:,} patients",
        labels,
        *(["; ".join(known)] * bool(known)),
        *found["of_patients"],
        f"{found['patients_with_several_studies']:,} patients have several studies, "
        f"{found['patients_with_different_labels']:,} with different labels: split by patient",
        f"{len(found['near_duplicates']):,} pairs of images look alike, "
        f"{found['near_duplicates_of_different_patients']:,} of them of different patients, "
        f"{found['near_duplicates_of_different_labels']:,} with different labels, "
        f"{found['near_duplicates_across_official_splits']:,} across official splits",
        *_grey_text(found["grey_levels"]),
        *(
            f"{len(images):,} {phrase}: {', '.join(images[:3])}{' …' * (len(images) > 3)}"
            for key in ("doubts", "notes")
            for phrase, images in found[key].items()
        ),
        *_listed("refused", [f"{name}: {reason}" for name, reason in found["refused"].items()]),
        *([_ALL_THE_SAME] * any("modality=" in reason for reason in found["refused"].values())),
        *_listed("that do not fit together", found["problems"]),
        f"records {out}/records-*.tfrecord, report {out}/report.json, what the network sees {out}/seen.png",
        *hidden * beside(out, ".names.csv").exists(),
    ]
    return "\n".join(lines)


def _grey_text(found: dict[str, Any]) -> list[str]:
    """Devices and classes that stand out by their grey levels."""
    lines = [
        f"the images of {name} have a median grey level of {found['by_device'][name]['median']:.2f}, those of all "
        f"{found['median']:.2f}"
        for name in found["devices_apart"]
    ]
    for name, of in found["classes_told"].items():
        areas = ", ".join(f"AUC {area['auc']:.2f} {by.replace('_', ' ')}" for by, area in of.items() if area)
        lines.append(f"{name} can be told by its grey levels alone ({areas}): a network may learn those")
    return lines


def _listed(what: str, lines: list[str]) -> list[str]:
    """A count, and the first lines."""
    more = [f"    … and {len(lines) - _FIRST} more"] if len(lines) > _FIRST else []
    return [f"{len(lines):,} {what}", *(f"    {line}" for line in lines[:_FIRST]), *more]
