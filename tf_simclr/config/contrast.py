"""Knobs of the contrastive loss and the projection head."""

from dataclasses import dataclass
from typing import Literal

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check

LOSS_OPTIONS = {
    "nt_xent": ("temperature",),
    "nt_logistic": ("temperature", "semi_hard"),
    "margin_triplet": ("margin", "semi_hard"),
    "dcl": ("temperature", "sigma"),
    "supcon": ("temperature",),
    "generalized": ("temperature", "weight", "prior"),
    "hadsell": ("margin",),
}
"""Loss → what it has besides `hidden_norm`; `margin` and the like are knobs with `loss_` in front."""


@dataclass(frozen=True, kw_only=True)
class Contrast(Checked):
    """What the two views are compared by."""

    method: Literal["simclr", "moco"] = "simclr"
    """simclr, or MoCo v2 (arXiv:2003.04297) on the same parts, which compares with a queue of keys, not the batch."""
    queue_length: int = 65536
    """Keys in moco's queue (arXiv:1911.05722, Section 4.1)."""
    key_momentum: float = 0.999
    """By which moco's second encoder follows the first (arXiv:1911.05722, Section 4.1)."""
    loss: Literal["nt_xent", "nt_logistic", "margin_triplet", "dcl", "supcon", "generalized", "hadsell"] = "nt_xent"
    """nt_xent is SimCLR's, nt_logistic and margin_triplet its rivals (Table 2); dcl: arXiv:2110.06848; supcon, which
    needs labels: arXiv:2004.11362; generalized: arXiv:2011.02803; hadsell: CVPR 2006."""
    temperature: float = 0.1
    """Of all losses but margin_triplet and hadsell (Section 5.1); 0.5 suits CIFAR-10 (Appendix B.9), 0.2 moco."""
    hidden_norm: bool = True
    """Whether projections are divided by their length."""
    loss_margin: float | None = None
    """Of margin_triplet (by default 0.4, one that the paper tried, Appendix B.10) and hadsell (by default 1)."""
    loss_semi_hard: bool | None = None
    """Whether nt_logistic and margin_triplet look at semi-hard negatives only (by default not; Section 5.1)."""
    loss_sigma: float | None = None
    """Weighs dcl's pairs (its Section 3 has 0.5); by default all count the same."""
    loss_weight: float | None = None
    """Of generalized's distribution term (λ of its Section 2), by default 1."""
    loss_prior: Literal["logsumexp", "normal", "uniform"] | None = None
    """Distribution that generalized pulls towards, by default logsumexp."""
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
        check(self.queue_length >= 1, "queue_length must be at least 1", queue_length=self.queue_length)
        check(0 <= self.key_momentum < 1, "key_momentum must lie in [0, 1)", key_momentum=self.key_momentum)
        if self.method == "moco":
            rule = "loss and hidden_norm must be left out with --method moco: it has InfoNCE of normalised projections"
            check(self.loss == "nt_xent" and self.hidden_norm, rule, loss=self.loss, hidden_norm=self.hidden_norm)
        for name in self.given_loss_options():
            owners = [loss for loss, options in LOSS_OPTIONS.items() if name in options]
            rule = f"loss_{name} must be left out with --loss {self.loss}: it belongs to {' and '.join(owners)}"
            check(name in LOSS_OPTIONS[self.loss], rule, **{f"loss_{name}": getattr(self, f"loss_{name}")})

    def given_loss_options(self) -> dict:
        """The options, without their `loss_`, that are not left to the loss's own default."""
        values = {n: getattr(self, f"loss_{n}") for n in ("margin", "semi_hard", "sigma", "weight", "prior")}
        return {name: value for name, value in values.items() if value is not None}
