"""Runs every command on Keras' backend, one after the other: `python -m tests.backends.every_command FOLDER`.

What became of each is written into `FOLDER/found.json`: `ran`, the sentence that refused it, or an error's name.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from tests.commands import pictures
from tf_simclr import cli
from tf_simclr.config import COMMANDS
from tf_simclr.errors import InputError

NET = """
import keras

def tiny():
    x = images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
"""
ENCODER = "--encoder tinynet:tiny"
IMAGES = "--image_dir images --image_size 8"
TRAINED = f"{IMAGES} {ENCODER} --train_batch_size 4 --train_steps 2 --strategy one"
PRETRAIN = f"{TRAINED} --knn_epochs 0 --proj_out_dim 4"
TENSORFLOW = "needs tensorflow: pip install 'tf-simclr[tensorflow]'"
ROWS: dict[str, tuple[str, str]] = {
    "pretrain": (f"{PRETRAIN} --model_dir run", ""),
    "linear-eval": (f"{IMAGES} {ENCODER} --checkpoint run", ""),
    "transfer": (f"{IMAGES} {ENCODER} --checkpoint run", TENSORFLOW),
    "demo": ("", TENSORFLOW),
    "finetune": (f"{TRAINED} --model_dir tuned", ""),
    "distill": (f"{TRAINED} --teacher tuned --model_dir student", TENSORFLOW),
    "sweep": ("--task nothing --model_dir sweep", "task must be"),
    "compare": ("run/linear_eval.json run/linear_eval.json", ""),
    "embed": (f"{IMAGES} {ENCODER} --split test --checkpoint run --out features.npz", ""),
    "export": (f"--checkpoint run {ENCODER} --image_size 8", TENSORFLOW),
    "prepare-shards": ("--image_dir images --out shards", ""),
    "chest prepare": ("raw chest --source synthetic --size 32 --patients 12", TENSORFLOW),
    "chest covid": (f"--radiographs synthetic {ENCODER} --model_dir covid", TENSORFLOW),
    "chest ards": ("--radiographs synthetic --checkpoint run", TENSORFLOW),
    "chest findings": ("--radiographs synthetic --checkpoint run", TENSORFLOW),
    "chest evaluate": ("--radiographs chest --model deployed", TENSORFLOW),
    "chest explain": ("--model deployed images/test/a/0.png", TENSORFLOW),
    "chest app": ("--model deployed", TENSORFLOW),
    "checkpoints list": ("", ""),
    "checkpoints get": ("nothing/there", "name must be one of `checkpoints list`"),
    "checkpoints convert": ("nothing/there", "name must be one of `checkpoints list`"),
    "doctor": ("--train False --seconds 900", ""),
    "presets": ("", ""),
    "augmentations": ("images/test/a/0.png --out drawn.png --image_size 8 --draws 1", ""),
}
"""Command → its words, and what refuses it without TensorFlow; nothing where it runs."""
OPTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "--augment_on device": ("", {}),
    "--augment_on host": ("augment_on must be auto or device without TensorFlow", {}),
    "--method moco --queue_length 16": ("", {}),
    "--mixed_precision bfloat16": ("", {}),
    "--mixed_precision float16": ("", {}),
    "--microbatch_size 2": ("", {"torch": "microbatch_size and remat need KERAS_BACKEND=tensorflow or jax"}),
    "--steps_per_execution 2": ("", {"torch": "steps_per_execution must be 1 with KERAS_BACKEND=torch"}),
    "--strategy mirrored": ("strategy must be auto, one or (JAX) data_parallel here", {}),
    "--strategy data_parallel": ("", {"torch": "strategy must be auto, one or (JAX) data_parallel here"}),
    "--image_dir shards": ("", {}),
    "--radiographs chest": (TENSORFLOW, {}),
    "--cache resized": ("cache resized needs TensorFlow", {}),
    "--cache_dataset True": ("", {}),  # small pictures are in memory anyway
    "--data_service localhost:1": ("data_service is tf.data's and needs TensorFlow", {}),
    "--channels 4": ("tinynet:tiny must take images of 4 channels", {}),
}
"""Options of `pretrain` → what refuses them, and what does on one backend alone."""


def prepared(place: Path) -> None:
    """Pictures of two classes, and an encoder's code."""
    pictures.splits(place / "images", size=(12, 12))
    (place / "tinynet.py").write_text(NET)


def became(words: list[str]) -> str:
    """What a command ends with."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.execute(words)
    except InputError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}, which is none of ours: {error}"
    return "ran"


def main(place: Path) -> None:
    prepared(place)
    os.chdir(place)
    sys.path.insert(0, str(place))
    found = {}
    for name in COMMANDS:
        found[name] = became([*name.split(), *ROWS[name][0].split()]) if name in ROWS else "has no row"
    for number, option in enumerate(OPTIONS):
        given = PRETRAIN.replace("--image_dir images", "") if "_dir" in option or "radiographs" in option else PRETRAIN
        words = [*given.split(), *option.split(), "--model_dir", f"run{number}"]
        found[option] = became(["pretrain", *words])
    (place / "found.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
