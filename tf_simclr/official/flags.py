"""The flags of the official TF2 `run.py`, read as absl reads them, and what they mean here.

Source of names and defaults: google-research/simclr, `tf2/run.py` at commit 383d414; of the two flags that its README
uses but only the TF1 `run.py` defines, `run.py` at the same commit.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_simclr.config.training import Finetune, Pretrain
from tf_simclr.errors import InputError, check, meant

SAME = ""
"""The option of the same name of `pretrain` and `finetune`, as far as they have it."""


@dataclass(frozen=True)
class _Flag:
    """A flag of the official code."""

    name: str
    kind: type | tuple[str, ...]
    """bool, int, float or str, or the words that may be given."""
    default: Any
    here: str = SAME
    """What becomes of it, where it is not simply the option of this name."""


FLAGS = (
    _Flag("mode", ("train", "eval", "train_then_eval"), "train", "whether to train, to evaluate, or both"),
    _Flag("train_mode", ("pretrain", "finetune"), "pretrain", "the command, `pretrain` or `finetune`"),
    _Flag("dataset", str, "imagenet2012", "the option, with `--download True`: as there, it is prepared if it is not"),
    _Flag("data_dir", str, None),
    _Flag("train_split", str, "train"),
    _Flag("eval_split", str, "validation", "the option; pretraining's test by nearest neighbours uses it, too"),
    _Flag("cache_dataset", bool, False),
    _Flag("image_size", int, 224),
    _Flag("color_jitter_strength", float, 1.0),
    _Flag("use_blur", bool, True),
    _Flag("model_dir", str, None, "the option; it must be given"),
    _Flag(
        "checkpoint", str, None, "the option: any kind that converters reads; with `pretrain`, weights to start from"
    ),
    _Flag("train_batch_size", int, 512),
    _Flag("train_epochs", int, 100),
    _Flag("train_steps", int, 0),
    _Flag("learning_rate", float, 0.3),
    _Flag("learning_rate_scaling", ("linear", "sqrt"), "linear"),
    _Flag("warmup_epochs", float, 10.0),
    _Flag("weight_decay", float, 1e-6),
    _Flag(
        "optimizer",
        ("momentum", "adam", "lars"),
        "lars",
        "the option; momentum is TF1's, from which the paper's numbers come (TF2's: `sgd`)",
    ),
    _Flag("momentum", float, 0.9),
    _Flag("temperature", float, 0.1),
    _Flag("hidden_norm", bool, True),
    _Flag("proj_head_mode", ("none", "linear", "nonlinear"), "nonlinear"),
    _Flag("proj_out_dim", int, 128),
    _Flag("num_proj_layers", int, 3),
    _Flag("lineareval_while_pretraining", bool, True),
    _Flag("ft_proj_selector", int, 0),
    _Flag("fine_tune_after_block", int, -1, "the option; frozen groups stand still (`--frozen_layers tf2`: as TF2)"),
    _Flag("zero_init_logits_layer", bool, False, "the option; it works, as in TF1 (in TF2 it does nothing)"),
    _Flag("resnet_depth", int, 50),
    _Flag("width_multiplier", int, 1),
    _Flag("sk_ratio", float, 0.0),
    _Flag("se_ratio", float, 0.0),
    _Flag("batch_norm_decay", float, 0.9),
    _Flag("global_bn", bool, True),
    _Flag("checkpoint_epochs", int, 1),
    _Flag("checkpoint_steps", int, 0),
    _Flag("keep_checkpoint_max", int, 5),
    _Flag("keep_hub_module_max", int, 1, "SavedModels kept in `saved_model/`, one an evaluation; 0: all, as there"),
    _Flag("eval_batch_size", int, 256),
    _Flag("eval_steps", int, 0, "batches to evaluate; 0: the whole split"),
    _Flag("eval_name", str, None, "read and not used, as in TF2"),
    _Flag("use_tpu", bool, True, "`--strategy tpu`; False: `--strategy auto`, all GPUs or the CPU"),
    _Flag("tpu_name", str, None, "`--tpu_name`"),
    _Flag("tpu_zone", str, None, "`--tpu_zone`"),
    _Flag("gcp_project", str, None, "`--gcp_project`"),
    _Flag("master", str, None, "address for `--tpu_name`, where that is not given"),
    _Flag("train_summary_steps", int, 100, "TF1's; read and not used: TensorBoard gets a point an epoch"),
    _Flag("variable_schema", str, None, "TF1's; the classifier is new unless it is matched (`--restore_logits_layer`)"),
)
"""All of them; the last two are TF1's."""
BY_NAME = {flag.name: flag for flag in FLAGS}
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


@dataclass(frozen=True)
class Call:
    """What a command line of the official code asks for."""

    mode: str
    config: Pretrain | Finetune
    flags: dict[str, Any]
    """Every flag's value, as `flags.json` holds them."""


def parse(words: Sequence[str]) -> Call:
    """The call that the words behind `run.py` describe.

    Raises:
        InputError: an unknown flag, a value that is not of its kind, or flags that cannot be used here.

    Example:
        >>> call = parse("--mode=eval --model_dir runs/a --nouse_tpu --image_size=32".split())
        >>> call.mode, call.config.image_size, call.config.train_batch_size
        ('eval', 32, 512)
    """
    # All flags have a value; those given go over the defaults.
    flags = {flag.name: flag.default for flag in FLAGS} | dict(given(words))
    check(flags["model_dir"], "--model_dir must be given: the folder that the run is kept in")
    return Call(flags["mode"], configuration(flags), flags)


def given(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields name and value of each flag; the last one of a name counts.

    The forms are absl's, and `--flag False`, which absl refuses.
    """
    left = list(words)
    while left:
        word = left.pop(0)
        # `--name=value`, `--name value`, `-name`: as absl reads them.
        name, equals, text = word.lstrip("-").partition("=")
        known = word.startswith("-") and (name in BY_NAME or _is_negated(name))
        check(known, _unknown(word, name), word=word)
        if _is_negated(name):
            check(not equals, f"--{name} takes no value", word=word)
            yield name.removeprefix("no"), False
        # A boolean alone is True, unless the next word is a truth value.
        elif equals or BY_NAME[name].kind is not bool or (left and left[0].lower() in _TRUE + _FALSE):
            check(equals or left, f"--{name} must be followed by a value")
            yield name, _value_of(BY_NAME[name], text if equals else left.pop(0))
        else:
            yield name, True


def _is_negated(name: str) -> bool:
    """Whether this is `no` before a flag that is true or false."""
    flag = BY_NAME.get(name.removeprefix("no"))
    return name not in BY_NAME and flag is not None and flag.kind is bool


def _unknown(word: str, name: str) -> str:
    """What is wrong with a word that is no flag."""
    if not word.startswith("-"):
        return "every word must be a flag of the official run.py, or the value of one"
    near = meant(name, BY_NAME, shown="--{}")
    return f"flags must be those of the official run.py{near} (--help lists them; `tf-simclr pretrain` has more)"


def _value_of(flag: _Flag, text: str) -> Any:
    """The text as the flag's kind."""
    if isinstance(flag.kind, tuple):
        check(text in flag.kind, f"--{flag.name} must be one of {', '.join(flag.kind)}", **{flag.name: text})
        return text
    if flag.kind is bool:
        check(text.lower() in _TRUE + _FALSE, f"--{flag.name} must be True or False", **{flag.name: text})
        return text.lower() in _TRUE
    check(text or flag.default is None, f"--{flag.name} must be followed by a value, but it is empty")
    try:
        return flag.kind(text) if flag.kind is not str else text or None
    except ValueError as error:
        number = "a whole number" if flag.kind is int else "a number"
        raise InputError(f"--{flag.name} must be {number}. Received: {flag.name}={text!r}") from error


def configuration(flags: dict[str, Any]) -> Pretrain | Finetune:
    """The knobs of the command that `train_mode` names.

    Raises:
        InputError: a value is outside its range, or the flags cannot be used together.
    """
    kind: type[Any] = Pretrain if flags["train_mode"] == "pretrain" else Finetune
    fields = {field.name: field for field in dataclasses.fields(kind)}
    # Flags of the same name as an option are that option's value.
    values = {name: value for name, value in flags.items() if name in fields}
    values |= {n: Path(v) for n, v in values.items() if isinstance(v, str) and "Path" in str(fields[n].type)}
    values |= {"download": True, **_placement(flags), **_heads_of(flags)}
    return kind(**{name: value for name, value in values.items() if name in fields})


def _placement(flags: dict[str, Any]) -> dict[str, Any]:
    """Where to compute."""
    if not flags["use_tpu"]:
        return {"strategy": "auto", "tpu_name": None, "tpu_zone": None, "gcp_project": None}
    return {"strategy": "tpu", "tpu_name": flags["tpu_name"] or flags["master"]}


def _heads_of(flags: dict[str, Any]) -> dict[str, Any]:
    """What TF1's `variable_schema`, a pattern that matches the variables to take from the checkpoint, comes to.

    The encoder is always taken.  So is the projection head, where `ft_proj_selector` needs it; and the classifier is
    new, unless the pattern takes it.

    Raises:
        InputError: it is no pattern, or leaves out what would have to be taken.
    """
    schema = flags["variable_schema"]
    if schema is None or flags["train_mode"] == "pretrain":
        return {}
    try:
        # A pattern says for each part of the network whether its variables are to be taken.
        taken = {part: bool(re.match(schema, f"{part}/x/kernel")) for part in ("base_model", "head_contrastive", HEAD)}
    except re.error as error:
        raise InputError(f"--variable_schema must be a regular expression ({error}). Received: {schema!r}") from error
    check(taken["base_model"], "--variable_schema must take base_model from the checkpoint", variable_schema=schema)
    needed = flags["ft_proj_selector"] == 0 or taken["head_contrastive"]
    rule = "--variable_schema must take head_contrastive where --ft_proj_selector uses it"
    check(needed, rule, variable_schema=schema)
    return {"restore_logits_layer": taken[HEAD] and not flags["zero_init_logits_layer"]}


HEAD = "head_supervised"


def overview() -> str:
    """What `--help` says: name, official default, and what becomes of it, of each flag."""
    here = {flag.name: flag.here.replace("`", "") or f"--{flag.name}" for flag in FLAGS}
    lines = [f"  --{flag.name:<30}{flag.default!s:<15}{here[flag.name]}" for flag in FLAGS]
    head = ["usage: python -m tf_simclr.run --flag=value …", "", "The official run.py's flags, with their defaults"]
    return "\n".join([*head, "", *lines, ""])
