"""Repositories of the Hugging Face hub, by huggingface_hub: its cache, its `HF_ENDPOINT`, its token.

References:
    huggingface.co/docs/huggingface_hub/guides/download (snapshots and their cache)
"""

import re
from pathlib import Path

from tf_simclr.errors import InputError, in_one_line
from tf_simclr.frameworks import check_installed

_NAME = re.compile(r"hf:/+([\w.-]+/[\w.-]+?)/?(?:@([\w./-]+))?")
_WEIGHTS = ("safetensors", "keras", "h5", "pth", "pt", "bin", "ckpt", "npz", "tar", "zip", "index", "pb")
_CHOSEN = (*(f"*.{ending}" for ending in _WEIGHTS), "*.json", "*.data-*", "checkpoint", "*/checkpoint")
"""What a checkpoint of any kind consists of; pictures, logs and data of a repository stay where they are."""


def is_hub(path: Path) -> bool:
    """Whether this is an address of the hub.

    Example:
        >>> is_hub(Path("hf://user/repo")), is_hub(Path("hf/user"))
        (True, False)
    """
    return re.match("hf:(/|$)", str(path)) is not None


def repository(path: Path) -> tuple[str, str | None]:
    """Repository and revision (branch, tag or commit; None: the newest) of an address, and that they can be had.

    Example:
        >>> _NAME.fullmatch("hf:/user/repo@v1").groups()
        ('user/repo', 'v1')

    Raises:
        InputError: it is none, or huggingface_hub is not installed.
    """
    found = _NAME.fullmatch(str(path))
    text = "hf://" + str(path)[4:].lstrip("/")
    if found is None:
        raise InputError(f"an address of the hub must be hf://USER/REPOSITORY or …@REVISION. Received: {text!r}")
    check_installed(text, "huggingface_hub")
    return found[1], found[2]


def snapshot(path: Path) -> Path:
    """The folder of a repository's files in the hub's cache, downloaded as far as they are not there.

    Without a network it is what the cache has of this revision.

    Raises:
        InputError: there is none, or it is not for everyone, or the hub cannot be reached.
    """
    name, revision = repository(path)
    import huggingface_hub

    text = f"hf://{name}" + (f"@{revision}" if revision else "")
    try:
        # Weights and their descriptions; a repository may have thousands of other files.
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_CHOSEN)))
    except Exception as error:  # its HTTP client's errors, which differ between its versions, are among them
        raise InputError(f"{text} must be a repository that can be downloaded: {in_one_line(error)}") from error
