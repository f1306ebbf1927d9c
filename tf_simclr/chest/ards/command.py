"""`tf-simclr chest ards`: eight stages from an encoder to a report that a clinician can read.

Each stage is a call of other commands with its own folder.  It is passed over where it is whole, and goes on where it
was stopped.  Every choice is made on validation patients; `evaluate` and `compare` look at test patients, once.

For research, not for diagnosis.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_simclr import replicas
from tf_simclr.chest.ards import report as ards_report
from tf_simclr.chest.ards import stages as ards
from tf_simclr.chest.ards.runs import (
    Pipeline,
    answer,
    classifiers,
    probing,
    run_finetuning,
    run_pretraining,
    search,
)
from tf_simclr.chest.ards.stages import STAGES, Stage
from tf_simclr.chest.collections import made_up, siim
from tf_simclr.commands import linear_eval
from tf_simclr.commands.parts.networks import drawn_encoder, encoder_name
from tf_simclr.config import ChestArds, plain, plain_defaults
from tf_simclr.files import replacing_path, write_json
from tf_simclr.files.lock import hold
from tf_simclr.models.architecture import Own
from tf_simclr.own import encoders
from tf_simclr.terminal import say, show
from tf_simclr.weights import content_of, load_model, own_network, read_network


def run(config: ChestArds) -> None:
    """Runs the stage that is asked for, or all that are not whole."""
    # Trials of a search are processes of their own, which share a GPU with this one.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with hold(config.model_dir, say=say):
        # 1. The radiographs and their parts, which every stage takes.
        data = made_up.or_prepared(config.radiographs, config.model_dir, size=config.image_size, seed=config.seed)
        # Made-up ones have hazy patches in the lower lungs.
        pipeline = Pipeline(config, data, config.positive or siim.CLASSES[1], replicas.find())
        ards.check_split(pipeline.target, pipeline.rows, positive=pipeline.positive)
        write_json(config.model_dir / "config.json", plain(config))

        # 2. The stages in order (`STEPS`), each passed over where it is whole and gone on with where it was stopped:
        #    initial, pretrain, linear, finetune and grid look at validation patients alone; evaluate and compare at
        #    test patients, once; report writes what they found.
        for name in STAGES if config.stage == "all" else [config.stage]:
            _perform(pipeline, pipeline.stage(name))


def _perform(pipeline: Pipeline, stage: Stage) -> None:
    """Runs a stage, unless it is whole; the report is always written anew."""
    # What a stage is made with is noted before it runs: another command with other knobs is refused, and not mixed in.
    due = stage.begin(settings(pipeline, stage.name), defaults=plain_defaults("chest ards")) or _extent(pipeline, stage)
    if not due and stage.name != "report":
        say(f"{stage.title}: whole in {stage.path}")
        return
    say(stage.title)
    step = STEPS[stage.name].run
    stage.finish(step(pipeline, stage.path))


def settings(pipeline: Pipeline, name: str) -> dict[str, Any]:
    """What a stage is made with."""
    values = plain(pipeline.config)
    found = {knob: values[knob] for knob in STEPS[name].knobs}
    if name == "initial":
        found |= {"positive": pipeline.positive, "radiographs": ards.identity(pipeline.target)}
        found |= _weights(pipeline, there=pipeline.stage(name).noted().get("settings", {}))
    if name == "pretrain":
        found |= {"radiographs": ards.identity(pipeline.unlabelled[0])}
    return found


def _weights(pipeline: Pipeline, *, there: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint by its content, as it may lie somewhere else when the stages go on."""
    # The content and not the place: a checkpoint may be moved between two stages.
    path = pipeline.config.checkpoint
    if path is None or there.get("checkpoint") == str(path):  # an earlier version has noted the path
        return {}
    return {"checkpoint": content_of(path, ema=pipeline.config.ema)}


def _extent(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether more seeds or ways are asked for than a whole stage has."""
    if stage.name not in ("evaluate", "compare"):
        return False
    # More seeds, or a way that was not asked for before, are added to what is there.
    more = stage.name == "compare" and not starts(pipeline, stage.path).keys() <= stage.result["ways"].keys()
    return more or stage.result["seeds"] < pipeline.config.seeds


def initial(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """The checkpoint's network, or one with random weights, as a file of our own."""
    config, path = pipeline.config, folder / "network.keras"
    # 1. The network: of the checkpoint, of `--encoder`, or a ResNet with random weights.
    keras.utils.set_random_seed(config.seed)
    if config.checkpoint is None:
        network = encoders.as_network(drawn_encoder(config))
        origin = ", ".join(filter(None, [config.encoder, "random weights"]))
    else:
        network, origin = load_model(config.checkpoint, ema=config.ema), config.checkpoint.name
    # 2. As one file, so that every stage begins with the same weights.
    with replacing_path(path) as temporary:
        network.save(temporary)
    # 3. What was built, for ways that begin from scratch, and how many of whom there are.
    if own_network(path) is None:
        known = dataclasses.asdict(dataclasses.replace(read_network(path)[0], num_classes=0, ft_proj_selector=0))
    else:
        known = dataclasses.asdict(_own(pipeline, network))
    counted = ards.counts(pipeline.target, pipeline.rows, positive=pipeline.positive)
    for part, of in counted.items():
        say(f"  {part:<12}" + ", ".join(f"{number:,} {what}" for what, number in of.items()))
    say(f"  {pipeline.alike_in_words}")
    return {"origin": origin, "architecture": known, "counts": counted}


def _own(pipeline: Pipeline, network: keras.Model) -> Own:
    """What is known of an encoder of another kind; one drawn anew is kept for what is trained from scratch."""
    encoder = encoders.encoder_of(network)
    with replacing_path(pipeline.random_encoder) as temporary:
        encoders.as_network(keras.models.clone_model(encoder)).save(temporary)
    return Own(encoder_name(pipeline.config) or "network.keras", encoder.output_shape[-1])


def pretrained(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """SimCLR from that encoder on."""
    prepared, rows = pipeline.unlabelled
    patients = prepared.patients[rows]
    known = {
        "images": len(rows),
        "patients": len(np.unique(patients)),
        "patients with several images": int(np.sum(np.unique(patients, return_counts=True)[1] > 1)),
        "left out": len(prepared) - len(rows),
        "collection": prepared.name,
        "own": prepared is pipeline.target,
    }
    return known | {"training": run_pretraining(pipeline, folder / "run")}


def linear(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """Frozen features of the pretrained network, of an untrained one, and of a checkpoint to begin with."""
    # The checkpoint as it came is probed, too: does learning from radiographs add to it?
    networks = {"simclr": pipeline.stage("pretrain").path / "run"}
    if pipeline.config.checkpoint is not None:
        networks["checkpoint"] = pipeline.first_encoder
    for name, network in networks.items():
        linear_eval.run(probing(pipeline, folder / f"{name}.json", checkpoint=network, part="validation"))
    return {"networks": list(networks)}


def _finetuned(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """The first look at fine-tuning, with the knobs as they are."""
    checkpoint = pipeline.stage("pretrain").path / "run"
    return run_finetuning(pipeline, folder / "run", checkpoint=checkpoint, seed=pipeline.config.seed)


def grid(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """The best knobs by the AUC on validation patients."""
    return search(pipeline, folder / "search", checkpoint=pipeline.stage("pretrain").path / "run")


def _evaluated(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """The choice with as many seeds as are asked for, and the frozen features, on test patients."""
    # Only now test patients are looked at: knobs were chosen on validation patients.
    checkpoint, before = pipeline.stage("pretrain").path / "run", pipeline.stage("grid")
    networks = classifiers(pipeline, folder, found=before.result, grid=before.path / "search", checkpoint=checkpoint)
    for part in ("validation", "test"):
        answer(pipeline, networks, part=part, result=folder / f"{part}.json")
        linear_eval.run(probing(pipeline, folder / f"linear_{part}.json", checkpoint=checkpoint, part=part))
    places = [str(network.relative_to(pipeline.config.model_dir)) for network in networks]
    return {"seeds": len(networks), "networks": places}


def _compared(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """The other ways, each with the same grid, the same seeds and the same look at test patients."""
    ways, found = starts(pipeline, folder), {}
    for number, (name, checkpoint) in enumerate(ways.items(), 1):
        place = folder / name
        say(f"{pipeline.stage('compare').title.split(':')[0]}: {ards.WAYS[name]} ({number} of {len(ways)})")
        if name == "moco" and checkpoint is not None:
            # The key network and the queue need a pretraining of their own; the others begin with what is there.
            run_pretraining(pipeline, checkpoint, method="moco")
        found[name] = search(pipeline, place / "search", checkpoint=checkpoint)
        networks = classifiers(pipeline, place, found=found[name], grid=place / "search", checkpoint=checkpoint)
        for part in ("validation", "test"):
            answer(pipeline, networks, part=part, result=place / f"{part}.json")
    return {"seeds": pipeline.config.seeds, "ways": found}


def starts(pipeline: Pipeline, folder: Path) -> dict[str, Path | None]:
    """The other ways that are asked for, and the network that each begins with."""
    # From scratch: a ResNet is drawn by `finetune` itself, another encoder is in a file.
    found: dict[str, Path | None] = {"supervised": pipeline.random_encoder if pipeline.own else None}
    found |= {"checkpoint": pipeline.first_encoder} if pipeline.config.checkpoint is not None else {}
    again = pipeline.config.moco or (folder / "moco" / "test.json").exists()
    return found | ({"moco": folder / "moco" / "pretrain"} if again else {})


def report(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """One page for readers, the numbers as JSON, and the model for `chest app`."""
    summary = ards_report.write(pipeline, folder)
    show(summary)
    return {"page": "report.html"}


class _Step(NamedTuple):
    """What runs a stage in its folder and gives its result, and the knobs that it is made with."""

    run: Callable[[Pipeline, Path], dict[str, Any]]
    knobs: tuple[str, ...]


STEPS = {
    "initial": _Step(initial, ("checkpoint", "encoder", "ema", "resnet_depth", "image_size", "split_seed", "seed")),
    "pretrain": _Step(
        pretrained,
        (
            *("pairs", "pretrain_epochs", "pretrain_steps", "pretrain_batch_size", "pretrain_learning_rate"),
            *("temperature", "mixed_precision"),
        ),
    ),
    "linear": _Step(linear, ()),
    "finetune": _Step(_finetuned, ("finetune_epochs", "finetune_learning_rate", "finetune_batch_size")),
    "grid": _Step(grid, ("grid_learning_rates", "grid_weight_decays", "grid_epochs", "finetune_batch_size")),
    "evaluate": _Step(_evaluated, ()),
    "compare": _Step(_compared, ("moco_queue", "moco_momentum")),
    "report": _Step(report, ()),
}
"""Stage → what runs it in its folder and gives its result, and the knobs that it is made with, besides those of the
stages that it needs.  `seeds` and `moco` are none: there may be more of them when a run goes on."""
