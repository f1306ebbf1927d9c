"""Draws the rooms of both packages and who imports whom, from the sources, and the way of a conversion.

`python -m tools.rooms` writes docs/pictures/rooms.svg and conversion.svg.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from tools.drawing import BLUE, GREEN, GREY, Sheet

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
PACKAGES = ("tf_simclr", "converters")
Group = tuple[str, ...]
"""Rooms that need each other, or one alone."""
ALONE = {"weights", "exports", "plots", "run_folder", "cli", "run", "notebook"}
"""Modules of `tf_simclr` itself that are rooms of their own; the others are the ground."""
OPTIONS = ["config", "options"]
"""Words to values, for the command lines of both packages: a room of its own, below all that has options."""
TENSORS = {"layout", "tensors"}
"""Modules of `converters` itself that know nothing of networks; the others are the doors and the way."""
LANES = {"converters": GREEN, "tf_simclr": BLUE, "chest": "#f6e7d8"}
"""Part of the house, from left to right → its colour."""
ABREAST = {"converters": 3, "tf_simclr": 4, "chest": 2}
"""Boxes beside each other at most."""
WIDTH, HEIGHT, GAP, FLOOR = 11.6, 5.6, 1.8, 4.2
"""Of a box, between boxes, and between floors, in tenths of an inch."""


def module(path: Path) -> str:
    """A file's name as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str | None:
    """The room of a module; None: a package's list of public names, or its main program."""
    package, *rest = name.split(".")
    if not rest or rest[-1] == "__main__":
        return None
    if package == "converters":
        if (ROOT / package / rest[0]).is_dir():
            return f"converters/{rest[0]}"
        return "converters/tensors" if rest[0] in TENSORS else "converters"
    if rest == OPTIONS:
        return "options"
    if rest[0] == "chest":
        return f"chest/{rest[1]}" if len(rest) > 1 and (ROOT / package / "chest" / rest[1]).is_dir() else "chest"
    return rest[0] if rest[0] in ALONE or (ROOT / package / rest[0]).is_dir() else "ground"


def imported(path: Path, modules: set[str]) -> set[str]:
    """Modules of both packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= children or {node.module}
    return found & modules


def house() -> tuple[dict[str, int], dict[str, set[str]]]:
    """Room → lines, and room → the rooms that it imports."""
    files = {module(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
    lines: dict[str, int] = {}
    arrows: dict[str, set[str]] = {}
    for name, path in files.items():
        if (own := room(name)) is None:
            continue
        lines[own] = lines.get(own, 0) + path.read_text().count("\n")
        targets = {target for other in imported(path, set(files)) if (target := room(other)) not in (None, own)}
        arrows.setdefault(own, set()).update(targets)
    return lines, arrows


Room = TypeVar("Room", str, Group)


def reached(start: Room, arrows: Mapping[Room, set[Room]]) -> set[Room]:
    """Rooms that one leads to, over any number of arrows."""
    seen: set[Room] = set()
    ahead = [start]
    while ahead:
        new = arrows.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def merged(arrows: dict[str, set[str]]) -> dict[Group, set[Group]]:
    """The same with rooms that need each other as one: they stand on one floor."""
    ahead = {name: reached(name, arrows) for name in arrows}
    group = {a: tuple(sorted({a} | {b for b in ahead[a] if a in ahead.get(b, ())})) for a in arrows}
    return {one: {group[b] for a in one for b in arrows[a]} - {one} for one in set(group.values())}


def floors(arrows: dict[Group, set[Group]]) -> list[list[Group]]:
    """Groups from the ground up, each as low as what it imports lets it be."""
    height: dict[Group, int] = {}

    def of(group: Group) -> int:
        if group not in height:
            height[group] = 1 + max((of(below) for below in arrows[group]), default=-1)
        return height[group]

    top = max(map(of, sorted(arrows)))
    return [sorted(group for group in arrows if height[group] == level) for level in range(top + 1)]


def lane(name: str) -> str:
    """The part of the house that a room belongs to."""
    first = name.split("/")[0]
    return first if first in LANES else "tf_simclr"


def rows(groups: list[Group], abreast: int) -> list[list[str]]:
    """The boxes of a floor in one lane, row by row; rooms that need each other have rows of their own."""
    single = [name for group in groups if len(group) == 1 for name in group]
    listed = [list(group) for group in groups if len(group) > 1] + ([single] if single else [])
    return [part[i : i + abreast] for part in listed for i in range(0, len(part), abreast)]


def placed(
    groups: list[list[Group]],
) -> tuple[dict[str, tuple[float, float]], dict[str, float], tuple[float, float]]:
    """Where each room's box has its lower left corner, the middle of each lane, and the sheet's size."""
    wide = {one: ABREAST[one] * (WIDTH + GAP) + 3 for one in LANES}
    left, x = {}, 2.0
    for one in LANES:
        left[one], x = x, x + wide[one]
    places, y = {}, 2.0
    for floor in groups:
        listed = {one: rows([group for group in floor if lane(group[0]) == one], ABREAST[one]) for one in LANES}
        high = max(map(len, listed.values()))
        for one, boxes in listed.items():
            lowest = y + (high - len(boxes)) / 2 * (HEIGHT + GAP)
            for i, row in enumerate(reversed(boxes)):
                start = left[one] + (ABREAST[one] - len(row)) * (WIDTH + GAP) / 2
                for j, name in enumerate(row):
                    places[name] = (start + j * (WIDTH + GAP), lowest + i * (HEIGHT + GAP))
        y += high * (HEIGHT + GAP) + FLOOR
    return places, {one: left[one] + (wide[one] - 3) / 2 for one in LANES}, (x, y + 4)


def draw_rooms(target: Path) -> None:
    """Writes the picture of the rooms."""
    lines, arrows = house()
    groups = merged(arrows)
    places, middles, (wide, tall) = placed(floors(groups))
    sheet = Sheet(wide / 10, tall / 10)
    for one, x in middles.items():
        sheet.note(x, tall - 2.5, one, size=11)
    for name, (x, y) in places.items():
        title = name if name in LANES else name.split("/")[-1]
        colour = GREY if name == "ground" else LANES[lane(name)]
        sheet.box(x, y, WIDTH, HEIGHT, title=title, note=f"{lines[name]:,} lines", color=colour)
    for group, below in groups.items():
        corners = [places[name] for name in group]
        if len(group) > 1:
            (x, right), (y, top) = ((min(values), max(values)) for values in zip(*corners, strict=True))
            sheet.frame(x - 0.8, y - 0.8, right - x + WIDTH + 1.6, top - y + HEIGHT + 1.6)
        implied = {far for near in below for far in reached(near, groups)}
        for other in below - implied:
            x, y = min(corners, key=lambda corner: corner[1])
            to_x, to_y = max((places[name] for name in other), key=lambda corner: corner[1])
            start = (x + WIDTH / 2, y - 0.8 * (len(group) > 1))
            sheet.arrow(start, (to_x + WIDTH / 2, to_y + HEIGHT + 0.8 * (len(other) > 1)), behind=True)
    sheet.save(target)


def draw_conversion(target: Path) -> None:
    """Writes the picture of walk, naming, container and proof."""
    sheet = Sheet(10, 3.4)
    sheet.note(2, 31.5, "A conversion: one walk, two namings, two containers, one proof", size=9, ha="left")
    texts = (
        (
            "container",
            "bytes → names, shapes,\nlazy tensors (checksums)",
            "opening, tensorflow,\npytorch, keras_files, other",
        ),
        ("naming", "this project's name\nof each layer", "names/naming, pytorch"),
        ("walk", "every layer of the\narchitecture, in order", "names/walk"),
        ("naming", "the other project's\nname of each layer", "names/naming, pytorch"),
        ("container", "names, shapes, tensors\n→ bytes, whole or not", "writing, other,\ntensorflow, pytorch"),
    )
    for i, (title, note, where) in enumerate(texts):
        sheet.box(2 + 19.6 * i, 17, 17, 10, title=title, note=note, color=BLUE if title == "walk" else GREEN)
        sheet.note(10.5 + 19.6 * i, 14.4, where, size=7)
        if i:
            sheet.arrow((2 + 19.6 * i - 2.6, 22), (2 + 19.6 * i, 22))
    note = "reads what was written: weights bit by bit, endpoints beside an independent computation (verification)"
    sheet.box(2, 2, 95.4, 7.5, title="proof", note=note, color=GREY)
    sheet.arrow((88.9, 12.6), (88.9, 9.5))
    sheet.arrow((10.5, 12.6), (10.5, 9.5))
    sheet.save(target)


def draw() -> None:
    """Writes both pictures."""
    draw_rooms(PICTURES / "rooms.svg")
    draw_conversion(PICTURES / "conversion.svg")


if __name__ == "__main__":
    draw()
