"""Named options of pretraining: what each preset sets, and where each number comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check, meant
from tf_simclr.terminal import write

_SIMCLR = "SimCLR (arXiv:2002.05709)"
_SIMCLR_V2 = "SimCLRv2 (arXiv:2006.10029)"
_README = "README of google-research/simclr"
_AUTHOR = "the author, google-research/simclr issue 166 (for Table 2 of arXiv:2011.02803)"
CHOICE = "this project's choice"

_Preset = Mapping[str, tuple[Any, str]]
"""Option → value and source."""

_CIFAR10: _Preset = {
    "dataset": ("cifar10", f"{_README}, CIFAR-10 command"),
    "image_size": (32, f"{_README}, CIFAR-10 command"),
    "resnet_depth": (18, f"{_README}, CIFAR-10 command; {_SIMCLR}, Appendix B.9, has 50"),
    "train_batch_size": (512, f"{_README}, CIFAR-10 command"),
    "train_epochs": (1000, f"{_README}, CIFAR-10 command; {_SIMCLR}, Figure B.7"),
    "learning_rate": (1.0, f"{_README}, CIFAR-10 command; one of three in {_SIMCLR}, Appendix B.9"),
    "weight_decay": (1e-4, f"{_README}, CIFAR-10 command"),
    "temperature": (0.5, f"{_SIMCLR}, Appendix B.9; {_README}, CIFAR-10 command"),
    "color_jitter_strength": (0.5, f"{_SIMCLR}, Appendix B.9; {_README}, CIFAR-10 command"),
    "use_blur": (False, f"{_SIMCLR}, Appendix B.9; {_README}, CIFAR-10 command"),
    "eval_split": ("test", f"{_README}, CIFAR-10 command"),
}
_IMAGENET: _Preset = {
    "dataset": ("imagenet2012", f"{_SIMCLR}, Section 2.3"),
    "image_size": (224, f"{_SIMCLR}, Appendix A"),
    "resnet_depth": (50, f"{_SIMCLR}, Section 2.3"),
    "train_batch_size": (4096, f"{_SIMCLR}, Section 2.3"),
    "train_epochs": (100, f"{_SIMCLR}, Section 2.3; its best results have 1000"),
    "learning_rate": (0.3, f"{_SIMCLR}, Section 2.3: 4.8 = 0.3 × 4096 / 256"),
    "learning_rate_scaling": ("linear", f"{_SIMCLR}, Section 2.3"),
    "warmup_epochs": (10, f"{_SIMCLR}, Section 2.3"),
    "weight_decay": (1e-6, f"{_SIMCLR}, Section 2.3"),
    "temperature": (0.1, f"{_SIMCLR}, Table 5"),
    "num_proj_layers": (2, f"{_SIMCLR}, Section 2.3"),
    "proj_out_dim": (128, f"{_SIMCLR}, Section 2.3"),
    "color_jitter_strength": (1.0, f"{_SIMCLR}, Section 3.2 and Appendix A"),
    "additive_brightness": (True, "official code, random_brightness with impl simclrv1"),
    "eval_split": ("validation", f"{_README}, ImageNet command"),
}
_SMALL_BATCH: _Preset = {
    "train_batch_size": (256, f"{_SIMCLR}, Figure 9: its smallest batch"),
    "learning_rate": (0.075, f"{_AUTHOR}; {_SIMCLR}, Appendix B.1"),
    "learning_rate_scaling": ("sqrt", f"{_AUTHOR}; {_SIMCLR}, Appendix B.1"),
    "temperature": (0.2, _AUTHOR),
    "proj_out_dim": (128, _AUTHOR),
    "num_proj_layers": (3, f"{_README}, default; its known issues name the depth of the head"),
    "weight_decay": (1e-4, f"{_README}, ImageNet command"),
}
_IMAGENET_SMALL_BATCH: _Preset = {
    "dataset": ("imagenet2012", f"{_README}, ImageNet command"),
    "image_size": (224, f"{_README}, ImageNet command"),
    "resnet_depth": (50, f"{_README}, ImageNet command"),
    "train_epochs": (100, f"{_README}, ImageNet command"),
    **_SMALL_BATCH,
    "eval_split": ("validation", f"{_README}, ImageNet command"),
}
_IMAGENET_V2: _Preset = {
    "dataset": ("imagenet2012", f"{_SIMCLR_V2}, Section 3.1"),
    "image_size": (224, f"{_SIMCLR_V2}, Section 3.1"),
    "train_batch_size": (4096, f"{_SIMCLR_V2}, Section 3.1"),
    "train_epochs": (800, f"{_SIMCLR_V2}, Section 3.1"),
    "learning_rate": (0.1, f"{_SIMCLR_V2}, Section 3.1: 6.4 = 0.1 × √4096"),
    "learning_rate_scaling": ("sqrt", f"{_SIMCLR_V2}, Section 3.1"),
    "warmup_epochs": (40, f"{_SIMCLR_V2}, Section 3.1: the first 5 % of the epochs"),
    "weight_decay": (1e-4, f"{_SIMCLR_V2}, Section 3.1"),
    "temperature": (0.1, "official code, default"),
    "num_proj_layers": (3, f"{_SIMCLR_V2}, Section 2.2"),
    "sk_ratio": (0.0625, "official code, recommended with selective kernels; without them: --sk_ratio 0"),
    "eval_split": ("validation", f"{_README}, ImageNet command"),
}
"""Of the network's depth and width, which the paper varies, it sets nothing: its largest has 152 and 3."""
_RADIOGRAPHS: _Preset = {
    "image_size": (224, f"{_SIMCLR}, Appendix A"),
    "resnet_depth": (50, f"{_SIMCLR}, Section 2.3"),
    **_SMALL_BATCH,
    "crop_min_area": (0.3, f"{CHOICE}: the finding must stay in the crop"),
    "brightness": (0.2, f"{CHOICE}: grey values mean density"),
    "contrast": (0.2, f"{CHOICE}: grey values mean density"),
    "saturation": (0.0, f"{CHOICE}: there is no colour"),
    "hue": (0.0, f"{CHOICE}: there is no colour"),
    "grayscale_probability": (0.0, f"{CHOICE}: there is no colour"),
    "blur_probability": (0.0, f"{CHOICE}: fine lines are findings"),
}
"""For `--image_dir`, or a prepared set; its crops and changes of grey are `tf_simclr.data.recipe.RADIOGRAPH`."""

PRESETS: dict[str, _Preset] = {
    "cifar10": _CIFAR10,
    "imagenet": _IMAGENET,
    "imagenet_small_batch": _IMAGENET_SMALL_BATCH,
    "imagenet_v2": _IMAGENET_V2,
    "radiographs": _RADIOGRAPHS,
}


def settings(name: str) -> dict[str, Any]:
    """What a preset sets, option → value.

    Raises:
        InputError: there is no such preset.

    Example:
        >>> settings("imagenet_small_batch")["temperature"]
        0.2
    """
    check(name in PRESETS, f"preset must be one of {', '.join(PRESETS)}{meant(name, PRESETS)}", preset=name)
    return {option: value for option, (value, _) in PRESETS[name].items()}


def table(name: str) -> str:
    """What a preset sets, a line an option, with the source of each number."""
    settings(name)
    lines = [f"  --{option:<24}{value!s:<14}{source}" for option, (value, source) in PRESETS[name].items()]
    return "\n".join([f"--preset {name}", *lines])


@dataclass(frozen=True, kw_only=True)
class Presets(Checked):
    """Prints what each preset of `pretrain` sets, and where each number comes from."""

    name: str = "all"
    """One of them only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"name must be all or one of {', '.join(PRESETS)}{meant(self.name, PRESETS)}"
        check(self.name in ("all", *PRESETS), rule, name=self.name)


def run(config: Presets) -> None:
    """`tf-simclr presets`: prints the presets with their sources.  No framework is loaded for that."""
    names = list(PRESETS) if config.name == "all" else [config.name]
    write("\n\n".join(map(table, names)) + "\n")
