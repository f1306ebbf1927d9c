"""Knobs of what a step costs, not of what it learns."""

from dataclasses import dataclass

from tf_simclr.config.parts import Precision
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Memory(Precision):
    """How much of a batch is in memory, in which precision, and what is computed twice to keep less."""

    microbatch_size: int = 0
    """Images of a replica in the network at once at most, both views of each; 0: all.  The loss sees the whole batch,
    BatchNorm one piece of it.  Costs a second forward pass.  Where XLA compiles, the batch must be a multiple."""
    remat: bool = False
    """Compute the activations of each residual block again in the backward pass instead of keeping them."""

    def __post_init__(self):
        super().__post_init__()
        check(self.microbatch_size >= 0, "microbatch_size must be at least 0", microbatch_size=self.microbatch_size)
