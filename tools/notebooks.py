"""`python -m tools.notebooks`: executes the notebooks and keeps their outputs, small and without the machine's traces.

Each runs from its first cell to its last in an empty folder, with this checkout on the path, as `tests/project` does.
"""

import argparse
import base64
import copy
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
WIDEST, COLOURS, MOST_BYTES = 480, 96, 200_000
"""Of a picture in pixels, of its palette as PNG; and of a notebook."""
QUALITIES = (55, 45, 35, 25)
"""Of photographs as JPEG: the first with which a notebook is small enough."""
_TIME = re.compile(r"\b\d[\d,.]* (?:s|ms|min|minutes|seconds)\b|\b\d[\d,.]*(?= images/s)|\b\d+:\d\d:\d\d(?= left)")
"""A duration, or a speed: on another machine it is another one."""


def executed(path: Path) -> Any:
    """The notebook with the outputs of a run, as they came."""
    book = nbformat.read(path, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "TF_SIMCLR_CACHE": f"{place}/.cache"}
        resources = {"metadata": {"path": place}}
        nbclient.NotebookClient(book, timeout=None, kernel_name="python3", resources=resources).execute()
        for cell in book.cells:
            cell.metadata.pop("execution", None)
    traces = [text for text in (place, str(ROOT), sys.prefix, str(Path.home())) if text in written(book)]
    if traces:
        raise SystemExit(f"{path.name}: outputs must not name places of this machine. Received: {', '.join(traces)}")
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return book


def written(book: Any) -> str:
    """The notebook's file: with tidy outputs, and photographs of the best quality with which it is small enough."""
    for quality in QUALITIES:
        small = copy.deepcopy(book)
        for cell in small.cells:
            if cell.cell_type == "code":
                cell.outputs = tidy(cell.outputs, quality=quality)
        text = nbformat.writes(small, indent=1) + "\n"
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def tidy(outputs: list[Any], *, quality: int) -> list[Any]:
    """Outputs whose texts are joined, whose progress is at its end, whose pictures are small, whose times are dots."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream":  # both streams in the order in which they came
                kept[-1].text += output.text
            else:
                kept.append(nbformat.v4.new_output("stream", name="stdout", text=output.text))
            continue
        data = output.get("data", {})
        if "image/png" in data:
            kind, encoded = smaller(data.pop("image/png"), quality=quality)
            data[kind] = encoded
            output.metadata.pop("image/png", None)
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            lines = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in output.text.split("\n")]
            output.text = _TIME.sub("…", "\n".join(lines))
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def smaller(encoded: str, *, quality: int) -> tuple[str, str]:
    """A picture's kind and content in base64, at most so wide: lines as PNG of few colours, photographs as JPEG."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    lines, photograph = io.BytesIO(), io.BytesIO()
    few = picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)  # keeps rare colours
    few.save(lines, "PNG", optimize=True)
    picture.save(photograph, "JPEG", quality=quality, optimize=True)
    kind, content = min(("image/png", lines), ("image/jpeg", photograph), key=lambda one: len(one[1].getvalue()))
    return kind, base64.b64encode(content.getvalue()).decode()


def main() -> None:
    """Executes those that are named, or all, and writes each when it has ended."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.ipynb")))
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to (default: over them)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        text = written(executed(FOLDER / f"{name}.ipynb"))
        target = arguments.out / f"{name}.ipynb"
        target.write_text(text)
        print(f"{target}: {len(text.encode()):,} bytes", flush=True)  # noqa: T201
        if len(text.encode()) > MOST_BYTES:
            raise SystemExit(f"{name} must have at most {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
