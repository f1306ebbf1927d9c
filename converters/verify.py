"""`python -m converters.verify`: whether two checkpoints of any formats are one network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from converters.command import asked, spare_threads
from tf_simclr.config.options import POSITIONAL
from tf_simclr.errors import InputError, check, exit_on_input_error
from tf_simclr.files.places import expand
from tf_simclr.terminal import write

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from converters.names.network import Network
    from converters.verification import Difference


@dataclass(frozen=True)
class Options:
    """Two checkpoints and how to compare them."""

    a: Annotated[Path, POSITIONAL]
    """A checkpoint (a file, a TensorFlow prefix or a folder), recognised by content."""
    b: Annotated[Path, POSITIONAL]
    """Another checkpoint, of any format."""
    tolerance: float | None = None
    """Largest difference allowed, in units of the largest magnitude; by default 1e-10 in float64, 1e-5 in float32
    (1e-4 from depth 152 on)."""
    engine: Literal["auto", "numpy", "torch", "keras"] = "auto"
    """What computes b's endpoints (a's are computed by NumPy): by default PyTorch's twin if b is a PyTorch file and
    PyTorch is installed."""
    ema: bool = False
    """Take the moving averages where there are any."""
    selector: int | None = None
    """Projection layer that feeds the classifier, for both; by default as the stored graphs say."""
    source_part: str | None = None
    """Of several networks in a file the one whose names begin so; by default the trained one."""

    def __post_init__(self) -> None:
        expand(self)
        fits = self.tolerance is None or 0 <= self.tolerance < math.inf
        check(fits, "tolerance must be a finite number of at least 0", tolerance=self.tolerance)


def main(line: Sequence[str] | None = None, program: str = "python -m converters.verify") -> None:
    """Compares two checkpoints weight by weight and endpoint by endpoint; exit code 1 if they differ."""
    with exit_on_input_error():
        options = asked(Options, line, program=program, description=main.__doc__)
        spare_threads()
        equal, lines = run(options)
        write("\n".join(lines) + "\n")
    raise SystemExit(0 if equal else 1)


def run(options: Options) -> tuple[bool, list[str]]:
    """Compares, and says whether all is within the tolerance, and the lines to print."""
    from converters import verification

    a, b = _open(options.a, options), _open(options.b, options)
    text = _unlike(a, b)
    if text:
        return False, [text]
    # Keras computes in float32, whatever is compared.
    dtype = "float32" if options.engine == "keras" else verification.precision(a)
    limit = options.tolerance if options.tolerance is not None else verification.tolerance(a.architecture, dtype)
    inputs = verification.images(a.architecture, dtype)
    # a by NumPy, b by what its format is run with: two computations and two readers.
    ours, theirs = verification.numpy_endpoints(a, inputs), _forward(b, options)(b, inputs)
    ends = verification.compare(ours, theirs)
    values = [verification.difference(a[name], b[name], name=name) for name in a.weights if name in b.weights]
    of_ends = [f"{d.name:<18} differs by {d.largest:.2e}, {d.relative:.1e} of its largest magnitude" for d in ends]
    lines = [_summary(values), *of_ends, *_only(a, b)]
    return _verdict(values, ends, limit, lines)


def _open(path: Path, options: Options) -> "Network":
    """A file that holds one network needs no choice: what was chosen is for the other one."""
    from converters.loading import load

    try:
        return load(path, ema=options.ema, selector=options.selector, source_part=options.source_part)
    except InputError as error:
        if (options.ema and "moving averages" in str(error)) or "--source_part must be one of" in str(error):
            return load(path, selector=options.selector)
        raise


def _unlike(a: "Network", b: "Network") -> str:
    from converters.names.describe import describe
    from converters.names.network import without

    # One of two files may lack a head that the other has: heads are compared where both have them.
    # Heads that one lacks are left out of both.
    bare = [without(without(n.architecture, "supervised"), "projection") for n in (a, b)]
    if bare[0] == bare[1]:
        return ""
    return f"DIFFERENT: a is {describe(a.architecture)}; b is {describe(b.architecture)}"


def _forward(b: "Network", options: Options) -> "Callable[[Network, np.ndarray], dict[str, np.ndarray]]":
    from converters import verification
    from converters.names.recognise import NAMINGS

    engine: str = options.engine
    if engine == "auto":
        engine = verification.engine_of("auto") if NAMINGS[b.naming].torch else "numpy"
    engines = {
        "numpy": verification.numpy_endpoints,
        "torch": verification.torch_endpoints,
        "keras": verification.keras_endpoints,
    }
    return engines[engine]


def _summary(values: list["Difference"]) -> str:
    unequal = [d for d in values if d.largest != 0]
    if not unequal:
        return f"weights: {len(values)} compared, all equal"
    # The worst of the unequal ones, by its own size.
    worst = max(unequal, key=lambda d: d.relative)
    return f"weights: {len(values)} compared, {len(unequal)} differ, most {worst.name} by {worst.relative:.1e}"


def _only(a: "Network", b: "Network") -> list[str]:
    pairs = (("a", a.weights.keys() - b.weights.keys()), ("b", b.weights.keys() - a.weights.keys()))
    return [f"only in {name}: {', '.join(sorted(keys))}" for name, keys in pairs if keys]


def _verdict(
    values: list["Difference"], ends: list["Difference"], limit: float, lines: list[str]
) -> tuple[bool, list[str]]:
    # Endpoints before weights, in the order of the computation: the first that differs tells where to look.
    first = next((d for d in [*ends, *values] if not d.relative <= limit), None)
    if first is None:
        return True, [*lines, f"EQUAL within {limit:.0e}"]
    return False, [*lines, f"DIFFERENT: first {first.name}, by {first.relative:.1e} (allowed: {limit:.0e})"]


if __name__ == "__main__":
    main()
