"""How long a training is, and where it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How long a training is and how often it is noted."""

    total_steps: int
    """Steps in all, at least 1."""
    steps_per_epoch: int
    """Steps between two lines of the history."""
    batch_size: int
    """Images a step, over all replicas."""
    checkpoint_steps: int
    """Steps between two checkpoints."""
    keep_checkpoint_max: int = 5
    """Checkpoints kept, the newest ones; 0: all."""

    def segments(self, step: int):
        """Yields `(first step, epoch, last epoch + 1, steps an epoch)` of each call of `fit` from a step on.

        `fit` knows whole epochs only: the rest of a begun one and a short last one are calls of their own.
        """
        while step < self.total_steps:
            epoch, begun = divmod(step, self.steps_per_epoch)
            whole = (self.total_steps - step) // self.steps_per_epoch
            if begun or not whole:
                steps = min(self.steps_per_epoch - begun, self.total_steps - step)
                yield step, epoch, epoch + 1, steps
                step += steps
            else:
                yield step, epoch, epoch + whole, self.steps_per_epoch
                step += whole * self.steps_per_epoch
