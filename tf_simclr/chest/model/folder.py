"""The folder of a model that is handed on: encoder, cases, what its kind has beside them, and a card with all digests.

It is checked when it is opened, as if a stranger had written it: digests of every file, Keras networks of plain layers
only, arrays of the right type and shape, no pickle.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.chest.model import cases as case_files
from tf_simclr.chest.model.card import NOTE, check_files, digest
from tf_simclr.chest.model.cases import Cases
from tf_simclr.chest.model.heads import bare
from tf_simclr.chest.model.trusted import load_network
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.errors import check
from tf_simclr.files import replacing_folder, write_json


@contextlib.contextmanager
def written(
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    encoder: keras.Model,
    cases: tuple[Prepared, np.ndarray, np.ndarray],
    seed: int,
) -> Iterator[Path]:
    """Within, a place for the other files of a model; then comes its card, and all appears at once, or nothing.

    Args:
        folder: where to; what was there is replaced.
        about: entries of the card, but for those of the prepared radiographs and the digests.
        encoder: images to features; a copy of plain layers is stored.
        cases: the prepared folder, the rows that were learned from, and their features, `(len(rows), d)`.
        seed: of the cases' numbers.

    Raises:
        InputError: the cases do not fit together, or the folder cannot be written.
    """
    prepared, rows, features = cases
    squares = {"kept_size": prepared.size, "fit": prepared.fit, "windowed": prepared.windowed}
    card = {"note": NOTE, "classes": list(prepared.classes)} | squares | dict(about)
    with replacing_folder(folder) as place:
        bare(encoder).save(place / "encoder.keras")
        case_files.write(case_files.gather(prepared, rows, features=features, seed=seed), place)
        yield place
        digests = {path.name: digest(path) for path in sorted(place.iterdir())}
        write_json(place / "card.json", card | {"digests": digests})


def opened(folder: Path, about: Mapping[str, Any], *, others: set[str], code: str) -> tuple[keras.Model, Cases]:
    """The encoder and the cases of a folder, whose files are those of its card.

    Args:
        folder: of the model.
        about: its card.
        others: names of the files that its kind has beside them.
        code: what made the encoder, where it has more than plain layers (`trusted.load_network`).

    Raises:
        InputError: a file is missing, damaged or one too many, or they do not fit together.
    """
    names = {"encoder.keras", *(f"case_{kind}.npy" for kind in case_files.KINDS)} | others
    check_files(folder, about["digests"], names=names)
    encoder = load_network(folder / "encoder.keras", code=code)
    cases = case_files.read(folder, classes=tuple(about["classes"]))
    fits = cases.features.shape[1] == encoder.output_shape[-1]
    check(fits, f"the cases of {folder} must have the encoder's features", features=cases.features.shape[1])
    return encoder, cases
