"""`tf-simclr checkpoints list`: the official checkpoints.  No framework is loaded for that."""

from converters.published.bucket import folders
from converters.published.catalogue import CHECKPOINTS, FOLDERS, STATUS, TF1, TF2, Official
from tf_simclr.config.checkpoints import CheckpointsList
from tf_simclr.errors import check
from tf_simclr.terminal import write

NOTE = f"""
TF1 checkpoints lie at {TF1}/NAME, TF2 SavedModels at {TF2}/NAME/saved_model.
top-1: official accuracy on ImageNet in %.  layer: projection layer that the classifier reads, 0: the pooled features.
None was downloaded where this was written.  checked, instead:
"""


def run(config: CheckpointsList) -> None:
    """Prints the catalogue, or what a bucket's folder holds.

    Raises:
        InputError: no name fits, or the bucket cannot be reached.
    """
    if config.remote:
        lines = folders(config.remote)
        check(bool(lines), f"{config.remote} must be a folder that is not empty")
    else:
        found = [one for name, one in CHECKPOINTS.items() if config.match in name]
        check(bool(found), "match must be a part of at least one name", match=config.match)
        lines = details(found[0]) if len(found) == 1 else table(found)
    write("\n".join(lines) + "\n")


def table(found: list[Official]) -> list[str]:
    """A line each, and what the columns mean."""
    lines = [f"{'name':<48}{'network':<18}{'layer':>5}{'top-1':>7}  checked"]
    lines += [
        f"{one.name:<48}{one.network:<18}{known(one.selector):>5}{known(one.top1):>7}  {one.checked}" for one in found
    ]
    lines += [*NOTE.splitlines(), *(f"  {name:<10}{text}" for name, text in STATUS.items())]
    more = [f"  {TF1}/{folder}: {text}" for folder, text in FOLDERS.items()]
    return [*lines, "More, to be asked of the bucket (checkpoints list --remote ADDRESS):", *more]


def known(value: float | None) -> str:
    """A number, or that there is none."""
    return "?" if value is None else str(value)


def details(one: Official) -> list[str]:
    """Everything that is known of one."""
    selector = "the stored graph tells" if one.selector is None else str(one.selector)
    top1 = "no source was seen" if one.top1 is None else f"{one.top1} %"
    rows = {
        "name": one.name,
        "network": one.network,
        "layer": f"{selector} (the projection layer that the classifier reads; 0: the pooled features)",
        "top-1": f"{top1} (official, ImageNet)",
        "TF1": one.tf1,
        "TF2": one.tf2,
        "checked": f"not downloaded here; {STATUS[one.checked]}",
    }
    return [f"{name:<9}{text}" for name, text in rows.items()]
