"""Official names and repositories of the hub, wherever a checkpoint is taken."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import converters
import tf_simclr
from converters.loading import open_source
from tests import golden
from tests.bucket import Bucket, serving
from tests.converters import official
from tests.hub import Hub, hub_on_loopback
from tf_simclr import cli, frameworks
from tf_simclr.config import LinearEval, Pretrain, plain
from tf_simclr.config.first_look import look_first
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder

NAME = "simclrv2/finetuned_1pct/r50_1x_sk0"
NETWORK = "r18_1x_sk0_cifar"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small network's files, as a bucket has those of an official one."""
    folder = tmp_path_factory.mktemp("official")
    official.write_tf1(folder, NETWORK)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def bucket(monkeypatch, tmp_path, files):
    """A bucket, an empty cache, and an empty working directory."""
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving(monkeypatch, Bucket({f"simclr-checkpoints/{NAME}/{k}": v for k, v in files.items()})) as served:
        yield served


def test_a_name_is_downloaded_once_with_progress_and_then_found_without_a_network(bucket, files, capfd):
    with closing(open_source(NAME)) as source:
        assert source.path.name == "r50_1x_sk0"
    assert "100%" in capfd.readouterr().err
    asked = len(bucket.asked)
    assert asked == len(files)
    bucket.refuse["listing"] = [503] * 50
    with closing(open_source(Path(NAME))):
        pass
    assert len(bucket.asked) == asked
    assert capfd.readouterr().err == ""


def test_the_model_of_a_name_reads_the_layer_that_the_catalogue_tells(bucket):
    model = tf_simclr.load_model(NAME)
    encoder = tf_simclr.load_encoder(NAME)
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    pooled = model.predict(images, verbose=0)["final_avg_pool"]
    np.testing.assert_allclose(encoder.predict(images, verbose=0), pooled, rtol=0, atol=1e-5)
    with closing(converters.load(NAME)) as network:
        assert network.architecture.ft_proj_selector == 1
        assert "The classifier reads projection layer 1, by the catalogue of official checkpoints." in network.notes
    with closing(converters.load(NAME, selector=2)) as network:
        assert network.architecture.ft_proj_selector == 2


def test_what_lies_at_the_path_goes_first(bucket, files):
    local = Path(NAME)
    local.mkdir(parents=True)
    for name, content in files.items():
        (local / name).write_bytes(content)
    with closing(converters.load(NAME)) as network:
        assert network.architecture.ft_proj_selector == 0  # nothing tells that it is the official one
    assert bucket.asked == []


def test_the_converters_commands_take_names(bucket, capfd):
    from converters import inspect, tf2torch

    tf2torch.main([NAME, "--no-verify"])
    assert Path("r50_1x_sk0.pth").is_file()
    inspect.main([NAME])
    out = capfd.readouterr().out
    assert f"Read     {NAME}" in out
    assert "projection layer 1" in out


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("simclrv2/finetuned_1pct/r50_1x_sk3", NAME),
        ("finetuned_1pct/r50_1x_sk0", NAME),
        ("simclrv2/finetune_1pct/r50_1x_sk0", NAME),
    ],
)
def test_a_name_that_is_near_gets_a_suggestion(bucket, name, meant):
    for ask in (open_source, lambda name: look_first(LinearEval(checkpoint=Path(name)))):
        with pytest.raises(InputError, match=rf"did you mean .*{meant}"):
            ask(name)
    assert bucket.asked == []


def test_a_wrong_path_is_no_name(bucket):
    with pytest.raises(InputError, match=r"runs/pets must exist: no file, folder or checkpoint prefix"):
        open_source("runs/pets")


def test_commands_take_names_and_note_them_as_given(bucket, monkeypatch, capfd, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / label / f"{number}.png")
    words = ["embed", "--checkpoint", NAME, "--image_dir", tmp_path / "images", "--image_size", 32, "--out", "x.npz"]
    monkeypatch.setattr(sys, "argv", ["tf-simclr", *map(str, words)])
    cli.main()
    with np.load("x.npz") as found:
        assert found["values"].shape[1] == 512


@pytest.mark.parametrize("name", [NAME, "hf://user/repo", "hf://user/repo@v1"])
def test_a_run_notes_the_name_as_it_was_given_and_resumes_with_it(bucket, name, tmp_path):
    config = Pretrain(checkpoint=Path(name), model_dir=tmp_path / "run")
    assert plain(config)["checkpoint"] == name
    again = Pretrain(checkpoint=Path(json.loads(json.dumps(plain(config)))["checkpoint"]), model_dir=tmp_path / "run")
    assert again == config
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(json.dumps(plain(config)))
    run.network.touch()
    run.result.touch()
    assert run.check_options(plain(again))
    with pytest.raises(InputError, match=rf"checkpoint='{name}' there, 'x' here"):
        run.check_options(plain(Pretrain(checkpoint=Path("x"), model_dir=tmp_path / "run")))


@pytest.mark.slow
def test_every_kind_of_command_takes_names(bucket, monkeypatch, capfd, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "images" / split / f"c{label}").mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            for number in range(2):
                Image.fromarray(pixels).save(tmp_path / "images" / split / f"c{label}" / f"{number}.png")
    images = ["--image_dir", tmp_path / "images", "--image_size", 32]
    steps = [*images, "--train_steps", 1, "--train_batch_size", 4]
    commands = (
        ["export", "--checkpoint", NAME, "--out", "network.keras", "--image_size", 32],
        ["linear-eval", "--checkpoint", NAME, *images, "--protocol", "knn"],
        ["finetune", "--checkpoint", NAME, *steps, "--model_dir", "finetuned"],
        ["distill", "--teacher", NAME, "--checkpoint", NAME, *steps, "--model_dir", "distilled"],
        ["pretrain", "--checkpoint", NAME, *steps, "--model_dir", "pretrained", "--resnet_depth", 18],
    )
    for words in commands:
        monkeypatch.setattr(sys, "argv", ["tf-simclr", *map(str, words)])
        cli.main()
    noted = {name: json.loads(Path(name, "config.json").read_text()) for name in ("finetuned", "distilled")}
    assert noted["finetuned"]["checkpoint"] == noted["distilled"]["teacher"] == NAME


# The hub


PROGRAM = """
import sys, converters
with __import__("contextlib").closing(converters.load(sys.argv[1])) as network:
    print(network.architecture.depth, len(network.weights))
"""


@pytest.fixture
def hub_server(monkeypatch, tmp_path):
    """A hub that commands in processes of their own ask: huggingface_hub reads its environment when it is imported."""
    with hub_on_loopback(monkeypatch, tmp_path) as server:
        yield server


def loaded(name: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM, name]
    return subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("form", ["model.safetensors", "resnet.pth", "network.keras"])
def test_a_repository_of_the_hub_is_a_checkpoint_and_then_needs_no_network(
    hub_server, monkeypatch, tmp_path, files, form
):
    (tmp_path / "tf1").mkdir()
    for name, content in files.items():
        (tmp_path / "tf1" / name).write_bytes(content)
    converters.convert(tmp_path / "tf1", tmp_path / form, verify=False)
    held = {form: (tmp_path / form).read_bytes(), "README.md": b"# x", "picture.png": b"\x89PNG"}
    monkeypatch.setattr(Hub, "repositories", {("user/repo", "main"): held, ("user/repo", "v1"): held})
    first = loaded("hf://user/repo")
    assert first.stdout.startswith("18 "), first.stderr
    assert any(path.endswith(f"/{form}") for path in Hub.asked)
    assert not any("README" in path or "picture" in path for path in Hub.asked if "resolve" in path)
    hub_server.shutdown()
    hub_server.server_close()
    assert loaded("hf://user/repo").stdout == first.stdout


def test_a_repository_that_is_not_there_is_said_in_a_sentence(hub_server, monkeypatch):
    monkeypatch.setattr(Hub, "repositories", {})
    done = loaded("hf://user/other")
    assert "hf://user/other must be a repository that can be downloaded" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["hf://user", "hf://", "hf://a/b/c", "hf://user/repo@"])
def test_an_address_of_the_hub_has_a_form(name):
    with pytest.raises(InputError, match=r"must be hf://USER/REPOSITORY or …@REVISION. Received: 'hf://"):
        open_source(name)


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(frameworks, "installed", lambda name: False)
    for ask in (open_source, lambda name: look_first(LinearEval(checkpoint=Path(name)))):
        with pytest.raises(InputError, match=r"hf://user/repo needs huggingface_hub.*pip install 'tf-simclr\[hub\]'"):
            ask("hf://user/repo")
