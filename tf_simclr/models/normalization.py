"""BatchNorm as SimCLR uses it: over all replicas."""

from dataclasses import dataclass

from keras import layers

from tf_simclr import replicas


@dataclass(frozen=True)
class Normalization:
    """How the BatchNorm layers of a network behave.

    Their epsilon is 1e-5; moving statistics use the biased variance of the batch, as the reference's do.
    """

    batch_norm_decay: float = 0.9
    """Momentum of the moving statistics, in [0, 1)."""
    global_bn: bool = True
    """Statistics over the batch of all replicas (SimCLR, Section 2.2), not of each one alone."""

    def layer(self, name: str, *, zero: bool = False, center: bool = True) -> layers.Layer:
        """A BatchNorm layer; `zero` starts it at zero (arXiv:1706.02677, Section 5.1), `center` gives it a beta."""
        return layers.BatchNormalization(
            momentum=self.batch_norm_decay,
            epsilon=1e-5,
            center=center,
            synchronized=self.global_bn and replicas.synchronize(),
            gamma_initializer="zeros" if zero else "ones",
            name=name,
        )
