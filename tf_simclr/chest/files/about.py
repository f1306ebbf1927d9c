"""What a DICOM header says of the picture and, coarsely, of the patient: kept as columns, never an identity.

References:
    DICOM PS3.3, C.7.1.1 (patient), C.7.6.1.1.1 (orientation), C.8.7.1, C.8.11.5 (view), PS3.16 Annex L (body parts).
"""

import re
from typing import Any

import numpy as np
import pydicom

from tf_simclr.chest.files.levels import word
from tf_simclr.chest.files.radiograph import LATERAL, VIEWS

CHEST = ("CHEST", "THORAX", "TORAX", "TORACE", "LUNG", "RIB", "PULM", "HEART", "PECHO", "POUMON", "CXR", "STERNUM")
"""Parts of the names of what a chest radiograph shows."""
BURNED_IN = "has letters in its picture that may name the patient, by its header"
"""What is noted of a file whose picture was not anonymised, whatever was done to its header."""
MADE_UP_BY = "tf_simclr, made up"
"""Manufacturer of what `synthetic` writes."""


def described(data: pydicom.Dataset) -> dict[str, Any]:
    """Fields of a `Radiograph`."""
    view, sides = word(data, "ViewPosition") or _meaning(data, "ViewCodeSequence"), orientation(data)
    # A header may name the part or, in newer files, a region by a code.
    part = re.sub(r"[^A-Z0-9 _-]", "", word(data, "BodyPartExamined"))[:16]
    shown = part or _meaning(data, "AnatomicRegionSequence")
    doubts = []
    if shown and not any(name in shown for name in CHEST):
        doubts.append(f"no chest by its header: {shown}")
    if lateral(view, sides=sides):
        doubts.append("a lateral view by its header")
    if turned := _turned(sides):
        doubts.append(f"{turned} by its header")
    if word(data, "PresentationIntentType") == "FOR PROCESSING":
        doubts.append("a detector's raw values by its header, which are for processing and not for a viewer")
    device = " ".join(filter(None, (text(data, "Manufacturer"), text(data, "ManufacturerModelName"))))
    # Coarse on purpose: a decade instead of an age, no date, no station, no number of a device.
    return {
        "view": view if view in VIEWS else "",
        "orientation": sides,
        "modality": word(data, "Modality")[:16],
        "body_part": shown,
        "sex": sex if (sex := word(data, "PatientSex")[:1]) in ("M", "F", "O") else "",
        "age": decade(word(data, "PatientAge")),
        "device": device[:64],
        "made_up": text(data, "Manufacturer") == MADE_UP_BY,
        "doubts": tuple(doubts),
        "notes": (BURNED_IN,) if word(data, "BurnedInAnnotation") == "YES" else (),
    }


def _turned(sides: tuple[str, ...]) -> str:
    """How a frontal picture lies that does not lie as viewers show it, with the patient's left to the right."""
    # The first letter of a direction is the one that it mostly has.
    row, column = (side[0] for side in sides or ("L", "F"))
    if row in "HF" and column in "LR":
        return "lying on its side"
    if row not in "LR" or column not in "HF":  # from front to back, or a plane that no radiograph has
        return ""
    return "upside down" if column == "H" else "mirrored" if row == "R" else ""


def _meaning(data: pydicom.Dataset, keyword: str) -> str:
    """What the first code of a sequence means, in capitals."""
    sequence = data.get(keyword)
    coded = isinstance(sequence, pydicom.Sequence) and len(sequence) > 0  # an element of another kind tells nothing
    return re.sub(r"[^A-Z0-9 -]", "", word(sequence[0], "CodeMeaning"))[:64] if coded else ""


def lateral(view: str, *, sides: tuple[str, ...]) -> bool:
    """Whether the header says that it was taken from the side: by name, or since a row runs front to back."""
    named = view in LATERAL or re.search(r"\b[LR]?LAT(ERAL)?\b", view) is not None
    decubitus = "DECUB" in view or view in ("LLD", "RLD")
    # Of a frontal picture the rows run from side to side, so between R and L; A and P are front and back.
    front_to_back = not view and len(sides) == 2 and sides[0] in ("A", "P")
    return not decubitus and (named or front_to_back)


def orientation(data: pydicom.Dataset) -> tuple[str, ...]:
    """PatientOrientation, where it is two directions of one to three letters; else nothing."""
    values = data.get("PatientOrientation") or ()
    found = tuple(str(value).strip().upper() for value in np.atleast_1d(values))
    # A direction may have up to three letters, as `LFP`: to the left, some to the foot, a little backwards.
    whole = len(found) == 2 and all(1 <= len(value) <= 3 and set(value) <= set("APRLHF") for value in found)
    return found if whole else ()


def text(data: pydicom.Dataset, keyword: str) -> str:
    """A text of the header on one line."""
    return " ".join("".join(c for c in str(data.get(keyword) or "") if c.isprintable()).split())


def decade(age: str) -> str:
    """An age in DICOM's form, or in years, as a decade.

    Example:
        >>> decade("045Y"), decade("9M"), decade("97"), decade("?")
        ('40-49', '0-9', '90+', '')
    """
    # `063Y`, `18M`, or as some write it 63 and 63.0.
    found = re.fullmatch(r"(\d{1,3})(?:\.0*)?\s*([DWMY]?)", age.strip().upper())
    if found is None:
        return ""
    number = int(found[1])
    # Days and weeks are less than ten years, whatever their number.
    years = {"Y": number, "": number, "M": number // 12}.get(found[2], 0)
    first = years // 10 * 10
    # From 90 on few are left: a decade of its own would help to name a person.
    return "" if years > 130 else "90+" if years >= 90 else f"{first}-{first + 9}"
