"""Weights to start from are known by their content: they may move while a run is stopped, but not change."""

import json
import shutil
from pathlib import Path

import keras
import pytest

import converters
from tests.commands.test_sweep import plan, trials  # noqa: F401  the fixture
from tf_simclr.chest.ards import command as ards
from tf_simclr.commands import sweep
from tf_simclr.commands.parts.runs import begin_run
from tf_simclr.config import COMMANDS
from tf_simclr.data.sources import from_arrays
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build
from tf_simclr.replicas import ONE_DEVICE
from tf_simclr.run_folder import RunFolder
from tf_simclr.weights import content_of, content_of_option

ARCHITECTURE = Architecture(18, cifar_stem=True, proj_head_mode="none", num_proj_layers=0, num_classes=3)
FREE = {"pretrain": ["checkpoint", "encoder"], "finetune": ["checkpoint", "encoder"]}
FREE |= {"distill": ["teacher", "checkpoint", "encoder"]}
EVERY = [(command, option) for command, options in FREE.items() for option in options]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, Path]:
    """Two networks of one form, and the first one in files of other kinds; an encoder that is no ResNet."""
    root = tmp_path_factory.mktemp("given")
    found = {}
    for number, name in enumerate(("one", "other")):
        keras.utils.set_random_seed(number)
        build(ARCHITECTURE).save(root / f"{name}.keras")
        found[name] = root / f"{name}.keras"
        dense = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        dense.save(root / f"own_{name}.keras")
        found[f"own_{name}"] = root / f"own_{name}.keras"
    for kind, ending in {"safetensors": ".safetensors", "tf1": ".ckpt", "h5": ".weights.h5"}.items():
        found[kind] = root / f"converted{ending}"
        converters.convert(found["one"], found[kind], to=kind, verify=False)
    return found


def moved(path: Path, to: Path) -> Path:
    """The file or folder elsewhere."""
    to.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if path.is_dir() else shutil.copy)(path, to / path.name)
    return to / path.name


@pytest.mark.parametrize("kind", ["one", "safetensors", "tf1", "h5", "own_one"])
def test_weights_are_the_same_wherever_they_lie_and_in_whatever_file(given, tmp_path, kind):
    there = content_of(given["own_one" if kind == "own_one" else "one"])
    assert content_of(given[kind]) == there
    assert content_of(moved(given[kind], tmp_path / "moved")) == there
    assert content_of(given["own_other" if kind == "own_one" else "other"]) != there


def test_what_else_lies_in_a_run_folder_does_not_count(given, tmp_path):
    run = RunFolder(tmp_path / "run")
    write_json(run.architecture, {"encoder": "mine", "feature_dim": 4})
    shutil.copy(given["own_one"], run.network)
    before = content_of(run.path)
    write_json(run.path / "linear_eval.json", {})
    assert content_of(run.path) == before
    shutil.copy(given["own_other"], run.network)
    assert content_of(run.path) != before


def begun(command: str, folder: Path, options: dict) -> None:
    """Begins, or resumes, a training, with the looks that come before it."""
    needed = {"teacher": options["one"]} if command == "distill" else {}
    knobs = {name: value for name, value in options.items() if name != "one"}
    config = COMMANDS[command](model_dir=folder, image_size=8, train_batch_size=2, **needed | knobs)
    RunFolder(folder).check_options(*_noted(config))
    source = from_arrays(*_arrays())
    begin_run(config, source, architecture=ARCHITECTURE, devices=ONE_DEVICE)
    checkpoint = RunFolder(folder).checkpoint(1)
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()


def _noted(config) -> tuple[dict, dict]:
    from tf_simclr.config import plain, plain_defaults

    return plain(config), plain_defaults(plain(config)["command"])


def _arrays():
    import numpy as np

    return np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0])


def of(option: str, path: Path) -> dict:
    return {option: str(path) if option == "encoder" else path}


@pytest.mark.parametrize(("command", "option"), EVERY)
def test_a_run_resumes_with_moved_weights_and_no_others(given, tmp_path, command, option):
    kind = "own_" if option == "encoder" else ""
    here, run = moved(given[f"{kind}one"], tmp_path / "a"), tmp_path / "run"
    one = {"one": given["one"]}
    begun(command, run, one | of(option, here))
    begun(command, run, one | of(option, here))
    there = moved(here, tmp_path / "b c")
    begun(command, run, one | of(option, there))
    shutil.copy(given[f"{kind}other"], here)
    with pytest.raises(InputError, match=rf"must resume with the weights it was begun with.*\['{option}'\]"):
        begun(command, run, one | of(option, here))
    if option != "teacher":
        with pytest.raises(InputError, match=f"holds a run with other options.*{option}="):
            begun(command, run, one)
    begun(command, run, one | of(option, there))


@pytest.mark.parametrize(("command", "option"), EVERY)
def test_a_run_that_was_begun_before_weights_were_noted_goes_by_their_path(given, tmp_path, command, option):
    kind = "own_" if option == "encoder" else ""
    here, run, one = moved(given[f"{kind}one"], tmp_path / "a"), tmp_path / "run", {"one": given["one"]}
    begun(command, run, one | of(option, here))
    noted = json.loads(RunFolder(run).data.read_text())
    write_json(RunFolder(run).data, {name: value for name, value in noted.items() if name != "weights"})
    begun(command, run, one | of(option, here))
    with pytest.raises(InputError, match=f"holds a run with other options.*{option}="):
        begun(command, run, one | of(option, moved(here, tmp_path / "b")))


@pytest.mark.parametrize("weights", [[1], {"checkpoint": [1]}, "x", None])
def test_damaged_notes_of_weights_are_no_traceback(given, tmp_path, weights):
    begun("pretrain", tmp_path / "run", {"one": None, "checkpoint": given["one"]})
    noted = json.loads((tmp_path / "run" / "data.json").read_text())
    write_json(tmp_path / "run" / "data.json", noted | {"weights": weights})
    try:
        begun("pretrain", tmp_path / "run", {"one": None, "checkpoint": given["safetensors"]})
    except InputError:
        return
    pytest.fail("other weights than are noted were taken")


def test_code_is_known_by_its_name(tmp_path):
    assert content_of_option("encoder", "mynets:tiny") is None
    assert content_of_option("encoder", "applications:ResNet50") is None
    assert content_of_option("encoder", "keras_hub:vit_base") is None


@pytest.mark.parametrize("where", ["options", "search", "final"])
def test_a_search_goes_on_with_moved_weights_and_no_others(given, trials, tmp_path, where):  # noqa: F811
    here = moved(given["one"], tmp_path / "a")
    splits = {"train_split": "train[:90%]", "eval_split": "train[90%:]", "train_epochs": 1}

    def searched(first: Path, *, rates=(0.1, 0.2), second: Path = given["other"], trials_wanted=0) -> None:
        search = {"learning_rate": list(rates)}
        plans = {"options": splits, "search": search, "final": {"eval_split": "test"}}
        plans[where] = plans[where] | {"checkpoint": [str(first), str(second)] if where == "search" else str(first)}
        sweep.run(plan(tmp_path / "run", **plans, trials=trials_wanted))

    searched(here, trials_wanted=1)
    count = len(trials)
    there = moved(here, tmp_path / "b")
    here.unlink()
    searched(there, trials_wanted=2)
    assert [c["learning_rate"] for c in trials[: count - 1]].count(0.1) == 1, "no trial is made again"
    known = json.loads((tmp_path / "run" / "trials.json").read_text())["trials"]
    assert str(here) not in json.dumps(known)
    searched(there)
    shutil.copy(given["other"], there)
    with pytest.raises(InputError, match="the same images and weights, but others lie there by now"):
        searched(there)


def test_a_search_goes_on_with_moved_images_and_no_others(trials, tmp_path):  # noqa: F811
    from tests.commands import pictures

    for split in ("train", "test"):
        pictures.write(tmp_path / "pets" / split, per_class=2)
    options = {"train_split": "train", "eval_split": "test", "train_epochs": 1}
    sweep.run(plan(tmp_path / "run", options=options | {"image_dir": str(tmp_path / "pets")}, trials=1))
    shutil.copytree(tmp_path / "pets", tmp_path / "cats")
    count = len(trials)
    sweep.run(plan(tmp_path / "run", options=options | {"image_dir": str(tmp_path / "cats")}))
    assert len(trials) == count + 5
    one = next((tmp_path / "cats").rglob("*.png"))
    as_it_was = one.read_bytes()
    for other in (as_it_was[:-1] + b"x", None):  # of the same size and name; gone
        one.unlink()
        if other is not None:
            one.write_bytes(other)
        with pytest.raises(InputError, match="the same images and weights, but others lie there by now"):
            sweep.run(plan(tmp_path / "run", options=options | {"image_dir": str(tmp_path / "cats")}))


def test_the_pipeline_of_radiographs_notes_the_checkpoint_by_its_content(given, tmp_path):
    class Job:
        class config:
            checkpoint, ema = given["one"], False

    noted = ards._weights(Job, there={})
    Job.config.checkpoint = moved(given["one"], tmp_path)
    assert ards._weights(Job, there=noted) == noted
    Job.config.checkpoint = given["other"]
    assert ards._weights(Job, there=noted) != noted
    assert ards._weights(Job, there={"checkpoint": str(given["other"])}) == {}, "as earlier versions noted it"


def test_keras_weights_of_another_ending_are_refused_in_a_sentence(given, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.weights\.h5"):
        converters.convert(given["one"], tmp_path / "x.h5", to="h5", verify=False)
    assert not list(tmp_path.iterdir())
