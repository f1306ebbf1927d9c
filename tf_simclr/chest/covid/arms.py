"""What the COVID-19 study compares: its six rows, and what lies beyond them, each on both splits with several seeds."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.chest.covid.learner import Learner
from tf_simclr.chest.covid.rows import CHOICE, ROWS, Fit, Row, split
from tf_simclr.chest.kept import Kept
from tf_simclr.chest.model.seen import all_features
from tf_simclr.commands.parts.networks import encoder_from
from tf_simclr.config import ChestCovid
from tf_simclr.data import STREAM
from tf_simclr.data.radiographs.partition import given, task
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.data.radiographs.splits import check_patients
from tf_simclr.evaluation.features import Extractor, source_digest, weights_digest
from tf_simclr.files.contents import of_array
from tf_simclr.models.classifier import group_of
from tf_simclr.models.resnet import resnet
from tf_simclr.terminal import say
from tf_simclr.weights import load_encoder

_FORM = 2
"""Of kept fits, and of what their settings do not tell: how a head is made and trained."""
SPLITS = ("image", "patient")
"""As the study drew it, and so that no patient is on both sides."""
Arms = dict[str, dict[str, list[Fit]]]
"""What a line of the table is called → split → a fit a seed."""
TRAINS = {3: "group 4 trains", 2: "groups 3–4 train", 1: "groups 2–4 train", 0: "all but the stem train"}
TRAINS[-1] = "all of it trains"


@dataclass
class Study:
    """The radiographs, the encoders, and what has been spent on them."""

    config: ChestCovid
    data: Prepared
    seconds: dict[str, float] = field(default_factory=lambda: {"features": 0.0, "heads": 0.0})
    learners: dict[tuple, Learner] = field(default_factory=dict)

    @functools.cached_property
    def kept(self) -> Kept[Fit]:
        """The trainings that are done."""
        return Kept(self.config.model_dir / "fits", Fit, _FORM, say)

    @functools.cached_property
    def own(self) -> dict[str, np.ndarray] | None:
        """The collection's own split, its validation images among those to train on; None where it has none."""
        found = given(self.data)
        if found is None:
            return None
        check_patients(list(self.data.patients), found)
        # What the collection calls validation is nothing to this study, which chooses nothing by it.
        train = np.sort(np.concatenate([found["train"], found.get("validation", found["train"][:0])]))
        counted = f"{len(train):,} images to train on, {len(found['test']):,} to test"
        say(f"by patient: the split that {self.data.name} comes with, {counted}")
        return {"train": train, "test": found["test"]}

    @property
    def base(self) -> str:
        """The name of the encoder that all is compared with."""
        return "random" if self.config.checkpoint is None else "SimCLR"

    @property
    def sizes(self) -> tuple[int, int]:
        """Pixels to which radiographs are made smaller, and to which they are then enlarged."""
        return min(self.config.pixels, self.data.size), self.config.image_size

    @property
    def seen(self) -> str:
        """The sizes in words."""
        side, size = self.sizes
        return f"{side} px" if side == size else f"{side} px enlarged to {size}"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Whether an image has the class that is asked for."""
        return self.data.column(self.config.positive)

    @functools.cached_property
    def simclr(self) -> keras.Model:
        """The checkpoint's encoder, else an untrained one."""
        return self.random if self.config.checkpoint is None else encoder_from(self.config)

    @functools.cached_property
    def random(self) -> keras.Model:
        """The same network with random weights."""
        keras.utils.set_random_seed(self.config.seed)
        if self.config.checkpoint is not None:
            return keras.models.clone_model(self.simclr)
        return encoder_from(self.config) or resnet(50)

    def features(self, encoder: keras.Model, *, name: str, sizes: tuple[int, int]) -> np.ndarray:
        """Features of every image `(n, d)`, in the order of the prepared folder, kept on disk."""
        config, began = self.config, time.monotonic()
        # Features are the expensive part: they are kept by the encoder's weights and the images' content.
        extractor = Extractor(encoder, f", {name}", batch_size=config.eval_batch_size, folder=config.cache_dir)
        values = all_features(extractor, self.data, side=sizes[0], image_size=sizes[1])
        source = self.data.source(np.arange(len(self.data)), side=sizes[0])
        settings = {"encoder": extractor.weights, "data": source_digest(source, say), "image_size": sizes[1]}
        self.seconds["features"] += self.kept.longest(settings, time.monotonic() - began)
        return values

    def on_features(
        self,
        name: str,
        values: np.ndarray,
        *,
        row: Row | None = None,
        labels: np.ndarray | None = None,
        classes: int = 1,
        optimizer: str = "",
    ) -> Arms:
        """One head a seed and split, each on a split of its own; by default the study's own row."""
        config, row = self.config, row or CHOICE
        labels, optimizer = self.labels if labels is None else labels, optimizer or config.optimizer
        # What a training depends on is its key: a change of any of it trains anew, anything else does not.
        form: dict[str, Any] = {"row": row, "classes": classes, "optimizer": optimizer}

        def train(**options: Any) -> Fit:
            learner = self.learner(values.shape[1], **form)
            return learner.on_features(values, labels, patients=self.data.patients, **options)

        settings = form | {"row": row.form, "learning_rate": self.rate(optimizer), "features": of_array(values)}
        fits = self.trained(settings, train, labels=labels, seeds=config.seeds, epochs=row.epochs)
        done = [fit for kind in fits.values() for fit in kind]
        spent = sum(fit.seconds for fit in done)
        self.seconds["heads"] += spent
        say(f"{name}: {len(done)} heads in {spent:.0f} s")
        return {name: fits}

    def learner(self, width: int, row: Row, *, classes: int = 1, optimizer: str = "sgd") -> Learner:
        """A head for features, made once for all fits of its form."""
        # Compiling takes longer than training on features: a learner is made once a form, and started again a fit.
        key = width, row.hidden, row.dropout, classes, optimizer
        if key not in self.learners:
            rate = self.rate(optimizer)
            self.learners[key] = Learner(width, row, classes=classes, optimizer=optimizer, learning_rate=rate)
        return self.learners[key]

    def rate(self, optimizer: str) -> float | None:
        """The learning rate that was asked for; None where it is the optimizer's own."""
        return self.config.learning_rate if optimizer == self.config.optimizer else None

    def on_images(self, name: str, encoder: keras.Model, *, after_block: int) -> Arms:
        """The encoder in the loop, its groups above `after_block` trained with the head."""
        config, row = self.config, CHOICE
        form: dict[str, Any] = {
            "optimizer": config.optimizer,
            "learning_rate": config.learning_rate,
            "after_block": after_block,
        }
        # Made when the first fit needs it: all may be kept already.
        learner = functools.cache(lambda: Learner(encoder.output_shape[-1], row, encoder=encoder, **form))

        def train(**options: Any) -> Fit:
            return learner().on_images(self.data, self.labels, sizes=self.sizes, **options)

        source = self.data.source(np.arange(len(self.data)), side=self.sizes[0])
        settings = form | {"row": row.form, "encoder": weights_digest(encoder), "data": source_digest(source, say)}
        settings |= {"image_size": self.sizes[1], "stream": STREAM}
        fits = self.trained(settings, train, labels=self.labels, seeds=config.tuning_seeds, epochs=config.tuning_epochs)
        pace = np.concatenate([fit.pace for kind in fits.values() for fit in kind])
        an_epoch = self.seconds["an epoch, " + TRAINS[after_block]] = float(np.median(pace))
        say(f"{name}: {len(pace)} epochs of {an_epoch:.1f} s")
        return {name: fits}

    def trained(
        self, settings: Mapping[str, Any], train: Callable[..., Fit], *, labels: np.ndarray, seeds: int, epochs: int
    ) -> dict[str, list[Fit]]:
        """A fit a seed on each split; those that an earlier run has done are kept in the study's folder."""
        fits: dict[str, list[Fit]] = {kind: [] for kind in SPLITS}
        known = {"labels": of_array(labels), "patients": of_array(self.data.patients)}
        for kind, seed in itertools.product(SPLITS, range(self.config.seed, self.config.seed + seeds)):
            parts = self.parts(labels, kind=kind, seed=seed)
            options: dict[str, Any] = {"epochs": epochs, "seed": seed, "batch_size": self.config.train_batch_size}
            whole = dict(settings) | known | options | {part: of_array(rows) for part, rows in parts.items()}
            fits[kind].append(self.kept.fetch(whole, functools.partial(_timed, train, parts=parts, **options)))
        return fits

    def parts(self, labels: np.ndarray, *, kind: str, seed: int) -> dict[str, np.ndarray]:
        """`train` and `test` rows; by patient those of the collection's own split, where it has one."""
        # Its own split is one: with other seeds only the head differs.
        if kind == "patient" and self.own is not None:
            return self.own
        return split(list(self.data.patients), labels, kind=kind, test_share=self.config.test_share, seed=seed)


def _timed(train: Callable[..., Fit], _: Path, **options: Any) -> Fit:
    """A training with how long it took; it leaves nothing to go on from."""
    began = time.monotonic()
    return replace(train(**options), seconds=time.monotonic() - began)


def table(study: Study) -> Arms:
    """The study's six rows on its encoder, and its best of them on the same with random weights."""
    found: Arms = {}
    values = study.features(study.simclr, name=study.base, sizes=study.sizes)
    for row in ROWS:
        # The study's six rows differ in the head alone: features are computed once.
        found |= study.on_features(f"{study.base}, {row}", values, row=row)
    study.seconds["six rows"] = sum(study.seconds.values())
    if study.config.untrained and study.base != "random":
        values = study.features(study.random, name="random", sizes=study.sizes)
        found |= study.on_features(f"random, {CHOICE}", values)
    return found


def beyond(study: Study) -> Arms:
    """What the study left open: its own row with one thing changed."""
    found = frozen(study)
    for block in study.config.unfreeze if _has_groups(study.simclr) else ():
        found |= study.on_images(f"{study.base}, {TRAINS[block]}", study.simclr, after_block=block)
    if study.config.scratch:
        found |= study.on_images("supervised from scratch", study.random, after_block=-1)
    return found


def frozen(study: Study) -> Arms:
    """Those with a frozen encoder."""
    # The study's row first, which everything else is compared with.
    base = study.base
    values = study.features(study.simclr, name=base, sizes=study.sizes)
    found = study.on_features(f"{base}, frozen, {study.seen}", values)
    other = "sgd" if study.config.optimizer == "lars" else "lars"
    found |= study.on_features(f"{base}, frozen, {other.upper()} for the head", values, optimizer=other)
    # Straight from the kept picture at other sizes, as far as it has the pixels; each once.
    for pixels in dict.fromkeys(side for side in study.config.direct if side <= study.data.size):
        values = study.features(study.simclr, name=base, sizes=(pixels, pixels))
        found |= study.on_features(f"{base}, frozen, {pixels} px directly", values)
    if study.config.adapted is not None:
        values = study.features(load_encoder(study.config.adapted), name="adapted", sizes=study.sizes)
        found |= study.on_features("adapted to radiographs, frozen", values)
    if study.config.untrained and base != "random":
        values = study.features(study.random, name="random", sizes=study.sizes)
        found |= study.on_features("random, frozen", values)
    return found


def several_classes(study: Study) -> tuple[Arms, tuple[str, ...]]:
    """The task with all classes, where every image has exactly one of three or more; else nothing."""
    # Where an image can have several findings or none, there is no one class to tell.
    labels, names = task(study.data, None)
    if labels is None or len(names) < 3:
        return {}, ()
    found: Arms = {}
    encoders = {study.base: study.simclr}
    if study.config.untrained:
        encoders["random"] = study.random
    for name, encoder in encoders.items():
        values = study.features(encoder, name=name, sizes=study.sizes)
        found |= study.on_features(f"{name}, frozen", values, labels=labels, classes=len(names))
    return found, names


def _has_groups(encoder: keras.Model) -> bool:
    """Whether the encoder is a ResNet with block groups that can be frozen apart."""
    return any(group_of(layer.name) for layer in encoder.layers)
