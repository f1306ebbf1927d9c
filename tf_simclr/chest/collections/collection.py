"""What a collection of radiographs holds before anything is decoded: files, labels, patients, official splits."""

import codecs
import csv
import filecmp
import io
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tf_simclr.chest.files.reading import is_radiograph_file
from tf_simclr.data.radiographs import NOT_MENTIONED, UNCERTAIN
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import read_json, reading

_PICTURES = (".png", ".jpg", ".jpeg")
ENDINGS = (".dcm", ".dicom", ".dic", *_PICTURES)
"""Files of a folder that count as radiographs, in any case of letters."""
TEXTS = (".csv", ".tsv", ".txt", ".json", ".xml", ".md", ".html", ".py", ".xlsx")
"""Files that nobody takes for radiographs."""
_OTHERS = (*TEXTS, ".pdf", ".zip", ".gz", ".tar", ".db")
"""Files that are not even looked into."""
_ATTRIBUTES = {
    "sex": ("patient gender", "patient sex", "sex", "gender"),
    "age": ("patient age", "age"),
    "view": ("view position", "view", "viewposition", "ap/pa"),
    "device": ("device", "manufacturer"),
}
"""What tables say beside the labels → the columns that say it, in small letters."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image file and what the collection's tables say of it."""

    path: Path
    image: str
    """Its name in the tables."""
    labels: tuple[int, ...]
    """For each class 0 or 1, or `prepared.UNCERTAIN` or `prepared.NOT_MENTIONED`."""
    patient: str = ""
    """Empty where only the DICOM knows."""
    study: str = ""
    split: str = ""
    """`train`, `validation` or `test` of the collection's own split."""
    boxes: int = 0
    """Findings that somebody drew a box around."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Of `_ATTRIBUTES`; where a table and a header differ, the header counts."""
    place: str = ""
    """Where a table tells of it, as `own.csv, line 7`, or the folder of its class."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A set of radiographs."""

    name: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    """What does not fit together: rows without a file, files without a row."""
    private: bool = False
    """Whether its images' names are file names of somebody's own, which are not written anywhere."""
    made_up: bool = False
    """Whether it is made up."""

    def __post_init__(self) -> None:
        # What makes a prepared folder wrong is refused here, before hours of decoding.
        problems = Counter(problem.partition(": ")[0] for problem in self.problems)
        check(self.entries, f"{self.name} must hold at least one radiograph with a label", problems=dict(problems))
        names, files = (Counter(getattr(entry, what) for entry in self.entries) for what in ("image", "path"))
        twice = [entry for entry in self.entries if names[entry.image] > 1]
        check(not twice, f"each image of {self.name} must be listed once", twice=self.called(twice), count=len(twice))
        again = [entry for entry in self.entries if files[entry.path] > 1]
        check(not again, f"each file of {self.name} must be listed once, under one name", names=self.called(again))
        # A patient in two official parts would make the test easier than it is.
        places: dict[str, dict[str, Entry]] = defaultdict(dict)
        for entry in self.entries:
            if entry.patient and entry.split:
                places[entry.patient].setdefault(entry.split, entry)
        both = [first for _, first in sorted(places.items()) if len(first) > 1]
        known = self.called([entry for first in both for entry in first.values()])
        check(not both, f"no patient of {self.name} may be in two splits", images=known, count=len(both))

    def called(self, entries: Sequence[Entry]) -> list[str]:
        """What messages call the first of some images: where they are told of, if their names may name patients."""
        return [entry.place if self.private else entry.image for entry in entries[:4]]


def read_table(path: Path, *, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table, as a spreadsheet or a download leaves them.

    UTF-8, UTF-16 or Windows' Western letters, with a mark of the order of bytes or without; cells between commas,
    semicolons, tabs or bars, stripped; rows without a cell, the head again, and Excel's line `sep=;`, are passed over.

    Raises:
        InputError: there is no such file, it lacks a column, or a row has more or fewer cells than the head.
    """
    # 1. Text, whatever program wrote it, and its cells with the line that each row begins at.
    with reading(path, "a readable csv file"):
        content = path.read_bytes()
        check(not content.startswith(_WORKBOOKS), f"{path} must be a csv file, and is a workbook; save it as csv")
        text = decoded(content)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
        lines, begins = [], 1
        for line in reader:
            lines.append((begins, line))
            begins = reader.line_num + 1  # a cell may hold line ends
    # 2. Lines without content, and Excel's own, are none.
    filled = [(number, [plain(cell) for cell in line]) for number, line in lines]
    filled = [(number, cells) for number, cells in filled if any(cells)]
    filled = filled[1:] if filled and _separator_line("".join(filled[0][1])) else filled
    names = filled[0][1] if filled else []
    while names and not names[-1]:  # a comma at the end of each line
        names = names[:-1]
    # 3. Columns by their names, in any case of letters.
    wanted = {column.lower(): column for column in columns}
    names = [name if name in wanted.values() else wanted.get(name.lower(), name) for name in names]
    missing = [column for column in wanted.values() if column not in names]
    # A first line without any of them may be of a table without a head, and name a patient.
    known = names if len(missing) < len(wanted) else f"{len(names)} of other names"
    check(not missing, f"{path} must have the columns that its kind of collection has", missing=missing, has=known)
    # Tables that were joined have the head again; commas at a line's end are no cells.
    body = [(number, cells) for number, cells in filled[1:] if _folded(cells) != _folded(filled[0][1])]
    rows = [(number, cells if any(cells[len(names) :]) else cells[: len(names)]) for number, cells in body]
    uneven = [number for number, cells in rows if len(cells) != len(names)]
    check(not uneven, f"each row of {path} must have {len(names)} cells", uneven_lines=uneven[:3])
    # Two columns of one name are harmless only where they are one column.
    places = {name: [i for i, other in enumerate(names) if name and name == other] for name in names}
    twice = [name for name, of in places.items() if any(len({cells[i] for i in of}) > 1 for _, cells in rows)]
    check(not twice, f"{path} must have each column once", twice=twice)
    return [dict(zip(names, cells, strict=True)) | {LINE: str(number)} for number, cells in rows]


def _folded(cells: Iterable[str]) -> list[str]:
    """Cells without a difference between capitals and small letters."""
    return [cell.casefold() for cell in cells]


EMPTY = ("", "nan", "na", "n/a", "#n/a", "<na>", "null")
"""What programs write into a cell, in small letters, of which nothing is known."""
LATERAL_VIEW = "LATERAL"
"""View of a radiograph that a table calls lateral, from whichever side."""
LINE = "\0line"
"""Key of a row's own line in the file."""


_SEPARATORS = ",;\t|"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of a spreadsheet's own files, new and old."""


def plain(cell: str) -> str:
    """A cell as it looks: stripped, without what nobody sees, letters and their accents in one.

    Example:
        >>> plain(" a\u200b "), len(plain("e\u0301")), plain('="007"'), plain("'007")
        ('a', 1, '007', '007')
    """
    # NFC: é is one letter, and not an e with an accent behind it, as Macs write file names. Cf: marks that nobody sees.
    if not cell.isascii():
        cell = unicodedata.normalize("NFC", "".join(c for c in cell if unicodedata.category(c) != "Cf"))
    # Numbers that a spreadsheet was told to take for text.
    number = re.fullmatch(r"""\s*(?:="(.*)"|'(\d+))\s*""", cell)
    return (number[1] or number[2] or "").strip() if number else cell.strip()


def spelling(name: str) -> str:
    """What names have in common that people take for one: capitals, spaces, zeros in front and `.0`, `,0` behind apart.

    Example:
        >>> spelling("Sick ") == spelling("sick"), spelling("007") == spelling("7,0"), spelling("A1") == spelling("A10")
        (True, True, False)
    """
    # A patient 007, 7 and 7.0 is the same person: spreadsheets change one into another.
    key = "".join(plain(name).casefold().split())
    number = _without_decimals(key)
    return number.lstrip("0") if re.fullmatch(r"\d+", number) else key


def _without_decimals(number: str) -> str:
    """A whole number as a spreadsheet may have written it, without the zeros behind its point or comma.

    Example:
        >>> [_without_decimals(cell) for cell in ("7.0", "-1,0", "1,000", "P1.0")]
        ['7', '-1', '1,000', 'P1.0']
    """
    # Three zeros behind a comma are thousands.
    return re.sub(r"^([+-]?\d+)(\.0+|,00?)$", r"\1", number)


def check_classes(names: Iterable[str], *, where: str) -> None:
    """Refuses classes that people would take for one.

    Raises:
        InputError: there are some.
    """
    spelt: dict[str, list[str]] = {}
    for name in names:
        spelt.setdefault(spelling(name), []).append(name)
    alike = [found for found in spelt.values() if len(found) > 1]
    check(not alike, f"classes of {where} must differ by more than capitals and spaces", alike=alike[:3])


def decoded(content: bytes) -> str:
    """The text of a table, whatever program wrote it.

    Raises:
        UnicodeError: it is no text in one of the encodings.
    """
    # From the surest to the guess: marks of byte order, zeros of wide letters, UTF-8, and else Windows' own letters.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content[:4]:  # the second byte of each letter
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _separator(text: str) -> str:
    """What stands between cells: of these what the first line with letters has most of, or what Excel's line says."""
    head = next((line for line in text.splitlines() if line.strip(_SEPARATORS + " ")), "")
    if _separator_line(head):
        return head.strip()[-1] if head.strip()[-1] in _SEPARATORS else "\t"
    # Every second piece between quotation marks is within a cell.
    outside = "".join(head.split('"')[::2])
    return max(_SEPARATORS, key=outside.count)


def _separator_line(line: str) -> bool:
    """Whether a line tells Excel what stands between cells: `sep=;`, or of cells that were told apart by it, `sep=`."""
    return re.fullmatch(r"sep=[,;|]?", line.strip()) is not None


def attributes(row: Mapping[str, str]) -> dict[str, str]:
    """What a row says of sex, age, view and device."""
    known = {name.lower(): value for name, value in row.items()}
    told = {name: value for name, value in known.items() if value.lower() not in EMPTY}
    found = {key: next((told[name] for name in names if name in told), "") for key, names in _ATTRIBUTES.items()}
    return {key: value for key, value in found.items() if value}


def within(text: str) -> str:
    """A path of a table in one form: `./img/0.png`, `img\\0.png` and `img//0.png` are `img/0.png`.

    Example:
        >>> within("./img//0.png")
        'img/0.png'
    """
    return posixpath.normpath(text.strip().replace("\\", "/"))


def zero_or_one(text: str, *, where: str) -> int:
    """A label of a table.

    Raises:
        InputError: it is neither 0 nor 1.
    """
    number = _without_decimals(text.strip())
    check(number in ("0", "1"), f"a label must be 0 or 1, {where}", label=text)
    return int(number)


def zero_one_or_unsure(text: str, *, where: str) -> int:
    """A label of a table like CheXpert's: 1, 0, -1 where it is uncertain, empty where it is not mentioned.

    Raises:
        InputError: it is none of these.

    Example:
        >>> [zero_one_or_unsure(cell, where="here") for cell in ("1,0", "0", "-1.0", "")]
        [1, 0, -1, -2]
    """
    number, known = _without_decimals(text.strip()), {"": NOT_MENTIONED, "1": 1, "0": 0, "-1": UNCERTAIN}
    check(number in known, f"a label must be 1, 0, -1 or empty, {where}", label=text)
    return known[number]


def unmatched(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """One problem for each name, in order."""
    return tuple(f"{what}: {name}" for name in sorted(names))


def files_below(folder: Path) -> list[Path]:
    """Every radiograph below a folder, in order: by its ending, or where it has none that is known by its first bytes.

    Scanners write `IM0001`, and archives `1.2.840.113.5`.

    Raises:
        InputError: there is no such folder.
    """
    check(folder.is_dir(), "the folder of radiographs must exist", folder=str(folder))
    # Sorted, so that a folder is the same collection on every system.
    found = []
    for path in sorted(visible(folder)):
        ending = path.suffix.lower()
        if ending in _OTHERS or path.name.upper().startswith("DICOMDIR"):
            continue
        if ending in ENDINGS or (path.is_file() and is_radiograph_file(path)):
            found.append(path)
    return found


def visible(folder: Path) -> Iterator[Path]:
    """What lies below a folder, but for hidden files and what this program wrote."""
    ours = written_here(folder)
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and ours.isdisjoint(path.parents):
            yield path


def written_here(folder: Path) -> set[Path]:
    """Folders below that this program wrote, prepared ones and runs: their pictures are figures, and no radiographs."""
    found = set()
    for place, _, names in os.walk(folder):
        prepared = "settings.json" in names and any(name.startswith("records-") for name in names)
        if prepared or ("config.json" in names and _is_of_a_command(Path(place, "config.json"))):
            found.add(Path(place))
    return found - {folder}


def _is_of_a_command(note: Path) -> bool:
    """Whether a `config.json` is what a command leaves in its run folder."""
    try:
        found = read_json(note)
    except InputError:  # somebody else's
        return False
    return isinstance(found, dict) and "command" in found


def files_by_name(folder: Path) -> dict[str, Path]:
    """Every radiograph below a folder by its file name without the ending.

    Archives of public collections hold some images twice; copies are one image.

    Raises:
        InputError: there is no such folder, or two different files have one name.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder):
        name = without_ending(path.name)
        there = found.setdefault(name, path)
        same = there is path or filecmp.cmp(there, path, shallow=False)
        check(same, f"file names below {folder} must differ", name=name, first=str(there), second=str(path))
    return found


def without_ending(name: str) -> str:
    """The name of a file without an ending of radiographs: a DICOM's number has dots, too, which are none.

    Example:
        >>> without_ending("img/0.PNG"), without_ending("1.2.840.5")
        ('0', '1.2.840.5')
    """
    path = Path(name)
    return path.stem if path.suffix.lower() in ENDINGS else path.name


def is_picture(path: Path) -> bool:
    """Whether a file is a PNG or JPEG by its ending, which knows no patient, as a DICOM does."""
    return path.suffix.lower() in _PICTURES
