"""Features of any number of images into one file, a part at a time: memory stays flat, and a stop costs one part."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Sequential, Source
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.files import begun_with, replacing, replacing_path
from tf_simclr.foreign import archived

PART = 4096
"""Images a part."""


def embed(
    model: keras.Model,
    source: Source,
    *,
    out: Path,
    image_size: int,
    identity: dict,
    endpoint: str = "final_avg_pool",
    batch_size: int = 256,
    unreadable: Unreadable,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes the features of a source's readable images, in its order, and returns their number.

    Until the file is whole its parts lie in a folder beside it, `OUT.parts`; the same call goes on from them.

    Args:
        model: images to features, or to a dictionary of endpoints.
        source: the images.
        out: `.npz` (`values` float32 `(n, d)`, `names`, `labels`) or `.parquet` (`name`, `label`, `features`).  What is
            to be known of the source is in it, too: the array `notes`, or `notes` of the schema's metadata as JSON.
        image_size: side in pixels.
        identity: what the features depend on, JSON types; parts of another identity are refused.
        endpoint: which of the endpoints.
        batch_size: images at a time.
        unreadable: receives the names of the images that cannot be read.
        progress: called with the images done.

    Raises:
        InputError: parts of something else lie there, or no image can be read.
    """
    # Parts that are there are of the same network and images, or the command is refused.
    folder = out.with_name(out.name + ".parts")
    begin(folder, identity)
    paths = []
    for start in range(0, source.num_examples, PART):
        paths.append(folder / f"part-{start // PART:06d}.npz")
        stop = min(start + PART, source.num_examples)
        # A part that was written whole is not computed again.
        if not paths[-1].exists():
            batches = evaluation_batches(
                _portion(source, start, stop=stop), batch_size=batch_size, image_size=image_size, unreadable=unreadable
            )
            save_part(paths[-1], extract(model, batches, endpoint=endpoint))
        if progress:
            progress(stop)
    count = (_write_parquet if out.suffix == ".parquet" else _write_npz)(paths, out, notes=source.notes)
    # Behind the file: a stop before leaves the parts, which the next call joins.
    shutil.rmtree(folder)
    return count


def _portion(source: Source, start: int, *, stop: int) -> Source:
    """The examples from one place to another, in order."""
    return Sequential(
        origin=source.origin,
        num_examples=stop - start,
        class_names=source.class_names,
        read=source.read,
        epoch=lambda seed: source.ordered().skip(start).take(stop - start),
        rows=source.rows and source.rows.taken(slice(start, stop)),
        channels=source.channels,
    )


def begin(folder: Path, identity: dict) -> None:
    """Notes what the parts are of, or checks that those there are of the same."""
    changed = begun_with(folder / "of.json", identity, advice=f"remove {folder} to start anew")
    rule = f"{folder} must hold parts of the same features; remove it to start anew"
    check(not changed, rule, differing=list(changed))


def save_part(path: Path, features: Features) -> None:
    """Writes a part, whole or not at all."""
    with replacing(path) as [file]:
        np.savez(file, values=features.values, labels=features.labels, names=features.names)


def parts(paths: list[Path]) -> Any:
    """Yields values, labels and names of each part."""
    for path in paths:
        with archived(path, "a whole part of the features", advice="remove it") as stored:
            columns = stored["values"], stored["labels"], stored["names"]
        yield columns


def _write_npz(paths: list[Path], out: Path, *, notes: Sequence[str]) -> int:
    """Joins the parts to one `.npz`; the file is what memory holds here once."""
    values, labels, names = (np.concatenate(column) for column in zip(*parts(paths), strict=True))
    told: dict[str, Any] = {"notes": np.array(notes)} if notes else {}
    with replacing(out) as [file]:
        np.savez(file, values=values, labels=labels, names=names, **told)
    return len(values)


def _write_parquet(paths: list[Path], out: Path, *, notes: Sequence[str]) -> int:
    """Joins the parts to one Parquet file, a row group a part."""
    import pyarrow as pa
    from pyarrow import parquet

    count, writer = 0, None
    # Under another name until it is whole: a Parquet file without its end is none.
    with replacing_path(out) as temporary:
        for values, labels, names in parts(paths):
            # (n, d) as one flat array and the length of a row.
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            columns = {"name": pa.array(names.tolist()), "label": pa.array(labels), "features": lists}
            table = pa.table(columns, metadata={"notes": json.dumps(list(notes))} if notes else None)
            # The first part's columns are everybody's.
            writer = writer or parquet.ParquetWriter(str(temporary), table.schema)
            writer.write_table(table)
            count += len(values)
        if writer:
            writer.close()
    return count
