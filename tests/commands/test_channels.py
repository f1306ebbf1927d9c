"""Images of other than three channels: grey and with opacity through the commands, any through conversion."""

import dataclasses
import io
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import converters
from converters.command import report
from tests.commands import pictures
from tests.commands.test_any_encoder import CODE
from tf_simclr import cli, load_encoder, load_model
from tf_simclr.data import images, pipeline
from tf_simclr.data.device_views import DeviceViews
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.in_python.training import picture_views
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import from_arrays, from_folder, with_opacity
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.parts import as_taken
from tf_simclr.own import named

torch = pytest.importorskip("torch", reason="torch is not installed (extra `torch`)")


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_a_resnet_of_any_channels_goes_both_ways(tmp_path, channels):
    """Keras to PyTorch and back; torch's own reading of the file is asked for the stem."""
    keras.utils.set_random_seed(channels)
    ours = network.build(Architecture(18, cifar_stem=True, channels=channels))
    ours.save(tmp_path / "ours.keras")
    done = converters.convert(tmp_path / "ours.keras", tmp_path / "there.pth", verify=False)
    assert f"stem of {channels} channel" in report(done)
    assert f"images (n, {channels}, h, w)" in report(done)
    stem = next(v for v in torch.load(tmp_path / "there.pth", weights_only=True).values() if v.ndim == 4)
    assert tuple(stem.shape) == (64, channels, 3, 3)
    converters.convert(tmp_path / "there.pth", tmp_path / "back.keras", verify=False)
    back = load_model(tmp_path / "back.keras")
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, channels)).astype(np.float32)
    np.testing.assert_array_equal(
        ours(images, training=False)["final_avg_pool"], back(images, training=False)["final_avg_pool"]
    )


def test_grey_is_tensorflows():
    pixels = np.random.default_rng(0).uniform(size=(2, 5, 4, 3)).astype(np.float32)
    one = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()])
    np.testing.assert_allclose(as_taken(pixels, one), tf.image.rgb_to_grayscale(pixels), atol=1e-3)
    four = keras.Sequential([keras.Input((None, None, 4)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(InputError, match="takes images of 4 channels"):
        as_taken(pixels, four)


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


@pytest.mark.parametrize("where", ["host", pytest.param("device", marks=pytest.mark.slow)])
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


# Opacity.


def written(kind: str) -> tuple[bytes, np.ndarray]:
    """A picture's file, and its red, green, blue and opacity in [0, 1] by NumPy alone."""
    rng = np.random.default_rng(3)
    rgba = rng.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    options: dict = {}
    picture = Image.fromarray(rgba)
    if kind in ("JPEG", "PNG RGB"):
        rgba[..., 3] = 255
        picture = Image.fromarray(rgba[..., :3])
        options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "PNG LA":
        rgba[..., :3] = rgba[..., :1]
        picture = Image.fromarray(np.ascontiguousarray(rgba[..., [0, 3]]), "LA")
    if kind == "PNG palette":
        numbers = rng.integers(0, 2, (20, 24), dtype=np.uint8)
        picture = Image.fromarray(numbers, "P")
        picture.putpalette([10, 20, 30, 200, 100, 0])
        options["transparency"] = 0
        rgba = np.array([[10, 20, 30, 0], [200, 100, 0, 255]], np.uint8)[numbers]
    into = io.BytesIO()
    if kind == "PNG 16":
        deep = rng.integers(0, 2**16, (20, 24, 4)).astype(np.uint16)
        return tf.io.encode_png(deep).numpy(), deep / 65535
    if kind == "TIFF grey 16":
        deep = rng.integers(0, 2**16, (20, 24)).astype(np.uint16)
        Image.fromarray(deep).save(into, "TIFF")
        return into.getvalue(), np.stack([deep / 65535] * 3 + [np.ones(deep.shape)], -1)
    options |= {"lossless": True, "exact": True} if kind.startswith("WEBP") else {}
    picture.save(into, kind.split()[0], **options)
    if kind == "JPEG":
        rgba[..., :3] = np.array(Image.open(io.BytesIO(into.getvalue())))
    return into.getvalue(), rgba / 255


KINDS = ("PNG RGBA", "PNG LA", "PNG RGB", "PNG palette", "PNG 16", "JPEG", "TIFF RGBA", "TIFF grey 16", "WEBP RGBA")


@pytest.mark.parametrize("kind", KINDS)
def test_opacity_is_read_of_every_kind_of_file(tmp_path, kind):
    """As TensorFlow's pipeline has it, and as Python alone has it, beside what NumPy wrote."""
    encoded, wanted = written(kind)
    path = tmp_path / "train" / "a.png"
    path.parent.mkdir()
    path.write_bytes(encoded)
    source = with_opacity(from_folder(path.parent, labelled=False))
    [seen] = [source.decoded(record)["image"].numpy() for record in source.ordered()]
    decoded = wanted.copy()
    if kind == "JPEG":  # which TensorFlow rounds otherwise than Pillow
        decoded[..., :3] = tf.io.decode_jpeg(encoded, 3).numpy() / 255
    np.testing.assert_allclose(seen, decoded, atol=1e-6)
    pixels = source.rows.pixels(0)
    shallow = 1.01 / 255 if kind == "PNG 16" else 1e-6  # Pillow has no colours of 16 bits
    np.testing.assert_allclose(pixels / np.iinfo(pixels.dtype).max, wanted, atol=shallow)
    assert without_opacity(path).shape[-1] == 3


def without_opacity(path: Path) -> np.ndarray:
    [seen] = from_folder(path.parent, labelled=False).ordered()
    return images.to_rgb(tf.io.read_file(seen["image"]) if seen["image"].dtype == tf.string else seen["image"]).numpy()


CHANGES = {
    "colours": Recipe(rotation_probability=0.5, cutout_probability=0.5),
    "noise": Recipe().only("noise", "flip"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("where", ["host", "device", "python"])
def test_opacity_moves_with_the_picture_and_keeps_its_values(where, size, change):
    """An opacity that is the picture's red: after all changes of colour it is the red of a view without them."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype=np.uint8)
    source = with_opacity(from_arrays(pixels))
    read = source.read
    of_red = dataclasses.replace(source, read=lambda image: tf.gather(read(image), [0, 1, 2, 0], axis=-1))
    without = {"jitter_probability": 0, "grayscale_probability": 0, "noise_probability": 0}
    found = {}
    for name, recipe in (("changed", CHANGES[change]), ("still", dataclasses.replace(CHANGES[change], **without))):
        options = {"batch_size": 6, "image_size": size, "seed": 1, "unreadable": Unreadable(), "recipe": recipe}
        if where == "host":
            [found[name]] = next(iter(pipeline.training_views(of_red, **options)))
        elif where == "device":
            [batch] = next(iter(pipeline.packed_views(of_red, **options)))
            found[name] = DeviceViews(size=size, recipe=recipe, channels=4)(batch)
        else:
            named = {"seeds": np.array([[1, 2], [3, 4]]), "size": size, "recipe": recipe}
            found[name] = picture_views(pixels[0][..., [0, 1, 2, 0]] / 255, **named)
    changed, unchanged = (np.asarray(found[name]) for name in ("changed", "still"))
    assert changed.shape[-1] == 4
    np.testing.assert_allclose(changed[..., 3], unchanged[..., 0], atol=2e-5)
    assert np.abs(changed[..., 0] - unchanged[..., 0]).max() > 0.1  # whose colours were changed


def test_grey_and_opacity_are_made_of_the_four():
    four = np.random.default_rng(0).uniform(size=(2, 5, 4, 4)).astype(np.float32)
    two = keras.Sequential([keras.Input((None, None, 2)), keras.layers.GlobalAveragePooling2D()])
    grey = tf.image.rgb_to_grayscale(four[..., :3])
    np.testing.assert_allclose(as_taken(four, two), np.concatenate([grey, four[..., 3:]], -1), atol=1e-3)


@pytest.mark.parametrize("channels", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_opacity_through_the_commands(here, channels, capfd):
    for file in Path("pets").rglob("*.png"):
        picture = Image.open(file).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(file)
    short = "--image_dir pets --image_size 16 --train_batch_size 4 --train_steps 1 --cache_dataset"
    cli.execute(
        f"pretrain {short} --encoder mynets:tiny_convnext --channels {channels} --proj_out_dim 8 --model_dir run "
        "--knn_images 10 --knn_epochs 1"
    )
    assert load_encoder("run").input_shape[-1] == channels
    cli.execute("linear-eval --checkpoint run --protocol knn --no-cache_features --figures figures")
    cli.execute("embed --checkpoint run --out features.npz --split test")
    with np.load("features.npz") as file:
        assert file["values"].shape == (12, 8)
        pictures_of = [Image.open(name) for name in file["names"].tolist()]
        pixels = np.stack([np.array(one, np.float32) / 255 for one in pictures_of])
        sides = pixels.shape[1:3]
        if sides == (16, 16):  # as evaluation sees them
            seen = as_taken(pixels, load_encoder("run"))
            np.testing.assert_allclose(load_encoder("run")(seen), file["values"], atol=1e-5)
    cli.execute("finetune --checkpoint run --train_batch_size 4 --train_steps 1 --model_dir tuned")
    assert f"channels {channels}" in capfd.readouterr().err
    cli.execute(
        f"export --checkpoint tuned --to onnx --out net.onnx --samples 8 --channels {channels} --image_dir pets"
    )
    assert f"(n, h, w, {channels})" in capfd.readouterr().out
    shutil.copy("run/network.keras", "alone.keras")
    with pytest.raises(InputError, match=f"give --channels {channels}"):
        cli.execute("embed --checkpoint alone.keras --image_dir pets --image_size 16 --out other.npz")
    with pytest.raises(InputError, match="must be 1 or 3 with --cache resized"):
        cli.execute(f"pretrain {short} --channels {channels} --cache resized --resnet_depth 18 --model_dir none")


def test_channels_that_files_do_not_have_are_refused_at_once():
    with pytest.raises(InputError, match="channels must be 1 to 4: pictures are read as RGB"):
        cli.parse(["pretrain", "--channels", "5"])
    with pytest.raises(InputError, match="has no option --channels"):  # which would count for nothing
        cli.parse(["chest", "covid", "--channels", "1"])
