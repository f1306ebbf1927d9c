"""`tf-simclr export`: a network for another runtime, compared there with what it is here."""

from pathlib import Path

import keras
import numpy as np

from tf_simclr import exports
from tf_simclr.checkpoint import RunFolder, load_model
from tf_simclr.config import Export
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import from_folder
from tf_simclr.tasks.inputs import say, show


def run(config: Export) -> None:
    """Exports as configured and prints how far both differ."""
    network = load_model(config.checkpoint, ema=config.ema)
    endpoints = tuple(name for name in config.endpoints.split(",") if name)
    size = config.image_size if config.resize else 0
    model = exports.serving(network, endpoints=endpoints, image_size=size, uint8=config.uint8)
    images, origin = pictures(config)
    path = config.out or default_path(config)
    say(f"writing {path} …")
    exports.write(model, path, kind=config.to, samples=np.array_split(images, max(1, len(images) // 16)))
    report = exports.compare(model, path, kind=config.to, images=images)
    show(summary(config, path, model=model, report=report, seen=f"{len(images)} {origin}"))


def pictures(config: Export) -> tuple[np.ndarray, str]:
    """Images `(n, size, size, 3)` as the export takes them, and what to call them."""
    size = config.image_size
    if config.image_dir is None:
        rng = np.random.default_rng(config.seed)
        coarse = rng.uniform(0, 1, (config.samples, -(-size // 8), -(-size // 8), 3))
        images, origin = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size], "made-up images"
    else:
        source = from_folder(config.image_dir, labelled=False)
        batches = evaluation_batches(source, batch_size=config.samples, image_size=size, unreadable=Unreadable())
        images, origin = next(iter(batches))[0].numpy(), f"images of {config.image_dir}"
    return np.rint(255 * images).astype(np.uint8) if config.uint8 else images.astype(np.float32), origin


def default_path(config: Export) -> Path:
    """In a run folder; beside a checkpoint nothing is written, but in the working directory."""
    ending = exports.FORMATS[config.to].ending or "_savedmodel"
    if RunFolder(config.checkpoint).config.exists():
        return config.checkpoint / f"export{ending}"
    return Path(config.checkpoint.name.split(".")[0] + ending)


def summary(config: Export, path: Path, *, model: keras.Model, report: dict[str, float], seen: str) -> str:
    """What was written and how far it differs."""
    size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    kind = "bytes of 0 to 255" if config.uint8 else "numbers in [0, 1]"
    sides = "any size" if config.resize or config.to in ("keras", "savedmodel") else f"{config.image_size} px"
    lines = [f"Wrote    {path}: {config.to}, {size / 1e6:.1f} MB", f"Takes    images (n, h, w, 3), {sides}, {kind}"]
    for name, output in model.output.items():
        lines.append(f"Gives    {name} {tuple(output.shape)}: differs by {report[name]:.1e} of its largest magnitude")
    largest = "logit" if "logits_sup" in model.output else "feature"
    lines.append(f"Compared in its own runtime on {seen}: the largest {largest} is the same on {report['top1']:.1%}")
    return "\n".join(lines)
