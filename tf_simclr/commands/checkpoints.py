"""`tf-simclr checkpoints list | get | convert`: the official checkpoints.  The first two load no framework."""

import contextlib
import sys
import time
from pathlib import Path

from converters.published.bucket import folders, split
from converters.published.catalogue import CHECKPOINTS, FOLDERS, STATUS, TF1, TF2, Official, find
from converters.published.download import fetch
from tf_simclr.config.evaluation import CheckpointsConvert, CheckpointsGet, CheckpointsList
from tf_simclr.errors import check
from tf_simclr.lock import hold
from tf_simclr.terminal import Line, write

_NOTE = f"""
TF1 checkpoints lie at {TF1}/NAME, TF2 SavedModels at {TF2}/NAME/saved_model.
top-1: official accuracy on ImageNet in %.  layer: projection layer that the classifier reads, 0: the pooled features.
None was downloaded where this was written.  checked, instead:
"""


def run(config: CheckpointsList | CheckpointsGet) -> None:
    """Prints the catalogue or what a bucket's folder holds, downloads, or converts.

    Raises:
        InputError: no name fits, or the bucket cannot be reached, or as `converters.convert`.
    """
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
    return _details(found[0]) if len(found) == 1 else table(found)


def table(found: list[Official]) -> list[str]:
    """A line each, and what the columns mean."""
    lines = [f"{'name':<48}{'network':<18}{'layer':>5}{'top-1':>7}  checked"]
    lines += [
        f"{one.name:<48}{one.network:<18}{known(one.selector):>5}{known(one.top1):>7}  {one.checked}" for one in found
    ]
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
    address = place(config)
    folder = config.cache_dir.joinpath(*split(address))
    with hold(config.cache_dir, say=say):
        return fetch(address, folder, progress=_Progress(address))


def place(config: CheckpointsGet) -> str:
    """Where it is to be had."""
    if config.name.startswith("gs://"):
        check(not config.tf2, "tf2 chooses between the addresses of a name; an address needs none", name=config.name)
        return config.name
    return find(config.name).tf2 if config.tf2 else find(config.name).tf1


def say(line: str) -> None:
    write(line + "\n", sys.stderr)


class _Progress:
    """Says how far a download is: in place on a terminal, else every tenth."""

    def __init__(self, address: str):
        self.address, self.line, self.tenths = address, Line(now=time.monotonic()), -1

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // max(total, 1)
        text = f"{self.address}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({done / max(total, 1):.0%})"
        if tenths > self.tenths and (tenths == 10 or not self.line.in_place):
            self.line.keep(text)
        elif self.line.due(now := time.monotonic()):
            self.line.draw(text, now=now)
        self.tenths = tenths


def _converted(config: CheckpointsConvert) -> str:
    """Downloads a checkpoint unless it is there, and converts it: the report."""
    import converters
    from converters.command import report  # these know NumPy and every format; the other verbs need neither
    from converters.conversion import default_target
    from converters.writing import container_of

    source = get(config)
    target = config.target or default_target(Path(config.name), config.to or "pth")
    options = {name: getattr(config, name) for name in ("naming", "part", "ema", "verify")}
    to = config.to or container_of(target) or "pth"
    done = converters.convert(source, target, to=to, **options, selector=_selector(config, source))
    official = CHECKPOINTS.get(config.name)
    expected = None if official is None or config.part != "all" else official.selector
    if expected is not None and done.architecture.ft_proj_selector != expected:
        say(f"the catalogue expects the classifier on projection layer {expected}; what the file says was taken")
    return report(done)


def _selector(config: CheckpointsConvert, source: Path) -> int | None:
    """The projection layer that feeds the classifier where the catalogue must tell: no graph lies beside the file."""
    import converters
    from converters.names.network import ASSUMED

    official = CHECKPOINTS.get(config.name)
    if config.selector is not None or official is None or config.part != "all":
        return config.selector
    with contextlib.closing(converters.load(source, ema=config.ema)) as network:
        return official.selector if ASSUMED in network.notes else None
