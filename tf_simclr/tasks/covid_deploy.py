"""The model that the COVID-19 study leaves behind for `tf-simclr chest app`."""

from pathlib import Path

import numpy as np

from tf_simclr.chest import deployed
from tf_simclr.chest.covid import ROWS
from tf_simclr.tasks.covid_arms import Study

LIMITS = (
    "Research use only. It has seen radiographs of one collection alone; other hospitals, devices and patients differ. "
    "Its probability is calibrated on held-out patients of that collection and holds for as many ill among them."
)


def deploy(study: Study, *, leak: dict) -> Path:
    """Trains one head a seed on the same patients and writes them with the encoder, its cases and a card.

    All heads are tested on the patients whom none has seen; the study's own fits each have a split of their own.
    """
    config, data = study.config, study.data
    values = study.features(study.simclr, name=study.base, sizes=study.sizes)
    learner = study.learner(values.shape[1], ROWS[0], optimizer=config.optimizer)
    parts = study.parts(study.labels, kind="patient", seed=config.seed)
    options = {"epochs": ROWS[0].epochs, "batch_size": config.train_batch_size, "patients": data.patients}
    fits = [
        learner.on_features(values, study.labels, parts=parts, seed=config.seed + number, **options)
        for number in range(config.seeds)
    ]
    folder = config.model_dir / deployed.FOLDER
    deployed.save(
        folder,
        encoder=study.simclr,
        heads=[learner.head_of(fit) for fit in fits],
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
    return folder


def card(study: Study, leak: dict) -> dict:
    """What a reader must know of the model."""
    config, data = study.config, study.data
    encoder = "an untrained ResNet-50: a demonstration, not a model" if config.checkpoint is None else config.checkpoint
    return {
        "title": f"{config.positive}: the COVID-19 study's head on a frozen encoder",
        "data": f"{data.name}: {len(data):,} images of {len(set(data.patients)):,} patients, split by patient",
        "encoder": str(encoder),
        "training": f"{ROWS[0]}; {config.optimizer}; {config.seeds} heads; the encoder does not train",
        "limits": LIMITS,
        "alike": f"{leak['alike_by_patient']} images to test on look like one that was learned from",
    }
