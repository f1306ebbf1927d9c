"""Knobs of the augmentation."""

from dataclasses import dataclass

from tf_simclr.config.parts import Checked


@dataclass(frozen=True, kw_only=True)
class Augmentation(Checked):
    """How the two views of an image come about."""

    color_jitter_strength: float = 1.0
    """Section 3.2; 0.5 suits CIFAR-10 (Appendix B.9)."""
    use_blur: bool = True
    """Gaussian blur with probability 0.5; without it for CIFAR-10 (Appendix B.9)."""
    additive_brightness: bool = False
    """Brightness as SimCLR adds it, not as SimCLRv2 multiplies it."""
