"""Knobs of the contrastive loss and the projection head."""

from dataclasses import dataclass
from typing import Literal

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Contrast(Checked):
    """What the two views are compared by."""

    temperature: float = 0.1
    """Of NT-Xent (Section 5.1); 0.5 suits CIFAR-10 (Appendix B.9)."""
    hidden_norm: bool = True
    """Whether projections are divided by their length."""
    proj_head_mode: Literal["none", "linear", "nonlinear"] = "nonlinear"
    """Projection head (Section 4.2)."""
    num_proj_layers: int = 3
    """Of a nonlinear head: 2 in SimCLR, 3 in SimCLRv2 (Section 2.2)."""
    proj_out_dim: int = 128
    """Length of the projections."""
    lineareval_while_pretraining: bool = True
    """Train a linear probe behind a stop-gradient, if there are labels."""

    def __post_init__(self):
        super().__post_init__()
        check(self.temperature > 0, "temperature must be above 0", temperature=self.temperature)
