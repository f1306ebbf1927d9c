"""`tf-simclr transfer`: frozen features on the data sets of SimCLR's transfer table, one after the other.

Protocol: SimCLR, Appendix B.8 (`linear_eval`'s `transfer`), with each set's splits and metric (`transfer_sets`).  The
creators' validation split where there is one, else validation images drawn by the seed.  A finished set is not computed
again; one that is missing or cannot be tested is named, with what to do, and the others still run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.commands.parts.images import check_labels, open_folder, upright
from tf_simclr.commands.parts.networks import NO_IDENTITY, extractor_of, load_features_network
from tf_simclr.commands.parts.runs import beside
from tf_simclr.config import Transfer, plain
from tf_simclr.config.parts import WITH_OPACITY
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.sources import Source, with_opacity
from tf_simclr.errors import InputError, check, first_line
from tf_simclr.evaluation.features import Extractor, Features, source_digest
from tf_simclr.evaluation.metrics import METRICS
from tf_simclr.evaluation.probes import chosen_regression, hold_out
from tf_simclr.evaluation.reports import Answers, write_report
from tf_simclr.evaluation.transfer_sets import TRANSFER_SETS, TransferSet, chosen_sets, folders, how_to_get
from tf_simclr.files import read_json
from tf_simclr.terminal import say, show


def run(config: Transfer) -> None:
    """Tests on each data set, prints one table and writes the numbers.

    Raises:
        InputError: a data set is unknown, every one of them is missing, or, when all others are done, one that is there
            could not be tested.
    """
    # 1. The sets that are asked for, the folder of the numbers, and the network.
    wanted = chosen_sets(config.datasets)
    folder = config.result or beside(config.checkpoint) / "transfer"
    extractor = extractor_of(config, load_features_network(config))

    # 2. Each set alone: what keeps one from being tested keeps no other.
    results, missing, failed = {}, {}, {}
    for name in wanted:
        try:
            results[name] = _finished_or_new(config, name, extractor=extractor, path=folder / f"{name}.json")
        except _NotThere as error:
            missing[name] = str(error)
            say(missing[name])
        except Exception as error:  # also those of a library's download, which have classes of their own
            kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
            failed[name] = f"{TRANSFER_SETS[name].title}: {kind}{first_line(error)}"
            say(failed[name])

    # 3. What is left: the numbers of those that could be, the table, and last what could not.
    if results:
        write_report(folder / "result.json", command=plain(config), results=results, missing=missing, failed=failed)
        show(table(results))
        show(f"\nnumbers and intervals: {folder}/result.json")
    rule = "every data set that is there must be testable, but these were not"
    check(not failed, f"{rule}; the others are done: {'; '.join(failed.values())}")
    check(results, f"at least one of the data sets must be there: {'; '.join(missing.values())}")


class _NotThere(InputError):
    """A data set that has to be built first."""


def _finished_or_new(config: Transfer, name: str, *, extractor: Extractor, path: Path) -> dict:
    """The numbers of a data set: those that lie there, if they are of the same features and knobs, else new ones."""
    # What numbers depend on: options without places, weights and images by content.
    knobs = {key: value for key, value in plain(config).items() if key not in NO_IDENTITY} | {
        "weights": extractor.weights
    }
    sources = open_sets(config, name)
    data = {split: source_digest(source, say) for split, source in sources.items()}
    stored = _stored(path)
    known = stored.get("knobs")
    known = {key: value for key, value in known.items() if key not in NO_IDENTITY} if isinstance(known, dict) else None
    numbers = stored.get("results")
    there = numbers.get("logistic_regression") if isinstance(numbers, dict) else None
    # The same of all: finished.
    if known == knobs and stored.get("data") == data and isinstance(there, dict):
        say(f"{TRANSFER_SETS[name].title} is finished in {path}")
        return there
    if stored:
        say(f"{path} is of other features, options or images; it is computed again")
    found, answers = evaluate(config, TRANSFER_SETS[name], extractor=extractor, sources=sources)
    results = {"logistic_regression": found}
    write_report(path, command=plain(config), results=results, answers=answers, knobs=knobs, data=data)
    return found


def _stored(path: Path) -> dict:
    """What lies there of an earlier run; nothing of what is damaged, which can be computed again."""
    try:
        return read_json(path) if path.exists() else {}
    except InputError as error:
        say(f"{error.args[0].split(';')[0]}; it is computed again")
        return {}


def open_sets(config: Transfer, name: str) -> dict[str, Source]:
    """The sources of a data set by split: train, validation where it is apart, test.

    Raises:
        _NotThere: it is not prepared, or tfds does not have it.
        InputError: a folder of one's own is no data set.
    """
    one = TRANSFER_SETS[name]
    # A folder of one's own goes before TensorFlow Datasets.
    own = None if config.image_dir is None else config.image_dir / name
    if own is not None and own.is_dir():
        asked = folders(one)
        options: dict[str, Any] = {
            "labelled": True,
            "asked": asked,
            "fraction": config.validation_fraction,
            "exif_orientation": config.exif_orientation,
        }
        opened = partial(from_shards, whole=False, say=say) if opening.are_at(own) else open_folder
        found = {split: opened(own, split, **options) for split in asked}
        divided = config.validation_fraction is None or any(source.division for source in found.values())
        rule = f"validation_fraction must be left out: {own} has splits of its own"
        check(divided, rule, validation_fraction=config.validation_fraction)
        for line in (line for source in found.values() for line in source.notes):
            say(line)
    else:
        how = how_to_get(name, data_dir=str(config.data_dir or "~/tensorflow_datasets"))
        if one.tfds is None:
            raise _NotThere(how)
        from tf_simclr.data.tfds_source import from_tfds, is_prepared

        if not config.download and not is_prepared(one.tfds, data_dir=config.data_dir):
            raise _NotThere(how)
        names: dict[str, str | None] = {"train": one.train, "validation": one.validation, "test": one.test}
        where: dict[str, Any] = {"data_dir": config.data_dir, "download": config.download}
        known = {split: part for split, part in names.items() if part}
        found = {s: from_tfds(one.tfds, part, label_key=one.label_key, **where) for s, part in known.items()}
        found = {split: upright(source) for split, source in found.items()} if config.exif_orientation else found
    # With the opacity of their pictures where that is a channel.
    return {split: with_opacity(s) for split, s in found.items()} if config.channels in WITH_OPACITY else found


def evaluate(
    config: Transfer, one: TransferSet, *, extractor: Extractor, sources: dict[str, Source]
) -> tuple[dict, Answers | None]:
    """The metric on the test images, with its interval, and how it came about; the answers where each image has one."""
    for source in sources.values():
        check_labels(source)
    classes = {split: source.class_names for split, source in sources.items()}
    known = [set(names) for names in classes.values()]
    differing = sorted(set().union(*known) - known[0].intersection(*known))
    rule = f"the splits of {one.title} must have the same classes in the same order"
    check(len(set(classes.values())) == 1, rule, differing=differing or classes)
    # 1. Features of each split, kept on disk.  2. What learns and what validates.  3. The strength, and the test, once.
    parts = {split: extractor.features(s, image_size=config.image_size) for split, s in sources.items()}
    values, labels, held = _learned_from(parts, one, seed=config.seed)
    say(f"{one.title}: {values.shape[1]} features, {len(values):,} images to learn from …")
    metric, grid = METRICS[one.metric], np.logspace(-6, 5, config.l2_strengths)
    choice = chosen_regression(values, labels, held=held, grid=grid, metric=metric)
    test = parts["test"]
    scores = choice.classifier.scores(test.values)
    low, high = metric.interval(scores, test.labels, seed=config.seed)
    # Rows of several classes an image are no single answer.
    answers = None
    if not metric.ranks:
        answers = Answers(test.names, test.labels, {"logistic_regression": scores}, classes=classes["test"])
    found = {
        "metric": one.metric,
        "value": metric(scores, test.labels),
        "low": low,
        "high": high,
        "l2": choice.l2,
        "train_images": int(np.sum(~held)),
        "validation_images": int(np.sum(held)),
        "test_images": len(test.values),
        "paper_images": list(one.sizes),
        "converged": choice.classifier.converged,
        "seed": config.seed,
        "note": one.note,
    }
    divisions = {split: source.division for split, source in sources.items() if source.division}
    found |= {"division": divisions} if divisions else {}
    return found, answers


def _learned_from(
    parts: dict[str, Features], one: TransferSet, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels to learn from, and which of them are for validation."""
    train = parts["train"]
    if "validation" not in parts:
        return train.values, train.labels, hold_out(train.labels, one.held_share, seed=seed)
    both = (train, parts["validation"])
    values, labels = (np.concatenate([getattr(part, name) for part in both]) for name in ("values", "labels"))
    # Behind the training images: those of the creators' validation split.
    return values, labels, np.arange(len(values)) >= len(train.values)


def table(results: dict) -> str:
    """A line a data set."""
    layout = "{:<20}{:<26}{:>6}  {:<14}{:>27}{:>9}"
    lines = [layout.format("data set", "metric", "%", "95 % interval", "train + validation → test", "L2")]
    for name, found in results.items():
        images = f"{found['train_images']:,} + {found['validation_images']:,} → {found['test_images']:,}"
        bounds = f"{100 * found['low']:.1f}–{100 * found['high']:.1f}"
        title, metric = TRANSFER_SETS[name].title, METRICS[found["metric"]].title
        value, strength = f"{100 * found['value']:.1f}", f"{found['l2']:.1e}"
        lines.append(layout.format(title, metric, value, bounds, images, strength))
    return "\n".join(lines)
