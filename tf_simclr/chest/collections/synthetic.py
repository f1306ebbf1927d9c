"""Made-up radiographs in SIIM's layout, so that the whole path can be walked on any machine.

They look like chests from afar: two dark lungs, ribs, a heart, noise; a patient's images share their anatomy.
"Typical" ones have hazy patches in the lower lungs.  What a network reaches on them says nothing about patients.
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from tf_simclr.chest.collections.siim import CLASSES, MADE_UP_NOTE
from tf_simclr.chest.files import about
from tf_simclr.errors import check
from tf_simclr.files import csv_of, replacing

_SHARES = (0.276, 0.472, 0.173, 0.079)
"""Of the four appearances among SIIM's studies."""
_RETAKEN = 0.15
"""Share of patients with a second study, whose appearance may differ."""


def write(folder: Path, patients: int, *, size: int = 256, seed: int = 0) -> None:
    """Writes `train/<study>/<series>/<image>.dcm` and the two tables; what is there already is written again alike.

    Args:
        folder: where to.
        patients: at least 8.
        size: side of the images in pixels.
        seed: of everything.

    Raises:
        InputError: too few patients.
    """
    check(patients >= 8, "patients must be at least 8", patients=patients)
    with replacing(folder / MADE_UP_NOTE) as [note]:  # first: nothing is there that could be taken for a patient's
        # A generator a patient: one more patient changes none of the others.
        note.write(b"Made-up radiographs of nobody: what is found in them says nothing about patients.\n")
    studies, images = [], []
    for number in range(patients):
        # What stays of a patient is drawn once, what a visit shows each time.
        rng = np.random.default_rng([seed, number])
        body = anatomy(rng)
        for visit in range(1 + int(rng.uniform() < _RETAKEN)):
            kind = int(rng.choice(len(CLASSES), p=np.array(_SHARES) / sum(_SHARES)))
            name = f"{seed:02d}{number:05d}{visit}"
            values = radiograph(body, kind, size=size, rng=rng)
            path = folder / "train" / f"study{name}" / f"series{name}" / f"image{name}.dcm"
            save(path, values, patient=f"made-up-{number}", numbers=(seed, number, visit))
            studies.append([f"study{name}_study", *(int(kind == k) for k in range(len(CLASSES)))])
            images.append([f"image{name}_image", drawn(kind), "", f"study{name}"])
    table(folder / "train_study_level.csv", ["id", *CLASSES], rows=studies)
    table(folder / "train_image_level.csv", ["id", "boxes", "label", "StudyInstanceUID"], rows=images)


def drawn(kind: int) -> str:
    """What the table says of boxes: none for the negative."""
    return "[{'x': 40.0, 'y': 120.0, 'width': 60.0, 'height': 70.0}]" if kind else ""


def anatomy(rng: np.random.Generator) -> dict[str, float]:
    """What a patient's images share, as shares of the picture's side."""
    spread = {"tilt": (0, 0.03), "width": (0.17, 0.02), "height": (0.33, 0.03), "heart": (0.14, 0.02), "ribs": (9, 1)}
    return {name: float(rng.normal(mean, deviation)) for name, (mean, deviation) in spread.items()}


def radiograph(body: dict[str, float], kind: int, *, size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture `(size, size)` of 12-bit values, bones bright."""
    # Coordinates from −0.5 to 0.5: y down, x to the right.
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    x = x + body["tilt"] * y + rng.normal(0, 0.01)
    lungs = sum(_ellipse(x - side * 0.22, y, width=body["width"], height=body["height"]) for side in (-1, 1))
    ribs = 0.5 + 0.5 * np.cos(2 * np.pi * body["ribs"] * (y + 0.6 * np.abs(np.abs(x) - 0.22)))
    # Bright soft tissue, dark lungs with ribs over them, a bright heart.
    picture = (
        0.75 - 0.5 * lungs + 0.08 * ribs * lungs + 0.25 * _ellipse(x - 0.05, y - 0.15, width=body["heart"], height=0.16)
    )
    # 0: none. 1: many patches, low in both lungs. 2: fewer, anywhere. 3: one.
    for _ in range((0, 5, 3, 1)[kind]):
        side, low = rng.choice([-1, 1]), kind == 1
        centre = side * 0.22 + rng.normal(0, 0.04), (0.14 if low else 0.0) + rng.normal(0, 0.05 if low else 0.15)
        patch = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * rng.uniform(0.03, 0.06) ** 2))
        picture = picture + 0.22 * patch * lungs
    # Exposure and noise, then 12 bits.
    picture = rng.uniform(0.85, 1.1) * picture + rng.normal(0, 0.025, picture.shape)
    return np.rint(4095 * np.clip(picture, 0, 1)).astype(np.uint16)


def _ellipse(x: np.ndarray, y: np.ndarray, *, width: float, height: float) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge."""
    # A logistic function of the ellipse's equation; the exponent is bounded against overflow.
    return 1 / (1 + np.exp(np.clip(12 * ((x / width) ** 2 + (y / height) ** 2 - 1), -50, 50)))


def save(path: Path, values: np.ndarray, *, patient: str, numbers: tuple[int, int, int]) -> None:
    """Writes 12-bit values as a computed radiograph, MONOCHROME2, uncompressed."""
    # Made-up UIDs below a root that anybody may use for examples, ours by seed, patient and visit.
    data, root = Dataset(), "1.2.826.0.1.3680043.8.498." + ".".join(map(str, numbers))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(f"{root}.3")
    data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID = f"{root}.1", f"{root}.2", patient
    data.Manufacturer, data.BodyPartExamined, data.ViewPosition = about.MADE_UP_BY, "CHEST", "PA"
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CR", "MONOCHROME2", 1
    data.Rows, data.Columns = values.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = values.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as [file]:
        data.save_as(file, enforce_file_format=True)


def table(path: Path, head: list[str], *, rows: list[list]) -> None:
    """Writes a csv file."""
    with replacing(path) as [file]:
        file.write(csv_of([head, *rows]))
