"""Knobs of the command that lists the presets."""

from dataclasses import dataclass

from tf_simclr.config.parts import Checked
from tf_simclr.config.presets import PRESETS
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Presets(Checked):
    """Prints what each preset of `pretrain` sets, and where each number comes from."""

    name: str = "all"
    """One of them only."""

    def __post_init__(self):
        super().__post_init__()
        check(self.name in ("all", *PRESETS), f"name must be all or one of {', '.join(PRESETS)}", name=self.name)
