"""Trainings that tell findings: regressions on frozen features, and fine-tuned networks, each kept once it is done.

A fit is a file of what it says of validation and test images (`kept`).  A fine-tuning that was stopped goes on from its
last checkpoint.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.chest.kept import Kept
from tf_simclr.chest.model import seen
from tf_simclr.chest.model.seen import all_features
from tf_simclr.commands import finetune
from tf_simclr.commands.parts.images import told_seed
from tf_simclr.commands.parts.networks import drawn_encoder
from tf_simclr.config import ChestFindings, Finetune
from tf_simclr.data.radiographs import partition
from tf_simclr.data.radiographs.duplicates import across, near_duplicates
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.data.radiographs.splits import Split
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Extractor, weights_digest
from tf_simclr.evaluation.multi_label import MEAN_AUC, mean_auc
from tf_simclr.evaluation.probes import chosen_regression, logistic_regression
from tf_simclr.files import contents
from tf_simclr.replicas import Devices
from tf_simclr.terminal import say
from tf_simclr.weights import load_encoder, load_model

_FORM = 2
"""Of kept fits, and of what their settings do not tell."""
TITLES = {"linear": "frozen features", "finetune": "fine-tuned"}
_UNTRAINED = "random weights"


@dataclass(frozen=True)
class Task:
    """The knobs with the radiographs, their findings and their parts."""

    config: ChestFindings
    data: Prepared
    devices: Devices

    @cached_property
    def labelled(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """What is learned: findings `(n, findings)` of 1, 0 and -1, and their names."""
        config = self.config
        options: dict[str, Any] = {"uncertain": config.uncertain, "not_mentioned": config.not_mentioned}
        # An uncertain label may be learned as present, absent or not at all; tested is only what is sure.
        return partition.findings(self.data, config.findings, **options)

    @cached_property
    def truth(self) -> np.ndarray:
        """What is tested: the same, but an uncertain label counts as nothing whatever was learned from it."""
        options = {"uncertain": "ignore", "not_mentioned": self.config.not_mentioned}
        return partition.findings(self.data, self.config.findings, **options)[0]

    @cached_property
    def alike(self) -> dict[str, int]:
        """Pairs of images that look the same, by the parts that they are in."""
        return across(near_duplicates(list(self.data.hashes)), self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the findings."""
        return self.labelled[1]

    @cached_property
    def rows(self) -> Split:
        """Train, validation and test; no patient is in two."""
        told_seed(str(self.data.folder), self.config.split_seed, drawn=partition.draws(self.data))
        found = partition.parts(self.data, seed=self.config.split_seed)
        return {part: np.sort(rows) for part, rows in found.items()}  # the order in which a source gives them

    @cached_property
    def networks(self) -> dict[str, keras.Model]:
        """Name → images to features."""
        config, found = self.config, {}
        if config.checkpoint is not None:
            found["checkpoint"] = load_encoder(config.checkpoint, ema=config.ema)
        # Beside the checkpoint the same network with random weights: what do the weights add?
        if config.untrained or not found:
            keras.utils.set_random_seed(config.seed)
            found[_UNTRAINED] = keras.models.clone_model(found["checkpoint"]) if found else drawn_encoder(config)
        return found

    def drawn(self, fraction: float, *, seed: int) -> dict[str, np.ndarray]:
        """Rows to learn and to choose from: of so many of the patients; a smaller share lies within a larger one."""
        # A generator a part: a permutation of patients, of which the first so many are taken.
        found = {}
        for number, part in enumerate(("train", "validation")):
            rows = self.rows[part]
            names, member = np.unique(self.data.patients[rows], return_inverse=True)
            order = np.random.default_rng([seed, number]).permutation(len(names))
            count = max(1, round(fraction * len(names)))
            found[part] = rows[np.isin(member, order[:count])]
        return found

    def learnable(self, rows: np.ndarray) -> np.ndarray:
        """Which findings are present in some of these images and absent from others, bool `(findings,)`."""
        labels = self.labelled[0][rows]
        return np.asarray((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


@dataclass(frozen=True)
class Fit:
    """What a training says of the images that it did not learn from, as log-odds; NaN of findings not learned."""

    validation: np.ndarray
    """`(v, findings)`, of all validation rows, in their order."""
    test: np.ndarray
    kernel: np.ndarray
    """Of the last layer: features to log-odds, `(d, findings)`; with `bias` what a model is made of."""
    bias: np.ndarray
    notes: dict[str, Any]
    """Strength or steps, images learned from, findings not learned."""

    def __post_init__(self) -> None:
        fits = self.kernel.ndim == 2 and self.bias.shape == self.kernel.shape[1:]
        fits = fits and self.validation.shape[1:] == self.test.shape[1:] == self.bias.shape
        check(fits, "the parts of a training must fit each other")


def fitted(task: Task, *, way: str, network: str, fraction: float, seed: int) -> Fit:
    """The fit of a line of the table: from its file, or trained and kept.

    Raises:
        InputError: no finding can be learned, or the folder cannot be written.
    """
    # 1. Images of this share, and findings that can be learned from them.
    config, drawn = task.config, task.drawn(fraction, seed=seed)
    learnable = task.learnable(drawn["train"])
    parts = ", ".join(f"{len(rows):,} {part}" for part, rows in drawn.items())
    check(
        bool(learnable.any()), f"at least one finding must be present in some of {parts} images and absent from others"
    )
    # 2. All that the fit depends on, by content.
    known = (task.labelled[0], drawn["train"], drawn["validation"], task.rows["validation"], task.rows["test"])
    settings = {
        "way": way,
        "network": weights_digest(task.networks[network]),
        "data": task.data.content(),
        "task": contents.of_values([contents.of_array(np.asarray(part)) for part in known], list(task.names)),
        "image_size": config.image_size,
        "seed": seed,
    }
    # 3. A regression or a fine-tuning, unless there is one of these settings.
    kept = Kept(config.model_dir / "fits", Fit, _FORM, say)
    if way == "linear":
        return kept.fetch(settings | {"l2": config.l2_strengths}, lambda _: linear(task, network, drawn=drawn))
    knobs = ("train_epochs", "train_batch_size", "learning_rate", "weight_decay", "augment", "mixed_precision")
    own = {knob: getattr(config, knob) for knob in knobs}
    return kept.fetch(settings | own, lambda place: tuned(task, network, drawn=drawn, seed=seed, folder=place))


def features_of(task: Task, network: str) -> np.ndarray:
    """Frozen features `(n, d)` of every radiograph, in the folder's order, kept on disk."""
    config = task.config
    extractor = Extractor(
        task.networks[network], f", {network}", batch_size=config.eval_batch_size, folder=config.cache_dir
    )
    return all_features(extractor, task.data, image_size=config.image_size)


def linear(task: Task, network: str, *, drawn: Mapping[str, np.ndarray]) -> Fit:
    """A logistic regression a finding, their L2 strength that of the best mean AUC on validation patients.

    They learn from training patients alone, also once the strength is chosen: what they say of validation patients
    chooses among lines, calibrates, and stands for how the model does at home.
    """
    # 1. Features of all images, once a network.
    values, labels = features_of(task, network), task.labelled[0]
    learnable = task.learnable(drawn["train"])
    # 2. The strength by the mean AUC on validation patients, of regressions on the training patients.
    rows = np.concatenate([drawn["train"], drawn["validation"]])
    held = np.arange(len(rows)) >= len(drawn["train"])
    grid = np.logspace(-4, 5, task.config.l2_strengths)
    choice = chosen_regression(values[rows], labels[rows][:, learnable], held=held, grid=grid, metric=MEAN_AUC)
    # 3. Fitted again at that strength, on the training patients alone.
    own = logistic_regression(
        values[drawn["train"]], labels[drawn["train"]][:, learnable], l2=choice.l2, standardise=False
    )
    if not own.converged:
        say(f"the logistic regressions with l2={choice.l2:.3g} stopped before their minimum")
    # 4. All findings have a column; of those not learned it is NaN, and so is what is said of them.
    kernel = np.full((values.shape[1], len(task.names)), np.nan)
    bias = np.full(len(task.names), np.nan)
    kernel[:, learnable], bias[learnable] = own.weights, own.bias
    # (n, d) · (d, findings) + (findings,).
    said = {part: values[task.rows[part]] @ kernel + bias for part in ("validation", "test")}
    notes = {"l2": choice.l2, "converged": own.converged} | counted(task, drawn, learnable=learnable)
    return Fit(said["validation"], said["test"], kernel, bias, notes)


def tuned(task: Task, network: str, *, drawn: Mapping[str, np.ndarray], seed: int, folder: Path) -> Fit:
    """All of the network trains on masked binary cross entropies, in a run folder of its own."""
    # 1. A run of `finetune` with the same labels and parts.
    config, learnable = task.config, task.learnable(drawn["train"])
    labels = task.labelled[0]
    train, validation = (
        task.data.source(rows, labels, class_names=task.names) for rows in (drawn["train"], task.rows["validation"])
    )
    knobs = Finetune(
        radiographs=task.data.folder,
        split_seed=config.split_seed,
        image_size=config.image_size,
        **({"encoder": config.encoder} if config.encoder else {"resnet_depth": config.resnet_depth}),
        checkpoint=config.checkpoint if network == "checkpoint" else None,
        ema=config.ema and network == "checkpoint",
        model_dir=folder / "run",
        eval_split="validation",
        augment=config.augment,
        optimizer="momentum",
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_epochs=min(1, config.train_epochs / 10),
        train_batch_size=min(config.train_batch_size, len(drawn["train"])),
        train_epochs=config.train_epochs,
        eval_batch_size=config.eval_batch_size,
        mixed_precision=config.mixed_precision,
        keep_checkpoint_max=1,
        cache_dataset=True,
        seed=seed,
    )
    try:
        # 2. Trained, or gone on, and asked at once.
        result = finetune.finetune(knobs, train, test=validation, devices=task.devices)
        said, kernel, bias = answers(task, folder / "run")
    finally:
        keras.backend.clear_session()
    shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)
    # 3. A unit without labels has learned nothing: what it says is taken out.
    for part in said.values():
        part[:, ~learnable] = np.nan
    steps = {"steps": result["step"], "seconds": result["seconds"], "network": str(folder.name)}
    return Fit(said["validation"], said["test"], kernel, bias, steps | counted(task, drawn, learnable=learnable))


def answers(task: Task, run: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What a fine-tuned network says of validation and test images, and its last layer's kernel and bias."""
    model = load_model(run)
    classifier = keras.Model(model.input, model.output["logits_sup"])
    sizes = {"batch_size": task.config.eval_batch_size, "image_size": task.config.image_size}
    # Rows ascend, so the answers are in the task's own order.
    said = {
        part: seen.answers(classifier, task.data, rows=task.rows[part], **sizes).astype(np.float64)
        for part in ("validation", "test")
    }
    kernel, bias = model.get_layer("logits_sup").get_weights()
    return said, kernel, bias


def counted(task: Task, drawn: Mapping[str, np.ndarray], *, learnable: np.ndarray) -> dict[str, Any]:
    """What a fit learned from."""
    return {
        "train_images": len(drawn["train"]),
        "train_patients": len(np.unique(task.data.patients[drawn["train"]])),
        "validation_images": len(drawn["validation"]),
        "not_learned": [name for name, yes in zip(task.names, learnable, strict=True) if not yes],
    }


def validation_auc(task: Task, fit: Fit) -> float:
    """The mean AUC on validation patients, by which a model is chosen to be left."""
    rows = task.rows["validation"]
    # Of findings that were learned.
    known = ~np.isnan(fit.validation).any(axis=0)
    return mean_auc(fit.validation[:, known], task.truth[rows][:, known])
