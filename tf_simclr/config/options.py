"""The options of each command as people see them: words to values, and values to help.

What there is to know of an option stands in its configuration: the name, type and default of a field, and the string
behind it.  Here are the groups that help shows them in, the dozen of a command that matter, and the names that they
had before; from all this come the command line, `--help`, `--help-all` and what a wrong word is answered with.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tf_simclr.errors import InputError, check, meant, shortened
from tf_simclr.terminal import say

_PARTS = {
    "data": ("Images", "Data", "_Feeding"),
    "model": ("Encoder", "OwnCode", "_OwnEncoder"),
    "method": ("Contrast",),
    "training with labels": ("Supervision",),
    "test": ("Probing",),
    "optimisation": ("Optimization",),
    "augmentation": ("Augmentation", "Viewing"),
    "devices": ("Memory", "_Precision", "Placement"),
    "run": ("Monitoring", "Storage", "Publishing"),
}
"""Group → the parts of a configuration whose options it shows; what a command adds itself is in the first group."""
_GROUP_OF_PART = {part: group for group, parts in _PARTS.items() for part in parts}
_OPTIONS = {
    "data": ("cache_dataset", "eval_split"),
    "model": ("checkpoint", "teacher", "ema", "layer"),
    "method": ("pairs",),
    "run": ("model_dir", "seed", "out", "result", "figures", "cache_dir", "cache_features"),
}
"""Group → its options that are not there by their part."""
_GROUP_OF_OPTION = {name: group for group, names in _OPTIONS.items() for name in names}
ORDER = tuple(_PARTS)
_COMMON = ("image_dir", "radiographs", "dataset", "image_size")
MATTER = {
    "pretrain": (*_COMMON, "checkpoint", "encoder", "resnet_depth", "method", "temperature", "train_batch_size",
                 "train_epochs", "learning_rate", "mixed_precision", "strategy", "model_dir"),
    "finetune": (*_COMMON, "checkpoint", "labels_fraction", "fine_tune_after_block", "train_batch_size", "train_epochs",
                 "learning_rate", "mixed_precision", "strategy", "model_dir"),
    "distill": (*_COMMON, "teacher", "resnet_depth", "checkpoint", "distillation_temperature", "alpha",
                "train_batch_size", "train_epochs", "learning_rate", "strategy", "model_dir"),
    "linear-eval": (*_COMMON, "checkpoint", "layer", "protocol", "train_split", "eval_split", "figures", "result"),
    "transfer": ("checkpoint", "datasets", "image_dir", "data_dir", "download", "image_size", "result"),
    "chest covid": ("radiographs", "checkpoint", "study", "positive", "pixels", "image_size", "seeds", "model_dir"),
    "chest ards": ("radiographs", "positive", "checkpoint", "stage", "image_size", "resnet_depth", "pretrain_epochs",
                   "finetune_epochs", "seeds", "model_dir"),
    "augmentations": ("images", "color_jitter_strength", "use_blur", "crop_min_area", "image_size", "draws", "out"),
    "embed": (*_COMMON, "checkpoint", "layer", "split", "out"),
}  # fmt: skip
"""Command with many options → those that `--help` shows; of the others it shows all."""

POSITIONAL = "positional"
"""Marks an option, `Annotated[Path, POSITIONAL]`, that is given by its place, without its name."""
HIDDEN = "hidden"
"""Marks one that the command line does not have; `--config` alone can set it."""
HELP = ("-h", "--help", "--help-all", "--help_all")
"""Words that ask for help."""
_TRUTHS = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    kind: Any
    """Its type, without annotations."""
    default: Any
    """`dataclasses.MISSING` where it must be given."""
    text: str
    """What it means."""
    group: str
    positional: bool = False

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def truth(self) -> bool:
        """Whether it can be given without a value, and with `no-` in front."""
        return bool in (self.kind, *get_args(self.kind))

    @property
    def several(self) -> bool:
        return get_origin(self.kind) is tuple

    @property
    def head(self) -> str:
        """How it is given."""
        if self.positional:
            return self.name.upper() + (" …" if self.several else "")
        if self.truth:
            return f"--{self.name} | --no-{self.name}"
        return f"--{self.name} {form(self.kind)}"

    @property
    def closing(self) -> str:
        """Its default, as the last words of its help."""
        if self.required:
            return "(required)"
        shown = " ".join(map(str, self.default)) if isinstance(self.default, tuple) else self.default
        return f"(default: {shown if shown != '' else repr('')})"


def options(kind: Any) -> dict[str, Option]:
    """The options of a command's configuration by name, in the order of its fields."""
    found = {}
    texts = {name: text for part in reversed(kind.__mro__) for name, text in _docstrings(part).items()}
    for field in dataclasses.fields(kind):
        marks = getattr(field.type, "__metadata__", ())
        if HIDDEN in marks:
            continue
        owner = next(part for part in reversed(kind.__mro__) if field.name in inspect.get_annotations(part))
        group = _GROUP_OF_OPTION.get(field.name) or _GROUP_OF_PART.get(owner.__name__, "")
        known = field.name, _bare(field.type), field.default, texts.get(field.name, "")
        found[field.name] = Option(*known, group=group, positional=POSITIONAL in marks)
    return found


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


@functools.cache
def _docstrings(part: type) -> dict[str, str]:
    """The strings behind the fields of a class's body, each in one line."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError, SyntaxError, AttributeError, IndexError):  # no source, or one that has changed since
        return {}
    found = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(before.target)] = " ".join(str(after.value.value).split())
    return found


def form(kind: Any) -> str:
    """What a value of a type looks like, for help.

    Example:
        >>> form(int | None), form(Literal["a", "b"]), form(tuple[float, ...]), form(str)
        ('INT', '{a,b}', 'FLOAT …', 'NAME')
    """
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return f"{form(get_args(kind)[0])} …"
    if get_origin(kind) in (Union, UnionType):
        return form(next(one for one in get_args(kind) if one is not NoneType))
    return {str: "NAME"}.get(kind, kind.__name__.upper())


# Words to values.


def read(
    command: str,
    kind: Any,
    *,
    words: Sequence[str],
    old: Mapping[str, str] = MappingProxyType({}),
    say: Callable[[str], None] = say,
    called: str | None = None,
) -> dict[str, Any]:
    """The options that words give, option → value.

    `--name value`, `--name=value`, with `-` or `_` between words of a name; of yes and no `--name`, `--no-name` and
    `--name False`; of several values each up to the next option; what stands alone is positional.  Of an option that is
    given twice the last value counts, as who adds to a line expects, and it is said that the first one does not.

    Args:
        command: its name, for messages.
        kind: its configuration.
        words: behind the command's name.
        old: names that options had → what they are called now.
        say: takes a line where an old name was used.
        called: how the command was called; by default as one of `tf-simclr`.

    Raises:
        InputError: a word is no option or no value of one.
    """
    advice = f"`{called or f'tf-simclr {command}'} --help-all` lists them"
    known, given = options(kind), dict[str, Any]()
    alone: list[str] = []
    left = list(words)
    # Word by word from the front: an option takes as many of those behind it as its type needs.
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            # Behind `--` nothing is an option, whatever it begins with.
            alone += left if word == "--" else [word]
            left = [] if word == "--" else left
            continue
        name, equals, value = word[2:].partition("=")
        name, negated = _found(command, name.replace("-", "_"), known=known, old=old, say=say, advice=advice)
        option = known[name]
        found: Any
        if option.truth:
            found = _truth(option, left, negated=negated, value=value if equals else None)
        elif option.several:
            here = [value] if equals else []
            while left and not left[0].startswith("--"):
                here.append(left.pop(0))
            found = tuple(_converted(option, one) for one in here)
        else:
            if not equals:
                follows = bool(left) and not left[0].startswith("--")
                check(follows, f"--{name} must be followed by a value ({form(option.kind)})", received=word)
                value = left.pop(0)
            found = _converted(option, value)
        if name in given and given[name] != found:  # NaN is not even itself
            say(f"--{name} is given twice: {found} counts, not {given[name]}")
        given[name] = found
    return _placed(command, known, alone=alone) | given


def _found(
    command: str,
    name: str,
    *,
    known: dict[str, Option],
    old: Mapping[str, str],
    say: Callable[[str], None],
    advice: str,
) -> tuple[str, bool]:
    """The option of a name, or of one that it had, and whether `no-` stood in front.

    Raises:
        InputError: there is none; with the name that may have been meant.
    """
    for negated, plain in ((False, name), (True, name.removeprefix("no_"))):
        if plain in old:
            say(f"--{plain} is called --{old[plain]} now")
            plain = old[plain]
        if plain in known and not known[plain].positional and (not negated or (name != plain and known[plain].truth)):
            return plain, negated
    names = [one.name for one in known.values() if not one.positional]
    near = meant(name.removeprefix("no_"), names, shown="--{}")
    raise InputError(f"{command} has no option --{name}{near}; {advice}")


def _truth(option: Option, left: list[str], *, negated: bool, value: str | None) -> bool | None:
    """Yes or no: by the option alone, or by the word behind it if that is one."""
    if value is None and left:
        follows = left[0].lower() in _TRUTHS or (left[0] == "None" and NoneType in get_args(option.kind))
        value = left.pop(0) if follows else None
    if value is None:
        return not negated
    if value == "None" and NoneType in get_args(option.kind):
        return None
    check(value.lower() in _TRUTHS, f"{option.name} must be True or False", **{option.name: value})
    return _TRUTHS[value.lower()] is not negated


def _converted(option: Option, text: str) -> Any:
    """A word as a value of an option.

    Raises:
        InputError: it is none.
    """
    kinds = [option.kind]
    # `tuple[int | None, ...]` → the types that a single word may have; a Literal stays whole.
    while any(get_args(kind) and get_origin(kind) is not Literal for kind in kinds):
        kinds = [one for kind in kinds for one in (get_args(kind) if get_origin(kind) is not Literal else [kind])]
    if NoneType in kinds and text == "None":
        return None
    for kind in (one for one in kinds if one not in (NoneType, Ellipsis)):
        if get_origin(kind) is Literal:
            found = next((choice for choice in get_args(kind) if str(choice) == text), None)
            near = meant(text, map(str, get_args(kind)))
            rule = f"{option.name} must be one of {', '.join(map(str, get_args(kind)))}{near}"
            check(found is not None, rule, **{option.name: text})
            return found
        if kind in (int, float):
            try:
                number = kind(text)
            except ValueError as error:
                what = "a whole number" if kind is int else "a number"
                raise InputError(
                    f"{option.name} must be {what} ({shortened(str(error))}). Received: {text!r}"
                ) from error
            vanished = number == 0 and re.search("[1-9]", re.split("e", text, flags=re.IGNORECASE)[0])
            check(not vanished, f"{option.name} must be 0 or a number that is not taken for 0", **{option.name: text})
            return number
        rule = f"--{option.name} must be followed by a value ({form(option.kind)}), but it is empty"
        rule = f"{option.name.upper()} must not be an empty word" if option.positional else rule
        check(text.strip() or text == option.default == "", rule)
        return kind(text)
    raise AssertionError(f"{option.name} has no type that a word can have: {option.kind}")


def _placed(command: str, known: dict[str, Option], *, alone: list[str]) -> dict[str, Any]:
    """The positional options' values."""
    given: dict[str, Any] = {}
    for option in (one for one in known.values() if one.positional):
        if option.several and alone:
            given[option.name], alone = tuple(_converted(option, one) for one in alone), []
        elif alone:
            given[option.name] = _converted(option, alone.pop(0))
    if alone:
        rule = f"{command} takes options, --name value, and no other words there (`--help` explains them)"
        raise InputError(f"{rule}. Received: {shlex.join(alone[:3])}")
    return given


def check_whole(command: str, kind: Any, *, given: Iterable[str]) -> None:
    """Refuses a command without an option that it needs.

    Raises:
        InputError: so it is.
    """
    missing = [one for one in options(kind).values() if one.required and one.name not in given]
    if missing:
        first = missing[0]
        name = first.name.upper() if first.positional else f"--{first.name}"
        raise InputError(f"{command} needs {name}: {_lower(first.text).rstrip('.')}")


def _lower(text: str) -> str:
    """A text that begins within a sentence; an abbreviation stays as it is.

    Example:
        >>> _lower("A run."), _lower("DICOM files.")
        ('a run.', 'DICOM files.')
    """
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


# Values to help.


def width() -> int:
    """Letters of a line of help."""
    return max(60, min(shutil.get_terminal_size().columns, 110))


def explained(
    command: str,
    kind: Any,
    *,
    whole: bool,
    more: Sequence[tuple[str, str]] = (),
    called: str | None = None,
    about: str | None = None,
) -> str:
    """The help of a command.

    Args:
        command: its name.
        kind: its configuration.
        whole: whether all options are shown, or those that matter.
        more: options that are no fields, and what they mean.
        called: as `read` has it.
        about: what the command does; by default as its configuration says.
    """
    wide = width()
    known = options(kind)
    places = [one for one in known.values() if one.positional]
    shown = [one for one in known.values() if whole or one.name in MATTER.get(command, known)]
    usage = " ".join(["usage:", called or f"tf-simclr {command}", *(place(one) for one in places), "[OPTIONS]"])
    lines = [usage, "", *_paragraphs(inspect.cleandoc(about or kind.__doc__ or ""), wide), ""]
    if places:
        lines += ["positional arguments", *(line for one in places for line in _entry(one, wide)), ""]
    for group in ("", *ORDER):
        here = [one for one in shown if one.group == group and not one.positional]
        here.sort(key=lambda one: not one.required)
        lines += [group or "options", *(line for one in here for line in _entry(one, wide)), ""] if here else []
    lines += ["help", *(line for head, text in more for line in columns(head, text, wide=wide))]
    left = len(known) - len(shown)
    both = [("--help", "These options."), ("--help-all", f"{left} more options, too.")]
    lines += [line for head, text in both[: 1 + bool(left)] for line in columns(head, text, wide=wide)]
    return "\n".join([*lines, ""])


def place(option: Option) -> str:
    """A positional option as the usage has it."""
    return option.head if option.required else f"[{option.head}]"


def _entry(option: Option, wide: int) -> list[str]:
    """An option's lines."""
    return columns(option.head, f"{option.text} {option.closing}".strip(), wide=wide)


_COLUMN = 30


def columns(head: str, text: str, *, wide: int, column: int = _COLUMN) -> list[str]:
    """Lines of a word and what it means, which begins in a column; a long word has a line of its own."""
    body = textwrap.wrap(text, wide - column, break_long_words=False, break_on_hyphens=False) or [""]
    first = f"  {head}"
    if len(first) > column - 1:
        return [first, *(" " * column + line for line in body)]
    return [f"{first:<{column}}{body[0]}", *(" " * column + line for line in body[1:])]


def _paragraphs(text: str, wide: int) -> list[str]:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), wide) for part in text.split("\n\n")).splitlines()
