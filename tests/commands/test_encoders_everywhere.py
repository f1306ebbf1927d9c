"""An encoder of the user's own class, pretrained once, goes through every command that takes a network."""

import json
import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import golden
from tests.commands import pictures
from tests.commands.test_any_encoder import CODE
from tf_simclr import cli, load_encoder, load_model
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.own import encoders, named

SIZE = "--image_size 16"
OWN = "--encoder mynets:vit"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A working directory with images, code, a pretrained run and a fine-tuned one."""
    place = tmp_path_factory.mktemp("own")
    (place / "mynets.py").write_text(CODE)
    for split in ("train", "test"):
        pictures.write(place / "pets" / split, per_class=8)
    before = Path.cwd()
    os.chdir(place)
    try:
        short = f"--image_dir pets {SIZE} --train_batch_size 8 --train_steps 2"
        cli.execute(f"pretrain {short} {OWN} --proj_out_dim 8 --model_dir run --knn_epochs 0")
        cli.execute(f"finetune --checkpoint run {OWN} --train_batch_size 8 --train_steps 1 --model_dir tuned")
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def here(made, monkeypatch) -> Path:
    """The working directory, with a module that nothing has imported yet."""
    monkeypatch.chdir(made)
    sys.modules.pop("mynets", None)
    named.imported.clear()
    for name in [name for name in keras.saving.get_custom_objects() if name == "Mine"]:
        keras.saving.get_custom_objects().pop(name)
    return made


def test_without_its_name_a_command_says_what_to_add(here):
    with pytest.raises(InputError, match="name it yourself, --encoder module:function"):
        cli.execute("linear-eval --checkpoint run --protocol knn")


def test_linear_eval_by_two_layers_and_compare(here, capsys):
    quick = "--no-untrained --l2_strengths 2 --cache_dir cache"
    cli.execute(f"linear-eval --checkpoint run {OWN} {quick} --result a.json")
    cli.execute(f"linear-eval --checkpoint run {OWN} {quick} --protocol knn --layer proj_1 --result b.json")
    cli.execute("compare a.json b.json")
    assert "nearest neighbours" in capsys.readouterr().out


def test_transfer(here):
    cli.execute(f"transfer --checkpoint run {OWN} --image_dir . --datasets pets --l2_strengths 2 --cache_dir cache")
    [result] = (here / "run" / "transfer").glob("pets*.json")
    assert json.loads(result.read_text())["results"]


def test_a_resumed_pretraining_ends_as_a_straight_one(here):
    knobs = f"--image_dir pets {SIZE} --train_batch_size 8 --proj_out_dim 8 --knn_epochs 0 {OWN} --train_steps 3"
    knobs += " --checkpoint_steps 1 --lineareval_while_pretraining False"
    cli.execute(f"pretrain {knobs} --model_dir straight")
    shutil.copytree("straight", "resumed")
    for path in (
        *Path("resumed").glob("*.keras"),
        Path("resumed/result.json"),
        *Path("resumed").glob("checkpoints/*3.npz"),
    ):
        path.unlink()
    cli.execute(f"pretrain {knobs} --model_dir resumed")
    for a, b in zip(load_encoder("straight").weights, load_encoder("resumed").weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_moco(here):
    cli.execute(
        f"pretrain --method moco --queue_length 8 --image_dir pets {SIZE} {OWN} --train_batch_size 8 --train_steps 2 "
        "--proj_out_dim 8 --knn_epochs 0 --model_dir moco"
    )
    assert load_encoder("moco").output_shape == (None, 6)


def test_a_teacher_and_a_student_of_ones_own(here):
    short = "--train_batch_size 8 --train_steps 1 --eval_batch_size 8"
    with pytest.raises(InputError, match="name it yourself"):
        cli.execute(f"distill --teacher tuned {short} --resnet_depth 18 --model_dir none")
    cli.execute(
        f"distill --teacher tuned --teacher_encoder mynets:vit {short} --encoder mynets:tiny_convnext --model_dir s"
    )
    assert load_model("s").output["logits_sup"].shape == (None, 3)
    cli.execute(f"distill --teacher tuned {short} {OWN} --self_distillation --teacher_views cached --model_dir self")
    assert load_encoder("self").output_shape == (None, 6)


def test_code_that_a_config_file_names_is_not_run(here):
    with pytest.raises(InputError, match="give --encoder mynets:vit, too, if it is yours"):
        cli.execute("pretrain --config run/config.json")
    assert "mynets" not in sys.modules
    cli.execute(f"pretrain --config run/config.json {OWN}")  # finished: nothing to do


def plan(**changed) -> str:
    options = {"image_dir": "pets", "image_size": 16, "train_batch_size": 8, "train_steps": 1, "proj_out_dim": 8}
    options |= {"train_split": "train", "eval_split": "test", "knn_images": 12, "knn_epochs": 1}
    content = {"command": "sweep", "task": "pretrain", "options": options, "search": {"temperature": [0.5]}} | changed
    Path("plan.json").write_text(json.dumps(content))
    return "sweep --config plan.json --model_dir sweep"


def test_a_sweep_of_code_that_its_plan_alone_names_is_refused(here):
    with pytest.raises(InputError, match="give --encoder mynets:vit, too, if it is yours"):
        cli.execute(plan(search={"encoder": ["mynets:vit"]}))
    with pytest.raises(InputError, match="did you mean tiny_convnext"):
        cli.execute(plan(search={"encoder": ["mynets:tiny_convnex"]}) + " --encoder mynets:vit")


@pytest.mark.slow
def test_a_sweep_over_encoders(here):
    cli.execute(plan(search={"encoder": ["mynets:vit", "mynets:tiny_convnext"]}) + " --encoder mynets:vit")
    best = json.loads(Path("sweep/result.json").read_text())
    assert best["best"]["encoder"].startswith("mynets:")
    assert load_encoder("sweep/trial-001").output_shape in [(None, 6), (None, 8)]


@pytest.mark.parametrize("to", ["keras", "savedmodel", "onnx", "tflite"])
def test_export(here, to):
    if to == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (extra `export`)")
    if to == "tflite":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra `export`)")
    cli.execute(f"export --checkpoint tuned {OWN} --to {to} --out exported/{to}.{to} --samples 8")
    assert (here / "exported" / f"{to}.{to}").exists()


@pytest.mark.slow
def test_two_replicas(here):
    """In a process of its own: the CPU is divided before TensorFlow begins."""
    words = f"pretrain --image_dir pets {SIZE} {OWN} --train_batch_size 8 --train_steps 2 --model_dir two"
    words += " --strategy mirrored --num_replicas 2 --knn_epochs 0 --proj_out_dim 8"
    environment = os.environ | {"PYTHONPATH": f"{golden.ROOT}{os.pathsep}{here}"}
    command = [sys.executable, "-m", "tf_simclr", *words.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    named.find("mynets:vit", "encoder")
    assert load_encoder("two").output_shape == (None, 6)


# Ranges.


def said_of(name: str, **options) -> tuple[keras.Model, str]:
    """An encoder, and what was said of it."""
    lines: list[str] = []
    return encoders.build(name, image_size=32, say=lines.append, **options), " ".join(lines)


@pytest.mark.parametrize(
    ("name", "fed", "says"),
    [
        ("applications:EfficientNetB0", 255, "multiplied by 255"),
        ("applications:MobileNetV3Small", 255, "multiplied by 255"),
        ("applications:MobileNetV2", 1, "weights that Keras publishes for it are for other values ([-1, 1])"),
    ],
)
def test_what_an_application_is_fed_is_said(name, fed, says):
    model, said = said_of(name)
    assert says in said
    scale = [layer.scale for layer in model.layers if layer.name == encoders.RANGE]
    assert scale == ([fed] if fed > 1 else [])


def test_a_models_own_first_layer_tells_its_range(here):
    """An oracle: the same network without the division sees what the divided one does of bytes."""
    Path("bytes_net.py").write_text(
        "import keras\nfrom keras import layers\n\ndef net():\n    return keras.Sequential(["
        "keras.Input((None, None, 3)), layers.Rescaling(1 / 127.5, offset=-1), layers.Conv2D(4, 3), "
        "layers.GlobalAveragePooling2D()])\n"
    )
    model, said = said_of("bytes_net:net")
    assert "bytes_net:net takes values of 0 to 255, by its first layer" in said
    conv = next(layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D))
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    wanted = keras.ops.mean(conv(2 * images - 1), axis=(1, 2))
    np.testing.assert_allclose(model(images), wanted, atol=1e-5)
    _, said = said_of("mynets:tiny_convnext")
    assert said == "mynets:tiny_convnext sees images in [0, 1]"

    inner = next(layer for layer in model.layers if isinstance(layer, keras.Sequential))
    inner.save("bytes.keras")  # a file of a network that is not ours is fed the same
    np.testing.assert_allclose(load_encoder("bytes.keras")(images), wanted, atol=1e-5)


# The radiographs' commands.


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")
    from tests.chest import made as prepared

    patients = string.ascii_letters + string.ascii_letters[:8]
    folder = prepared.folder(tmp_path_factory.mktemp("prepared") / "made", patients, size=32).folder
    settings = json.loads((folder / "settings.json").read_bytes())
    write_json(folder / "settings.json", settings | {"classes": ["ARDS", "Mass", "No Finding"]})
    for path in sorted(folder.glob("records-*.json")):
        rows = json.loads(path.read_bytes())["rows"]
        for row in rows:  # a mass is as good as random
            row["labels"] = [row["labels"][0], int(row["hash"][-1] in "13579bdf"), row["labels"][1]]
        write_json(path, {"rows": rows})
    return folder


@pytest.mark.slow
def test_the_radiographs_commands(here, radiographs, capsys):
    common = f"--radiographs {radiographs} --checkpoint run {OWN} {SIZE}"
    cli.execute(f"chest covid {common} --positive ARDS --pixels 16 --seeds 1 --cache_dir cache --model_dir covid")
    assert f"chest app --model covid {OWN}" in capsys.readouterr().out
    cli.execute(
        f"chest findings {common} --ways linear finetune --train_epochs 1 --cache_dir cache --model_dir findings"
    )
    out = capsys.readouterr().out
    assert f"chest evaluate --model findings {OWN} --radiographs" in out
    for model in ("covid", "findings"):
        cli.execute(
            f"chest evaluate --model {model} {OWN} --radiographs {radiographs} --permutations 5 --out e-{model}"
        )
        assert Path(f"e-{model}").is_dir()
        with pytest.raises(InputError, match="name what made it if that is yours: --encoder"):
            cli.execute(f"chest evaluate --model {model} --radiographs {radiographs} --out none")
    from tf_simclr.chest.model import deployed

    model = deployed.load("covid", code="mynets:vit")
    assert model.positive == "ARDS"


@pytest.mark.slow
def test_the_ards_pipeline(here, radiographs, tmp_path):
    pytest.importorskip("optuna", reason="Optuna is not installed (extra `sweep`)")
    common = f"chest ards --radiographs {radiographs} --positive ARDS --image_size 32"
    with pytest.raises(InputError, match="give --image_size 16"):
        cli.execute(f"{common} --checkpoint run {OWN} --model_dir {tmp_path / 'no'}")
    cli.execute(
        f"{common} --encoder mynets:larger_vit --pretrain_steps 2 --pretrain_batch_size 4 --finetune_epochs 1 "
        "--grid_epochs 1 --seeds 1 "
        f"--grid_learning_rates 0.05 --model_dir {tmp_path / 'ards'}"
    )
    numbers = json.loads((tmp_path / "ards/8-report/numbers.json").read_text())
    assert len(numbers["ways"]) == 5
    architecture = json.loads((tmp_path / "ards/2-pretrain/run/architecture.json").read_text())
    assert architecture["feature_dim"] == 6
