"""Which networks a file holds, and which of them is meant.

Training files hold more than the trained network: its moving average, a teacher, a target encoder.  A *candidate* is a
place in the file at which some naming's names begin.  What precedes them (`student.backbone.`) tells what it is:

1. an *average*: `ema_model/`, timm's `state_dict_ema`, Lightning's and PyTorch's averaged models: `--ema` takes it;
2. a *follower*: what training compares with – teacher, target, `encoder_k` –, which only `--source_part` takes;
3. else a *trained* network; of several the one with a usual name (model, student, online, `encoder_q`, none at all).

Where that leaves more than one, and they differ, the user must say which.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from converters.names.infer import component, territory
from converters.names.naming import TRACKED
from converters.names.recognise import Match, matches_by_place
from converters.tensors import Stored
from tf_simclr.errors import InputError

EMA = "ema_model/"
"""Scope of the moving averages in SimCLRv2's checkpoints, which hold each weight of the encoder twice."""

_SHADOW = "ExponentialMovingAverage"
"""What `tf.train.ExponentialMovingAverage` puts behind a variable's name."""

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module")
"""What torch.compile, FSDP, activation checkpointing and Lightning's strategies put into names, at any depth."""
PARALLEL = "module"
"""DataParallel's; a component of a network's own names may stand before it."""

_Role = Literal["trained", "average", "follower"]

_AVERAGES = {"ema", "swa", "averaged", "average", "avg", "polyak", "shadow"}
_FOLLOWERS = {"teacher", "target", "momentum", "mom", "key", "k", "m", "slow"}
_FOLLOWERS |= {"old", "prev", "previous", "frozen", "init"}
_USUAL = {"student", "online", "query", "q", "current", "raw"}
_PLAIN = {
    *("model", "models", "module", "state", "dict", "net", "network", "backbone", "encoder", "trunk", "resnet", "base"),
    *("weights", "params", "main", "body", "cnn", "feature", "features", "blocks", "extractor", "classy", "checkpoint"),
    *("visual", "image", "vision", "fabric", "trained"),
}
"""Words of names, as they stand before a network's own names."""


@dataclass(frozen=True)
class Candidate:
    """A network in a file.

    Attributes:
        match: How its keys are to be read.
        prefix: What all its encoder's keys begin with.
        role: What the prefix tells.
    """

    match: Match
    prefix: str
    role: _Role = "trained"

    @property
    def title(self) -> str:
        """The prefix, for messages."""
        return self.prefix or "(no prefix)"


def unwrapped(keys: Collection[str]) -> dict[str, str]:
    """Names without what wrappers put into them → the file's own keys.

    `module` is taken out behind a name of a network's own only, as elsewhere it may be a prefix that tells networks
    apart; and nothing is taken out where that would give two tensors one name.

    Example:
        >>> unwrapped(["state_dict.layer1._orig_mod.0.conv1.weight"])
        {'state_dict.layer1.0.conv1.weight': 'state_dict.layer1._orig_mod.0.conv1.weight'}
    """
    kept: set[tuple[str, ...]] = set()
    # Taking `module` out may give two tensors one name; then it stays where they differ, and all is tried again.
    while True:
        names = {key: _without_wrappers(key, kept) for key in keys}
        counts = Counter(name for name, _ in names.values())
        clashes = {removed for name, removed in names.values() if removed and counts[name] > 1}
        if not clashes:
            return {name: key for key, (name, _) in names.items()}
        kept |= clashes


def _without_wrappers(key: str, kept: Collection[tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """A name without wrappers, and the beginning of the key up to the first one that was taken out."""
    # Most names hold no wrapper: they are not taken apart.
    if PARALLEL not in key and "_" not in key:
        return key, ()
    parts = key.split(".")
    left: list[str] = []
    first: tuple[str, ...] = ()
    for i, part in enumerate(parts):
        # At the very beginning `module.` may tell networks apart (beside `teacher.`): a component must precede it.
        inner = part == PARALLEL and bool(left) and left[-1] in _INNER
        place = tuple(parts[: i + 1])
        # A wrapper's name is taken out at any depth, but for places at which that made two names one.
        if (part in WRAPPERS or inner) and place not in kept:
            first = first or place
        else:
            left.append(part)
    return ".".join(left), first


_INNER = frozenset(
    {
        *("backbone", "encoder", "trunk", "_feature_blocks", "resnet", "net", "encoder_q", "encoder_k", "layers"),
        *("fc", "head", "neck", "projection_head", "classifier", "conv1", "bn1", "downsample"),
        *("layer1", "layer2", "layer3", "layer4"),
        *map(str, range(64)),
    }
)
"""Components of networks' own names."""


def averaged_names(keys: Collection[str], slots: Collection[str]) -> dict[str, str]:
    """Names below `ExponentialMovingAverage/` → keys, where TensorFlow 1 put that behind a variable's name.

    Its `tf.train.ExponentialMovingAverage` averages what is trained; what it has no average of – a BatchNorm's own
    moving statistics – is the variable itself.

    Example:
        >>> averaged_names(["a", "b", "a/ExponentialMovingAverage"], ["a/ExponentialMovingAverage"])
        {'ExponentialMovingAverage/a': 'a/ExponentialMovingAverage', 'ExponentialMovingAverage/b': 'b'}
    """
    if not any(key.endswith(f"/{_SHADOW}") for key in keys):
        return {}
    # TF1's averages hang behind each variable's name: these are read as a network with a prefix of its own.
    names = [key for key in keys if key not in slots and not key.endswith(f"/{_SHADOW}")]
    return {f"{_SHADOW}/{name}": f"{name}/{_SHADOW}" if f"{name}/{_SHADOW}" in keys else name for name in names}


def candidates(keys: Collection[str], *, naming: str | None = None, writer: str = "") -> list[Candidate]:
    """Every network whose stem and half of whose common names are there, in the order of their prefixes.

    Args:
        keys: The file's keys.
        naming: The naming to look for; None: all.
        writer: The program that wrote the file, where it tells.
    """
    found = []
    for match in matches_by_place(frozenset(keys), naming=naming):
        # What stands before the network's names tells what it is for.
        prefix = match.outer + territory(match.naming)[0]
        found.append(Candidate(match, prefix, _role(prefix, match.outer, keys, writer)))
    return sorted(found, key=lambda one: one.prefix)


def _words(prefix: str) -> set[str]:
    """The words of all components."""
    # `targetEncoder` → `target_encoder`
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", prefix)
    # Words by underscores, hyphens and capitals: `EMA_model`, `ema-model`, `emaModel`.
    return set(re.split(r"[./_\-<> ]+", spaced.lower())) - {""}


def _role(prefix: str, outer: str, keys: Collection[str], writer: str) -> _Role:
    words = _words(prefix)
    average = bool(words & _AVERAGES)
    # Roles by words first; three libraries say it otherwise.
    # torch.optim.swa_utils.AveragedModel: a wrapper `module.` with a counter beside it.
    average |= outer.endswith("module.") and outer.removesuffix("module.") + "n_averaged" in keys
    # Lightning's WeightAveraging puts the average at the usual place, and the trained weights beside it.
    if "averaging_state.n_averaged" in keys and outer.startswith("state_dict."):
        average = True
    # mmengine's EMAHook swaps the two before it saves them.
    if writer == "mmengine" and "ema_state_dict.steps" in keys:
        average = outer.startswith("state_dict.") or (average and not outer.startswith("ema_state_dict."))
    if average:
        return "average"
    return "follower" if words & _FOLLOWERS else "trained"


def choose(
    found: list[Candidate], tensors: Mapping[str, Stored], *, ema: bool, source_part: str | None, what: str
) -> Candidate:
    """The network that is meant.

    Args:
        found: All of a file; at least one.
        tensors: Key → tensor, to tell equal networks.
        ema: Whether the moving averages are asked for.
        source_part: A prefix, or a part of one, that the user chose; None: the usual one.
        what: Names the file in an error.

    Raises:
        InputError: there is none, or no clear one; lists the choices.
    """
    # What was asked for by name; of it the averages, if these are asked for, else what was trained, else what there is.
    eligible = found if source_part is None else _named(found, source_part, what=what)
    averages = [one for one in eligible if one.role == "average"]
    if ema:
        if not averages:
            raise InputError(
                f"{what} must hold moving averages (names in {EMA}, state_dict_ema, …) for --ema, but has none"
                + (f"; it holds {listed(found)}" if len(found) > 1 else "")
            )
        return _one(averages, tensors, what=what)
    trained = [one for one in eligible if one.role == "trained"]
    return _one(trained or averages or eligible, tensors, what=what)


def _named(found: list[Candidate], text: str, *, what: str) -> list[Candidate]:
    """Those whose prefix begins so; else those in whose prefix it lies."""
    wanted = [part for part in re.split(r"[./]", text) if part]

    def parts(one: Candidate) -> list[str]:
        return [part for part in re.split(r"[./]", one.prefix) if part]

    exact = [one for one in found if text.rstrip("./") in (one.prefix.rstrip("./"), one.match.outer.rstrip("./"))]
    begins = [one for one in found if wanted and parts(one)[: len(wanted)] == wanted]
    within = [
        one
        for one in found
        if wanted and any(parts(one)[i : i + len(wanted)] == wanted for i in range(len(parts(one))))
    ]
    # The closest reading of what was typed wins: the whole prefix, its beginning, any part of it.
    chosen = exact or begins or within
    if not chosen:
        raise InputError(f"--source_part must be one of {listed(found)} of {what}, not {text!r}")
    return chosen


def _one(found: list[Candidate], tensors: Mapping[str, Stored], *, what: str) -> Candidate:
    """The only one, the one with the most usual name, or any of equal ones."""
    # From the widest choice to the narrowest: the only network, the only plainly named, the only usually named.
    for usual in (found, [one for one in found if _is_plain(one)], [one for one in found if _is_usual(one)]):
        if len(usual) == 1:
            return usual[0]
    some = [one for one in found if _is_plain(one)] or found
    # Copies of one network (a student and its checkpoint): any will do, and the shortest name is shown.
    if all(compared(some[0], other, tensors=tensors).endswith("equal values") for other in some[1:]):
        return min(some, key=lambda one: (len(one.prefix), one.prefix))
    differ = "; ".join(
        f"{one.title} against {some[0].title}: {compared(some[0], one, tensors=tensors)}" for one in some[1:]
    )
    raise InputError(
        f"{what} must hold one network that is clearly meant, but holds {listed(found)} ({differ}); choose one by "
        f"--source_part {some[0].prefix.rstrip('./') or repr('')} (in Python source_part=)"
    )


def _is_plain(one: Candidate) -> bool:
    """Whether all words before the network's names are those of trained networks."""
    usual = _PLAIN | _USUAL | _AVERAGES
    return one.match.outer == "" or all(word in usual or word.isdigit() for word in _words(one.prefix))


def _is_usual(one: Candidate) -> bool:
    return one.match.outer == "" or bool(_words(one.prefix) & _USUAL)


def listed(found: Iterable[Candidate]) -> str:
    """Prefixes and roles, in words."""
    kinds = {"trained": "", "average": " (moving averages)", "follower": " (a network that training compares with)"}
    return ", ".join(one.title + kinds[one.role] for one in found)


def compared(one: Candidate, other: Candidate, *, tensors: Mapping[str, Stored]) -> str:
    """What tells two networks apart: names, shapes, or values from some tensor on; reads until they differ."""
    a, b = (
        {key.removeprefix(c.prefix): stored for key, stored in tensors.items() if _is_encoders(c, key)}
        for c in (one, other)
    )
    # Names and shapes first, which cost nothing; values are read until the first that differs.
    apart = sorted(a.keys() ^ b.keys())
    if apart:
        return f"other names ({len(apart)} are in one of them only: {', '.join(apart[:2])}{', …' * (len(apart) > 2)})"
    for key, stored in a.items():
        if tuple(stored.shape) != tuple(b[key].shape):
            return f"other shapes ({key}: {tuple(stored.shape)} and {tuple(b[key].shape)})"
    for key, stored in a.items():
        try:
            same = stored.dtype == b[key].dtype and stored.read().tobytes() == b[key].read().tobytes()
        except InputError as error:
            return f"same shapes, but {error}"
        if not same:
            return f"same shapes, other values (from {key} on)"
    return "same shapes and equal values"


def _is_encoders(one: Candidate, key: str) -> bool:
    """Whether a key lies below a candidate's prefix and is of its encoder."""
    # Heads do not count: two copies of one encoder may have different ones.
    rest = key.removeprefix(one.prefix)
    within = key.startswith(one.prefix) and component(rest) in territory(one.match.naming)[1]
    return within and not rest.endswith(TRACKED)
