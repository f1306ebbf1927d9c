"""Knobs of pretraining, fine-tuning and distillation, of their views and losses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tf_simclr.config.options import POSITIONAL
from tf_simclr.config.parts import (
    Checked,
    Data,
    Encoder,
    Memory,
    Monitoring,
    Optimization,
    Placement,
    Storage,
    Supervision,
    Viewing,
)
from tf_simclr.data import recipe
from tf_simclr.errors import check, meant
from tf_simclr.files.places import Place
from tf_simclr.own.named import is_code, is_named


@dataclass(frozen=True, kw_only=True)
class Augmentation(recipe.Augmentation, Checked):
    """How the two views of an image come about."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_ranges()


@dataclass(frozen=True, kw_only=True)
class _Feeding(Viewing):
    """Who makes the batches, and in which order they come."""

    data_service: str | None = None
    """host:port of the dispatcher of tf.data's service, whose workers make the views.  Batches then come in the order
    in which they are ready, so runs do not repeat exactly; bad images are replaced, but not named."""
    deterministic_input: bool = True
    """Views in one order for one seed, which makes a resumed run exact; without it no view waits for a slower one."""


@dataclass(frozen=True, kw_only=True)
class Augmentations(Augmentation):
    """Draws what each operator does to an image, and pairs of views as these options make them."""

    images: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Image files: the operators of the first are drawn, and pairs of each.  By default scikit-learn's flower."""
    exif_orientation: bool = False
    """Turn images as their EXIF orientation says; the official code does not."""
    out: Path = Path("augmentations.png")
    """Where the figure goes, in the format of its ending."""
    image_size: int = 224
    """Side of the views in pixels."""
    draws: int = 5
    """Views of each operator, and pairs of an image where there is but one."""
    seed: int = 0
    """Seed of everything random."""


LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "nt_xent": ("NTXent", ("temperature",)),
    "nt_logistic": ("NTLogistic", ("temperature", "semi_hard")),
    "margin_triplet": ("MarginTriplet", ("margin", "semi_hard")),
    "dcl": ("DCL", ("temperature", "sigma")),
    "supcon": ("SupCon", ("temperature",)),
    "generalized": ("GeneralizedContrastive", ("temperature", "weight", "prior")),
    "hadsell": ("Hadsell", ("margin",)),
}
"""Word for `--loss` → its class in `tf_simclr.losses`, by name as options are read before Keras is there, and what it
has besides `hidden_norm`; `margin` and the like are knobs with `loss_` in front.  InfoNCE is of MoCo alone."""


@dataclass(frozen=True, kw_only=True)
class Contrast(Checked):
    """What the two views are compared by."""

    method: Literal["simclr", "moco"] = "simclr"
    """simclr, or MoCo v2 (arXiv:2003.04297) on the same parts, which compares with a queue of keys, not the batch."""
    queue_length: int = 65536
    """Keys in moco's queue (arXiv:1911.05722, Section 4.1)."""
    key_momentum: float = 0.999
    """Momentum with which moco's second encoder follows the first (arXiv:1911.05722, Section 4.1)."""
    loss: str = "nt_xent"
    """nt_xent is SimCLR's, nt_logistic and margin_triplet its rivals (Table 2); dcl: arXiv:2110.06848; supcon, which
    needs labels: arXiv:2004.11362; generalized: arXiv:2011.02803; hadsell: CVPR 2006; or module:Class,
    one of your own."""
    temperature: float = 0.1
    """What similarities are divided by, in all losses but margin_triplet and hadsell (Section 5.1); 0.5 suits CIFAR-10
    (Appendix B.9), 0.2 moco."""
    hidden_norm: bool = True
    """Whether projections are divided by their length."""
    loss_margin: float | None = None
    """Margin of margin_triplet (by default 0.4, one that the paper tried, Appendix B.10) and of hadsell (by default
    1)."""
    loss_semi_hard: bool | None = None
    """Whether nt_logistic and margin_triplet look at semi-hard negatives only (by default not; Section 5.1)."""
    loss_sigma: float | None = None
    """Weighs dcl's pairs (its Section 3 has 0.5); by default all count the same."""
    loss_weight: float | None = None
    """Weight of generalized's distribution term (λ of its Section 2), by default 1."""
    loss_prior: Literal["logsumexp", "normal", "uniform"] | None = None
    """Distribution that generalized pulls towards, by default logsumexp."""
    proj_head_mode: Literal["none", "linear", "nonlinear"] = "nonlinear"
    """Projection head (Section 4.2)."""
    num_proj_layers: int = 3
    """Layers of a nonlinear head: 2 in SimCLR, 3 in SimCLRv2 (Section 2.2)."""
    proj_out_dim: int = 128
    """Length of the projections."""
    lineareval_while_pretraining: bool = True
    """Train a linear probe behind a stop-gradient, if there are labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        headed = self.proj_head_mode != "nonlinear" or self.num_proj_layers >= 1
        check(headed, "num_proj_layers must be at least 1", num_proj_layers=self.num_proj_layers)
        own = is_named(self.loss)
        rule = f"loss must be one of {', '.join(LOSSES)}, or module:Class{meant(self.loss, LOSSES)}"
        check(own or self.loss in LOSSES, rule, loss=self.loss)
        if self.method == "moco":
            rule = "loss and hidden_norm must be left out with --method moco: it has InfoNCE of normalised projections"
            check(self.loss == "nt_xent" and self.hidden_norm, rule, loss=self.loss, hidden_norm=self.hidden_norm)
        for name in self.given_loss_options():
            owners = [loss for loss, (_, options) in LOSSES.items() if name in options]
            rule = f"loss_{name} must be left out with --loss {self.loss}: it belongs to {' and '.join(owners)}"
            check(name in LOSSES.get(self.loss, ("", ()))[1], rule, **{f"loss_{name}": getattr(self, f"loss_{name}")})

    def given_loss_options(self) -> dict:
        """The options, without their `loss_`, that are not left to the loss's own default."""
        values = {n: getattr(self, f"loss_{n}") for n in ("margin", "semi_hard", "sigma", "weight", "prior")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Pretrain(Data, Encoder, Optimization, Contrast, Augmentation, _Feeding, Monitoring, Placement, Memory, Storage):
    """Pretrains an encoder on images without labels.

    `--preset NAME` sets the options of a preset (`tf-simclr presets` lists them); those given beside it override them.
    """

    view: str = ""
    """Instead of SimCLR's augmentation: module:function of an image (h, w, 3) in [0, 1] and a seed (2,), which gives
    one view; it is called in TensorFlow's graph, once a view."""
    pairs: Literal["image", "patient"] = "image"
    """What a positive pair is: two views of one image, or with radiographs one view each of two images of a patient
    where there are several (MICLe, arXiv:2101.05224)."""
    model_dir: Path = Path("runs/pretrain")
    """Run folder; the same command resumes what lies there."""
    checkpoint: Path | None = None
    """Weights to start from instead of random ones: a run, a checkpoint of any kind, an official name
    (`checkpoints list`) or hf://user/repo.  Once there is a checkpoint in model_dir, that one counts."""
    seed: int = 0
    """Seed of the weights, the order of the images, and the augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not self.view or is_named(self.view), "view must have the form module:function", view=self.view)
        rule = "train_batch_size must be at least 2: the loss compares each image of a batch with the others"
        alone = self.train_batch_size == 1 and self.method == "simclr" and not is_named(self.loss)
        check(not alone, rule, train_batch_size=self.train_batch_size)
        rule = "view must be left out with pairs of a patient's images, which are seen by SimCLR's augmentation"
        check(not self.view or self.pairs == "image", rule, view=self.view)
        rule = "pairs of a patient's images must come from --radiographs, whose patients are known"
        check(self.pairs == "image" or self.radiographs is not None, rule, pairs=self.pairs)


@dataclass(frozen=True, kw_only=True)
class Finetune(Data, Encoder, Optimization, Placement, Supervision):
    """Trains a classifier on labelled images: fine-tunes a checkpoint, or without one starts from scratch."""

    checkpoint: Path | None = None
    """A run, a checkpoint of any kind, an official name (`checkpoints list`) or hf://user/repo,
    whose network is taken; none: from scratch, with the network that the options of the ResNet describe."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    fine_tune_after_block: int = -1
    """Block groups up to this one stay frozen: -1 none, 0 the stem, 1-3 groups too, 4 all but the classifier."""
    ft_proj_selector: int = 0
    """Projection layer that feeds the classifier: 0 the pooled features, -1 the last; SimCLRv2 takes 1 for few labels
    (Section 2.2)."""
    zero_init_logits_layer: bool = False
    """Start the classifier at zero."""
    restore_logits_layer: bool = False
    """Start the classifier from the checkpoint's, as the official TF2 code does where there is one."""
    frozen_layers: Literal["still", "tf1", "tf2"] = "still"
    """still: nothing in frozen groups changes, their BatchNorm uses its moving statistics, and the projection head
    trains up to the layer that feeds the classifier (unless all is frozen); tf1, tf2: what the official codes do."""
    layer_decay: float = 1.0
    """Learning rate of each block group as a multiple of that of the one above it; below 1 early layers move less."""
    labels_fraction: float = 1.0
    """Share of the training images to use, the same of each class; with the same labels_seed the images of 0.01 are
    among those of 0.1."""
    labels_seed: int = 0
    """Seed that draws the images of labels_fraction."""
    model_dir: Path = Path("runs/finetune")
    """Run folder; the same command resumes what lies there."""
    seed: int = 0
    """Seed of the new weights, the order of the images, the augmentation and the intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        both = self.zero_init_logits_layer and self.restore_logits_layer
        check(not both, "zero_init_logits_layer and restore_logits_layer exclude each other; give one of them")
        rule = "restore_logits_layer needs a checkpoint to take the classifier from"
        check(not self.restore_logits_layer or self.checkpoint is not None, rule)
        rule = "layer_decay must be 1 with --encoder: it goes by the block groups of a ResNet"
        check(self.layer_decay == 1 or not self.encoder, rule, layer_decay=self.layer_decay)


@dataclass(frozen=True, kw_only=True)
class Distill(Data, Encoder, Optimization, Placement, Supervision):
    """Trains a student on a teacher's answers to images without labels (SimCLRv2, Section 2.3)."""

    teacher: Path
    """A run, a checkpoint of any kind, an official name (`checkpoints list`) or hf://user/repo,
    with a classifier: a fine-tuned network."""
    ema: bool = False
    """Take the teacher's moving averages, where it has them."""
    teacher_encoder: Place = ""
    """module:function that made the teacher, where it has classes of its own; encoder is the student's."""
    self_distillation: bool = False
    """Give the student the teacher's encoder architecture, whatever the options of the ResNet say."""
    checkpoint: Path | None = None
    """What the student's encoder starts from, a checkpoint of any kind; none: random weights.  Its architecture counts,
    not the options of the ResNet."""
    distillation_temperature: float = 1.0
    """Temperature of both softmaxes: 1 for a smaller student, 0.1 for self-distillation (Section 3.1)."""
    alpha: float = 1.0
    """Weight of the teacher's answers; 1 - alpha is that of the labels (Equation 3; 1: Equation 2, no labels)."""
    teacher_views: Literal["same", "cached"] = "same"
    """same: the teacher sees the student's augmented view, as in the paper; cached: it answers once, for the view that
    evaluation takes, whatever the student sees, at the cost of one pass."""
    teacher_logits: Path | None = None
    """File of the cached answers, so that several students can share it; by default in model_dir."""
    labels_fraction: float = 1.0
    """Share of the training images whose labels count where alpha is below 1; the same images as with finetune."""
    labels_seed: int = 0
    """Seed that draws the images of labels_fraction."""
    model_dir: Path = Path("runs/distill")
    """Run folder; the same command resumes what lies there."""
    seed: int = 0
    """Seed of the new weights, the order of the images, the augmentation and the intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "labels_fraction must be left out with alpha 1, by which no label counts; lower alpha"
        check(self.alpha < 1 or self.labels_fraction == 1, rule, labels_fraction=self.labels_fraction)
        rule = "teacher_logits must be left out without --teacher_views cached: no answers are kept"
        fits = self.teacher_views == "cached" or self.teacher_logits is None
        check(fits, rule, teacher_logits=str(self.teacher_logits))
        rule = "self_distillation and checkpoint each say what the student is; give one of them"
        check(not (self.self_distillation and self.checkpoint), rule)
        rule = "teacher_encoder must have the form module:function: it names the teacher's code"
        check(not self.teacher_encoder or is_code(self.teacher_encoder), rule, teacher_encoder=self.teacher_encoder)
