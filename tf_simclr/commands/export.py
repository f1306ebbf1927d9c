"""`tf-simclr export`: a network for another runtime, proven there before it is put in place."""

from collections import defaultdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_simclr import exports
from tf_simclr.commands.parts.networks import fitting
from tf_simclr.commands.parts.runs import beside, check_push, push
from tf_simclr.config import Export
from tf_simclr.config.parts import WITH_OPACITY
from tf_simclr.data.images import evaluation_view
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.source import all_of
from tf_simclr.data.sources import from_folder, with_opacity
from tf_simclr.errors import check
from tf_simclr.models.parts import as_taken
from tf_simclr.terminal import say, show
from tf_simclr.training.about import known_of
from tf_simclr.weights import load_model, located

_BATCH = 16
"""Images that are compared at a time."""


def run(config: Export) -> None:
    """Exports as configured and prints how far the file differs."""
    # 1. The network, and how it is served.
    check_push(config)
    network = fitting(load_model(config.checkpoint, ema=config.ema), config)
    known = known_of(located(config.checkpoint))
    logits = network.output.get("logits_sup")
    named = tuple(known["classes"]) if logits is not None and len(known["classes"]) == logits.shape[-1] else ()
    serving = exports.Serving(
        network=network,
        endpoints=tuple(name for name in config.layer.split(",") if name),
        image_size=config.image_size if config.resize else 0,
        uint8=config.uint8,
        seen_at=known["image_size"] or config.image_size,
        classes=named,
        notes=tuple(known["notes"]),
    )
    for note in serving.notes:
        say(note)

    # 2. The file: put in place if it answers for these images as the network does.
    images, origin = pictures(config, one_size=serving.sides != (None, None), network=network)
    path = config.out or _default_path(config)
    say(f"writing {path} …")
    report = exports.export(serving, path, kind=config.to, images=images)

    # 3. What is said of it, and sent.
    show(summary(config, path, serving=serving, report=report, origin=origin))
    push(config, config.checkpoint, files=[path])


def pictures(
    config: Export, *, one_size: bool = False, network: keras.Model | None = None
) -> tuple[list[np.ndarray], str]:
    """Batches of images as the file takes them, each of one size, and what to call them.

    What resizes by itself gets images as they are, of several sizes; else they are seen as evaluation sees them, and a
    file that takes any size gets a second one, unless the network takes `one_size`; one of one channel gets them grey.
    """
    own = None if config.image_dir is None else folder(config, config.image_dir)
    found, origin = own or (_made_up(config), "made-up images")
    # A view is made outside of the file where the file does not make it.
    if not config.resize:
        sides = [config.image_size]
        if exports.FORMATS[config.to].any_size and not one_size:
            # A second size, a quarter larger, where the file takes any.
            sides.append(config.image_size + config.image_size // 4)
        found = [evaluation_view(image, size=sides[i % len(sides)]).numpy() for i, image in enumerate(found)]
    if network is not None:
        found = [keras.ops.convert_to_numpy(as_taken(image, network)) for image in found]
    by_size = defaultdict(list)
    for image in found:
        # Batches are of one size: images are put together by their shapes.
        by_size[image.shape].append(np.rint(255 * image).astype(np.uint8) if config.uint8 else image.astype(np.float32))
    return [
        np.stack(alike[start : start + _BATCH]) for alike in by_size.values() for start in range(0, len(alike), _BATCH)
    ], origin


def _made_up(config: Export) -> list[np.ndarray]:
    """Images in [0, 1] of coarse noise, each in a colour of its own, in three forms."""
    rng = np.random.default_rng(config.seed)
    size, channels = config.image_size, 4 if config.channels in WITH_OPACITY else 3
    forms = [(size, size), (size + size // 4, size), (size, 2 * size)]
    found = []
    for i in range(config.samples):
        height, width = forms[i % len(forms)]
        # Squares of 8 pixels in a tint: neighbours hang together a little, as in photographs.
        coarse = rng.uniform(0, 1, (-(-height // 8), -(-width // 8), channels)) * rng.uniform(0, 1, channels)
        found.append(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.float32))
    return found


def folder(config: Export, root: Path) -> tuple[list[np.ndarray], str]:
    """The first images of a folder, or of shards, that can be read, in [0, 1], each of its own size.

    Raises:
        InputError: none of them can be read.
    """
    if opening.are_at(root):
        columns = {"image_column": config.image_column}
        source = all_of(root, exif_orientation=config.exif_orientation, say=say, **columns)
    else:
        opening.check_without_columns(root, image_column=config.image_column)
        source = from_folder(root, labelled=False, exif_orientation=config.exif_orientation)
    source = with_opacity(source) if config.channels in WITH_OPACITY else source
    found, unreadable = [], []
    for record in source.ordered():
        try:
            found.append(source.decoded(record)["image"].numpy())
        except tf.errors.OpError:
            unreadable.append(record["name"].numpy().decode(errors="replace"))
        if len(found) == config.samples:
            break
    if unreadable:
        say(f"{len(unreadable):,} unreadable images were passed over: {', '.join(unreadable[:3])}")
    check(found, f"{root} must hold images that can be read", unreadable=len(unreadable))
    return found, f"images of {root}"


def _default_path(config: Export) -> Path:
    """In a run `export` with the format's ending; elsewhere the checkpoint's own name with it."""
    folder, ending = beside(config.checkpoint), exports.FORMATS[config.to].ending or "_savedmodel"
    name = "export" if folder == config.checkpoint else config.checkpoint.name.split(".")[0]
    return folder / f"{name}{ending}"


def summary(config: Export, path: Path, *, serving: exports.Serving, report: exports.Report, origin: str) -> str:
    """What was written and how far it differs."""
    size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    kind = "bytes of 0 to 255" if config.uint8 else "numbers in [0, 1]"
    any_size = config.resize or (exports.FORMATS[config.to].any_size and serving.sides == (None, None))
    sides = "any size" if any_size else f"{config.image_size} px"
    inside = f", of which it takes the view of evaluation at {config.image_size} px" if config.resize else ""
    lines = [
        f"Wrote    {path}: {config.to}, {size / 1e6:.1f} MB",
        f"Takes    images (n, h, w, {serving.network.input_shape[-1]}), {sides}, {kind}{inside}",
    ]
    for name in serving.endpoints:
        shape = tuple(serving.network.output[name].shape)
        lines.append(f"Gives    {name} {shape}: differs by {report.differences[name]:.1e} of its largest magnitude")
    judged = report.judged_by
    same = "the largest logit is the same" if judged == "logits_sup" else f"{judged} points the same way"
    lines.append(
        f"Compared in its own runtime, together and one at a time, {_sizes(report.sizes)}, "
        f"on {report.images} {origin}: {same} on {report.same:.1%}"
    )
    if serving.classes:
        lines.append(f"Classes  {', '.join(serving.classes[:8])}{', …' if len(serving.classes) > 8 else ''}")
    if config.to == "keras" and config.resize:
        lines.append(
            "Load     import tf_simclr  # knows the layer that takes the view\n         keras.saving.load_model(…)"
        )
    return "\n".join(lines)


def _sizes(found: tuple[tuple[int, int], ...]) -> str:
    """Heights and widths in words."""
    shown = ", ".join(f"{height} × {width}" for height, width in found[:3])
    return f"of {shown}" if len(found) <= 3 else f"of {len(found)} sizes ({shown}, …)"
