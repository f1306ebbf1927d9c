"""Checkpoints of any kind as Keras networks: the one module of the library that knows the converters."""

import contextlib
import dataclasses
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_simclr.errors import InputError, check
from tf_simclr.files import contents, read_json
from tf_simclr.files.places import expanded
from tf_simclr.foreign import reading
from tf_simclr.models.architecture import Architecture
from tf_simclr.run_folder import RunFolder, read_arrays

if TYPE_CHECKING:
    import keras


def load_model(path: Any, **selection: Any) -> "keras.Model":
    """Loads a checkpoint of any kind as a Keras network, of a ResNet or of any other encoder that Keras saved.

    Args:
        path: a run folder, an official SimCLR checkpoint, SavedModel or hub module, or PyTorch weights; recognised by
            content.  Where nothing lies there: an official name, such as `simclrv2/pretrained/r50_1x_sk0`, or
            `hf://user/repo` or `hf://user/repo@revision`, which are downloaded once and kept, or an address in a bucket
            (`gs://…`), which is mirrored.
        **selection: as in `converters.load`: `ema`, `part`, `selector`, `step`, `source_part`.

    Returns:
        A trainable model from images `(n, h, w, 3)` in [0, 1] to a dict by the official endpoint names
        (`tf_simclr.models.network.build`); of another encoder than a ResNet `final_avg_pool` stands for its features.

    Raises:
        InputError: the file is damaged, not whole, or of no known kind.
    """
    from converters.loading import load
    from converters.networks.in_keras import build_keras

    if (own := own_network(path, **selection)) is not None:
        return own
    with contextlib.closing(load(path, **selection)) as network:
        return build_keras(network)


def own_network(path: Any, **selection: Any) -> "keras.Model | None":
    """The network of a checkpoint whose encoder is no ResNet of ours; None where it is one.

    Args:
        path: as in `load_model`.
        **selection: as in `load_model`.

    Raises:
        InputError: it is damaged, not whole, or made of code that nobody has named.
    """
    from converters.loading import load

    place = located(path)
    run = RunFolder(place)
    if _is_own(run):
        network = _of_run(run, step=selection.get("step"))
    elif zipfile.is_zipfile(place):
        from tf_simclr.own import encoders

        if not encoders.is_keras(place):
            return None
        try:  # a ResNet that the converters know, whatever Keras model it is in
            load(place, **selection).close()
            return None
        except InputError:
            network = encoders.as_network(encoders.load(place))
    else:
        return None
    rule = f"{path} has an encoder that is no ResNet of ours: ema, selector and source_part must be left out"
    asked = [name for name in ("ema", "selector", "source_part") if selection.get(name) not in (None, False)]
    check(not asked, rule, asked=asked)
    return network


def _is_own(run: RunFolder) -> bool:
    """Whether a folder is that of a run with an encoder of another kind."""
    try:
        return run.architecture.is_file() and "encoder" in read_json(run.architecture)
    except InputError:  # the converters say what is wrong with it
        return False


def _of_run(run: RunFolder, *, step: int | None) -> "keras.Model":
    """The network of a run with an encoder of another kind: the finished one, else its newest training state."""
    from tf_simclr.models.network import variables_by_name
    from tf_simclr.own import encoders

    if step is None and run.network.is_file():
        return encoders.as_network(encoders.load(run.network))
    steps = run.steps()
    check(steps, f"{run.path} must hold a checkpoint; the run has saved none yet", checkpoints=0)
    check(step is None or step in steps, f"step must be one of {sorted(steps)}", step=step)
    arrays = read_arrays(run.checkpoint(steps[0] if step is None else step))
    network = encoders.drawn(run.blueprint.read_bytes(), where=str(run.blueprint))
    encoder = encoders.encoder_of(network)
    with reading(run.path, "a whole run"):
        for name, weight in variables_by_name(network, first=encoder).items():
            weight.assign(arrays[f"model/{name}"])
    return network


def located(path: Any) -> Path:
    """Where a checkpoint of any kind lies on this machine, as `load_model` finds it; downloaded by now or then."""
    from converters.published import by_name

    return by_name.located(expanded(path))


def read_network(path: Any, **selection: Any) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Reads a checkpoint of any kind as its architecture and every weight by name (`stem_conv1/kernel`).

    Arguments and errors as in `load_model`.
    """
    from converters.loading import load

    with contextlib.closing(load(path, **selection)) as network:
        return network.architecture, {name: network[name] for name in network.weights}


def content_of(path: Any, *, ema: bool = False) -> str:
    """Tells the weights of a checkpoint from others, wherever they lie.

    Of a ResNet by its architecture and every weight, so that another kind of file, and what else lies in a run folder,
    do not count; of other networks by the bytes of their files.  It loads no framework.

    Args:
        path: as in `load_model`.
        ema: as in `load_model`.

    Raises:
        InputError: as `load_model`.
    """
    place = located(path)
    run = RunFolder(place)
    if _is_own(run):
        states = [run.blueprint, *run.checkpoints()[:1]]
        return contents.of_values(contents.digests([run.network] if run.network.is_file() else states))
    try:
        architecture, weights = read_network(place, ema=ema)
    except InputError:
        if not zipfile.is_zipfile(place):
            raise
        return contents.digest(place)
    values = {name: contents.of_array(weight) for name, weight in weights.items()}
    return contents.of_values(dataclasses.asdict(architecture), values)


def content_of_option(name: str, value: Any, *, ema: bool = False) -> str | None:
    """As `content_of`, of an option of `run_folder.WEIGHTS`; None where it names code, or a network of a library.

    Raises:
        InputError: as `load_model`.
    """
    if name != "encoder":
        return content_of(value, ema=ema)
    if value.endswith(".keras"):
        return contents.digest(expanded(value))
    kind, _, preset = value.partition(":")
    folder = expanded(preset) if kind == "keras_hub" else None
    if folder is None or not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return contents.of_values([path.name for path in files], contents.digests(files))


def load_encoder(path: Any, **selection: Any) -> "keras.Model":
    """Loads the encoder of a checkpoint of any kind, without heads.

    Args:
        path: as in `load_model`.
        **selection: as in `load_model`.

    Returns:
        A trainable model from images `(n, h, w, 3)` in [0, 1] to features `(n, d)`.

    Raises:
        InputError: the file is damaged, not whole, or of no known kind.
    """
    import keras

    model = load_model(path, **selection | {"part": "encoder"})
    return keras.Model(model.input, model.output["final_avg_pool"], name="encoder")


def write_safetensors(network: "keras.Model", path: Path) -> bool:
    """Writes a Keras network as safetensors under the names of the PyTorch twin; false where it is no ResNet of ours.

    Args:
        network: images to endpoints.
        path: the file.
    """
    import converters

    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "network.keras")
        try:
            converters.convert(Path(folder) / "network.keras", path, to="safetensors", verify=False)
        except InputError:  # an encoder of another kind: Keras' form is the only one that it has
            return False
    return True
