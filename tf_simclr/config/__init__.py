"""The knobs of each command: names, defaults and what they mean.  No framework is imported here.

Names and defaults are those of the official code's flags, where it has them.
"""

import dataclasses
from pathlib import Path

from tf_simclr.config.demo import Demo
from tf_simclr.config.evaluation import LinearEval
from tf_simclr.config.pretrain import Pretrain

COMMANDS = {"pretrain": Pretrain, "linear-eval": LinearEval, "demo": Demo}
"""Command, of one word or two, → its knobs; the task of `linear-eval` is `tf_simclr.tasks.linear_eval`."""


def plain(config) -> dict:
    """A configuration as JSON types, with its command."""
    names = {kind: name for name, kind in COMMANDS.items()}
    values = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    return {"command": names[type(config)], **values}
