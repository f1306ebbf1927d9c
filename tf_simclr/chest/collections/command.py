"""`tf-simclr chest prepare`: radiographs to records, once, and what is in them."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_simclr.chest.collections import nih, siim, synthetic, tables
from tf_simclr.chest.collections.collection import Collection
from tf_simclr.chest.collections.prepare import prepare
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import side_by_side
from tf_simclr.commands import inputs
from tf_simclr.config import ChestPrepare, plain
from tf_simclr.data.radiographs.duplicates import across, near_duplicates
from tf_simclr.files import replacing, write_json
from tf_simclr.terminal import say, show

EXAMPLES = 4
"""Radiographs in the picture of what the network sees."""


def run(config: ChestPrepare) -> None:
    """Prepares as configured and prints the report."""
    if config.source == "synthetic" and not (config.raw / "train").exists():
        say(f"making up {config.patients} patients in {config.raw} …")
        synthetic.write(config.raw, config.patients, seed=config.seed)
    collection = open_collection(config)
    counter = inputs.Counter(f"radiographs of {collection.name}", len(collection.entries))
    rows = prepare(
        collection,
        config.out,
        size=config.size,
        fit=config.fit,
        windowed=config.windowed,
        workers=config.workers,
        seconds=config.seconds,
        progress=lambda done, total: counter(done),
    )
    found = report(collection, rows)
    write_json(config.out / "report.json", {"command": plain(config), **found})
    look(collection, rows, config=config)
    show(text(found, config.out))


def open_collection(config: ChestPrepare) -> Collection:
    """The collection that is to be prepared.

    Raises:
        InputError: it is not what it is said to be.
    """
    if config.source in ("siim", "synthetic"):
        return siim.collection(config.raw, boxless_siblings=config.boxless_siblings)
    if config.source == "nih":
        return nih.collection(config.raw)
    if config.source == "folder":
        return tables.from_folder(config.raw)
    columns = {"path": config.path_column, "label": config.label_column, "patient": config.patient_column}
    return tables.from_csv(config.raw, **columns)


def report(collection: Collection, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a person should know before training: counts, refusals, labels, look-alikes, patients seen often."""
    kept = [row for row in rows if not row["refused"]]
    studies, kinds = defaultdict(set), defaultdict(set)
    for row in kept:
        studies[row["patient"]].add(row["study"])
        kinds[row["patient"]].add(tuple(row["labels"]))
    labels = np.array([row["labels"] for row in kept])
    alike = near_duplicates([row["hash"] for row in kept])
    names = [(kept[a], kept[b], bits) for a, b, bits in alike]
    official = {part: [i for i, row in enumerate(kept) if row["split"] == part] for part in ("train", "test")}
    return {
        "collection": collection.name,
        "images": len(kept),
        "studies": len({row["study"] for row in kept}),
        "patients": len(studies),
        "patients_with_several_studies": sum(len(s) > 1 for s in studies.values()),
        "patients_with_different_labels": sum(len(k) > 1 for k in kinds.values()),
        "labels": dict(zip(collection.classes, labels.sum(axis=0).tolist(), strict=True)),
        "bits": dict(sorted(Counter(str(row["bits"]) for row in kept).items())),
        "refused": {row["image"]: row["refused"] for row in rows if row["refused"]},
        "problems": list(collection.problems),
        "near_duplicates": [[a["image"], b["image"], bits] for a, b, bits in names],
        "near_duplicates_of_different_patients": sum(a["patient"] != b["patient"] for a, b, _ in names),
        "near_duplicates_across_official_splits": sum(across(alike, official).values()),
    }


def look(collection: Collection, rows: list[dict[str, Any]], *, config: ChestPrepare) -> None:
    """Writes `seen.png`: what a viewer shows of some radiographs, and beside it what the network sees."""
    kept = {row["image"] for row in rows if not row["refused"]}
    paths = [entry.path for entry in sorted(collection.entries, key=lambda e: e.image) if entry.image in kept]
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(EXAMPLES, len(paths))).astype(int)]
    pairs = [side_by_side(read(p, windowed=config.windowed), size=config.size, fit=config.fit) for p in chosen]
    width, height = max(p.shape[1] for p in pairs), max(p.shape[0] for p in pairs)
    sheet = np.full((len(pairs) * (height + 8), width), 255, np.uint8)
    for number, pair in enumerate(pairs):
        top = number * (height + 8)
        sheet[top : top + pair.shape[0], : pair.shape[1]] = pair
    with replacing(config.out / "seen.png") as [file]:
        Image.fromarray(sheet).save(file, "PNG")


def text(found: dict[str, Any], out: Path) -> str:
    """The report as a person reads it."""
    labels = "\n".join(f"    {name:<28}{count:>8,}" for name, count in found["labels"].items())
    lines = [
        f"{found['collection']}: {found['images']:,} images of {found['studies']:,} studies of "
        f"{found['patients']:,} patients",
        labels,
        f"{found['patients_with_several_studies']:,} patients have several studies, "
        f"{found['patients_with_different_labels']:,} with different labels: split by patient",
        f"{len(found['near_duplicates']):,} pairs of images look alike, "
        f"{found['near_duplicates_of_different_patients']:,} of them of different patients, "
        f"{found['near_duplicates_across_official_splits']:,} across official splits",
        *listed("refused", [f"{name}: {reason}" for name, reason in found["refused"].items()]),
        *listed("that do not fit together", found["problems"]),
        f"records {out}/records-*.tfrecord, report {out}/report.json, what the network sees {out}/seen.png",
    ]
    return "\n".join(lines)


def listed(what: str, lines: list[str], *, limit: int = 10) -> list[str]:
    """A count, and up to `limit` lines."""
    more = [f"    … and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"{len(lines):,} {what}", *(f"    {line}" for line in lines[:limit]), *more]
