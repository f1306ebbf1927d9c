"""Losses of two views' projections: `loss(z1, z2, …)` gives one value per example, `(n,)`.

Each is the sum of both directions, over the negatives of all replicas; and each has a `keras.losses.Loss` of the same
options beside it, for `SimCLR.compile(loss=…)`.
"""

from tf_simclr.losses.cross_entropy import (
    NTXent,
    contrastive_accuracy,
    contrastive_entropy,
    contrastive_metrics,
    nt_xent,
)
from tf_simclr.losses.decoupled import DCL, GeneralizedContrastive, dcl, generalized_contrastive
from tf_simclr.losses.info_nce import InfoNCE, info_nce
from tf_simclr.losses.pairs import Hadsell, MarginTriplet, NTLogistic, hadsell, margin_triplet, nt_logistic
from tf_simclr.losses.similarity import ContrastiveLoss, contrastive_logits, normalize
from tf_simclr.losses.supervised import SupCon, sup_con

__all__ = [
    "DCL",
    "ContrastiveLoss",
    "GeneralizedContrastive",
    "Hadsell",
    "InfoNCE",
    "MarginTriplet",
    "NTLogistic",
    "NTXent",
    "SupCon",
    "contrastive_accuracy",
    "contrastive_entropy",
    "contrastive_logits",
    "contrastive_metrics",
    "dcl",
    "generalized_contrastive",
    "hadsell",
    "info_nce",
    "margin_triplet",
    "normalize",
    "nt_logistic",
    "nt_xent",
    "sup_con",
]
