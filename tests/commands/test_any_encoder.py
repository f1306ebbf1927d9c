"""Encoders, losses and views that a user names: pretrained by the command line, and taken by every command after it."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import converters
from tests.commands import pictures
from tests.tiny_runs import arrays
from tf_simclr import cli, load_encoder, load_model
from tf_simclr.errors import InputError
from tf_simclr.own import encoders
from tf_simclr.run_folder import RunFolder

CODE = '''
import keras
from keras import layers, ops


def tiny_convnext(channels=3):
    return keras.Sequential([
        keras.Input((None, None, channels)), layers.Conv2D(8, 4, strides=4), layers.LayerNormalization(),
        layers.DepthwiseConv2D(3, padding="same"), layers.Dense(8, activation="gelu"), layers.GlobalAveragePooling2D()])


class Mine(keras.Model):
    """Tokens of patches, with layers whose weights have one name."""

    def __init__(self, width=6, **options):
        super().__init__(**options)
        self.width = width
        self.patches = layers.Conv2D(width, 8, strides=8)
        self.mixed = layers.MultiHeadAttention(2, 4)
        self.drop = layers.Dropout(0.1)

    def call(self, images, training=None):
        x = self.patches(images)
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], self.width))
        return self.drop(x + self.mixed(x, x), training=training)

    def get_config(self):
        return super().get_config() | {"width": self.width}


def vit():
    return keras.Sequential([keras.Input((16, 16, 3)), Mine()])


def larger_vit():
    return keras.Sequential([keras.Input((32, 32, 3)), Mine()])


def wrong():
    return 3
'''


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with images and code."""
    monkeypatch.chdir(tmp_path)
    Path("mynets.py").write_text(CODE)
    for split in ("train", "test"):
        pictures.write(Path("pets") / split, per_class=8)
    yield tmp_path
    sys.modules.pop("mynets", None)
    encoders.named.imported.clear()
    for name in [name for name in keras.saving.get_custom_objects() if name == "Mine"]:
        keras.saving.get_custom_objects().pop(name)


KNOBS = "--image_dir pets --image_size 16 --train_batch_size 8 --train_steps 2 --proj_out_dim 8"


def test_code_of_ones_own_goes_from_pretraining_to_features_and_fine_tuning(here, capfd):
    cli.execute(f"pretrain {KNOBS} --encoder mynets:vit --model_dir run")
    out, err = capfd.readouterr()
    assert "linear-eval --checkpoint run --encoder mynets:vit" in out
    assert "gives tokens (4, 6), which are averaged" in err
    finished = [weight.numpy() for weight in load_encoder("run").weights]

    shutil.move("run/network.keras", "kept.keras")  # as of a run that goes on: from its newest state
    state = load_encoder("run")
    for a, b in zip(finished, state.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    shutil.move("kept.keras", "run/network.keras")

    cli.execute("embed --checkpoint run --out features.npz")
    with np.load("features.npz") as file:
        assert file["values"].shape == (24, 6)
    cli.execute("finetune --checkpoint run --encoder mynets:vit --train_batch_size 8 --train_steps 1 --model_dir tuned")
    assert load_model("tuned").output["logits_sup"].shape == (None, 3)


def test_a_run_goes_on_in_a_process_that_has_made_other_layers(here, capfd):
    """As in a notebook.  Before, Keras had numbered its layers on, and none of its checkpoints was said to be whole."""
    command = f"finetune {KNOBS} --encoder mynets:tiny_convnext --checkpoint_steps 1 --model_dir run"
    command = command.replace("--proj_out_dim 8", "")
    cli.execute(command)
    finished = arrays(RunFolder(Path("run")).checkpoint(2))
    for name in ("result.json", "checkpoints/step-00000002.npz"):
        (Path("run") / name).unlink()
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    capfd.readouterr()
    cli.execute(command)
    assert "resuming after step 1 from run" in capfd.readouterr().err
    again = arrays(RunFolder(Path("run")).checkpoint(2))
    assert again.keys() == finished.keys()
    assert all(np.array_equal(again[name], value) for name, value in finished.items())


def test_code_that_only_a_file_names_is_not_run(here):
    from tf_simclr.own import named

    named.find("mynets:vit", "encoder")
    encoders.build("mynets:vit", image_size=16, say=lambda line: None).save("mine.keras")
    code = (
        "import sys; sys.path.insert(0, '.')\nimport tf_simclr\n"
        "try: tf_simclr.load_model('mine.keras')\nexcept ValueError as error: print(error)\n"
        "assert 'mynets' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert "is not run because a file names it" in done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere:build", "must name a module that is there"),
        ("mynets:tiny_convnex", "did you mean tiny_convnext"),
        ("mynets", "must be module:function"),
        ("mynet:vit", "did you mean mynets"),
        ("aplications:ConvNeXtTiny", "did you mean applications"),
        ("applications:ConvNextTiny", "did you mean ConvNeXtTiny"),
        ("ConvNeXtTiny", "did you mean applications:ConvNeXtTiny"),
        ("keras_hub:vit_base_patch16_224_imagnet", "did you mean vit_base_patch16_224_imagenet"),
        ("gone.keras", "must exist"),
    ],
)
def test_what_is_not_there_is_told_without_a_framework(here, name, says):
    code = (
        "import sys, time\nfrom tf_simclr import cli\nfrom tf_simclr.errors import InputError\n"
        f"try: cli.execute('pretrain {KNOBS} --encoder {name}')\nexcept InputError as error: print(error)\n"
        "assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
        "assert time.process_time() < 1, time.process_time()"
    )
    if name.startswith("keras_hub:"):
        pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert says in done.stdout


def test_what_is_no_encoder_is_refused(here):
    with pytest.raises(InputError, match="must give a Keras model"):
        encoders.build("mynets:wrong", image_size=16, say=print)
    with pytest.raises(InputError, match="give --image_size 16"):
        encoders.build("mynets:vit", image_size=32, say=print)
    with pytest.raises(InputError, match=r"one of Keras' networks \(did you mean ConvNeXtTiny"):
        encoders.build("applications:ConvNextTiny", image_size=32, say=print)
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x)]).save("program.keras")
    with pytest.raises(InputError, match="Lambda, a program"):
        encoders.load(Path("program.keras"))


def test_a_run_of_another_encoder_is_not_converted(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "architecture.json").write_text('{"encoder": "mynets:build", "feature_dim": 8}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="must be the run of a ResNet: its encoder is 'mynets:build'"):
        converters.convert(tmp_path, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("converter", [False, True])
def test_a_preset_of_kerashub_in_a_folder(here, converter, capfd):
    """No network is needed: what KerasHub saved is pretrained with the values that its own converter makes."""
    keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    theirs = keras_hub.models.ViTBackbone(image_shape=(16, 16, 3), patch_size=(8, 8), **sizes)
    theirs.save_to_preset("preset")
    if converter:
        keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 127.5, offset=-1.0).save_to_preset("preset")
    ours = encoders.build("keras_hub:preset", image_size=16, say=print)
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    wanted = keras.ops.mean(theirs(2 * images - 1 if converter else images), axis=1)
    np.testing.assert_allclose(ours(images), wanted, atol=1e-5)
    cli.execute(f"pretrain {KNOBS} --encoder keras_hub:preset --knn_epochs 0 --model_dir run")
    cli.execute("linear-eval --checkpoint run --protocol knn --no-cache_features --no-untrained")
    assert "nearest neighbours" in capfd.readouterr().out
    cli.execute("export --checkpoint run --to keras --out run.keras --samples 8")
    assert load_encoder("run.keras").output_shape == (None, 16)
