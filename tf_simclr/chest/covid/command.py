"""`tf-simclr chest covid`: the COVID-19 study's six rows and what lies beyond, on its split and on one by patient.

For research, not for diagnosis.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.chest.collections import made_up
from tf_simclr.chest.covid import arms as covid_arms
from tf_simclr.chest.covid import tables as covid_tables
from tf_simclr.chest.covid.rows import CHOICE
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP, NOTE
from tf_simclr.chest.model.trusted import words_to_open
from tf_simclr.commands.parts.networks import code_of, encoder_name
from tf_simclr.config import ChestCovid, plain
from tf_simclr.data.radiographs.duplicates import across, near_duplicates
from tf_simclr.data.radiographs.splits import shared
from tf_simclr.evaluation.reports import versions
from tf_simclr.files import write_json
from tf_simclr.files.lock import hold
from tf_simclr.terminal import say, show, typed

_SYNTHETIC_SIZE = 224
"""Pixels of made-up radiographs."""
_LIMITS = (
    "Research use only. It has seen radiographs of one collection alone; other hospitals, devices and patients differ.",
)
_UNTRAINED = "Its encoder is untrained: it shows the way, and its answers mean nothing."


def run(config: ChestCovid) -> None:
    """Runs what is asked for on both splits; the same command goes on where it was stopped."""
    with hold(config.model_dir, say=say):
        write_json(config.model_dir / "config.json", plain(config))
        data = made_up.or_prepared(config.radiographs, config.model_dir, size=_SYNTHETIC_SIZE, seed=config.seed)
        _perform(covid_arms.Study(config, data))


def _perform(study: covid_arms.Study) -> None:
    """Prints each table when it is there, draws, and leaves a model."""
    config = study.config
    # 1. What is told from what, and what the study's split lets through.
    leak = leaked(study)
    show(covid_tables.title(study) + "\n")
    arms: dict[str, Any] = {}
    found: dict[str, Any] = {}
    # 2. The study's six rows: features once, then dozens of small heads.
    if config.study != "beyond":
        arms |= covid_arms.table(study)
        found |= covid_tables.results(arms, seed=config.seed)
        show(covid_tables.table_text(study, found) + "\n")
    # 3. What it left open, the best row with one thing changed.
    if config.study != "table":
        more = covid_arms.beyond(study)
        numbers: dict[str, Any] = covid_tables.results(more, seed=config.seed)
        show(covid_tables.lines("beyond it, one thing changed", numbers) + "\n")
        arms, found = arms | more, found | numbers
    figures = covid_tables.draw(study, arms, found=found)
    classes: dict[str, Any] = {}
    # 4. All classes at once, where each image has one.
    if config.study != "table":
        fits, names = covid_arms.several_classes(study)
        if names:
            text, classes = covid_tables.classes_text(fits, names, seed=config.seed)
            show(text + "\n")
            figures.append(covid_tables.draw_classes(study, fits, names=names))
    # 5. All numbers in one file, and how to read them.
    numbers = {"results": found, "classes": classes, "seconds": study.seconds, "leak": leak, "note": NOTE}
    numbers |= {"made_up": study.data.made_up, "data": study.data.name, "study": covid_tables.of_the_study(study)}
    write_json(config.model_dir / "result.json", {"command": plain(config), "versions": versions(), **numbers})
    show(covid_tables.footnotes(study, leak))
    show("\n".join(f"figure  {path}" for path in figures))
    if study.kept.found:
        say(f"{study.kept.found} trainings were there already: {study.kept.folder}")
    # 6. A model that `chest app` opens.
    show("\n".join(_ways_on(study, _deploy(study, leak=leak))))


def leaked(study: covid_arms.Study) -> dict[str, float]:
    """What splits let through: patients in both parts, the test images that are theirs, and images that look alike."""
    patients, config = list(study.data.patients), study.config
    # By image, as the study drew it, a patient's other image may be in the training part.
    parts = {kind: study.parts(study.labels, kind=kind, seed=config.seed) for kind in covid_arms.SPLITS}
    known = {patients[i] for i in parts["image"]["train"]}
    pairs = near_duplicates(list(study.data.hashes))
    alike = {f"alike_by_{kind}": sum(across(pairs, rows).values()) for kind, rows in parts.items()}
    share = float(np.mean([patients[i] in known for i in parts["image"]["test"]]))
    both = shared(patients, parts["image"])["train", "test"]
    return {"patients_in_both": both, "share_of_test_images": share, **alike}


def _ways_on(study: covid_arms.Study, folder: Path) -> list[str]:
    """What can be done next."""
    config = study.config
    code, named = code_of(config.encoder), words_to_open(folder / "encoder.keras", encoder=encoder_name(config))
    lines = [f"model   {folder}: {typed('chest', 'app', '--model', config.model_dir, *named)}"]
    again = ["--config", config.model_dir / "config.json", *code]
    if config.study == "table":
        lines.append(f"more    {typed(*again, '--study', 'all')}: larger inputs, LARS, unfrozen groups, four classes")
    elif config.adapted is None and config.checkpoint is not None:
        adapted = f"{config.model_dir}_adapted"
        images = ["--preset", "radiographs", "--radiographs", study.data.folder]
        words = [*images, "--checkpoint", config.checkpoint, *code, "--model_dir", adapted]
        lines.append(f"adapt   {typed('pretrain', *words)}")
        lines.append(f"then    {typed(*again, '--study', 'beyond', '--adapted', adapted)}")
    return lines


def _deploy(study: covid_arms.Study, *, leak: dict) -> Path:
    """Trains one head a seed on the same patients and leaves them with the encoder, its cases and a card.

    All heads are tested on the patients whom none has seen; the study's own fits each have a split of their own.
    """
    config, data = study.config, study.data
    values = study.features(study.simclr, name=study.base, sizes=study.sizes)
    # By patient, whatever the study did: what is measured must hold for people whom the model has not seen.
    learner = study.learner(values.shape[1], CHOICE, optimizer=config.optimizer)
    parts = study.parts(study.labels, kind="patient", seed=config.seed)
    options: dict[str, Any] = {"epochs": CHOICE.epochs, "batch_size": config.train_batch_size}
    options["patients"] = data.patients
    fits, heads = [], []
    for number in range(config.seeds):
        seed = config.seed + number
        fits.append(learner.on_features(values, study.labels, parts=parts, seed=seed, **options))
        heads.append(learner.trained_head())
    return deployed.leave(
        config.model_dir,
        say=say,
        encoder=study.simclr,
        heads=heads,
        positive=config.positive,
        image_size=config.image_size,
        held_out=(np.stack([fit.probabilities for fit in fits]), fits[0].labels, fits[0].patients),
        cases=(data, parts["train"], values[parts["train"]]),
        side=study.sizes[0],
        card=card(study, leak),
        seed=config.seed,
    )


def card(study: covid_arms.Study, leak: dict) -> dict:
    """What a reader must know of the model."""
    config, data = study.config, study.data
    untrained = config.checkpoint is None
    network = config.encoder or "ResNet-50"
    encoder = f"an untrained {network}: a demonstration, not a model" if untrained else config.checkpoint
    warned = [LEARNED_FROM_MADE_UP] * data.made_up + [_UNTRAINED] * untrained
    return {
        "title": f"{config.positive}: the COVID-19 study's head on a frozen encoder",
        "data": f"{data.name}: {len(data):,} images of {len(set(data.patients)):,} patients, split by patient",
        "encoder": str(encoder),
        "training": f"{CHOICE}; {config.optimizer}; {config.seeds} heads; the encoder does not train",
        "limits": [*warned, *_LIMITS],
        "alike": f"{leak['alike_by_patient']} images to test on look like one that was learned from",
    }
