"""A checkpoint understood: one architecture, and its weights under the hub's names and in the hub's layout."""

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.catalogue import Match, recognise
from converters.infer import candidate_names, expected_shapes, head_names, infer, mismatch
from converters.layers import part_of, weights
from converters.layout import from_layout
from converters.namings import TRACKED, Naming
from converters.selector import settle_selector
from converters.stored import Source, Stored
from tf_simclr.errors import InputError, check
from tf_simclr.models.architecture import Architecture

EMA = "ema_model/"
"""Scope of the moving averages in SimCLRv2's checkpoints (trap 15)."""


@dataclass
class Network:
    """What `understand` makes of a source.

    Attributes:
        architecture: Encoder and heads.
        weights: Hub name → tensor in the hub's layout, in creation order; read when asked for.
        container: What the file is, in words.
        naming: The naming of its keys.
        step: Training step, where stored.
        left: Why something was left behind → its keys.
        notes: What the user should know.
        ema: Whether these are the moving averages.
        has_ema: Whether the file has moving averages.
        slots: How many tensors of optimizer state there are.
        close: Releases the file.
    """

    architecture: Architecture
    weights: dict[str, Stored]
    container: str = "memory"
    naming: str = "keras"
    step: int | None = None
    left: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ema: bool = False
    has_ema: bool = False
    slots: int = 0
    close: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads the weight of this hub name."""
        return self.weights[name].read()

    @property
    def parameters(self) -> int:
        """Trained numbers: all weights but the moving statistics."""
        trained = (s for name, s in self.weights.items() if "moving_" not in name)
        return sum(int(np.prod(stored.shape, dtype=np.int64)) for stored in trained)


def understand(source: Source, *, naming: str | None = None, ema: bool = False, selector: int | None = None) -> Network:
    """Finds naming, architecture and weights; every key is used or listed as left behind with the reason.

    Args:
        source: An opened file.
        naming: Its naming; None: recognised.
        ema: Takes the moving averages of encoder and projection head.
        selector: `ft_proj_selector`; None: as stored, else 0.

    Raises:
        InputError: no architecture fits, weights are missing or unexpected, or there are no moving averages.
    """
    usual = {key: stored for key, stored in source.tensors.items() if key not in source.slots}
    averages = {key for key in usual if key.startswith(EMA)}
    match = recognise(usual.keys() - averages, what=str(source.path), naming=naming)
    found, left = _split(usual, match, averages)
    left |= source.left
    if source.slots:
        left["optimizer state, which inference has no use for"] = sorted(source.slots)
    architecture = infer(match.naming, _shapes(found), what=str(source.path))
    network = Network(architecture, {}, source.container, match.naming.name, source.step, left, list(source.notes))
    network.slots, network.has_ema, network.close = len(source.slots), bool(averages), source.close
    network.architecture = settle_selector(architecture, source, match=match, asked=selector, notes=network.notes)
    _settle_heads(network, found, match.naming, what=str(source.path))
    network.ema = ema
    tensors = _averaged(usual, found, source) if ema else found
    if averages and not ema:
        left["moving averages (--ema takes these instead)"] = sorted(averages)
    network.weights = _hub_weights(match.naming, network.architecture, tensors)
    network.naming = _plain_name(match.naming, network.architecture)
    return network


def _plain_name(naming: Naming, architecture: Architecture) -> str:
    """Our own naming's name where the file has torchvision's names and what torchvision has not."""
    return "twin" if naming.name in ("torchvision", "tonylins") and naming.refuses(architecture) else naming.name


def _settle_heads(network: Network, found: dict[str, Stored], naming: Naming, *, what: str) -> None:
    """Checks that the heads are whole; a library's heads may be left behind."""
    for key in naming.zeros(network.architecture):
        if key in found:
            largest = float(np.abs(found[key].read()).max(initial=0))
            if largest == 0:
                del found[key]
            elif not naming.library:
                raise InputError(f"{key} of {what} must be zero, as SimCLR's last normalisation only scales: {largest}")
    if naming.library:
        _drop_heads(network, found, naming)
    mismatch(expected_shapes(naming, network.architecture), _shapes(found), what=f"{what} must hold whole heads")


def _shapes(tensors: dict[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(stored.shape) for key, stored in tensors.items()}


def _split(
    usual: dict[str, Stored], match: Match, averages: set[str]
) -> tuple[dict[str, Stored], dict[str, list[str]]]:
    """The weights of the network by the naming's own keys, and what is none of it."""
    naming, heads = match.naming, head_names(match.naming)
    found: dict[str, Stored] = {}
    left: dict[str, list[str]] = {}
    for key, stored in usual.items():
        name = key.removeprefix(match.outer)
        if key in averages or name.endswith(TRACKED) or (naming.selector and name == naming.selector):
            continue
        if key.startswith(match.outer) and (name in heads or _is_encoders(name, naming)):
            found[name] = stored
        else:
            left.setdefault(_reason(key), []).append(key)
    return found, {why: sorted(keys) for why, keys in left.items()}


def _reason(key: str) -> str:
    if re.search(r"(^|[./])global_step|save_counter", key):
        return "counters"
    if re.search(r"optim|momentum_buffer|exp_avg", key):
        return "optimizer state, which inference has no use for"
    return "no part of this network"


@functools.cache
def _territory(naming: Naming) -> tuple[str, frozenset[str]]:
    """What all the encoder's keys begin with, and the components that follow it in any network.

    What lies there must be the encoder's; other keys are left behind.
    """
    names = sorted({key for names in candidate_names(naming) for key in names})
    alike = next((i for i, (a, b) in enumerate(zip(names[0], names[-1], strict=False)) if a != b), len(names[0]))
    shared = names[0][: max(names[0].rfind(sign, 0, alike) for sign in "./") + 1]
    return shared, frozenset(_component(key.removeprefix(shared)) for key in names)


def _component(key: str) -> str:
    return re.split(r"[./]", key, maxsplit=1)[0]


def _is_encoders(key: str, naming: Naming) -> bool:
    shared, following = _territory(naming)
    if not key.startswith(shared):
        return False
    # TensorFlow's scopes hold the encoder alone; PyTorch's encoders may have an own classifier beside the layers.
    return (bool(shared) and not naming.torch) or _component(key.removeprefix(shared)) in following


def _drop_heads(network: Network, found: dict[str, Stored], naming: Naming) -> None:
    """Leaves a library's heads behind where they are built otherwise than SimCLR's."""
    expected, table = expected_shapes(naming, network.architecture), naming.table(network.architecture)
    parts = {key: part_of(hub) for hub, key in table.items()}
    heads = {key: parts.get(key, "projection") for key in found if key in head_names(naming) or key in parts}
    for part in ("projection", "supervised"):
        keys = {key for key, owner in heads.items() if owner == part}
        wanted = {key for key, owner in parts.items() if owner == part}
        if keys != wanted or any(tuple(found[key].shape) != tuple(expected[key]) for key in keys):
            network.left[f"a {part} head that is built otherwise than SimCLR's"] = sorted(keys)
            network.architecture = without(network.architecture, part)
            for key in keys:
                del found[key]


def without(architecture: Architecture, part: str) -> Architecture:
    """The architecture without its projection head or without its classifier."""
    if part == "supervised":
        return dataclasses.replace(architecture, num_classes=0, ft_proj_selector=0)
    none: dict[str, Any] = {"proj_head_mode": "none", "num_proj_layers": 0, "proj_out_dim": 128, "ft_proj_selector": 0}
    return dataclasses.replace(architecture, **none)


def _averaged(usual: dict[str, Stored], found: dict[str, Stored], source: Source) -> dict[str, Stored]:
    """Encoder and projection head from the moving averages; the classifier has none and is the one beside them."""
    wanted = {key: key if key.startswith("head_supervised/") else EMA + key for key in found}
    missing = sorted(key for key in wanted.values() if key not in usual)
    if len(missing) == len([key for key in wanted if wanted[key] != key]):
        raise InputError(f"{source.path} must hold moving averages (names in {EMA}) for --ema, but has none")
    if missing:
        raise InputError(f"{source.path} must hold all moving averages, but {len(missing)} are missing: {missing[:5]}")
    return {key: usual[average] for key, average in wanted.items()}


def _hub_weights(naming: Naming, architecture: Architecture, tensors: dict[str, Stored]) -> dict[str, Stored]:
    shapes = weights(architecture)
    return {hub: _hub(tensors[key], shapes[hub], naming) for hub, key in naming.table(architecture).items()}


def _hub(stored: Stored, shape: tuple[int, ...], naming: Naming) -> Stored:
    return Stored(shape, stored.dtype, lambda: from_layout(stored.read(), torch=naming.torch))


def restrict(network: Network, part: str) -> Network:
    """The encoder alone, the encoder with its projection head, or all.

    Args:
        network: What was read.
        part: `encoder`, `encoder+projection` or `all`.
    """
    check(part in PARTS, f"part must be one of {', '.join(PARTS)}", part=part)
    architecture = network.architecture if part == "all" else without(network.architecture, "supervised")
    architecture = without(architecture, "projection") if part == "encoder" else architecture
    kept = {name: network.weights[name] for name in weights(architecture)}
    dropped = sorted(network.weights.keys() - kept.keys())
    left = dict(network.left)
    if dropped:
        left[f"heads, by --part {part}"] = dropped
    return dataclasses.replace(network, architecture=architecture, weights=kept, left=left)


PARTS = ("encoder", "encoder+projection", "all")
