"""Features of a checkpoint's network for the commands that test or export them: from the disk where they were kept."""

import sys
import time
from dataclasses import dataclass, field

import keras

from tf_simclr.commands.inputs import say
from tf_simclr.config.evaluation import Probing
from tf_simclr.contents import cache_folder
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.evaluation.feature_cache import FeatureCache, source_digest, weights_digest
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.terminal import write
from tf_simclr.weights import load_encoder, load_model

POOLED = "final_avg_pool"
WHOLE = 1.0
"""Share of the shorter side that the transfer protocol keeps: all of it (SimCLR, Appendix B.8)."""


def load_features_network(config: Probing) -> keras.Model:
    """The checkpoint's network from images to the features that are asked for.

    Raises:
        InputError: the checkpoint cannot be read, or has no such features.
    """
    if config.endpoint == POOLED:
        return load_encoder(config.checkpoint, ema=config.ema)
    model = load_model(config.checkpoint, ema=config.ema)
    flat = [name for name, output in model.output.items() if len(output.shape) == 2]
    check(config.endpoint in flat, f"endpoint must be one of {', '.join(flat)}", endpoint=config.endpoint)
    return keras.Model(model.input, model.output[config.endpoint], name="features")


@dataclass
class Extractor:
    """The features of one network, of any number of sources.

    Attributes:
        config: which features, and where they are kept.
        network: images to features `(n, d)`.
        label: what a line to the user calls it.
        unreadable: names of the images that could not be read, of all sources so far.
    """

    config: Probing
    network: keras.Model
    label: str = ""
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.weights = weights_digest(self.network)
        self.cache = FeatureCache(self.config.cache_dir or cache_folder() / "features", say)

    def features(self, source: Source, *, image_size: int, crop_proportion: float | None = WHOLE) -> Features:
        """Features of every readable image, in the source's order."""
        seen = {"image_size": image_size, "crop_proportion": crop_proportion}

        def compute() -> tuple[Features, list[str]]:
            unreadable = Unreadable()
            batches = evaluation_batches(source, batch_size=self.config.eval_batch_size, unreadable=unreadable, **seen)
            progress = Counter(f"features of {source.origin}{self.label}", source.num_examples)
            return extract(self.network, batches, progress=progress), unreadable.names

        data = source_digest(source, say) if self.config.cache_features else None
        if data is None:
            found, unreadable = compute()
        else:
            key = {"weights": self.weights, "endpoint": self.config.endpoint, "data": data, **seen}
            found, unreadable = self.cache.fetch(
                key, compute, place=source.place, settled=lambda: source_digest(source, say) == data
            )
        self.unreadable += unreadable
        return found


class Counter:
    """Tells how many images are done: one line redrawn on a terminal, elsewhere one at the end."""

    def __init__(self, what: str, total: int, *, out=None):
        self.what, self.total, self.out = what, total, out or sys.stderr
        self.began = self.drawn = time.monotonic()

    def __call__(self, done: int) -> None:
        """Notes that so many are done."""
        now, last = time.monotonic(), done >= self.total
        if not last and (not self.out.isatty() or now - self.drawn < 0.5):
            return
        self.drawn = now
        rate = done / max(now - self.began, 1e-9)
        line = f"{self.what}: {done:,}/{self.total:,}, {rate:,.0f} images/s, {(self.total - done) / rate:,.0f} s left"
        line = f"{self.what}: {done:,} in {now - self.began:,.0f} s ({rate:,.0f} images/s)" if last else line
        write(f"\r{line}\x1b[K" + "\n" * last if self.out.isatty() else line + "\n", self.out)
