"""TensorFlow's checkpoints as sources: TF1, hub modules, TF2 object checkpoints, SavedModels; without TensorFlow."""

from pathlib import Path

from converters.bundle import Bundle, open_bundle
from converters.checkpoints import Found, resolve_prefix
from converters.graph_def import find_selector
from converters.object_graph import GRAPH_KEY, SLOT
from converters.saved_model import variable_keys
from converters.stored import Source, Stored


def open_tensorflow(path: Path, *, step: int | None = None) -> Source:
    """Opens a checkpoint.

    Args:
        path: A folder, a prefix or any of a checkpoint's files.
        step: Which of a folder's checkpoints; by default the newest.

    Raises:
        InputError: as `resolve_prefix`, `open_bundle` and `variable_keys` say.
    """
    found = resolve_prefix(path, step=step)
    bundle = open_bundle(found.prefix)
    names = {name: key for name, key in variable_keys(bundle).keys.items() if bundle.dtype(key).kind != "O"}
    selector = find_selector(found.prefix)
    return Source(
        path,
        _container(found, bundle),
        {name: Stored(bundle.shape(key), bundle.dtype(key).name, _reader(bundle, key)) for name, key in names.items()},
        slots=frozenset(name for name in names if _is_slot(name, names)),
        step=_step(bundle, names),
        selector=selector.value if selector else None,
        selector_from=selector.source.name if selector else "",
        notes=list(found.notes),
        close=bundle.close,
    )


def _container(found: Found, bundle: Bundle) -> str:
    if GRAPH_KEY in bundle:
        return "TF2 SavedModel" if found.saved_model else "TF2 object checkpoint"
    return "TF1 hub module" if found.saved_model else "TF1 checkpoint"


def _reader(bundle: Bundle, key: str):
    return lambda: bundle[key]


def _is_slot(name: str, names: dict[str, str]) -> bool:
    """TF1 puts a slot's name behind the variable's; TF2 marks it; optimizers' own numbers count, too."""
    if SLOT in name or name.startswith("optimizer/") or name in ("beta1_power", "beta2_power"):
        return True
    return "/" in name and name.rsplit("/", 1)[0] in names


def _step(bundle: Bundle, names: dict[str, str]) -> int | None:
    key = names.get("global_step")
    return int(bundle[key]) if key and bundle.shape(key) == () else None
