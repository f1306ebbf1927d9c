"""The loss that the knobs ask for."""

from tf_simclr import losses
from tf_simclr.config.contrast import LOSS_OPTIONS, Contrast

KINDS = {
    "nt_xent": losses.NTXent,
    "nt_logistic": losses.NTLogistic,
    "margin_triplet": losses.MarginTriplet,
    "dcl": losses.DCL,
    "supcon": losses.SupCon,
    "generalized": losses.GeneralizedContrastive,
    "hadsell": losses.Hadsell,
}


def objective(config: Contrast, *, seed: int) -> losses.ContrastiveLoss | losses.InfoNCE:
    """The loss with its options.

    Args:
        config: which one, and what was set of it; the rest is the loss's own default.
        seed: of what `generalized` draws; with a seed a resumed run equals a straight one, and replicas draw the same.

    Raises:
        InputError: an option is out of its range.
    """
    if config.method == "moco":
        return losses.InfoNCE(config.temperature)
    options = config.given_loss_options() | {"hidden_norm": config.hidden_norm}
    if "temperature" in LOSS_OPTIONS[config.loss]:
        options["temperature"] = config.temperature
    if config.loss == "generalized":
        options["seed"] = seed
    return KINDS[config.loss](**options)
