"""The range of every number that is an option, whatever command has it: none is negative or infinite unless said here.

What hangs on other options the commands' own configurations check besides.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tf_simclr.errors import check

_LEAST: Mapping[str, float] = MappingProxyType({
    "ft_proj_selector": -1,
    **dict.fromkeys(
        (
            *("train_batch_size", "eval_batch_size", "pretrain_batch_size", "finetune_batch_size"),
            *("train_epochs", "pretrain_epochs", "finetune_epochs", "tuning_epochs", "grid_epochs"),
            *("seeds", "tuning_seeds", "draws", "permutations", "patients", "fewest", "knn", "neighbours"),
            *("l2_strengths", "labels_per_class", "proj_out_dim", "num_processes", "queue_length", "shard_size"),
            *("checkpoint_epochs", "steps_per_execution"),
        ),
        1,
    ),
    "label_draws": 2,  # for a spread
    **dict.fromkeys(("image_size", "pixels", "direct", "samples"), 8),
    "knn_images": 10,
})  # fmt: skip
"""Option → its least value, where that is not 0."""
_ABOVE_ZERO = ("temperature", "crop_max_aspect", "knn_temperature", "distillation_temperature", "seconds")
"""Options that must be larger than 0."""
_UP_TO_ONE = ("labels_fraction", "layer_decay", "alpha", "at_least")
"""Options that must be larger than 0, and 1 at most."""
_BETWEEN = ("validation_fraction", "test_share")
"""Shares of which neither nothing nor all is one."""
_BELOW_ONE = ("batch_norm_decay", "momentum", "key_momentum", "moco_momentum")
"""Options that must be smaller than 1: by 1 nothing would move."""
_MOST: Mapping[str, float] = MappingProxyType({
    "sk_ratio": 1,
    "se_ratio": 1,
    "seed": 2**32 - 1,
    **dict.fromkeys(("image_size", "pixels", "direct"), 2**14),
})  # fmt: skip
"""Option → its largest value, where that is not `_COUNTED`."""
_COUNTED = 2**31 - 1
"""What frameworks count to: the largest value of any other whole number."""
_WITHIN: Mapping[str, tuple[int, int]] = MappingProxyType({
    "fine_tune_after_block": (-1, 4),
    "unfreeze": (-1, 3),
    "size": (8, 4096),
    "port": (0, 65535),
    "max_megabytes": (1, 256),
    "places": (1, 400),
    "decoders": (1, 32),
})  # fmt: skip
"""Option → its least and its largest value, which one sentence names together."""
DEPTHS = (18, 34, 50, 101, 152, 200)
"""Layers of ResNets; those of `tf_simclr.models.architecture`, which a test compares."""


def check_ranges(config: Any) -> None:
    """Refuses a number out of its range.

    Args:
        config: of a command, a dataclass; several values of an option are looked at one by one.

    Raises:
        InputError: so it is.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int | float) and not isinstance(one, bool):
                _check_range(field.name, one)


def _check_range(name: str, value: float) -> None:
    """As `check_ranges`, of one number.

    Raises:
        InputError: it is out of its range.
    """
    received = {name: value}
    check(math.isfinite(value), f"{name} must be a finite number", **received)
    if name == "resnet_depth":
        check(value in DEPTHS, f"{name} must be one of {', '.join(map(str, DEPTHS))}", **received)
    if name == "width_multiplier":
        check(value in (1, 2, 3, 4), f"{name} must be 1, 2, 3 or 4", **received)
    if name in _WITHIN:
        low, high = _WITHIN[name]
        check(low <= value <= high, f"{name} must lie in {low}..{high}", **received)
        return
    check(name not in _ABOVE_ZERO or value > 0, f"{name} must be above 0", **received)
    check(name not in _UP_TO_ONE or 0 < value <= 1, f"{name} must lie in (0, 1]", **received)
    check(name not in _BETWEEN or 0 < value < 1, f"{name} must lie between 0 and 1", **received)
    least = _LEAST.get(name, 0)
    check(value >= least, f"{name} must be at least {least}", **received)
    check(name not in _BELOW_ONE or value < 1, f"{name} must lie in [0, 1)", **received)
    most = _MOST.get(name, _COUNTED if isinstance(value, int) else math.inf)
    check(value <= most, f"{name} must be at most {most}", **received)
