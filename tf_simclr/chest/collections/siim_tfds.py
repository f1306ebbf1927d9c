"""SIIM-FISABIO-RSNA COVID-19 for TensorFlow Datasets, registered as `siim_covid19` when this module is imported.

    import tensorflow_datasets as tfds
    import tf_simclr.chest.collections.siim_tfds
    config = tfds.download.DownloadConfig(manual_dir="where/the/archive/was/unpacked")
    tfds.load("siim_covid19/224px", split="train", download_and_prepare_kwargs={"download_config": config})

`tf-simclr chest prepare` is the other way to the same pictures, with a report and splits by patient.  This one has the
patient in each example, as a pseudonym: split by it.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from tf_simclr.chest.collections import siim
from tf_simclr.chest.collections.prepare import Names, decoded, described, salt_of
from tf_simclr.data.radiographs.prepared import MADE_UP
from tf_simclr.errors import check

_SIZES = (224, 64, 512, 1024)
"""Sides in pixels; the first is what a name without one means."""
_MANUAL = """\
Take part in https://www.kaggle.com/c/siim-covid19-detection, download its data, and unpack them into manual_dir, which
then holds train/, train_study_level.csv and train_image_level.csv."""


@dataclasses.dataclass(kw_only=True)
class _Size(tfds.core.BuilderConfig):
    """Side of the pictures."""

    size: int = _SIZES[0]


class SiimCovid19(tfds.core.GeneratorBasedBuilder):
    """Radiographs with their study's appearance, of four, and what tells patients and studies apart."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = _MANUAL
    BUILDER_CONFIGS = [  # noqa: RUF012, tfds asks for a list
        _Size(name=f"{size}px", size=size, description=f"{size} × {size} pixels, sides scaled apart") for size in _SIZES
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        """What an example holds."""
        size = self.builder_config.size
        features = {
            "image": tfds.features.Image(shape=(size, size, 1), dtype=tf.uint16, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=siim.CLASSES),
            "boxes": tfds.features.Scalar(tf.int64),
            **{name: tfds.features.Text() for name in ("name", "study", "patient")},
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="SIIM-FISABIO-RSNA COVID-19 Detection (2021): radiographs as a viewer shows them.",
            homepage="https://www.kaggle.com/c/siim-covid19-detection",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(made_up=""),
            citation="Lakhani et al., J Digit Imaging 36 (2023): The 2021 SIIM-FISABIO-RSNA COVID-19 Challenge.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """One split: the other images of the competition have no labels."""
        return {"train": self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each readable radiograph; of others a warning says why they are not there."""
        collection = siim.collection(folder)
        if collection.made_up:
            self.info.metadata["made_up"] = MADE_UP
            logging.warning("%s: %s", folder, MADE_UP)
        entries = sorted(collection.entries, key=lambda entry: entry.image)
        # All sizes share one salt, so that a patient has the same pseudonym in each.
        beside = Path(self.data_dir).parents[2] / "siim_covid19"  # what all sizes are kept in
        salt = salt_of(beside, made_up=collection.made_up)
        answers = decoded(entries, options={"size": self.builder_config.size, "salt": salt})
        found, names = 0, Names(salt, private=False)
        for entry, answer in zip(entries, answers, strict=True):
            row, picture = described(entry, answer, names=names)
            if not picture:
                logging.warning("%s is left out: %s", entry.image, row["refused"])
                continue
            found += 1
            example = {"image": io.BytesIO(picture), "label": row["labels"].index(1), "name": entry.image}
            yield entry.image, example | {name: row[name] for name in ("boxes", "study", "patient")}
        check(found > 0, f"at least one radiograph of {folder} must be readable", images=len(entries))
