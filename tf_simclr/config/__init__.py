"""The knobs of each command: names, defaults and what they mean.  No framework is imported here.

Names and defaults are those of the official code's flags, where it has them.
"""

import dataclasses
from pathlib import Path
from typing import Any

from tf_simclr.config.chest import (
    ChestApp,
    ChestArds,
    ChestCovid,
    ChestEvaluate,
    ChestExplain,
    ChestFindings,
    ChestPrepare,
)
from tf_simclr.config.evaluation import (
    CheckpointsConvert,
    CheckpointsGet,
    CheckpointsList,
    Compare,
    Demo,
    Doctor,
    Embed,
    Export,
    LinearEval,
    PrepareShards,
    Sweep,
    Transfer,
)
from tf_simclr.config.presets import Presets
from tf_simclr.config.training import Augmentations, Distill, Finetune, Pretrain
from tf_simclr.files.places import written

COMMANDS: dict[str, type[Any]] = {
    "pretrain": Pretrain,
    "linear-eval": LinearEval,
    "transfer": Transfer,
    "demo": Demo,
    "finetune": Finetune,
    "distill": Distill,
    "sweep": Sweep,
    "compare": Compare,
    "embed": Embed,
    "export": Export,
    "prepare-shards": PrepareShards,
    "chest prepare": ChestPrepare,
    "chest covid": ChestCovid,
    "chest ards": ChestArds,
    "chest findings": ChestFindings,
    "chest evaluate": ChestEvaluate,
    "chest explain": ChestExplain,
    "chest app": ChestApp,
    "checkpoints list": CheckpointsList,
    "checkpoints get": CheckpointsGet,
    "checkpoints convert": CheckpointsConvert,
    "doctor": Doctor,
    "presets": Presets,
    "augmentations": Augmentations,
}
"""Command, of one word or two, → its knobs; `tf_simclr.cli.place` says which module runs it."""


def plain(config: Any) -> dict:
    """A configuration as JSON types, with its command."""
    names = {kind: name for name, kind in COMMANDS.items()}
    return {"command": names[type(config)]} | {k: plain_value(v) for k, v in dataclasses.asdict(config).items()}


def plain_defaults(command: str) -> dict:
    """The options of a command that have a default, as `plain` gives them."""
    fields = dataclasses.fields(COMMANDS[command])
    return {f.name: plain_value(f.default) for f in fields if f.default is not dataclasses.MISSING}


def plain_value(value: Any) -> Any:
    """A knob's value as a JSON type."""
    network = isinstance(value, str) and value.endswith(".keras")  # an encoder's file, which may stand for an address
    return written(Path(value)) if isinstance(value, Path) or network else value
