"""What the stages of the ARDS pipeline ask of the other commands: one place for every knob that they are given."""

import csv
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from tf_simclr.chest.ards import stages as ards
from tf_simclr.chest.ards.stages import Stage
from tf_simclr.commands import finetune, pretrain, sweep
from tf_simclr.commands.parts.images import told_seed
from tf_simclr.config import ChestArds, Finetune, LinearEval, Pretrain, Sweep, plain
from tf_simclr.config.presets import settings
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs import bags, partition
from tf_simclr.data.radiographs.duplicates import across, near_duplicates
from tf_simclr.data.radiographs.prepared import Prepared, load
from tf_simclr.data.radiographs.splits import Split
from tf_simclr.data.sources import Source
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.evaluation.reports import Answers, write_report
from tf_simclr.foreign import parse_json, reading
from tf_simclr.models.architecture import Architecture
from tf_simclr.own.named import is_code
from tf_simclr.replicas import Devices
from tf_simclr.terminal import say
from tf_simclr.weights import load_model

_METRIC = "auc.value"
"""What the search maximises: on validation patients; accuracy would leap with each of a few dozen images."""
_MOST_KEYS = 65536


@dataclass(frozen=True)
class Pipeline:
    """The pipeline's options and its images."""

    config: ChestArds
    target: Prepared
    positive: str
    devices: Devices

    @cached_property
    def rows(self) -> Split:
        """Of the target: train, validation and test, no patient in two."""
        told_seed(str(self.target.folder), self.config.split_seed, drawn=partition.draws(self.target))
        return partition.parts(self.target, positive=self.positive, seed=self.config.split_seed)

    @cached_property
    def alike_in_words(self) -> str:
        """Whether radiographs of different parts look the same, as a sentence."""
        found = across(near_duplicates(list(self.target.hashes)), self.rows)
        if not found:
            return "No two radiographs of different parts look the same."
        pairs = ", ".join(f"{number:,} in {names}" for names, number in found.items())
        return f"Pairs of radiographs that look the same: {pairs}. They make the test easier than it should be."

    @cached_property
    def unlabelled(self) -> tuple[Prepared, np.ndarray]:
        """The radiographs to pretrain on and which of them."""
        # The unlabelled ones may be another collection; images of test patients are taken out of it.
        other = self.config.pretrain_radiographs
        prepared = self.target if other is None else load(other)
        return prepared, ards.unlabelled(prepared, target=self.target, rows=self.rows)

    @property
    def data(self) -> dict[str, Any]:
        """The knobs by which the commands find the target."""
        config = self.config
        names = {"radiographs": self.target.folder, "positive": self.positive, "split_seed": config.split_seed}
        return names | {"image_size": config.image_size}

    def source(self, part: str) -> Source:
        """The labelled images of a part."""
        return partition.source(self.target, self.rows[part], positive=self.positive)

    def stage(self, name: str) -> Stage:
        return Stage(self.config.model_dir, name)

    @property
    def first_encoder(self) -> Path:
        """The encoder to begin with."""
        return self.stage("initial").path / "network.keras"

    @property
    def random_encoder(self) -> Path:
        """The encoder to begin with drawn anew, where it is no ResNet of ours."""
        return self.stage("initial").path / "random.keras"

    @property
    def own(self) -> bool:
        """Whether the encoder to begin with is no ResNet of ours."""
        return "encoder" in self.stage("initial").result["architecture"]

    @property
    def encoder_options(self) -> dict[str, Any]:
        """The knobs of a ResNet like the encoder to begin with; of another one what names its code."""
        if self.own:
            return {"encoder": self.config.encoder if is_code(self.config.encoder) else ""}
        own = Architecture(**self.stage("initial").result["architecture"])
        return {
            "resnet_depth": own.depth,
            "width_multiplier": own.width,
            "sk_ratio": own.sk_ratio,
            "se_ratio": own.se_ratio,
        }


def pretraining(pipeline: Pipeline, folder: Path, *, method: str = "simclr") -> Pretrain:
    """Pretraining by the preset for radiographs; MoCo for as many steps, with the same optimizer."""
    # The same steps, images and optimizer, so that the ways differ in one thing.
    config, (prepared, rows) = pipeline.config, pipeline.unlabelled
    queue = config.moco_queue or min(_MOST_KEYS, max(1, len(rows) // 2))
    own = {"method": "moco", "queue_length": queue, "key_momentum": config.moco_momentum, "num_proj_layers": 2}
    # From the general to the special: what is behind goes over what is before.
    knobs = settings("radiographs") | pipeline.encoder_options | (own if method == "moco" else {})
    same = {
        "image_size": config.image_size,
        "train_batch_size": min(config.pretrain_batch_size, len(rows)),
        "train_epochs": config.pretrain_epochs,
        "train_steps": config.pretrain_steps,
        "warmup_epochs": min(10, config.pretrain_epochs / 10),
        "learning_rate": config.pretrain_learning_rate,
        "temperature": config.temperature,
    }
    kept = {"checkpoint_epochs": 10, "keep_checkpoint_max": 1, "cache_dataset": True}
    # One that is no ResNet is taken from its file as it is, with its weights.
    start = {"encoder": str(pipeline.first_encoder)} if pipeline.own else {"checkpoint": pipeline.first_encoder}
    return Pretrain(
        **knobs | same | kept | start,
        radiographs=prepared.folder,
        pairs=config.pairs,
        model_dir=folder,
        mixed_precision=config.mixed_precision,
        seed=config.seed,
    )


def run_pretraining(pipeline: Pipeline, folder: Path, *, method: str = "simclr") -> dict[str, Any]:
    """Pretrains, or goes on, and returns the last line of the history."""
    prepared, rows = pipeline.unlabelled
    kind = bags if pipeline.config.pairs == "patient" else partition
    source = kind.source(prepared, rows, positive=pipeline.positive if prepared is pipeline.target else None)
    config = pretraining(pipeline, folder, method=method)
    try:
        # Graphs of a training hold memory until the session is cleared, and eight stages run in one process.
        return pretrain.pretrain(config, source, devices=pipeline.devices)
    finally:
        keras.backend.clear_session()


def probing(pipeline: Pipeline, result: Path, *, checkpoint: Path, part: str) -> LinearEval:
    """Logistic regression on frozen features, beside an untrained network."""
    return LinearEval(**pipeline.data, checkpoint=checkpoint, eval_split=part, result=result, seed=pipeline.config.seed)


def _finetuning(pipeline: Pipeline, folder: Path, *, checkpoint: Path | None, seed: int, **chosen: Any) -> Finetune:
    """Fine-tuning with SGD and cross-entropy, without augmentation; tested on validation patients."""
    config = pipeline.config
    first = {"learning_rate": config.finetune_learning_rate, "train_epochs": config.finetune_epochs}
    first["weight_decay"] = config.grid_weight_decays[0]
    # A checkpoint brings its network; what names an encoder's code opens it.
    network = pipeline.encoder_options if checkpoint is None or pipeline.own else {}
    return Finetune(
        # The grid's first values until the search has found better ones.
        **pipeline.data | network | first | chosen,
        checkpoint=checkpoint,
        model_dir=folder,
        eval_split="validation",
        augment=False,
        optimizer="sgd",
        warmup_epochs=0,
        train_batch_size=min(config.finetune_batch_size, len(pipeline.rows["train"])),
        mixed_precision=config.mixed_precision,
        checkpoint_epochs=10,
        keep_checkpoint_max=1,
        cache_dataset=True,
        seed=seed,
    )


def run_finetuning(
    pipeline: Pipeline, folder: Path, *, checkpoint: Path | None, seed: int, **chosen: Any
) -> dict[str, Any]:
    """Fine-tunes, or goes on, and returns what `result.json` holds; of the checkpoints the last network stays."""
    config = _finetuning(pipeline, folder, checkpoint=checkpoint, seed=seed, **chosen)
    try:
        result = finetune.finetune(
            config, pipeline.source("train"), test=pipeline.source("validation"), devices=pipeline.devices
        )
    finally:
        keras.backend.clear_session()
    # They have gigabytes, and nothing goes on from them.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def search(pipeline: Pipeline, folder: Path, *, checkpoint: Path | None) -> dict[str, Any]:
    """Searches the grid by `sweep`, or goes on, and returns the trials and the best one's knobs and folder."""
    config = pipeline.config
    grid = {
        "learning_rate": list(config.grid_learning_rates),
        "weight_decay": list(config.grid_weight_decays),
        "train_epochs": list(config.grid_epochs),
    }
    # Every knob but those that are searched is the trial's as it is.
    options = plain(_finetuning(pipeline, folder, checkpoint=checkpoint, seed=config.seed))
    left = {"command", "model_dir", *grid}
    options = {name: value for name, value in options.items() if name not in left}
    # The user has named the code on this command's own line, and its trials are told of it.
    code = config.encoder if is_code(config.encoder) else ""
    sweep.run(Sweep(task="finetune", model_dir=folder, options=options, search=grid, metric=_METRIC, encoder=code))
    for checkpoints in folder.glob("trial-*/checkpoints"):
        shutil.rmtree(checkpoints)
    # A trial is found again by its knobs.
    with reading(folder, "the folder of a whole search", advice="remove it"):
        best = parse_json((folder / "result.json").read_bytes())["best"]
        with (folder / "trials.csv").open(newline="") as file:
            rows = [{name: parse_json(value) for name, value in row.items()} for row in csv.DictReader(file)]
        first = next(row for row in rows if all(row[name] == value for name, value in best.items()))
        return {"best": best, "trial": f"trial-{first['trial']:03d}", "trials": rows, "metric": _METRIC}


def classifiers(
    pipeline: Pipeline, folder: Path, *, found: dict[str, Any], grid: Path, checkpoint: Path | None
) -> list[Path]:
    """Networks of as many seeds as are asked for, trained as the search has found; it has trained the first one."""
    # The search's own network is the first seed's.
    networks = [grid / found["trial"]]
    for seed in range(pipeline.config.seed + 1, pipeline.config.seed + pipeline.config.seeds):
        place = folder / f"seed-{seed}"
        run_finetuning(pipeline, place, checkpoint=checkpoint, seed=seed, **found["best"])
        networks.append(place)
    return networks


def answer(pipeline: Pipeline, networks: list[Path], *, part: str, result: Path) -> None:
    """Writes what networks say of a part's images, for `compare`: a column of probabilities a class."""
    scores: dict[str, np.ndarray] = {}
    for number, network in enumerate(networks):
        found = logits(pipeline, network, part=part)
        scores[f"seed {pipeline.config.seed + number}"] = softmax(found.values, axis=1)  # (n, classes)
    answers = Answers(found.names, found.labels, scores)
    write_report(result, command=plain(pipeline.config), results={}, answers=answers, part=part)


def logits(pipeline: Pipeline, network: Path, *, part: str) -> Features:
    """The logits of a part's images, as fine-tuning's own test sees them."""
    model, unreadable = load_model(network), Unreadable()
    classifier = keras.Model(model.input, model.output["logits_sup"])
    batches = evaluation_batches(
        pipeline.source(part), batch_size=64, image_size=pipeline.config.image_size, unreadable=unreadable
    )
    found = extract(classifier, batches)
    if unreadable.names:
        say(unreadable.report())
    keras.backend.clear_session()
    return found
