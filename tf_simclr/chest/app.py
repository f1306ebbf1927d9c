"""The page for physicians: drop a radiograph, read the answer.  Gradio draws it; nothing of it leaves the machine.

Gradio looks for new versions, counts visitors, keeps uploads and, in the browser, the history of runs, unless told
otherwise; all of that is off here before it is imported.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tf_simclr.chest import app_page
from tf_simclr.chest.deployed import Deployed
from tf_simclr.chest.explain_image import ask, checked
from tf_simclr.errors import InputError

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_RUN_HISTORY": "False"}
"""Environment in which Gradio and what it brings ask no server for anything."""


def import_gradio(cache: Path) -> Any:
    """Gradio, set to be silent and to put uploads into this folder.

    Raises:
        InputError: it is not installed.
    """
    os.environ.update(QUIET | {"GRADIO_TEMP_DIR": str(cache)})
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the page needs Gradio ({error}): pip install 'tf-simclr[app]'") from error
    return gradio


def build(
    deployed: Deployed, *, cache: Path, neighbours: int = 5, say: Callable[[str], None] = lambda line: None
) -> Any:
    """The page as Gradio's Blocks.

    Args:
        deployed: the model.
        cache: folder for uploads, of which none stays.
        neighbours: training cases to show.
        say: told what failed for another reason than the file; never told what a file is called.
    """
    gradio = import_gradio(cache)

    def read(upload: dict[str, Any] | None) -> Iterator[tuple[str, None]]:
        with uploaded((upload or {}).get("path"), cache) as path:
            for page in answers(deployed, path, neighbours=neighbours, say=say):
                yield page, None

    with gradio.Blocks(title=app_page.NOTE, analytics_enabled=False, delete_cache=(60, 60)) as page:
        gradio.HTML(app_page.banner(deployed), elem_classes="page", padding=False)
        drop = gradio.File(label="Radiograph: DICOM, PNG or JPEG", elem_id="drop", height=150)
        shown = gradio.HTML("", elem_id="result", elem_classes="page", padding=False)
        gradio.HTML(app_page.card(deployed), elem_classes="page", padding=False)
        # Gradio's own preprocessing would leave an empty file behind for each upload.
        options = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1}
        drop.upload(read, drop, [shown, drop], **options)
    return page


def answers(
    deployed: Deployed, path: Path, *, neighbours: int, say: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """What the page shows for one file, step by step: that it works, the answer, the answer with its check."""
    try:
        yield app_page.waiting(path.name, "reading the file")
        found = ask(deployed, path, neighbours=neighbours)
        yield app_page.result(deployed, found, name=path.name)
        yield app_page.result(deployed, checked(deployed, found), name=path.name)
    except InputError as error:
        yield app_page.refusal(path.name, str(error).replace(str(path), "the file"))
    except Exception as error:  # whatever it is, the physician must not be left with an old answer in view
        say(f"an image could not be explained ({type(error).__name__}: {error})".replace(str(path), "the file"))
        yield app_page.refusal(path.name, "the program failed on this file; whoever runs it can see why")


@contextlib.contextmanager
def uploaded(upload: str | None, cache: Path) -> Iterator[Path]:
    """The file that was dropped; when the block ends nothing of it is left.

    Raises:
        InputError: no file, or one that is not an upload.
    """
    path, cache = Path(upload or "").resolve(), cache.resolve()
    if cache not in path.parents or not path.is_file():
        raise InputError("a file must be dropped on the page")
    try:
        yield path
    finally:
        shutil.rmtree(cache / path.relative_to(cache).parts[0], ignore_errors=True)
        path.unlink(missing_ok=True)
