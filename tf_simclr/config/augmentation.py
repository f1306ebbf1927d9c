"""Knobs of the augmentation, and of who makes the views."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Augmentation(Checked):
    """How the two views of an image come about; what a knob may be, `tf_simclr.data.recipe` checks."""

    color_jitter_strength: float = 1.0
    """Section 3.2; 0.5 suits CIFAR-10 (Appendix B.9)."""
    use_blur: bool = True
    """Gaussian blur with probability 0.5; without it for CIFAR-10 (Appendix B.9)."""
    additive_brightness: bool = False
    """Brightness as SimCLR adds it, not as SimCLRv2 multiplies it."""
    crop_min_area: float = 0.08
    """Least share of the image in a crop (Appendix A)."""
    crop_max_aspect: float = 4 / 3
    """A crop's longest side ratio (Appendix A)."""
    flip_probability: float = 0.5
    """Of mirroring left to right (Appendix A)."""
    jitter_probability: float = 0.8
    """Of colour jitter (Appendix A)."""
    brightness: float = 0.8
    """Jitter's range; color_jitter_strength multiplies it, like the next three (Appendix A)."""
    contrast: float = 0.8
    """Jitter's range, at most 1 with the strength."""
    saturation: float = 0.8
    """Jitter's range, at most 1 with the strength."""
    hue: float = 0.2
    """Jitter's range in turns, at most 0.5 with the strength."""
    grayscale_probability: float = 0.2
    """Of colour drop (Appendix A)."""
    blur_probability: float = 0.5
    """Of blur, with use_blur (Appendix A)."""
    rotation_probability: float = 0.0
    """Of a rotation by 0, 90, 180 or 270 degrees (Figure 4)."""
    noise_probability: float = 0.0
    """Of Gaussian noise with standard deviation 0.1 (Figure 4)."""
    sobel_probability: float = 0.0
    """Of the Sobel filter (Figure 4)."""
    cutout_probability: float = 0.0
    """Of cutout (Figure 4; arXiv:1708.04552)."""
    grayscale_input: bool = False
    """The network sees grey images, repeated in three channels."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("flip", "jitter", "grayscale", "blur", "rotation", "noise", "sobel", "cutout"):
            probability = getattr(self, f"{name}_probability")
            rule = f"{name}_probability must lie in [0, 1]"
            check(0 <= probability <= 1, rule, **{f"{name}_probability": probability})


@dataclass(frozen=True, kw_only=True)
class Feeding(Checked):
    """Who makes the batches, and in which order they come."""

    data_service: str | None = None
    """host:port of the dispatcher of tf.data's service, whose workers make the views.  Batches then come in the order
    in which they are ready, so runs do not repeat exactly; bad images are replaced, but not named."""
    deterministic_input: bool = True
    """Views in one order for one seed, which makes a resumed run exact; without it no view waits for a slower one."""


@dataclass(frozen=True, kw_only=True)
class Augmentations(Augmentation):
    """Draws what each operator does to an image, and pairs of views as these knobs make them."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files: the operators of the first are drawn, and pairs of each.  By default scikit-learn's flower."""
    exif_orientation: bool = False
    """Turn them as their EXIF orientation says; the official code does not."""
    out: Path = Path("augmentations.png")
    """Where the figure goes, in the format of its ending."""
    image_size: int = 224
    """Side of the views in pixels."""
    draws: int = 5
    """Views of each operator, and pairs of an image where there is but one."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("image_size", 8), ("draws", 1)):
            check(getattr(self, name) >= least, f"{name} must be at least {least}", **{name: getattr(self, name)})
