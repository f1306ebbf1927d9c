"""Views of the device beside the other options that say how is trained, several at once.

Of each combination: the same numbers as with views of the host, and the same bits after a stop within an epoch; or a
sentence that refuses it, whoever makes the views.
"""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests import tiny_runs
from tests.commands import pictures
from tf_simclr.commands import distill, finetune, pretrain
from tf_simclr.config import Distill, Finetune, Pretrain
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history

pytestmark = pytest.mark.slow
SIDE, STEPS, STOPPED = 8, 6, 4
TINY = "tests.commands.test_views_combined:tiny"
NEAR = {"float32": 2e-3, "bfloat16": 6e-2, "float16": 2e-2}
"""Relative, of a history: what rounding, of views and in the network, grows to in six steps of BatchNorm."""
NAMES = ("mixed_precision", "steps_per_execution", "num_replicas", "jit_compile", "images", "cache", "cache_dataset")
NAMES += ("loss", "noise_probability", "method", "microbatch_size")
ROWS = (
    ("float16", 2, 2, None, "held", "none", False, "supcon", 0.5, "simclr", 0),
    ("float32", 1, 1, True, "of many sizes", "resized", False, "nt_xent", 0.5, "simclr", 0),
    ("bfloat16", 2, 1, True, "of many sizes", "none", True, "supcon", 0.0, "simclr", 0),
    ("bfloat16", 1, 2, None, "of many sizes", "resized", False, "supcon", 0.5, "simclr", 0),
    ("float16", 2, 1, True, "of many sizes", "resized", False, "nt_xent", 0.0, "moco", 2),
    ("float32", 2, 2, None, "of many sizes", "none", False, "supcon", 0.0, "moco", 0),
    ("float32", 1, 2, None, "held", "none", True, "nt_xent", 0.0, "simclr", 2),
)
"""Values of the options; `held`: the device holds the images."""
SUPERVISED_NAMES = (*NAMES[:7], "augment")
SUPERVISED = (
    (distill.run, "float16", 1, 2, None, "of many sizes", "none", True, True),
    (finetune.run, "bfloat16", 2, 1, True, "of many sizes", "resized", False, True),
    (finetune.run, "float32", 1, 2, None, "held", "none", False, False),
    (distill.run, "float32", 2, 1, True, "held", "none", False, True),
    (finetune.run, "float16", 2, 2, None, "of many sizes", "none", True, True),
    (distill.run, "bfloat16", 1, 1, None, "of many sizes", "resized", False, False),
)
"""The commands with labels, whose images are crops and flips, or as they are tested."""
REFUSED = {
    "loss and hidden_norm must be left out with --method moco": {"method": "moco", "loss": "supcon"},
    "microbatch_size must be 0 with MoCo": {"method": "moco", "microbatch_size": 2},
    "give global_bn=False": {"num_replicas": 2, "microbatch_size": 2},
}
"""What a combination is refused for → its values."""


def tiny() -> keras.Model:
    """What `--encoder` names: a convolution with BatchNorm, of images of one channel or of three."""
    x = images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of one size, and of several."""
    found = tmp_path_factory.mktemp("images")
    for split in ("train", "test"):
        pictures.write(found / "held" / split, per_class=4, size=SIDE)
        for i, path in enumerate(sorted((found / "held" / split).rglob("*.png"))):
            other = found / "of many sizes" / path.relative_to(found / "held")
            other.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((SIDE + i % 5, SIDE + i % 3)).save(other)
    return found


def options_of(row: dict, place: Path, **changes) -> dict:
    """The options of a row; what is no option of its own names the images."""
    given = {name: value for name, value in row.items() if name != "images"}
    given |= {"strategy": "mirrored"} if row.get("num_replicas", 1) > 1 else {"strategy": "one"}
    given |= {"cache_size": SIDE, "cache_format": "raw"} if row.get("cache") == "resized" else {}
    return (
        given
        | {
            "image_dir": place / row["images"],
            "image_size": SIDE,
            "encoder": TINY,
            "train_batch_size": 4,
            "train_steps": STEPS,
            "checkpoint_steps": 2,
            "keep_checkpoint_max": 0,
            "learning_rate": 0.05,
            "optimizer": "momentum",
            "warmup_epochs": 0,
        }
        | changes
    )


WATCHED = {"knn_epochs": 0, "collapse_images": 0, "queue_length": 16, "proj_out_dim": 4}
"""What is short for a test: of pretraining alone."""


def refusal(row: dict, place: Path, **changes) -> str | None:
    """Pretrains; why that is refused, or None where it is not."""
    try:
        pretrain.run(Pretrain(**options_of(row, place, **WATCHED | changes)))
    except InputError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def teacher(place, tmp_path_factory):
    """A fine-tuned run, which has a classifier."""
    run = tmp_path_factory.mktemp("teacher")
    finetune.run(Finetune(**options_of({"images": "held"}, place, model_dir=run, learning_rate=0.5)))
    return run


def losses_of(folder: Path) -> np.ndarray:
    """Of each epoch in the history, those of the training."""
    rows = read_history(RunFolder(folder))
    return np.array([[row[name] for name in sorted(row) if name.endswith("loss")] for row in rows])


def assert_same(path: Path, expected: Path, *, replicas: int) -> None:
    """Both checkpoints hold the same bits; means of several replicas go on from their sum, which rounds otherwise."""
    ours, theirs = tiny_runs.arrays(path), tiny_runs.arrays(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if replicas > 1 and name.startswith("metrics/"):
            np.testing.assert_allclose(ours[name], value, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


def assert_as_near_as_rounding(folders: dict[str, Path], *, row: dict) -> None:
    """The histories of the views of the device and of the host are the same, within the precision."""
    device, host = (losses_of(at) for at in folders.values())
    assert device.size
    np.testing.assert_allclose(device, host, rtol=NEAR[row["mixed_precision"]], atol=1e-4)


def stopped_within_an_epoch(finished: Path, folder: Path) -> RunFolder:
    """A copy of a finished run, as it was when its epoch was not at its end."""
    run = RunFolder(shutil.copytree(finished, folder))
    for path in (run.checkpoint(STEPS), run.result, run.network):
        path.unlink()
    assert run.checkpoint(STOPPED).exists()
    return run


@pytest.mark.parametrize("values", ROWS, ids=lambda values: "-".join(map(str, values)))
def test_a_combination_gives_the_same_numbers_or_is_refused(values, place, tmp_path):
    row = dict(zip(NAMES, values, strict=True))
    folders = {where: tmp_path / where for where in ("device", "host")}
    said = {where: refusal(row, place, model_dir=at, augment_on=where) for where, at in folders.items()}
    expected = next((rule for rule, values in REFUSED.items() if values.items() <= row.items()), None)
    if expected is not None:
        assert all(expected in str(why) for why in said.values()), said
        return
    assert set(said.values()) == {None}, said
    assert_as_near_as_rounding(folders, row=row)
    stopped = stopped_within_an_epoch(folders["device"], tmp_path / "stopped")
    assert refusal(row, place, model_dir=stopped.path, augment_on="device") is None
    straight = RunFolder(folders["device"])
    assert_same(stopped.checkpoint(STEPS), straight.checkpoint(STEPS), replicas=row["num_replicas"])


@pytest.mark.parametrize(
    "values", SUPERVISED, ids=lambda values: "-".join(map(str, (values[0].__module__[19:], *values[1:])))
)
def test_a_combination_with_labels_gives_the_same_numbers(values, place, teacher, tmp_path):
    command, row = values[0], dict(zip(SUPERVISED_NAMES, values[1:], strict=True))
    kind = Finetune if command is finetune.run else Distill
    more = {} if kind is Finetune else {"teacher": teacher, "alpha": 0.5, "teacher_encoder": TINY}

    def train(folder: Path, where: str) -> None:
        command(kind(**options_of(row, place, model_dir=folder, augment_on=where, **more)))

    folders = {where: tmp_path / where for where in ("device", "host")}
    for where, folder in folders.items():
        train(folder, where)
    assert_as_near_as_rounding(folders, row=row)
    stopped = stopped_within_an_epoch(folders["device"], tmp_path / "stopped")
    train(stopped.path, "device")
    straight = RunFolder(folders["device"])
    assert_same(stopped.checkpoint(STEPS), straight.checkpoint(STEPS), replicas=row["num_replicas"])
