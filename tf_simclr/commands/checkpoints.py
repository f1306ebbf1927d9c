"""`tf-simclr checkpoints list | get | convert`: the official checkpoints.  The first two load no framework."""

from pathlib import Path

from converters.published import by_name
from converters.published.bucket import folders
from converters.published.catalogue import ADVICE, CHECKPOINTS, FOLDERS, STATUS, TF1, TF2, Official, find
from tf_simclr.config.evaluation import CheckpointsConvert, CheckpointsGet, CheckpointsList
from tf_simclr.errors import check
from tf_simclr.terminal import say, write

_NOTE = f"""
TF1 checkpoints lie at {TF1}/NAME, TF2 SavedModels at {TF2}/NAME/saved_model.
params, size: of the encoder, in float32 (a download has heads, and may have an optimizer's state, too); width: length
of its features.  top-1: official accuracy on ImageNet in %, as the authors report it.  layer: projection layer that the
classifier reads, 0: the pooled features.
None was downloaded where this was written.  checked, instead:
"""


def run(config: CheckpointsList | CheckpointsGet) -> None:
    """Prints the catalogue or what a bucket's folder holds, downloads, or converts.

    Raises:
        InputError: no name fits, or the bucket cannot be reached, or as `converters.convert`.
    """
    # Each prints one thing; none of the first two loads a framework.
    if isinstance(config, CheckpointsList):
        write("\n".join(listed(config)) + "\n")
    elif isinstance(config, CheckpointsConvert):
        write(_converted(config))
    else:
        write(f"{get(config)}\n")


def listed(config: CheckpointsList) -> list[str]:
    """The catalogue's lines, or those of what a bucket's folder holds."""
    if config.remote:
        lines = folders(config.remote)
        check(bool(lines), f"{config.remote} must be a folder that is not empty")
        return lines
    found = [one for name, one in CHECKPOINTS.items() if config.match in name]
    check(bool(found), "match must be a part of at least one name", match=config.match)
    # A match that is one name has all its details.
    return _details(found[0]) if len(found) == 1 else table(found)


def table(found: list[Official]) -> list[str]:
    """A line each, and what the columns mean."""
    heads = f"{'params':>8}{'size':>9}{'width':>7}{'layer':>7}{'top-1':>7}"
    lines = [f"{'name':<48}{'network':<18}{heads}  checked"]
    for one in found:
        numbers = f"{f'{one.parameters} M':>8}{f'{one.megabytes:,} MB':>9}{one.features:>7}"
        numbers += f"{known(one.selector):>7}{known(one.top1):>7}"
        lines.append(f"{one.name:<48}{one.network:<18}{numbers}  {one.checked}")
    lines += ["", "take this one for"]
    lines += [f"  {purpose:<41}{name}" for purpose, name in ADVICE.items()]
    lines += [*_NOTE.splitlines(), *(f"  {name:<10}{text}" for name, text in STATUS.items())]
    more = [f"  {TF1}/{folder}: {text}" for folder, text in FOLDERS.items()]
    return [*lines, "More, to be asked of the bucket (checkpoints list --remote ADDRESS):", *more]


def known(value: float | None) -> str:
    """A number, or that there is none."""
    return "?" if value is None else str(value)


def _details(one: Official) -> list[str]:
    """Everything that is known of one."""
    selector = "the stored graph tells" if one.selector is None else str(one.selector)
    top1 = "no source was seen" if one.top1 is None else f"{one.top1} %"
    rows = {
        "name": one.name,
        "network": one.network,
        "size": f"{one.parameters} million parameters, {one.megabytes:,} MB (the encoder in float32)",
        "width": f"{one.features} features an image",
        "layer": f"{selector} (the projection layer that the classifier reads; 0: the pooled features)",
        "top-1": f"{top1} (official, ImageNet)",
        "TF1": one.tf1,
        "TF2": one.tf2,
        "checked": f"not downloaded here; {STATUS[one.checked]}",
    }
    return [f"{name:<9}{text}" for name, text in rows.items()]


def get(config: CheckpointsGet) -> Path:
    """The checkpoint's folder or file in the cache, downloaded if it is not there.

    Raises:
        InputError: it is not known, or cannot be downloaded.
    """
    return by_name.get(place(config), config.cache_dir)


def place(config: CheckpointsGet) -> str:
    """Where it is to be had."""
    if config.name.startswith("gs://"):
        check(not config.tf2, "tf2 chooses between the addresses of a name; an address needs none", name=config.name)
        return config.name
    return find(config.name).tf2 if config.tf2 else find(config.name).tf1


def _converted(config: CheckpointsConvert) -> str:
    """Downloads a checkpoint unless it is there, and converts it: the report."""
    import converters
    from converters.command import report  # these know NumPy and every format; the other verbs need neither
    from converters.conversion import default_target
    from converters.writing import container_of

    source = get(config)
    # In the working directory, named as the checkpoint.
    target = config.target or default_target(Path(config.name), config.to or "pth")
    options = {name: getattr(config, name) for name in ("naming", "part", "ema", "verify")}
    to = config.to or container_of(target) or "pth"
    done = converters.convert(source, target, to=to, **options, selector=config.selector)
    official = CHECKPOINTS.get(config.name)
    # A part without the classifier has nothing to compare.
    expected = None if official is None or config.part != "all" else official.selector
    # The catalogue against the file: both are said, and the file's is taken.
    if expected is not None and done.architecture.ft_proj_selector != expected:
        say(f"the catalogue expects the classifier on projection layer {expected}; what the file says was taken")
    return report(done)
