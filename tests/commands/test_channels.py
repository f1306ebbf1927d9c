"""Images of other than three channels: grey ones through the commands, of any number through conversion."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import converters
from tests.commands import pictures
from tests.commands.test_any_encoder import CODE
from tf_simclr import cli, load_encoder, load_model
from tf_simclr.data.recipe import Recipe
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.parts import as_taken
from tf_simclr.own import named

torch = pytest.importorskip("torch", reason="torch is not installed (extra `torch`)")


@pytest.mark.parametrize("channels", [1, 4])
def test_a_resnet_of_any_channels_goes_both_ways(tmp_path, channels):
    """Keras to PyTorch and back; torch's own reading of the file is asked for the stem."""
    keras.utils.set_random_seed(channels)
    ours = network.build(Architecture(18, cifar_stem=True, channels=channels))
    ours.save(tmp_path / "ours.keras")
    converters.convert(tmp_path / "ours.keras", tmp_path / "there.pth", verify=False)
    stem = next(v for v in torch.load(tmp_path / "there.pth", weights_only=True).values() if v.ndim == 4)
    assert tuple(stem.shape) == (64, channels, 3, 3)
    converters.convert(tmp_path / "there.pth", tmp_path / "back.keras", verify=False)
    back = load_model(tmp_path / "back.keras")
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, channels)).astype(np.float32)
    np.testing.assert_array_equal(
        ours(images, training=False)["final_avg_pool"], back(images, training=False)["final_avg_pool"]
    )


def test_grey_is_tensorflows():
    images = np.random.default_rng(0).uniform(size=(2, 5, 4, 3)).astype(np.float32)
    one = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()])
    np.testing.assert_allclose(as_taken(images, one), tf.image.rgb_to_grayscale(images), atol=1e-3)
    four = keras.Sequential([keras.Input((None, None, 4)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(InputError, match="takes images of 4 channels"):
        as_taken(images, four)


def test_colour_changes_nothing_of_a_grey_picture_but_brightness_and_contrast():
    """So that to be made grey after the views is to have them of one channel."""
    from tf_simclr.data import augment

    grey = tf.repeat(tf.random.stateless_uniform((24, 24, 1), (1, 2)), 3, axis=-1)
    for draw in range(4):
        view = augment.two_views(grey, size=16, seed=tf.constant([0, draw]), recipe=Recipe()).numpy()
        np.testing.assert_allclose(view[..., 0], view[..., 1], atol=1e-5)
        np.testing.assert_allclose(view[..., 0], view[..., 2], atol=1e-5)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mynets.py").write_text(CODE)
    for split in ("train", "test"):
        pictures.write(Path("pets") / split, per_class=4)
    yield tmp_path
    sys.modules.pop("mynets", None)
    named.imported.clear()


@pytest.mark.parametrize("where", ["host", "device"])
def test_grey_images_through_the_commands(here, where, capfd):
    short = f"--image_dir pets --image_size 16 --train_batch_size 4 --train_steps 2 --augment_on {where}"
    cli.execute(
        f"pretrain {short} --encoder mynets:tiny_convnext --channels 1 --proj_out_dim 8 --model_dir run "
        "--knn_images 10 --knn_epochs 1"
    )
    assert load_encoder("run").input_shape == (None, 16, 16, 1) or load_encoder("run").input_shape[-1] == 1
    if where == "device":
        return
    cli.execute("linear-eval --checkpoint run --protocol knn --no-cache_features")
    cli.execute("embed --checkpoint run --out features.npz --split test")
    with np.load("features.npz") as file:
        assert file["values"].shape == (12, 8)
    cli.execute("finetune --checkpoint run --train_batch_size 4 --train_steps 1 --model_dir tuned")
    assert "channels 1" in capfd.readouterr().err
    cli.execute("export --checkpoint tuned --to savedmodel --out saved --samples 8")
    assert "(n, h, w, 1)" in capfd.readouterr().out
    with pytest.raises(InputError, match="takes images of 1 channels: leave --channels out"):
        cli.execute("embed --checkpoint run --channels 3 --out other.npz")


def test_channels_that_files_do_not_have_are_refused_at_once():
    with pytest.raises(InputError, match="channels must be 1 or 3: pictures are read as RGB"):
        cli.parse(["pretrain", "--channels", "4"])
