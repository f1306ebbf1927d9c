"""What the report of the ARDS pipeline is made of: read from its stages; and the model that `chest app` opens."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.chest.ards import stages as ards
from tf_simclr.chest.ards.numbers import Asked, Way, estimates
from tf_simclr.chest.ards.page import Report, aligned, written
from tf_simclr.chest.ards.runs import Pipeline
from tf_simclr.chest.html import MADE_UP_NUMBERS, NOTICE
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP
from tf_simclr.chest.model.trusted import words_to_open
from tf_simclr.commands.compare import positives
from tf_simclr.commands.parts.networks import encoder_name
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.recipe import evaluation_proportion
from tf_simclr.evaluation.binary import roc_auc
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.reports import Answers, read_answers, versions
from tf_simclr.files import replacing, write_json
from tf_simclr.terminal import say, typed
from tf_simclr.weights import load_encoder, load_model

_PARTS = ("validation", "test")
_FROZEN = {
    "checkpoint logistic_regression": "SimCLR on radiographs, frozen features",
    "untrained logistic_regression": "Random weights, frozen features",
}
"""Probe of linear-eval → what a table calls it."""
_TOLD = ("image_size", "pairs", "pretrain_batch_size", "temperature", "finetune_batch_size", "mixed_precision", "seeds")


def write(pipeline: Pipeline, folder: Path) -> str:
    """Writes `report.html`, `numbers.json` and the model, and returns a table for the terminal."""
    found = _gathered(pipeline)
    with replacing(folder / "report.html") as [file]:
        file.write(written(found).encode())
    numbers = {way.title: of for way, of in zip(found.ways, found.estimates, strict=True)}
    content = {"note": NOTICE, "made_up": found.synthetic, "test": found.counts["test"], "ways": numbers}
    write_json(folder / "numbers.json", content)
    named = words_to_open(_deploy(pipeline, found) / "encoder.keras", encoder=encoder_name(pipeline.config))
    ask = typed("chest", "app", "--model", pipeline.config.model_dir, *named)
    return f"{table(found, folder=folder)}\nask it  {ask}"


def _gathered(pipeline: Pipeline) -> Report:
    """All that the page tells, from the stages' results."""
    places = {name: pipeline.stage(name).path for name in ards.STAGES}
    # Each way has its answers in a folder of its own; names and labels are the first one's, in whose order all are put.
    others = _compared(pipeline)
    folders = {"simclr": places["evaluate"], **{name: places["compare"] / name for name in others}}
    asked = {part: images(pipeline, read_answers(folders["simclr"] / f"{part}.json")) for part in _PARTS}
    ways = [_way(ards.WAYS[name], folder, asked=asked) for name, folder in folders.items()]
    ways += [_way(title, places["evaluate"], asked=asked, probe=probe) for probe, title in _FROZEN.items()]
    pairs = places["pretrain"] / "run" / "pairs.png"
    return Report(
        positive=pipeline.positive,
        collection=pipeline.target.name,
        synthetic=pipeline.target.made_up,
        counts=pipeline.stage("initial").result["counts"],
        alike=pipeline.alike_in_words,
        pretraining=pipeline.stage("pretrain").result,
        steps=steps(pipeline),
        ways=ways,
        estimates=estimates(ways, validation=asked["validation"], test=asked["test"], seed=pipeline.config.seed),
        test=asked["test"],
        grids={ards.WAYS["simclr"]: pipeline.stage("grid").result}
        | {ards.WAYS[name]: of for name, of in others.items()},
        frozen=frozen(places["linear"], pipeline.stage("linear").result["networks"]),
        pairs=pairs.read_bytes() if pairs.exists() else b"",
        made=made(pipeline),
    )


def _compared(pipeline: Pipeline) -> dict[str, Any]:
    """The other ways with their searches; none before the stage is whole."""
    return pipeline.stage("compare").noted().get("result", {"ways": {}})["ways"]


def images(pipeline: Pipeline, answers: Answers) -> Asked:
    """The images of a part with their patients."""
    rows = aligned(pipeline.target.images, answers.names)
    return Asked(answers.names, answers.labels, pipeline.target.patients[rows])


def _way(title: str, folder: Path, *, asked: dict[str, Asked], probe: str = "") -> Way:
    """What the networks of a way say, a row a seed; or a logistic regression on frozen features, by its name."""
    said = {}
    for part, images_asked in asked.items():
        answers = read_answers(folder / (f"linear_{part}.json" if probe else f"{part}.json"))
        # In the order asked about, whatever order a network answered in.
        rows = aligned(answers.names, images_asked.names)
        names = [probe] if probe else list(answers.scores)
        said[part] = np.stack([positives(answers.scores[name])[rows] for name in names])
    return Way(title, **said)


def frozen(folder: Path, networks: list[str]) -> list[tuple[str, float, float]]:
    """Title, AUC and accuracy of frozen features on validation patients."""
    found = []
    for name in networks:
        answers = read_answers(folder / f"{name}.json")
        titles = (
            _FROZEN
            if name == "simclr"
            else {"checkpoint logistic_regression": "The checkpoint as it came, frozen features"}
        )
        for probe, title in titles.items():
            scores = positives(answers.scores[probe])
            found.append((title, roc_auc(scores, answers.labels), float(answers.hits(probe).mean())))
    return found


def steps(pipeline: Pipeline) -> list[str]:
    """What was done, a sentence a stage."""
    config, first, before = pipeline.config, pipeline.stage("initial").result, pipeline.stage("pretrain").result
    network = (
        f"{first['origin']}" if pipeline.own else f"a ResNet-{first['architecture']['depth']} with {first['origin']}"
    )
    pair = "two views of one radiograph" if config.pairs == "image" else "views of two radiographs of a patient"
    training = before["training"]
    trials, seeds = len(pipeline.stage("grid").result["trials"]), pipeline.stage("evaluate").result["seeds"]
    times = "once" if seeds == 1 else f"{seeds} times"
    others = ", ".join(ards.WAYS[name] for name in _compared(pipeline))
    return [
        f"Begin with {network}.",
        f"Pretrain it by SimCLR on {before['images']:,} radiographs without labels: {training['step']:,} steps; it "
        f"learns to recognise {pair}, cropped, mirrored, and changed a little in brightness and contrast.",
        "Test its frozen features by a logistic regression, on validation patients.",
        f"Fine-tune all of it on the {first['counts']['train']['images']:,} labelled training radiographs with SGD and "
        "cross-entropy, without augmentation.",
        f"Search: {trials} settings, the best by the AUC on validation patients.",
        f"Train as chosen, {times}, and ask the networks about the test patients, once.",
        f"Do the same, with the same search, for: {others or 'no other way so far'}.",
        "Write this page.",
    ]


def made(pipeline: Pipeline) -> dict[str, str]:
    """Settings and versions; no path, which might name somebody."""
    config = pipeline.config
    told = {name.replace("_", " "): str(getattr(config, name)) for name in _TOLD}
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    return told | {
        "Seconds of pretraining": f"{pipeline.stage('pretrain').result['training']['seconds']:,.0f}",
        "With": used,
    }


def _deploy(pipeline: Pipeline, found: Report) -> Path:
    """Leaves the first network of the choice, with its cases and card, for `chest app`."""
    # The first seed's network: one network is simpler to ask than a mean of several, and its calibration is its own.
    network = pipeline.config.model_dir / pipeline.stage("evaluate").result["networks"][0]
    encoder, classifier = load_encoder(network), load_model(network).get_layer("logits_sup")
    crop = evaluation_proportion(pipeline.config.image_size)
    rows = pipeline.rows["train"]
    sizes: dict[str, Any] = {"batch_size": 64, "image_size": pipeline.config.image_size, "crop_proportion": crop}
    features = extract(encoder, evaluation_batches(pipeline.source("train"), unreadable=Unreadable(), **sizes))
    try:
        return deployed.leave(
            pipeline.config.model_dir,
            say=say,
            encoder=encoder,
            heads=[deployed.linear_head(*classifier.get_weights())],
            positive=pipeline.positive,
            image_size=pipeline.config.image_size,
            held_out=(found.ways[0].test[:1], found.test.labels, found.test.patients),
            cases=(pipeline.target, rows[aligned(pipeline.target.images[rows], features.names)], features.values),
            card=_card(found),
            crop_proportion=crop,
            seed=pipeline.config.seed,
        )
    finally:
        keras.backend.clear_session()


def _card(found: Report) -> dict[str, Any]:
    """What a reader of the model's answers must know."""
    return {
        "title": f"{found.positive}: SimCLR on radiographs, fine-tuned",
        "data": found.collection,
        "training": " ".join(found.steps[:5]),
        "limits": [
            *([LEARNED_FROM_MADE_UP] * found.synthetic),
            "Research use only. It has learned from radiographs of one collection; other hospitals, devices and "
            "patients differ.",
            "It is one network of those in the report, which has several seeds and ways.",
        ],
    }


def table(found: Report, *, folder: Path) -> str:
    """The page's table for a terminal."""
    lines = [f"{'on test patients':<48}{'AUC':>20}{'difference':>24}{'sensitivity':>14}{'specificity':>14}{'Brier':>8}"]
    # The table's first way is what others differ from, so theirs is the negative of the gain.
    for number, (way, of) in enumerate(zip(found.ways, found.estimates, strict=True)):
        auc, gain = of["auc"], of["auc_gain"]
        cells = f"{auc['value']:.3f} ({auc['low']:.2f}–{auc['high']:.2f})".rjust(20)
        difference = f"{-gain['value']:+.3f} ({-gain['high']:+.2f} to {-gain['low']:+.2f})"
        cells += (difference if number else "").rjust(24)
        cells += f"{100 * of['sensitivity']['value']:>12.0f} %{100 * of['specificity']['value']:>12.0f} %"
        lines.append(f"{way.title:<48}{cells}{of['brier']['value']:>8.3f}")
    counted = found.counts["test"]
    lines += [
        f"{counted['images']:,} test images of {counted['patients']:,} patients, {counted['positive images']:,} "
        f"{found.positive}; 95 % intervals over patients; differences in AUC from the first, in pairs",
        *([MADE_UP_NUMBERS] * found.synthetic),
        NOTICE,
        f"report  {folder / 'report.html'}",
    ]
    return "\n".join(lines)
