"""Which projection layer feeds the classifier: shapes do not tell, stored graphs and files do (trap 14)."""

import dataclasses
from typing import Any

from converters.names.recognise import Match
from converters.tensors import Source
from tf_simclr.errors import check, whole_number
from tf_simclr.models.architecture import Architecture

ASSUMED = (
    "No stored graph tells what the classifier reads: the pooled features are assumed (--selector 0); networks "
    "fine-tuned on 1 % or 10 % of the labels read projection layer 1 (--selector 1)."
)


def settle_selector(
    architecture: Architecture, source: Source, *, match: Match, asked: int | None, notes: list[str]
) -> Architecture:
    """The architecture with its `ft_proj_selector`; a note says where it comes from.

    Args:
        architecture: As inferred from names and shapes.
        source: The file.
        match: How its keys are read.
        asked: The user's choice; below 0: counted from the last layer, as the reference does.
        notes: Gets a sentence.

    Raises:
        InputError: the choice is out of range, or there is nothing to choose.
    """
    if not (architecture.num_classes and architecture.num_proj_layers):
        check(not asked, "selector must be 0 where classifier or projection head are missing", selector=asked)
        return architecture
    selector, told = (asked, "--selector") if asked is not None else _told(architecture, source, match)
    if selector is not None:
        selector = whole_number(selector, "--selector" if asked is not None else f"{source.path}'s selector")
    if selector is None:
        notes.append(ASSUMED)
        selector = 0
    elif asked is None:
        fed = f"projection layer {selector}" if selector else "the pooled features"
        notes.append(f"The classifier reads {fed}, by {told}.")
    last = architecture.num_proj_layers
    return dataclasses.replace(architecture, ft_proj_selector=last + 1 + selector if selector < 0 else selector)


def _told(architecture: Architecture, source: Source, match: Match) -> tuple[Any, str]:
    """What the file tells, and which part of it."""
    own = source.tensors.get(match.outer + match.naming.selector) if match.naming.selector else None
    if own is not None and not own.shape:
        return own.read()[()], match.naming.selector
    if source.selector is not None:
        return source.selector, source.selector_from
    if "ft_proj_selector" in source.architecture:
        return source.architecture["ft_proj_selector"], "the stored architecture"
    # The last layer is narrower than the others: the classifier's own shape tells.
    return (architecture.ft_proj_selector, "its shape") if architecture.ft_proj_selector else (None, "")
