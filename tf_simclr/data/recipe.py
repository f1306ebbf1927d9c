"""What a random view is made of: how often each operator is applied, and how strongly."""

from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any, Literal

from tf_simclr.errors import check

Bicubic = Literal["tf1", "tf2"]
"""The two cubic interpolations of the reference: `tf1` is the one behind the papers' results and checkpoints, `tf2`
the one of its later TensorFlow 2 code (half-pixel centres, a = -0.5).  They are shifted by up to half a pixel."""

ORDERS = tuple(permutations(range(4)))
"""The orders of brightness 0, contrast 1, saturation 2 and hue 3."""
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601, as TensorFlow rounds them)."""
TINY = 1e-12
"""What a chroma is at least where something is divided by it."""
MAX_STRENGTH = 1.25
"""Above it a contrast or saturation factor 1 - 0.8 × strength would be negative."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Probabilities and strengths; by default SimCLR's for ImageNet (arXiv:2002.05709, Section 3 and Appendix A).

    Raises:
        InputError: a number is out of its range.
    """

    crop_min_area: float = 0.08
    """Least share of the image in a crop; the sampler asks for 0.1, too, as in the reference."""
    crop_max_aspect: float = 4 / 3
    """A crop's longest side ratio, against the view's."""
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    color_jitter_strength: float = 1.0
    """s of the paper, which multiplies the next four."""
    brightness: float = 0.8
    """Factor from 1 - this, or from 0 where that is below, to 1 + this, each as likely."""
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    """Turns within ± this."""
    additive_brightness: bool = False
    """A summand within ± brightness, as in SimCLR v1."""
    grayscale_probability: float = 0.2
    use_blur: bool = True
    blur_probability: float = 0.5
    rotation_probability: float = 0.0
    noise_probability: float = 0.0
    sobel_probability: float = 0.0
    cutout_probability: float = 0.0
    grayscale_input: bool = False
    """The network sees luma in all three channels."""
    bicubic: Bicubic = "tf1"
    """The reference's `tf1` or `tf2` interpolation."""

    def __post_init__(self):
        strength = self.color_jitter_strength
        check(0 <= strength <= MAX_STRENGTH, f"jitter strength must lie in [0, {MAX_STRENGTH}]", strength=strength)
        for name in (field.name for field in fields(self) if field.name.endswith("_probability")):
            check(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1]", **{name: getattr(self, name)})
        check(0 < self.crop_min_area <= 1, "crop_min_area must be above 0 and at most 1", received=self.crop_min_area)
        check(self.crop_max_aspect >= 1, "crop_max_aspect must be at least 1", crop_max_aspect=self.crop_max_aspect)
        check(self.brightness >= 0, "brightness must be at least 0", brightness=self.brightness)
        for name, limit in (("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            total, rule = getattr(self, name) * strength, f"{name} times color_jitter_strength must lie in [0, {limit}]"
            check(0 <= total <= limit, rule, **{name: getattr(self, name)}, color_jitter_strength=strength)

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
        """
        names = [f.name.removesuffix("_probability") for f in fields(self) if f.name.endswith("_probability")]
        unknown = sorted(set(operators) - set(names))
        check(not unknown, f"operators must be among {', '.join(names)}", unknown=unknown)
        return replace(self, **{f"{name}_probability": float(name in operators) for name in names})


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
