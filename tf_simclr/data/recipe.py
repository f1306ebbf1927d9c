"""What a random view is made of: how often each operator is applied, and how strongly.  No framework is imported.

The command line's options are the fields of `Augmentation`: their names, defaults, help and ranges stand here alone.
"""

from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any, Literal

from tf_simclr.errors import check

Bicubic = Literal["tf1", "tf2"]
"""The two cubic interpolations of the reference: `tf1` is the one behind the papers' results and checkpoints, `tf2`
the one of its later TensorFlow 2 code (half-pixel centres, a = -0.5).  They are shifted by up to half a pixel."""

CROP_PROPORTION = 0.875
"""Share of the shorter side that evaluation keeps (reference implementation, as in Inception's preprocessing)."""
_UNCROPPED_SIZE = 32
"""Up to this size evaluation crops nothing away: such pictures (CIFAR) are framed tightly."""
ORDERS = tuple(permutations(range(4)))
"""The orders of brightness 0, contrast 1, saturation 2 and hue 3."""
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601, as TensorFlow rounds them)."""
TINY = 1e-12
"""What a chroma is at least where something is divided by it."""
_MAX_STRENGTH = 1.25
"""Above it a contrast or saturation factor 1 - 0.8 × strength would be negative."""


def evaluation_proportion(size: int, asked: float | None = None) -> float:
    """Share of the shorter side that evaluation keeps at an image size, unless another one is asked for.

    Raises:
        InputError: what is asked for is out of its range.

    Example:
        >>> evaluation_proportion(224), evaluation_proportion(32), evaluation_proportion(32, 0.5)
        (0.875, 1.0, 0.5)
    """
    proportion = asked or (CROP_PROPORTION if size > _UNCROPPED_SIZE else 1.0)
    check(0 < proportion <= 1, "crop_proportion must be above 0 and at most 1", crop_proportion=asked)
    return proportion


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How the two views of an image come about; by default as SimCLR's for ImageNet (arXiv:2002.05709, Appendix A)."""

    color_jitter_strength: float = 1.0
    """Strength of the colour jitter (Section 3.2); 0.5 suits CIFAR-10 (Appendix B.9)."""
    use_blur: bool = True
    """Gaussian blur with probability 0.5; without it for CIFAR-10 (Appendix B.9)."""
    additive_brightness: bool = False
    """Brightness as SimCLR adds it, not as SimCLRv2 multiplies it."""
    crop_min_area: float = 0.08
    """Least share of the image in a crop (Appendix A)."""
    crop_max_aspect: float = 4 / 3
    """Largest ratio of a crop's sides (Appendix A)."""
    flip_probability: float = 0.5
    """Probability of mirroring left to right (Appendix A)."""
    jitter_probability: float = 0.8
    """Probability of colour jitter (Appendix A)."""
    brightness: float = 0.8
    """Range of the jitter; color_jitter_strength multiplies it and the next three (Appendix A)."""
    contrast: float = 0.8
    """Range of the jitter; at most 1 when multiplied by the strength."""
    saturation: float = 0.8
    """Range of the jitter; at most 1 when multiplied by the strength."""
    hue: float = 0.2
    """Range of the jitter in turns; at most 0.5 when multiplied by the strength."""
    grayscale_probability: float = 0.2
    """Probability of colour drop (Appendix A)."""
    blur_probability: float = 0.5
    """Probability of blur, with use_blur (Appendix A)."""
    rotation_probability: float = 0.0
    """Probability of a rotation by 0, 90, 180 or 270 degrees (Figure 4)."""
    noise_probability: float = 0.0
    """Probability of Gaussian noise with standard deviation 0.1 (Figure 4)."""
    sobel_probability: float = 0.0
    """Probability of the Sobel filter (Figure 4)."""
    cutout_probability: float = 0.0
    """Probability of cutout (Figure 4; arXiv:1708.04552)."""
    grayscale_input: bool = False
    """The network sees grey images, repeated in three channels."""

    def check_ranges(self) -> None:
        """Raises `InputError` where a number is out of its range."""
        strength = self.color_jitter_strength
        check(0 <= strength <= _MAX_STRENGTH, f"jitter strength must lie in [0, {_MAX_STRENGTH}]", strength=strength)
        for name in (field.name for field in fields(self) if field.name.endswith("_probability")):
            check(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1]", **{name: getattr(self, name)})
        usual = self.blur_probability in (0, Augmentation.blur_probability)
        rule = "blur_probability must be left out without use_blur: nothing is blurred"
        check(self.use_blur or usual, rule, blur_probability=self.blur_probability)
        check(0 < self.crop_min_area <= 1, "crop_min_area must be above 0 and at most 1", received=self.crop_min_area)
        check(self.crop_max_aspect >= 1, "crop_max_aspect must be at least 1", crop_max_aspect=self.crop_max_aspect)
        check(self.brightness >= 0, "brightness must be at least 0", brightness=self.brightness)
        # Factors below 0 would invert, hues beyond half a turn come round again.
        for name, limit in (("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            total, rule = getattr(self, name) * strength, f"{name} times color_jitter_strength must lie in [0, {limit}]"
            check(0 <= total <= limit, rule, **{name: getattr(self, name)}, color_jitter_strength=strength)


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """An augmentation as it is applied.

    Brightness is a factor from 1 - b, or from 0 where that is below, to 1 + b, each as likely; with
    `additive_brightness` a summand within ± b.  Hue turns within ± h.  The sampler of crops asks for a tenth of the
    image, too, as in the reference.

    Raises:
        InputError: a number is out of its range.
    """

    bicubic: Bicubic = "tf1"
    """The reference's `tf1` or `tf2` interpolation."""

    def __post_init__(self) -> None:
        self.check_ranges()

    @classmethod
    def of(cls, knobs: Any, **changes: Any) -> "Recipe":
        """The recipe of an object's equally named attributes, such as a configuration's; what it lacks is as usual."""
        known = {field.name: getattr(knobs, field.name) for field in fields(cls) if hasattr(knobs, field.name)}
        return cls(**known | changes)

    def only(self, *operators: str) -> "Recipe":
        """This recipe with crops, the named operators always, and no other: SimCLR's Figure 5.

        Example:
            >>> Recipe().only("blur", "cutout").cutout_probability
            1.0
            >>> Recipe(use_blur=False).only("blur").use_blur
            True
        """
        names = [f.name.removesuffix("_probability") for f in fields(self) if f.name.endswith("_probability")]
        unknown = sorted(set(operators) - set(names))
        check(not unknown, f"operators must be among {', '.join(names)}", unknown=unknown)
        # Every probability 1 or 0: the operator alone, always.
        alone: dict[str, Any] = {f"{name}_probability": float(name in operators) for name in names}
        return replace(self, **alone, use_blur=self.use_blur or "blur" in operators)


RADIOGRAPH = Recipe(
    crop_min_area=0.3,
    brightness=0.2,
    contrast=0.2,
    saturation=0.0,
    hue=0.0,
    grayscale_probability=0.0,
    blur_probability=0.0,
)
"""For radiographs: they have no colour, the finding must stay in the crop, and grey values mean density, so crops are
larger and changes of grey milder than a photograph's; flips as usual.  The numbers are this project's choice."""
