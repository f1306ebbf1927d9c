"""One conversion, from opening the source to the proof that the written file is the same network."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters import verification, writing
from converters.loading import load, open_source
from converters.names.network import Network, understand, without
from converters.names.recognise import NAMINGS
from converters.names.translate import left_behind
from converters.names.walk import part_of
from converters.networks.in_numpy import TORCHVISION
from converters.opening import folders
from converters.options import Options
from converters.published.by_name import located
from converters.tensorflow.folders import STATE
from converters.tensors import Stored, each
from converters.values import WARNING, rescaled, tidy, watched
from converters.verification import Difference
from tf_simclr.errors import InputError, check
from tf_simclr.files.places import expanded
from tf_simclr.models.architecture import Architecture


@dataclass
class Conversion:
    """What a conversion did.

    Attributes:
        source: Where from.
        target: Where to.
        to: Container written.
        naming: Naming written.
        network: What was written, by hub names; its notes and what was left behind.
        bytes: Of the weights.
        differences: Per endpoint, source against written file; empty: not verified.
        precision: The float type that endpoints were compared in.
        engine: What ran the written file for that.
        rescaling: The endpoint that rescaling changed most, where it was asked for.
        torchvision: The largest relative difference with torchvision's own max-pool, where its models take the file.
    """

    source: Path
    target: Path
    to: str
    naming: str
    network: Network
    bytes: int = 0
    differences: list[Difference] = field(default_factory=list)
    precision: str = ""
    engine: str = ""
    torchvision: Difference | None = None
    rescaling: Difference | None = None

    @property
    def architecture(self) -> Architecture:
        """Of what was written."""
        return self.network.architecture

    @property
    def worst(self) -> Difference | None:
        """The endpoint that differs most, relative to its magnitude."""
        return max(self.differences, key=lambda d: d.relative, default=None)


def convert(
    source: str | Path, target: str | Path | None = None, *, options: Options | None = None, **changes: Any
) -> Conversion:
    """Converts a checkpoint of any format to any other.

    Args:
        source: As `load` takes it: a file, a checkpoint's prefix, a folder or a name; recognised by content.
        target: File or folder to write; by default in the working directory, named as the source.
        options: What to take of the source, what to write, and how to prove it; by default all of it, proven.
        **changes: Single options by their names: `naming="torchvision"`, `part="encoder"`, `verify=False`, … (`Options`
            says what there is).

    Raises:
        InputError: the source is damaged or unknown, the target cannot hold it, or the verification fails.

    Example:
        >>> convert("r50.ckpt", "r50.safetensors", naming="torchvision", part="encoder")  # doctest: +SKIP
    """
    # Options by name win over the object that was given.
    wanted = dataclasses.replace(options or Options(), **changes)
    engine = verification.engine_of(wanted.engine)
    source = expanded(source)
    place_of_source = located(source)
    # 1. Open and understand; no weight is read before it is written.
    network = load(
        place_of_source,
        naming=wanted.source_naming,
        ema=wanted.ema,
        part=wanted.part,
        selector=wanted.selector,
        step=wanted.step,
        source_part=wanted.source_part,
    )
    with contextlib.closing(network):
        # 2. Where to and under which names; then only what these names have a place for.
        to, naming = _format_and_naming(network, target, wanted)
        target = expanded(target) if target is not None else default_target(source, to)
        original = watched(fitted(network, naming), float32=writing.CONTAINERS[to].float32)
        network = original if wanted.rescale is None else rescaled(original, wanted.rescale)
        done = Conversion(source, target, to, naming, network, sum(s.nbytes for s in network.weights.values()))
        writing.check_possible(target, to)
        with _staged(target) as place:
            # 3. Write beside the target.  Whether that would replace a part of the source can be told only now.
            writing.write(network, place, to=to, naming=naming)
            _check_apart(place_of_source, place, target=target)
            # 4. Prove what was written, from its bytes; it moves to the target when this block ends well.
            if wanted.verify:
                _prove(done, place, engine=engine)
            if wanted.verify and wanted.rescale is not None:
                _prove_rescaling(done, original)
            tidy(network)
    return done


def _check_apart(source: Path, place: Path, *, target: Path) -> None:
    """Raises `InputError` where what was written would replace what it was read from: the rest of it would be lost."""
    goals = [target / path.relative_to(place) for path in place.rglob("*")] if place.is_dir() else [target]
    replaced = [goal for goal in goals if goal.is_file()]
    read = folders.files_of(source) if replaced else []
    for goal in replaced:
        if any(goal.samefile(path) for path in read):
            raise InputError(f"{target} must not be where the source lies, but {goal} is read; choose another place")


def _prove_rescaling(done: Conversion, original: Network) -> None:
    """Compares what the rescaled network computes with the original: every endpoint but the first convolution.

    Raises:
        InputError: they differ by more than rounding the moving variances explains.
    """
    inputs = verification.images(done.architecture, "float64")
    # The first convolution is the one endpoint that rescaling is meant to change: no normalisation is behind it yet.
    ends = [verification.numpy_endpoints(network, inputs) for network in (original, done.network)]
    found = [d for d in verification.compare(*ends) if d.name != "initial_conv"]
    done.rescaling = max(found, key=lambda d: d.relative)
    check(done.rescaling.relative < 1e-4, "rescaling must not change outputs", differs=done.rescaling.relative)


def _format_and_naming(network: Network, target: str | Path | None, wanted: Options) -> tuple[str, str]:
    """Container and naming, by what was asked for, else by the target's ending, else the other framework's usual."""
    # What the user wrote wins, then the target's ending, then the usual.
    # Who gives a `.pth` wants PyTorch whatever the source; without a target the other framework is what is wanted.
    to = wanted.to or writing.container_of(target) or ("tf1" if NAMINGS[network.naming].torch else "pth")
    check(to in writing.CONTAINERS, f"the format to write must be one of {', '.join(writing.CONTAINERS)}", to=to)
    naming = wanted.naming or writing.usual_naming(network, to)
    known = writing.CONTAINERS[to].namings
    check(naming in known, f"naming of {to} must be one of {', '.join(known)}", naming=naming)
    return to, naming


def default_target(source: Path, to: str) -> Path:
    """The source's name with the container's ending, in the working directory."""
    # Compound endings first: `.weights.h5` before `.h5`, or half of one would stay.
    name = source.resolve().name
    for known in (".safetensors", ".weights.h5", ".keras", ".pth", ".ckpt", ".pt", ".zip", ".index", ".npz"):
        name = name.removesuffix(known)
    return Path(name + (writing.CONTAINERS[to].ending or f".{to}"))


def fitted(network: Network, naming: str) -> Network:
    """The part of the network that the naming has a place for.

    Raises:
        InputError: the naming cannot hold the encoder.
    """
    chosen = NAMINGS[naming]
    chosen.check(network.architecture)
    # Heads go as a whole: half a projection head is none.
    lost = left_behind(network, chosen)
    if not lost:
        return network
    architecture = network.architecture
    # What is lost of a head takes the whole head along, in the architecture, too.
    for part in {part_of(name) for name in lost}:
        architecture = without(architecture, part)
    left = network.left | {f"no place in {naming} names (--naming twin keeps them)": lost}
    kept = {name: stored for name, stored in network.weights.items() if name not in lost}
    return dataclasses.replace(network, architecture=architecture, weights=kept, left=left)


def _prove(done: Conversion, place: Path, *, engine: str) -> None:
    """Reads the written file and compares every weight bit by bit and every endpoint with the source's.

    The source's endpoints come from the NumPy reference; the written file's from Keras or TensorFlow for their files,
    from `engine` for PyTorch's, and from NumPy for checkpoints, which are no programs.

    Args:
        done: What was converted.
        place: Where the file lies until it is proven.
        engine: `numpy` or `torch`.

    Raises:
        InputError: they differ.
    """
    # What is on the disk counts, not what was meant to be written: the file is opened as anybody would open it.
    written = understand(open_source(place), naming=done.naming, selector=done.architecture.ft_proj_selector)
    with contextlib.closing(written):
        _same_weights(done, written)
        float32 = done.to in verification.IN_FLOAT32
        done.precision = "float32" if float32 else verification.precision(done.network)
        inputs = verification.images(done.architecture, done.precision)
        # Two ways that share no code: NumPy on the source's weights, the target's own framework on the written file.
        ours = verification.numpy_endpoints(done.network, inputs, torchvision_pool=_torchvision_takes(done))
        theirs, done.engine = verification.written_endpoints(place, written, inputs=inputs, to=done.to, engine=engine)
        done.differences = verification.compare(ours, theirs)
        if TORCHVISION in ours:
            done.torchvision = verification.difference(ours["final_avg_pool"], ours[TORCHVISION], name="final_avg_pool")
    _within(done)


def _torchvision_takes(done: Conversion) -> bool:
    """Whether torchvision's or timm's models load the weights, but would pool otherwise."""
    a = done.architecture
    return NAMINGS[done.naming].torch and not NAMINGS["torchvision"].refuses(a) and not a.cifar_stem


def _same_weights(done: Conversion, written: Network) -> None:
    check(
        written.architecture == done.architecture,
        f"{done.target} must be read as the network that was written; it was not put there, report this",
        written=written.architecture,
    )

    def compare(name: str, stored: Stored) -> None:
        a, b = stored.read(), written[name]
        # As whole numbers: NaN equals itself then, and 0.0 does not equal -0.0.
        if a.dtype != b.dtype or not np.array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}")):
            raise InputError(
                f"{done.target} must hold {name} bit by bit as the source, but did not; it was not put there"
            )

    # Two at a time, as they are written: a second network need not fit in memory.
    each(done.network.weights, compare)


def _within(done: Conversion) -> None:
    limit = verification.tolerance(done.architecture, done.precision)
    # `not <=` rather than `>`: a NaN is broken, too.
    # A file with a broken weight was warned of when it was read; its endpoints may be anything.
    broken = [d for d in done.differences if not d.relative <= limit]
    if broken and not any(note.startswith(WARNING) for note in done.network.notes):
        raise InputError(
            f"{done.target} must compute what the source computes, but {broken[0].name} differs by "
            f"{broken[0].relative:.1e} of its largest magnitude (allowed: {limit:.0e}); it was not put there"
        )


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A temporary path with the target's ending, for a file or a folder; put in place when the block ends well.

    On any exception, an interrupt too, what was written is removed and what was at the target stays.

    Raises:
        InputError: the block's, naming the target; or the target cannot be written.
    """
    # Beside the target, so that moving it there is a renaming on one disk: whole or not at all.
    place = target.with_name(f".{os.getpid()}.{target.name}")
    _clear(place)  # of a conversion that was killed, whose process had the same number
    try:
        yield place
        _settle(place, target)
    except InputError as error:
        raise InputError(str(error).replace(str(place), str(target))) from error
    except OSError as error:
        raise InputError(f"{target} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        _clear(place)


def _clear(place: Path) -> None:
    """Removes a folder or a file; the folder around it may be missing, which another error tells."""
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)


def _settle(place: Path, target: Path) -> None:
    """Moves a file, or a folder's files into a folder that may hold others."""
    if not (place.is_dir() and target.is_dir()):
        place.replace(target)
        return
    # A folder that has other files keeps them: only what was written is replaced.
    files = [path for path in place.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == STATE):  # it names the others: last
        goal = target / path.relative_to(place)
        goal.parent.mkdir(parents=True, exist_ok=True)
        path.replace(goal)
