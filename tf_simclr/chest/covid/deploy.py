"""The model that the COVID-19 study leaves behind for `tf-simclr chest app`."""

from pathlib import Path

import numpy as np

from tf_simclr.chest.covid.arms import Study
from tf_simclr.chest.covid.rows import ROWS
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model.card import MADE_UP
from tf_simclr.terminal import say

LIMITS = (
    "Research use only. It has seen radiographs of one collection alone; other hospitals, devices and patients differ.",
)
UNTRAINED = "Its encoder is untrained: it shows the way, and its answers mean nothing."


def deploy(study: Study, *, leak: dict) -> Path:
    """Trains one head a seed on the same patients and leaves them with the encoder, its cases and a card.

    All heads are tested on the patients whom none has seen; the study's own fits each have a split of their own.
    """
    config, data = study.config, study.data
    values = study.features(study.simclr, name=study.base, sizes=study.sizes)
    learner = study.learner(values.shape[1], ROWS[0], optimizer=config.optimizer)
    parts = study.parts(study.labels, kind="patient", seed=config.seed)
    options = {"epochs": ROWS[0].epochs, "batch_size": config.train_batch_size, "patients": data.patients}
    fits, heads = [], []
    for number in range(config.seeds):
        fits.append(learner.on_features(values, study.labels, parts=parts, seed=config.seed + number, **options))
        heads.append(learner.trained_head())
    return deployed.leave(
        config.model_dir,
        say=say,
        encoder=study.simclr,
        heads=heads,
        positive=config.positive,
        image_size=config.image_size,
        fit=data.fit,
        windowed=data.windowed,
        held_out=(np.stack([fit.probabilities for fit in fits]), fits[0].labels, fits[0].patients),
        cases=(data, parts["train"], values[parts["train"]]),
        side=study.sizes[0],
        card=card(study, leak),
        seed=config.seed,
    )


def card(study: Study, leak: dict) -> dict:
    """What a reader must know of the model."""
    config, data = study.config, study.data
    untrained = config.checkpoint is None
    encoder = "an untrained ResNet-50: a demonstration, not a model" if untrained else config.checkpoint
    warned = [MADE_UP] * (config.data == "synthetic") + [UNTRAINED] * untrained
    return {
        "title": f"{config.positive}: the COVID-19 study's head on a frozen encoder",
        "data": f"{data.name}: {len(data):,} images of {len(set(data.patients)):,} patients, split by patient",
        "encoder": str(encoder),
        "training": f"{ROWS[0]}; {config.optimizer}; {config.seeds} heads; the encoder does not train",
        "limits": [*warned, *LIMITS],
        "alike": f"{leak['alike_by_patient']} images to test on look like one that was learned from",
    }
