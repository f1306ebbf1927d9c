"""Data sets of the Hugging Face hub, by the `datasets` library: `hf:user/name`, `hf:user/name:config`, `…@revision`.

The library downloads a data set and keeps it as Arrow files (HF_HOME says where); those are read as any others, so that
order, seeds and resuming are those of every source.  Nothing is streamed: a stream is shuffled within a buffer, and
goes on from a place only after reading all before it.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.data.folders import PARTS
from tf_simclr.data.shards.index import Columns
from tf_simclr.data.shards.source import from_shards, of_files
from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError, check, meant
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.places import expanded, shown
from tf_simclr.frameworks import check_installed

_START = "hf:"
"""How such a data set's name begins."""
_LIBRARIES = frozenset({"datasets", "fsspec", "httpx", "huggingface_hub", "pyarrow", "requests"})
"""Whose own exceptions mean that a data set cannot be had."""
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:@]+))?(?:@(?P<revision>[^:@]+))?", re.ASCII)


def is_hub(dataset: str) -> bool:
    """Whether a data set's name is one of the hub.

    Example:
        >>> is_hub("hf:user/pets"), is_hub("cifar10")
        (True, False)
    """
    return dataset.startswith(_START)


def here(dataset: str) -> Path | None:
    """The folder of this machine that `hf:FOLDER` names; None where it is a data set of the hub, or no `hf:` at all."""
    place = expanded(dataset.removeprefix(_START)) if is_hub(dataset) else None
    return place if place is not None and place.exists() else None


def from_hub(
    dataset: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    labelled: bool | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    exif_orientation: bool = False,
    say: Say = silent,
    **local: Any,
) -> Source:
    """A split of a data set of the hub, or of a folder that `datasets` saved.

    Args:
        dataset: `hf:user/name`, with a configuration `hf:user/name:config`, at a revision `hf:user/name@main`; or
            `hf:` and a folder of this machine.
        split: in the library's syntax: `train`, `train[:10%]`, `train+test`.
        data_dir: where the library keeps data sets, if not where HF_HOME says.
        labelled: whether labels matter; by default they are taken where there are any.
        image_column: the column of pictures, where there are several.
        label_column: the column of classes.
        exif_orientation: whether pictures are turned as their EXIF orientation says.
        say: takes a line for the user.
        **local: what `from_shards` takes of a folder of this machine besides.

    Raises:
        InputError: there is no such data set, configuration, split or column, or the library is missing.
    """
    seen: dict[str, Any] = {"labelled": labelled, "exif_orientation": exif_orientation, "say": say}
    place = here(dataset)
    if place is not None:
        return from_shards(place, split, **seen, image_column=image_column, label_column=label_column, **local)
    # 1. What is not here yet is downloaded by the library, and kept by it as Arrow files.
    builder = _builder(dataset, data_dir)
    with _quietly(dataset):
        if not Path(builder.cache_dir).exists():
            size = builder.info.download_size
            amount = f" ({size / 2**20:,.0f} MiB)" if size else ""
            say(f"downloading {dataset}{amount} into {shown(builder.cache_dir)}, once …")
        builder.download_and_prepare()
    # 2. The split's syntax → rows of its splits, absolute: `train[:10%]+test`.
    splits = {name: one.num_examples for name, one in builder.info.splits.items()}
    wanted = _split(split, splits, dataset)
    with _quietly(dataset):
        from datasets import ReadInstruction

        parts = ReadInstruction.from_spec(wanted).to_absolute(splits)
        files = {name: _files(builder, name) for name in splits}
    # 3. Rows within splits → numbers among all examples of the files that are opened, split after split.
    chosen = dict.fromkeys(part.splitname for part in parts)
    starts = dict(zip(chosen, np.cumsum([0, *(splits[name] for name in chosen)]).tolist(), strict=False))
    taken = [np.arange(part.from_ or 0, splits[part.splitname] if part.to is None else part.to) for part in parts]
    numbers = [starts[part.splitname] + rows for part, rows in zip(parts, taken, strict=True)]
    rows = np.concatenate(numbers)
    check(len(rows) > 0, f"the split of {dataset} must hold examples", split=split)
    return of_files(
        [file for name in chosen for file in files[name]],
        base=Path(builder.cache_dir),
        origin=f"{dataset} ({split})",
        place=dataset,
        beside=[file for name in splits if name not in chosen for file in files[name]],
        columns=Columns(image=image_column, label=label_column, anywhere=True),
        taken=rows,
        **seen,
    )


def splits_of(dataset: str, *, data_dir: str | Path | None = None) -> list[str]:
    """The splits of a data set of the hub, as its page says.

    Raises:
        InputError: there is none.
    """
    with _quietly(dataset):
        return list(_builder(dataset, data_dir).info.splits or ())


def _split(split: str, known: dict[str, int], dataset: str) -> str:
    """A split as the data set calls it: `validation` may be called `valid` there.

    Raises:
        InputError: it has none of that name.
    """
    names = [re.match(r"\s*([\w.-]*)", part) for part in split.split("+")]
    for name in (match[1] for match in names if match):
        if name in known or name == "all":
            continue
        same = [one for one in known if name.lower() in PARTS and PARTS.get(one.lower()) == PARTS[name.lower()]]
        rule = f"the split of {dataset} must be one of {', '.join(known)}, or a part of these{meant(name, known)}"
        if len(same) != 1:
            raise InputError(f"{rule}. Received: {split!r}")
        split = re.sub(rf"(^|\+)\s*{re.escape(name)}(?![\w.-])", rf"\g<1>{same[0]}", split)
    return split


def _builder(dataset: str, data_dir: str | Path | None) -> Any:
    """The library's builder of a data set, which has asked the hub what it is."""
    found = _NAME.fullmatch(dataset.removeprefix(_START))
    rule = "a data set of the hub must be hf:USER/NAME, hf:USER/NAME:CONFIG or hf:USER/NAME@REVISION, or hf:FOLDER"
    if found is None:
        raise InputError(f"{rule}. Received: {dataset!r}")
    with _quietly(dataset):
        import datasets

        where = {"revision": found["revision"], "cache_dir": None if data_dir is None else str(expanded(data_dir))}
        builder = datasets.load_dataset_builder(found["name"], found["config"], **where)
    if found["revision"] is not None:
        _check_revision(builder, found["name"], found["revision"], dataset=dataset)
    return builder


def _check_revision(builder: Any, name: str, revision: str, *, dataset: str) -> None:
    """Refuses another revision than the one that is asked for: the library takes any that it has where the hub fails.

    Raises:
        InputError: so it is, or the hub cannot say which commit is meant.
    """
    there = Path(builder.cache_dir).name
    if len(revision) >= 7 and there.startswith(revision):
        return
    with _quietly(dataset):
        import huggingface_hub

        commit = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
    rule = f"{dataset} must be had at this revision, but the library has another one; try again, or give its commit"
    check(commit == there, rule, commit=there)


def _files(builder: Any, split: str) -> list[Path]:
    """The Arrow files of a split, in their order."""
    return [Path(file["filename"]) for file in builder.as_dataset(split=split, in_memory=False).cache_files]


@contextlib.contextmanager
def _quietly(dataset: str) -> Iterator[None]:
    """The library without its bars, and with one sentence for what it raises.

    Raises:
        InputError: so it did.
    """
    check_installed(dataset, "datasets")
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        ours = isinstance(error, OSError | ValueError | RuntimeError | LookupError)
        if not (ours or type(error).__module__.partition(".")[0] in _LIBRARIES):
            raise
        reasons = [str(one) for one in (error, error.__cause__) if one is not None and str(one)]
        said = shown(" ".join("; ".join(dict.fromkeys(reasons)).split())[:500]).rstrip(".")
        raise InputError(f"the data set {dataset} cannot be had: {said or type(error).__name__}") from error
    finally:
        if not hidden:
            datasets.enable_progress_bars()
