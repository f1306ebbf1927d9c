"""The architecture that a set of names and shapes belongs to; a path tells nothing."""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

from converters.layout import layout_shape
from converters.names.naming import Naming
from converters.names.walk import Shape, part_of, weights
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import BLOCKS, MOST_CHANNELS, Architecture

_RATIO = 0.0625
"""The ratio of the official SK and SE networks; with narrow networks other ratios give the same shapes."""

_MOST_PROJECTION_LAYERS = 16
"""How far a projection head is looked for; the paper tries up to 4."""

_LISTED = 20


def infer(naming: Naming, shapes: Mapping[str, Shape], *, what: str) -> Architecture:
    """The architecture whose table has these keys and shapes; heads are those that are there.

    Args:
        naming: How the keys are to be read.
        shapes: The file's keys, those of the encoder and the heads at least, with their shapes.
        what: Names the file in an error.

    Raises:
        InputError: no architecture fits; lists what is missing and unexpected beside the nearest one.
    """
    # 1. The encoder, from keys that are no head's.  2. The heads, from those that are.
    encoder = _encoder(naming, shapes, what=what)
    return _with_heads(naming, encoder, shapes)


def nearest(naming: Naming, found: Collection[str]) -> Architecture:
    """The encoder of width 1 whose names differ least from those that are there."""
    return min(_known(naming).items(), key=lambda pair: len(pair[1] ^ frozenset(found)))[0]


def _differing(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> tuple[list[str], list[str], list[str]]:
    """Keys that are missing, unexpected, and of another shape."""
    # Both ways: a key too many is as much another network as one that is missing.
    both = expected.keys() & found.keys()
    wrong = sorted(key for key in both if tuple(expected[key]) != tuple(found[key]))
    return sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys()), wrong


def apart(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    """What is missing, unexpected and of another shape, with counts and first names."""
    names = ("missing", "unexpected", "of another shape")
    texts = [
        f"{what} {len(keys)}{': ' * bool(keys)}{', '.join(keys[:3])}{', …' * (len(keys) > 3)}"
        for what, keys in zip(names, _differing(expected, found), strict=True)
        if keys or what != "of another shape"
    ]
    return "; ".join(texts)


def short(architecture: Architecture) -> str:
    """An encoder's name.

    Example:
        >>> short(Architecture(18, cifar_stem=True))
        'ResNet-18 1x with a stem for small images'
    """
    a = architecture
    more = ["SK"] * (a.sk_ratio > 0) + ["SE"] * (a.se_ratio > 0) + ["a stem for small images"] * a.cifar_stem
    more += [f"{a.channels} channels"] * (a.channels != 3)
    return f"ResNet-{a.depth} {a.width}x" + (f" with {' and '.join(more)}" if more else "")


def mismatch(expected: Mapping[str, Shape], found: Mapping[str, Shape], *, what: str) -> None:
    """Raises `InputError` with the lists unless both have the same keys and shapes."""
    missing, unexpected, wrong = _differing(expected, found)
    if missing or unexpected or wrong:
        lines = [f" - {key}" for key in missing] + [f" + {key}" for key in unexpected]
        lines += [f" ≠ {key}: expected {tuple(expected[key])}, found {tuple(found[key])}" for key in wrong]
        # Twenty at most: a wrong naming differs in hundreds.
        more = [f" … and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        head = f"{what} ({len(missing)} missing ' - ', {len(unexpected)} unexpected ' + ', {len(wrong)} of other shape)"
        raise InputError("\n".join([head, *lines[:_LISTED], *more]))


def expected_shapes(naming: Naming, architecture: Architecture) -> dict[str, Shape]:
    """The naming's key → shape in the naming's layout."""
    shapes = weights(architecture)
    return {key: layout_shape(shapes[hub], torch=naming.torch) for hub, key in naming.table(architecture).items()}


@functools.cache
def _candidates() -> tuple[Architecture, ...]:
    """Every encoder, by what decides its names."""
    return tuple(
        Architecture(depth, sk_ratio=sk, se_ratio=se, cifar_stem=cifar)
        for depth in BLOCKS
        for sk in ((0.0, _RATIO) if depth >= 50 else (0.0,))
        for se in (0.0, _RATIO)
        for cifar in (False, True)
    )


def candidate_names(naming: Naming) -> tuple[frozenset[str], ...]:
    """The encoder's keys of every network that the naming tells from others."""
    return tuple(_known(naming).values())


@functools.cache
def _known(naming: Naming) -> dict[Architecture, frozenset[str]]:
    """Network → its keys, but for networks that have layers to which the naming gives no name of their own."""
    # Networks for which two layers would have one name are none that the naming can hold.
    tables = {candidate: list(naming.table(candidate).values()) for candidate in _candidates()}
    return {candidate: frozenset(keys) for candidate, keys in tables.items() if len(set(keys)) == len(keys)}


def _encoder(naming: Naming, shapes: Mapping[str, Shape], *, what: str) -> Architecture:
    heads = head_names(naming)
    found = {key: tuple(shape) for key, shape in shapes.items() if key not in heads}
    # 1. By names: networks whose keys differ least from those that are there; several where only widths differ.
    counts = {candidate: len(names ^ found.keys()) for candidate, names in _known(naming).items()}
    close = [candidate for candidate, count in counts.items() if count == min(counts.values())]
    # 2. Width and ratios by shapes; of several fits the one with the fewest wrong shapes.
    fitted = [_fit_sizes(naming, candidate, found) for candidate in close]
    best = min(fitted, key=lambda architecture: _shape_errors(naming, architecture, found))
    described = f"sk_ratio={best.sk_ratio:g} se_ratio={best.se_ratio:g}{' cifar_stem' * best.cifar_stem}"
    text = f"{what} must hold every weight of one network in {naming.name} names"
    text += f"; the nearest is depth={best.depth} width={best.width} {described}"
    # The sentence has the nearest network, and what tells the file from it.
    expected = expected_shapes(naming, best)
    text += f" (nearest network: {short(best)}; {apart(expected, found)})"
    first = {key for hub, key in naming.table(best).items() if hub.startswith("group1_block1_shortcut_")}
    if not best.bottleneck and expected.keys() - found.keys() == first:
        text += (
            ", whose first group projects its shortcut, as torchvision's own ResNet-18 and 34 do not: they are others"
        )
    # 3. Both ways: nothing missing, nothing unexpected, every shape right.
    mismatch(expected, found, what=text)
    return best


def _shape_errors(naming: Naming, architecture: Architecture, found: Mapping[str, Shape]) -> int:
    return sum(found.get(key, shape) != shape for key, shape in expected_shapes(naming, architecture).items())


def _fit_sizes(naming: Naming, candidate: Architecture, found: Mapping[str, Shape]) -> Architecture:
    """Sets width and ratios from the last group's first block, where minimum sizes bind least."""
    table = naming.table(candidate)

    def outputs(name: str, axis: int) -> int:
        shape = found.get(table[name], ())
        # (out, in, h, w) → (h, w, in, out)
        hub = shape if not naming.torch or len(shape) != 4 else (*shape[2:], shape[1], shape[0])
        return hub[axis] if len(hub) == 4 else 0

    # 512 filters a width in the last group.
    # Where the names are of another network the shape is unknown, and the width 1.
    filters = outputs("group4_block1_conv1/kernel", 3)
    width = min(max(filters // 512, 1), 4)
    sizes: dict[str, Any] = {"width": width}
    channels = outputs("stem_conv1/kernel", 2)
    if 1 <= channels <= MOST_CHANNELS:
        sizes["channels"] = channels
    if candidate.sk_ratio:
        sizes["sk_ratio"] = _ratio(outputs("group4_block1_sk_conv1/kernel", 3), 512 * width, least=32)
    if candidate.se_ratio:
        sizes["se_ratio"] = _ratio(outputs("group4_block1_se_conv1/kernel", 3), 512 * width, least=1)
    return dataclasses.replace(candidate, **sizes)


def _ratio(reduced: int, filters: int, *, least: int) -> float:
    """The official ratio where it gives this size, else the quotient."""
    # Rounding hides the ratio in small networks: the official one where it fits.
    usual = max(int(filters * _RATIO), least)
    return _RATIO if reduced in (0, usual) else min(reduced / filters, 1.0)


@functools.cache
def _full() -> Architecture:
    return Architecture(proj_head_mode="nonlinear", num_proj_layers=_MOST_PROJECTION_LAYERS, num_classes=1)


def _linear() -> Architecture:
    return Architecture(proj_head_mode="linear", num_proj_layers=1)


@functools.cache
def head_parts(naming: Naming) -> dict[str, str]:
    """Keys that belong to heads in any network → which head."""
    # The widest heads that are looked for: all keys that any head may have.
    tables = (naming.table(_full()), naming.table(_linear()))
    heads = {key: str(part_of(hub)) for table in tables for hub, key in table.items() if part_of(hub) != "encoder"}
    zeros = {key: "projection" for key in naming.zeros(_full()) if key not in heads}
    return heads | zeros


def head_names(naming: Naming) -> frozenset[str]:
    """Keys that belong to heads in any network."""
    return frozenset(head_parts(naming))


@functools.cache
def territory(naming: Naming) -> tuple[str, frozenset[str]]:
    """What all the encoder's keys begin with, and the components that follow it in any network.

    What lies there must be the encoder's; other keys are left behind.
    """
    names = sorted({key for keys in candidate_names(naming) for key in keys})
    # What the first and the last of sorted names share, all of them share.
    alike = next((i for i, (a, b) in enumerate(zip(names[0], names[-1], strict=False)) if a != b), len(names[0]))
    shared = names[0][: max(names[0].rfind(sign, 0, alike) for sign in "./") + 1]
    return shared, frozenset(component(key.removeprefix(shared)) for key in names)


def component(key: str) -> str:
    """What comes before the first dot or slash."""
    return re.split(r"[./]", key, maxsplit=1)[0]


def _with_heads(naming: Naming, encoder: Architecture, shapes: Mapping[str, Shape]) -> Architecture:
    """Adds the heads whose keys are there; their completeness is the table's to check."""
    full, linear = naming.table(_full()), naming.table(_linear())
    changes: dict = {}
    # Layer by layer under the names of a deep head; a linear head has names of its own in TF1.
    wanted = (full.get(f"proj{i}_dense/kernel", "") for i in range(1, _MOST_PROJECTION_LAYERS + 1))
    # A gap among them is no reason to stop here: comparing with the table finds it, and says what is missing.
    layers = [key for key in wanted if key in shapes]
    lone = linear.get("proj1_dense/kernel", "")
    if layers:
        changes |= {"proj_head_mode": "nonlinear", "num_proj_layers": len(layers)}
    elif lone in shapes:
        changes |= {"proj_head_mode": "linear", "num_proj_layers": 1}
    if changes:
        last = tuple(shapes[layers[-1] if layers else lone])
        # PyTorch has (out, in), TensorFlow (in, out).
        changes["proj_out_dim"] = (last[0] if naming.torch else last[-1]) if last else 0
    bias = full.get("logits_sup/bias", "")
    if len(shapes.get(bias, ())) == 1:
        changes["num_classes"] = shapes[bias][0]
        kernel = tuple(shapes.get(full["logits_sup/kernel"], ()))
        inputs = kernel[-1 if naming.torch else 0] if kernel else 0
        # A layer of 128 features cannot be the encoder's 2048: the shape tells which one is read.
        if inputs == changes.get("proj_out_dim") != encoder.feature_dim:  # the last layer is told by its size
            changes["ft_proj_selector"] = changes["num_proj_layers"]
    return dataclasses.replace(encoder, **changes)
