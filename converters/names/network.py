"""A checkpoint understood: one architecture, and its weights under the hub's names and in the hub's layout."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from converters.layout import from_layout
from converters.names.candidates import (
    EMA,
    PARALLEL,
    WRAPPERS,
    Candidate,
    averaged_names,
    candidates,
    choose,
    compared,
    unwrapped,
)
from converters.names.describe import some
from converters.names.infer import (
    candidate_names,
    component,
    expected_shapes,
    head_names,
    head_parts,
    infer,
    mismatch,
    territory,
)
from converters.names.naming import TRACKED, Naming
from converters.names.recognise import Match, unrecognised
from converters.names.walk import part_of, weights
from converters.tensors import Source, Stored
from tf_simclr.errors import InputError, check, whole_number
from tf_simclr.models.architecture import Architecture


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
        source_part: What the encoder's keys begin with in the file.
        skipped: Class → places of objects in the file that are no tensors.
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
    source_part: str = ""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads the weight of this hub name."""
        return self.weights[name].read()

    @property
    def parameters(self) -> int:
        """Trained numbers: all weights but the moving statistics."""
        trained = (s for name, s in self.weights.items() if "moving_" not in name)
        return sum(int(np.prod(stored.shape, dtype=np.int64)) for stored in trained)


def understand(
    source: Source,
    *,
    naming: str | None = None,
    ema: bool = False,
    selector: int | None = None,
    part: str = "all",
    source_part: str | None = None,
) -> Network:
    """Finds naming, architecture and weights; every key is used or listed as left behind with the reason.

    Args:
        source: An opened file.
        naming: Its naming; None: recognised.
        ema: Takes the moving averages of encoder and projection head.
        selector: `ft_proj_selector`; None: as stored, else 0.
        part: `encoder`, `encoder+projection` or `all`; heads that are cut off are not looked at.
        source_part: Of several networks in the file the one below this prefix; None: the trained one.

    Raises:
        InputError: no architecture fits, weights are missing or unexpected, there are no moving averages, or several
            networks and none of them clearly meant.
    """
    check(part in tuple(_CUT), f"part must be one of {', '.join(_CUT)}", part=part)
    what = str(source.path)
    # 1. Names without what wrappers put into them; optimizer state aside.
    # Averages of TF1 come under names of their own; then they are no slots.
    shadows = averaged_names(source.tensors, source.slots)
    slots = source.slots - set(shadows.values())
    file_keys = unwrapped([key for key in source.tensors if key not in source.slots]) | shadows
    named = {name: source.tensors[key] for name, key in file_keys.items()}

    # 2. Which networks there are, and the one that is meant.
    networks = candidates(named, naming=naming, writer=source.writer)
    if not networks:
        # Says which names come nearest, and what was tried.
        raise InputError(unrecognised(named, what=what, naming=naming))
    chosen = choose(networks, named, ema=ema, source_part=source_part, what=what)
    match = chosen.match
    tensors, left = _split(named, match, [one for one in networks if one is not chosen])

    # 3. Heads that are not asked for are cut before anything is checked.
    cut = sorted(name for name in tensors if head_parts(match.naming).get(name) in _CUT[part])
    if cut:
        left[f"heads, by --part {part}"] = [match.outer + name for name in cut]
        tensors = {name: stored for name, stored in tensors.items() if name not in cut}

    # 4. What cannot be a weight and is none of the network's; then the architecture.
    _leave_odd(tensors, left, match)
    if match.outer == EMA or (shadows and chosen.role == "average"):
        _borrow_classifier(tensors, named, networks, match=match, part=part)
    architecture = infer(match.naming, _shapes(tensors), what=what)

    # Moving averages share the classifier with the trained network.
    # Every key of the file is used or listed: a weight that two networks share is not "left".
    used = {file_keys[match.outer + name] for name in tensors if match.outer + name in file_keys}
    keys = {why: sorted({file_keys[name] for name in names} - used) for why, names in left.items()}
    left = {why: names for why, names in keys.items() if names} | source.left
    if slots:
        left["optimizer state, which inference has no use for"] = sorted(slots)
    network = Network(architecture, {}, source.container, match.naming.name, source.step, left, list(source.notes))
    network.slots, network.close, network.skipped = len(slots), source.close, source.skipped
    network.ema, network.has_ema = chosen.role == "average", any(one.role == "average" for one in networks)
    network.source_part = chosen.prefix
    network.notes += _about_parts(networks, chosen, named) + _about_wrappers(file_keys)

    # 5. What feeds the classifier, and whether the heads are whole.
    asked = selector if part == "all" else None
    network.architecture = _settle_selector(architecture, source, match=match, asked=asked, notes=network.notes)
    # Heads first, as a head that is left behind may hold what is no number.
    _settle_heads(network, tensors, match, file_keys=file_keys, what=what)
    _check_usable(tensors, match, file_keys=file_keys, what=what)
    network.weights = _hub_weights(match.naming, network.architecture, tensors)
    network.notes += _about_whole_numbers(network.weights)
    network.naming = _plain_name(match.naming, network.architecture)
    return network


_CUT: dict[str, set[str]] = {
    "encoder": {"projection", "supervised"},
    "encoder+projection": {"supervised"},
    "all": set(),
}
"""What is chosen → the heads that are cut off."""


def _about_parts(networks: list[Candidate], chosen: Candidate, tensors: dict[str, Stored]) -> list[str]:
    """Says which networks a file holds where there are several, and what tells them from the one that was taken."""
    if len(networks) == 1:
        # Only averages: nothing to choose, but to be said.
        alone = "These are moving averages: the file holds no other network."
        return [alone] if chosen.role == "average" and chosen.match.outer else []
    averages = sum(one.role == "average" for one in networks)
    how = {"average": "moving averages, ", "follower": "", "trained": ""}
    texts = []
    for one in networks:
        if one is not chosen:
            # How to take it instead: the option that names it.
            option = "--ema" if one.role == "average" and averages == 1 else f"--source_part {one.prefix.rstrip('./')}"
            texts.append(f"{one.title} ({how[one.role]}{compared(chosen, one, tensors=tensors)}; {option})")
    taken = f"{chosen.title}{', moving averages,' if chosen.role == 'average' else ''}"
    return [f"Holds {len(networks)} networks: {taken} was taken; also there: {'; '.join(texts)}."]


def _about_wrappers(file_keys: dict[str, str]) -> list[str]:
    changed = [key for name, key in file_keys.items() if name != key]
    if not changed:
        return []
    words = [word for word in (*WRAPPERS, PARALLEL) if any(f".{word}." in f".{key}" for key in changed)]
    return [f"Took {', '.join(word + '.' for word in words)} out of {len(changed)} names ({some(changed)})."]


def _leave_odd(tensors: dict[str, Stored], left: dict[str, list[str]], match: Match) -> None:
    """Leaves behind what lies among the encoder's names and does not matter to what it computes.

    That is what no layer of any network has: buffers of quantisation and of other normalisations, and tensors that
    are no plain numbers.  What belongs to a layer – another bias – stays, to be refused.
    """
    naming = match.naming
    # Names of any network of this naming, and their layers: what a weight could belong to.
    known = frozenset[str]().union(*candidate_names(naming)) | head_names(naming)
    layers = {re.split(r"[./](?=[^./]*$)", name)[0] for name in known}
    for name in [name for name in tensors if name not in known]:
        # layer, separator, weight: `layer1.0.conv1`, `.`, `weight`.
        layer, _, weight = re.match(r"(?:(.*)([./]))?([^./]*)$", name).groups("")  # type: ignore[union-attr]
        odd = tensors[name].unusable
        # Observers of quantisation and counters of renormalisation lie among the layers' own names.
        if _BUFFERS.search(name):
            why = "buffers that inference has no use for"
        elif odd and not (layer in layers and weight in _PARAMETERS):
            why = f"{odd}, no part of this network"
        else:
            continue
        left.setdefault(why, []).append(match.outer + name)
        del tensors[name]


_BUFFERS = re.compile(
    r"(^|[./_])(activation_post_process|weight_fake_quant|fake_quant\w*|observer_enabled)([./]|$)"
    r"|[./](renorm_\w+|biased|local_step|eval_enabled|momentum_buffer)$"
)
_PARAMETERS = frozenset({"weight", "bias", "running_mean", "running_var", "kernel", "gamma", "beta"})


def _check_usable(tensors: dict[str, Stored], match: Match, *, file_keys: dict[str, str], what: str) -> None:
    """Raises `InputError` where a weight is no plain numbers."""
    bad = {match.outer + name: stored.unusable for name, stored in tensors.items() if stored.unusable}
    if not bad:
        return
    name, reason = next(iter(bad.items()))
    lost = ", whose imaginary parts would be lost" if "complex" in reason else ""
    more = f", as {len(bad) - 1} others are" if len(bad) > 1 else ""
    heads = head_names(match.naming) >= {name.removeprefix(match.outer) for name in bad}
    raise InputError(
        f"{file_keys[name]} of {what} must be plain real numbers, as the network needs it, "
        f"but is {reason}{lost}{more}; "
        + ("leave the heads with --part encoder" if heads else "save it as float32 where it was made")
    )


def _about_whole_numbers(weights: dict[str, Stored]) -> list[str]:
    """Says that kernels are whole numbers: of a quantised network the scales may be missing."""
    # What is not the network's was left before: these are weights that are needed.
    whole = [name for name, s in weights.items() if name.endswith("/kernel") and s.dtype.startswith(("int", "uint"))]
    if not whole:
        return []
    types = ", ".join(sorted({weights[name].dtype for name in whole}))
    return [f"{len(whole)} kernels are whole numbers ({types}; {some(whole)}): if quantised, no scale was applied."]


def _borrow_classifier(
    tensors: dict[str, Stored], named: dict[str, Stored], networks: list[Candidate], *, match: Match, part: str
) -> None:
    """SimCLRv2's moving averages have no classifier: it is the one beside them."""
    if part == "all" and any(one.match.outer == "" for one in networks):
        # By the naming's names for a classifier, from the scope without a prefix.
        for name, owner in head_parts(match.naming).items():
            if owner == "supervised" and name in named:
                tensors.setdefault(name, named[name])


def _plain_name(naming: Naming, architecture: Architecture) -> str:
    """Our own naming's name where the file has torchvision's names and what torchvision has not."""
    return "twin" if naming.name in ("torchvision", "tonylins") and naming.refuses(architecture) else naming.name


def _settle_heads(
    network: Network, tensors: dict[str, Stored], match: Match, *, file_keys: dict[str, str], what: str
) -> None:
    """Checks that the heads are whole; a library's heads may be left behind."""
    naming = match.naming
    for key in naming.zeros(network.architecture):
        if key in tensors:
            # PyTorch's projects have a bias there; zeros are what SimCLR's network computes.
            # Whatever is there is read once: only zeros can be dropped.
            largest = float(np.abs(tensors[key].read()).max(initial=0))
            if largest == 0:
                del tensors[key]
            elif not naming.library:
                raise InputError(f"{key} of {what} must be zero, as SimCLR's last normalisation only scales: {largest}")
    if naming.library:
        _drop_heads(network, tensors, match, file_keys=file_keys)
    mismatch(expected_shapes(naming, network.architecture), _shapes(tensors), what=f"{what} must hold whole heads")


def _shapes(tensors: dict[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(stored.shape) for key, stored in tensors.items()}


def _split(
    named: dict[str, Stored], match: Match, others: list[Candidate]
) -> tuple[dict[str, Stored], dict[str, list[str]]]:
    """The weights of the network by the naming's own keys, and what is none of it."""
    naming, heads = match.naming, head_names(match.naming)
    tensors: dict[str, Stored] = {}
    left: dict[str, list[str]] = {}
    for key, stored in named.items():
        name = key.removeprefix(match.outer)
        belongs = key.startswith(match.outer) and (name in heads or _is_encoders(name, naming))
        # Belongs: below the chosen prefix, and a name of a head or of the encoder's territory.
        if belongs and not name.endswith(TRACKED):
            tensors[name] = stored
        elif key.endswith(TRACKED) or (naming.selector and name == naming.selector):
            continue
        else:
            left.setdefault(_reason(key, stored, others), []).append(key)
    return tensors, left


def _reason(key: str, stored: Stored, others: list[Candidate]) -> str:
    if re.search(r"(^|[./])global_step|save_counter", key):
        return "counters"
    if re.search(r"optim|momentum_buffer|exp_avg", key):
        return "optimizer state, which inference has no use for"
    averages = [one for one in others if one.role == "average"]
    if key.startswith(EMA) or any(one.match.outer and key.startswith(one.match.outer) for one in averages):
        return "moving averages (--ema takes these instead)"
    for one in others:
        # Another network's weights are left with the option that takes them.
        if key.startswith(one.match.outer or one.prefix) and (one.match.outer or one.prefix):
            return f"another network (--source_part {one.prefix.rstrip('./')} takes it instead)"
    return f"{stored.unusable}, no part of this network" if stored.unusable else "no part of this network"


def _is_encoders(key: str, naming: Naming) -> bool:
    shared, following = territory(naming)
    if not key.startswith(shared):
        return False
    # TensorFlow's scopes hold the encoder alone; PyTorch's may have a classifier of their own beside the layers.
    return (bool(shared) and not naming.torch) or component(key.removeprefix(shared)) in following


def _drop_heads(network: Network, tensors: dict[str, Stored], match: Match, *, file_keys: dict[str, str]) -> None:
    """Leaves a library's heads behind where they are built otherwise than SimCLR's."""
    naming = match.naming
    expected, table = expected_shapes(naming, network.architecture), naming.table(network.architecture)
    parts = {key: part_of(hub) for hub, key in table.items()}
    heads = {key: owner for key, owner in head_parts(naming).items() if key in tensors}
    for part in ("projection", "supervised"):
        # All or nothing: a head with one key more or another shape is another head.
        keys = {key for key, owner in heads.items() if owner == part}
        wanted = {key for key, owner in parts.items() if owner == part}
        if keys != wanted or any(tuple(tensors[key].shape) != tuple(expected[key]) for key in keys):
            names = sorted(file_keys[match.outer + key] for key in keys)
            network.left[f"a {part} head that is built otherwise than SimCLR's"] = names
            network.architecture = without(network.architecture, part)
            for key in keys:
                del tensors[key]


def without(architecture: Architecture, part: str) -> Architecture:
    """The architecture without its projection head or without its classifier."""
    if part == "supervised":
        return dataclasses.replace(architecture, num_classes=0, ft_proj_selector=0)
    none: dict[str, Any] = {"proj_head_mode": "none", "num_proj_layers": 0, "proj_out_dim": 128, "ft_proj_selector": 0}
    return dataclasses.replace(architecture, **none)


def _hub_weights(naming: Naming, architecture: Architecture, tensors: dict[str, Stored]) -> dict[str, Stored]:
    # Read late, laid out as TensorFlow has it.
    shapes, laid_out = weights(architecture), partial(from_layout, torch=naming.torch)
    table = naming.table(architecture).items()
    return {hub: tensors[key].changed(laid_out, shape=shapes[hub]) for hub, key in table}


_ASSUMED = (
    "No stored graph tells what the classifier reads: the pooled features are assumed (--selector 0); networks "
    "fine-tuned on 1 % or 10 % of the labels read projection layer 1 (--selector 1)."
)


def _settle_selector(
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
        notes.append(_ASSUMED)
        selector = 0
    elif asked is None:
        fed = f"projection layer {selector}" if selector else "the pooled features"
        notes.append(f"The classifier reads {fed}, by {told}.")
    last = architecture.num_proj_layers
    # Negative selectors count from the last layer, as the official flag does.
    return dataclasses.replace(architecture, ft_proj_selector=last + 1 + selector if selector < 0 else selector)


def _told(architecture: Architecture, source: Source, match: Match) -> tuple[Any, str]:
    """What the file tells, and which part of it."""
    # In the order of trust: the twin's own buffer, the stored graph, our run's notes, shapes, the catalogue.
    buffer = source.tensors.get(match.outer + match.naming.selector) if match.naming.selector else None
    if buffer is not None and not buffer.shape:
        return buffer.read()[()], match.naming.selector
    if source.selector is not None:
        return source.selector, source.selector_from
    if "ft_proj_selector" in source.architecture:
        return source.architecture["ft_proj_selector"], "the stored architecture"
    # The last layer is narrower than the others: the classifier's own shape tells.
    if architecture.ft_proj_selector:
        return architecture.ft_proj_selector, "its shape"
    return source.expected, "the catalogue of official checkpoints"
