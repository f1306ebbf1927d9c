"""What a conversion did, in words."""

from converters.conversion import Conversion
from converters.names.describe import POOL, describe, some, tensors, version
from converters.names.recognise import NAMINGS


def report(done: Conversion) -> str:
    """Lines that say what was found, written, left behind, proven, and how to load it."""
    network = done.network
    style = version(done.architecture, container=network.container, has_ema=network.has_ema)
    step = f", step {network.step}" if network.step is not None else ""
    kind = f"{network.container} in {network.naming} names{step}{', ' + style if style else ''}"
    dtypes = ", ".join(sorted({stored.dtype for stored in network.weights.values()}))
    lines = [
        ("Read", f"{done.source}: {kind}{', moving averages (EMA)' if network.ema else ''}"),
        ("Found", describe(done.architecture)),
        (
            "Wrote",
            f"{done.target}: {len(network.weights)} weights, {done.bytes / 1e6:.1f} MB, {dtypes}, {done.naming} names",
        ),
    ]
    lines += [("Left", f"{tensors(len(keys))}: {why} ({some(keys)})") for why, keys in network.left.items()]
    lines += [("Note", note) for note in network.notes]
    lines += _proof(done) + _loading(done)
    return "\n".join(f"{head:<9}{text}" for head, text in lines) + "\n"


def _proof(done: Conversion) -> list[tuple[str, str]]:
    worst = done.worst
    if worst is None:
        return [("Verified", "no (--no-verify)")]
    text = (
        f"weights bit-equal; {len(done.differences)} endpoints differ by at most {worst.relative:.1e} of their largest "
    )
    lines = [("Verified", text + f"magnitude ({worst.name}, {done.engine} in {done.precision})")]
    if done.rescaling is not None:
        lines.append(("Rescaled", f"no output changed by more than {done.rescaling.relative:.1e} of its largest"))
    if done.torchvision is not None:
        lines.append(
            (
                "Note",
                "torchvision and timm take these weights, but pool with other windows: their features differ by "
                f"{done.torchvision.relative:.0%} of the largest. The cure: {POOL}",
            )
        )
    return lines


def _loading(done: Conversion) -> list[tuple[str, str]]:
    if NAMINGS[done.naming].torch:
        code = [
            "import converters",
            f'model = converters.load_torch("{done.target}")',
            'features = model(images)["final_avg_pool"]  # images (n, 3, h, w) in [0, 1], not normalised',
        ]
    else:
        code = [
            "import tf_simclr",
            f'model = tf_simclr.load_model("{done.target}")',
            'features = model(images)["final_avg_pool"]  # images (n, h, w, 3) in [0, 1], not normalised',
        ]
    return [("Load", code[0]), *(("", line) for line in code[1:])]
