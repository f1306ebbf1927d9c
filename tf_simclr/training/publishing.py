"""A network to the Hugging Face hub, in Keras' own form there: `keras.saving.load_model("hf://user/repo")`.

What is sent is made in a folder of its own first, and sent as one commit: a push that fails leaves the repository as it
was.  Of the run go the network, its numbers and the size of its images; no path, no name of an image or of a patient.

References:
    huggingface.co/docs/huggingface_hub/guides/upload (a commit of several files)
    huggingface.co/docs/hub/model-cards (README.md and its metadata)
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_simclr.errors import InputError, check, in_one_line
from tf_simclr.files import read_json
from tf_simclr.files.places import expanded, hub_name
from tf_simclr.frameworks import check_installed
from tf_simclr.run_folder import RunFolder
from tf_simclr.training.about import FILE, known_of

if TYPE_CHECKING:
    import keras

_IMAGES = {
    3: "RGB in [0, 1], (n, height, width, 3), neither mean nor standard deviation taken off",
    1: "luminance in [0, 1], (n, height, width, 1), 0.299 R + 0.587 G + 0.114 B of RGB images",
}
"""Channels → what a card says of the images."""
_NUMBERS = ("step", "seconds", "loss", "contrast_loss", "contrast_acc", "contrast_entropy", "supervised_acc", "knn_acc",
            "eval_images", "mean_auc")  # fmt: skip
"""Of `result.json`, those that a card shows beside accuracies with intervals; nothing else of it leaves the machine."""
_OPTIONS = ("method", "loss", "temperature", "resnet_depth", "width_multiplier", "sk_ratio", "image_size",
            "train_batch_size", "train_epochs", "optimizer", "learning_rate", "weight_decay", "labels_fraction",
            "fine_tune_after_block", "distillation_temperature", "alpha", "mixed_precision", "seed")  # fmt: skip
"""Of a run's options, those that a card shows; none of them is a path."""


def check_can_push(name: str, *, token: str | None = None) -> None:
    """Refuses what cannot be pushed to, before a training is spent on it.

    Args:
        name: of the repository.
        token: of the hub; by default the one that you have logged in with, or `HF_TOKEN`.

    Raises:
        InputError: it is no name, huggingface_hub is not installed, or the hub knows no such token.
    """
    name = hub_name(name)
    # The cheap questions first: a name, a package, a token, and whether the hub knows it.
    check_installed(f"pushing to hf://{name}", "huggingface_hub")
    import huggingface_hub

    advice = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
    check(token or huggingface_hub.get_token(), f"pushing to hf://{name} needs a token of the hub; {advice}")
    try:
        huggingface_hub.HfApi(token=token).whoami()
    except Exception as error:  # its HTTP client's errors, which differ between its versions, are among them
        raise InputError(_told(name, error)) from error


def push_to_hub(
    run_or_model: Any,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    files: Sequence[Path] = (),
) -> str:
    """Sends a network to a repository of the Hugging Face hub, which is made if it is not there.

    The repository then holds the network as Keras keeps one in a folder (`config.json`, `metadata.json`,
    `model.weights.h5`), of a ResNet `model.safetensors` as well, `about.json` (size and range of the images, names of
    the classes), and a model card, `README.md`, whose licence is left to you.  An earlier card is replaced.

    Args:
        run_or_model: a run folder, a checkpoint of any kind that `load_model` takes, or a Keras model; of a `SimCLR`
            or a `Classifier` its network.
        name: USER/NAME, with `hf://` or without.
        private: whether a repository that has to be made is for you alone.
        token: of the hub; by default the one that you have logged in with, or `HF_TOKEN`.
        revision: branch; by default `main`.
        files: further files or folders to put beside, such as an export.

    Returns:
        The address of the commit.

    Example:
        >>> push_to_hub("runs/pets", "me/simclr-pets")  # doctest: +SKIP
        'https://huggingface.co/me/simclr-pets/commit/…'

    Raises:
        InputError: the name is none, or there is no network; there is no token, or the hub refuses it; or the hub
            cannot be reached.
    """
    name = hub_name(name)
    check_can_push(name, token=token)
    import huggingface_hub

    # All of it in a folder, then one commit: the repository has all or nothing of it.
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), run_or_model, name=name, files=files)
        api = huggingface_hub.HfApi(token=token, library_name="tf_simclr")
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        adds = [huggingface_hub.CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in found]
        message = "A network of tf_simclr"
        try:
            api.create_repo(name, private=private, exist_ok=True)
            return str(api.create_commit(name, adds, commit_message=message, revision=revision).commit_url)
        except Exception as error:  # as above
            raise InputError(_told(name, error)) from error


def _told(name: str, error: BaseException) -> str:
    """What went wrong on the hub, in a sentence."""
    # The first answer of a server among the causes of the error.
    answers = (getattr(one, "response", None) for one in _chain(error))
    status = next((code for answer in answers if (code := getattr(answer, "status_code", None))), None)
    reasons = {
        401: "the hub does not know the token; log in with `hf auth login`, or set HF_TOKEN",
        403: "the token may not write there; take one that may, or another name",
        404: "the hub has no such user or repository, or the token may not see it",
    }
    reason = reasons.get(status or 0, f"the hub could not be reached, or refused: {in_one_line(error, 200)}")
    return f"hf://{name} was not pushed to, nothing of it is there: {reason}"


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that it came from."""
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]


def _fill(folder: Path, run_or_model: Any, *, name: str, files: Sequence[Path]) -> None:
    """Makes all that is sent."""
    import shutil

    import keras

    # 1. The network, and what is known of it.
    network, run = _network_of(run_or_model)
    about = _about(network, run)

    # 2. As Keras keeps it in a folder: what its own `hf://` reads, on every backend.  What is compiled stays here.
    keras.saving.save_model(network, folder, zipped=False)
    with tempfile.TemporaryDirectory() as elsewhere:
        from tf_simclr.weights import write_safetensors

        target = Path(elsewhere) / "model.safetensors"
        if write_safetensors(network, target):
            shutil.copyfile(target, folder / target.name)

    # 3. What the network is for, for programs and for people.
    (folder / FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(about, network, name=name), encoding="utf-8")
    for path in files:
        shutil.copytree(path, folder / path.name) if path.is_dir() else shutil.copyfile(path, folder / path.name)


def _network_of(run_or_model: Any) -> tuple[keras.Model, RunFolder | None]:
    """The network to send, and the run that it is from.

    Raises:
        InputError: it is none.
    """
    import keras

    from tf_simclr.models.network import plain
    from tf_simclr.weights import load_model

    if isinstance(run_or_model, keras.Model):
        make = getattr(run_or_model, "network", None)
        # A model that trains gives its network; any other one is sent as it is.
        return (plain(make()) if callable(make) else run_or_model), None
    run = RunFolder(expanded(run_or_model))
    is_run = run.config.is_file() and run.architecture.is_file()
    return plain(load_model(run_or_model)), run if is_run else None


def _about(network: keras.Model, run: RunFolder | None) -> dict[str, Any]:
    """What others should know of a network: nothing that names an image, a patient or a place."""
    channels = int(network.input_shape[-1])
    # A network of endpoints, or of one output.
    outputs = network.output if isinstance(network.output, Mapping) else {"output": network.output}
    about: dict[str, Any] = {
        "images": _IMAGES.get(channels, f"{channels} channels in [0, 1]"),
        "channels": channels,
        "outputs": {name: list(value.shape) for name, value in outputs.items()},
        "parameters": int(network.count_params()),
    }
    if run is None:
        return about
    options = read_json(run.config)
    result = read_json(run.result) if run.result.is_file() else {}
    told = {key: options[key] for key in _OPTIONS if isinstance(options.get(key), (int, float, str))}
    return about | {
        "command": str(options.get("command", "")),
        "image_size": options.get("image_size"),
        "classes": list(run.class_names()),
        "options": told,
        "numbers": _numbers(result),
        "notes": known_of(run.path)["notes"],
        "training_images": read_json(run.data).get("images") if run.data.is_file() else None,
        "radiographs": options.get("radiographs") is not None or str(options.get("command")).startswith("chest"),
        "data_set": options.get("dataset") if not (options.get("image_dir") or options.get("radiographs")) else None,
    }


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a `result.json`, by name; of an accuracy or an area its interval, too."""
    found: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping) and ("accuracy" in value or "value" in value):
            kept = {key: value[key] for key in ("accuracy", "value", "low", "high") if key in value}
            # Numbers alone, finite ones: nothing that a run noted as text leaves the machine.
            numbers = all(isinstance(number, (int, float)) and math.isfinite(number) for number in kept.values())
            found |= {name: kept} if numbers and re.fullmatch(r"top\d|auc", name) else {}
        elif name in _NUMBERS and type(value) in (int, float) and math.isfinite(value):
            found[name] = value
    return found


def card(about: Mapping[str, Any], network: keras.Model, *, name: str) -> str:
    """The model card of what `_about` knows; its licence is the user's to give."""
    classes = about.get("classes") or []
    title = name.split("/")[1]
    what = {"pretrain": "SimCLR's pretraining, without labels", "finetune": "fine-tuning a classifier",
            "distill": "distillation from a teacher"}.get(str(about.get("command")))  # fmt: skip
    task = "image-classification" if classes else "image-feature-extraction"
    lines = ["---", "library_name: keras", f"pipeline_tag: {task}", "tags:", "- simclr", "- self-supervised-learning",
             "- keras", "---", "", f"# {title}", ""]  # fmt: skip
    lines += [f"A network of tf_simclr{f', from {what}' if what else ''}: {about['parameters']:,} parameters.", ""]
    lines += ["**Licence:** not stated yet.  Whoever publishes this adds `license:` to the lines at the top.", ""]
    if about.get("notes"):
        lines += [f"**{note[:1].upper()}{note[1:]}.**" for note in about["notes"]] + [""]
    if about.get("radiographs"):
        lines += [
            "**For research use, not a diagnosis.**  It was trained on radiographs, is no medical device, and was not "
            "tested at another hospital.  No image and nothing about a patient is part of this repository.",
            "",
        ]
    size = about.get("image_size")
    lines += ["## Use", "", "```python", "import keras", "import tf_simclr  # registers its layers", "",
              f'model = keras.saving.load_model("hf://{name}")',
              f'encoder = tf_simclr.load_encoder("hf://{name}")  # images to features', "```", "",
              f"Images: {about['images']}{f'; trained at {size} × {size} pixels' if size else ''}.", "",
              "| output | shape |", "| --- | --- |"]  # fmt: skip
    lines += [f"| `{end}` | {tuple(shape)} |" for end, shape in about["outputs"].items()]
    if classes:
        shown = ", ".join(f"{number}: {label}" for number, label in enumerate(classes[:20]))
        lines += ["", f"Classes of `logits_sup`: {shown}{', …' if len(classes) > 20 else ''}."]
    if about.get("numbers"):
        lines += ["", "## Numbers", "", "| number | value |", "| --- | --- |"]
        lines += [f"| {key} | {_shown(value)} |" for key, value in about["numbers"].items()]
    if about.get("options"):
        count, data = about.get("training_images"), about.get("data_set")
        lines += ["", "## Training", ""]
        lines += [f"{count:,} images{f' of {data}' if data else ''}.", ""] if isinstance(count, int) else []
        lines += ["| option | value |", "| --- | --- |", *(f"| {key} | {v} |" for key, v in about["options"].items())]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A number in a card, with its interval."""
    if isinstance(value, Mapping):
        return f"{value.get('accuracy', value.get('value')):.3f} ({value['low']:.3f}–{value['high']:.3f})"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
