"""Networks to the hub and back, by huggingface_hub's own client, on a hub of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import golden
from tests.hub import Hub, hub_on_loopback
from tf_simclr.config import Distill, Export, Finetune, Pretrain
from tf_simclr.data.radiographs import MADE_UP
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build, plain
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import publishing
from tf_simclr.training.about import known_of

BACKENDS = ("tensorflow", "jax", "torch")
REFUSED = [
    {"/commit/": 500},
    *(pytest.param({part: 403}, marks=pytest.mark.slow) for part in ("lfs", "/preupload/")),
]
SECRET = "patient-0001"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_on_loopback(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return plain(build(Architecture(depth=18, cifar_stem=True, num_classes=2)))


@pytest.fixture
def run(tmp_path, network):
    """A fine-tuned run of radiographs, with names in it that must not leave the machine."""
    folder = RunFolder(tmp_path / SECRET)
    config = {"command": "finetune", "image_size": 32, "radiographs": f"/data/{SECRET}", "checkpoint": f"/{SECRET}",
              "train_batch_size": 8, "model_dir": str(folder.path), "dataset": "cifar10"}  # fmt: skip
    data = {"images": 12, "origin": f"/data/{SECRET}", "classes": ["healthy", "ill"]}
    folder.begin(config, Architecture(depth=18, cifar_stem=True, num_classes=2), data=data)
    network.save(folder.network)
    result = {"step": 7, "seconds": 2.5, "unreadable": [SECRET], "eval_images": 5, "notes": [SECRET],
              "command": config, "top1": {"accuracy": 0.75, "low": 0.5, "high": 1.0}, "loss": float("nan"),
              "division": {"origin": SECRET}}  # fmt: skip
    folder.result.write_text(json.dumps(result))
    return folder.path


PUSH = "import sys, tf_simclr; print(tf_simclr.push_to_hub(sys.argv[1], sys.argv[2]))"
LOAD = """
import sys
import tf_simclr
import keras, numpy as np
model = keras.saving.load_model("hf://user/repo")
images = np.load(sys.argv[1])
out = {name: keras.ops.convert_to_numpy(value) for name, value in model(images, training=False).items()}
encoder = tf_simclr.load_encoder("hf://user/repo")
np.savez(sys.argv[2], encoder=keras.ops.convert_to_numpy(encoder(images, training=False)), **out)
"""


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, "-c", *map(str, words)],
        cwd=golden.ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_what_was_pushed_loads_by_keras_own_word_on_every_backend(hub, run, network, tmp_path):
    done = python(PUSH, run, "hf://user/repo")
    assert done.stdout.strip() == f"{os.environ['HF_ENDPOINT']}/user/repo/commit/{Hub.commit}", done.stderr
    files = Hub.repositories["user/repo", "main"]
    assert set(files) == {"README.md", "config.json", "metadata.json", "model.safetensors", "model.weights.h5",
                          "about.json"}  # fmt: skip
    assert sum("/commit/" in path for path in Hub.asked) == 1
    for name, content in files.items():  # nothing of the machine, of an image or of a patient
        assert SECRET.encode() not in content, name
        assert str(tmp_path).encode() not in content, name
        assert b"cifar10" not in content, name
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    wanted = network.predict(images, verbose=0)
    for backend in BACKENDS:
        done = python(LOAD, tmp_path / "images.npy", tmp_path / "out.npz", KERAS_BACKEND=backend)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "out.npz") as found:
            assert {*found} == {"encoder", *wanted}
            for end, value in wanted.items():
                np.testing.assert_allclose(found[end], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=end)
            np.testing.assert_allclose(found["encoder"], found["final_avg_pool"], rtol=0, atol=1e-6)


def test_the_card_says_what_it_is(network, run):
    about = publishing._about(network, RunFolder(run))
    text = publishing.card(about, network, name="user/repo")
    assert text.startswith("---\nlibrary_name: keras\n")
    for wanted in (
        "# repo",
        "fine-tuning a classifier",
        'load_model("hf://user/repo")',
        "trained at 32 × 32 pixels",
        "0: healthy, 1: ill",
        "| top1 | 0.750 (0.500–1.000) |",
        "| step | 7 |",
        "12 images",
        "not stated yet",
        "For research use, not a diagnosis",
        f"{network.count_params():,} parameters",
    ):
        assert wanted in text, wanted
    assert "nan" not in text
    assert "research use" not in publishing.card(publishing._about(network, None), network, name="user/repo")


@pytest.mark.slow
def test_any_model_of_keras_is_pushed_without_the_form_that_it_has_not(hub, tmp_path):
    program = """
import keras, tf_simclr
keras.utils.set_random_seed(0)
inputs = keras.Input((8, 8, 3))
model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
tf_simclr.push_to_hub(model, "user/small", private=True)
print(keras.saving.load_model("hf://user/small").count_params(), model.count_params())
"""
    done = python(program)
    assert done.stdout.split() == ["579", "579"], done.stderr
    assert Hub.created == [("user/small", True)]
    assert "model.safetensors" not in Hub.repositories["user/small", "main"]


@pytest.mark.parametrize("refused", REFUSED)
def test_a_push_that_fails_midway_leaves_nothing(hub, run, refused, monkeypatch):
    before = {"README.md": b"mine"}
    monkeypatch.setitem(Hub.repositories, ("user/repo", "main"), before)
    monkeypatch.setattr(Hub, "refuse", refused)
    program = "import time; time.sleep = lambda s: None\n" + PUSH
    done = python(program, run, "user/repo")
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: hf://user/repo was not pushed to, nothing of it is there:" in last
    if 403 in refused.values():
        assert "the token may not write there" in last
    assert Hub.repositories["user/repo", "main"] == {"README.md": b"mine"}


@pytest.mark.parametrize(
    ("environment", "refused", "sentence"),
    [
        ({"HF_TOKEN": "hf_wrong"}, {}, "the hub does not know the token; log in with `hf auth login`"),
        ({"HF_TOKEN": ""}, {}, "pushing to hf://user/repo needs a token of the hub; log in with `hf auth login`"),
        ({}, {"repos/create": 404}, "the hub has no such user or repository"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, "the hub could not be reached, or refused"),
    ],
    ids=["401", "no token", "404", "no hub"],
)
def test_what_the_hub_refuses_is_one_sentence(hub, run, monkeypatch, environment, refused, sentence):
    monkeypatch.setattr(Hub, "refuse", refused)
    done = python(PUSH, run, "user/repo", **environment)
    assert sentence in done.stderr.strip().splitlines()[-1]
    assert ("user/repo", "main") not in Hub.repositories


@pytest.mark.parametrize("name", ["repo", "a/b/c", "user/", "/repo", "user/re po", "user/..", "hf://", "u--r/x"])
def test_a_wrong_name_is_told_before_anything(name):
    for make in (
        lambda: publishing.push_to_hub("nowhere", name),
        lambda: Pretrain(push_to=name),
        lambda: Finetune(push_to=name),
        lambda: Distill(teacher=Path("x"), push_to=name),
        lambda: Export(checkpoint=Path("x"), push_to=name),
    ):
        with pytest.raises(InputError, match=r"must be USER/NAME"):
            make()


@pytest.mark.slow
def test_commands_push_what_they_made(hub, tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    images = ["--image_dir", tmp_path / "images", "--image_size", 32, "--train_steps", 1, "--train_batch_size", 4]
    commands = {
        "user/pretrained": ["pretrain", *images, "--resnet_depth", 18, "--model_dir", tmp_path / "p"],
        "user/tuned": ["finetune", *images, "--checkpoint", tmp_path / "p", "--model_dir", tmp_path / "f"],
        "user/student": [
            *("distill", *images, "--teacher", tmp_path / "f", "--resnet_depth", 18, "--model_dir", tmp_path / "d"),
        ],
        "user/exported": ["export", "--checkpoint", tmp_path / "f", "--image_size", 32, "--to", "keras"],
    }
    for name, words in commands.items():
        words = [sys.executable, "-m", "tf_simclr", *map(str, words), "--push_to", name]
        done = subprocess.run(words, cwd=golden.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f'keras.saving.load_model("hf://{name}")' in done.stdout
        assert "model.weights.h5" in Hub.repositories[name, "main"]
    for name in ("user/tuned", "user/student"):
        assert json.loads(Hub.repositories[name, "main"]["about.json"])["classes"] == ["a", "b"]
    assert "export.keras" in Hub.repositories["user/exported", "main"]


def test_made_up_data_is_noted_however_many_runs_ago(tmp_path):
    for name, before in (("first", None), ("second", "first"), ("third", "second")):
        folder = tmp_path / name
        folder.mkdir()
        options = {"command": "pretrain", "image_size": 64, "checkpoint": before and str(tmp_path / before)}
        (folder / "config.json").write_text(json.dumps(options))
    assert known_of(tmp_path / "third")["notes"] == []
    (tmp_path / "first" / "result.json").write_text(json.dumps({"notes": [f"/home/somebody/x: {MADE_UP}"]}))
    assert known_of(tmp_path / "third")["notes"] == [MADE_UP]  # without the path
    (tmp_path / "third" / "data.json").write_text(json.dumps({"classes": ["a", "b"]}))
    assert known_of(tmp_path / "third" / "network.keras") == {
        "classes": ["a", "b"],
        "image_size": 64,
        "notes": [MADE_UP],
    }
