"""A run goes on with the images it was begun with, wherever they lie, and with no others under the same names."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_sweep import plan, trials  # noqa: F401  the fixture
from tests.data import made
from tf_simclr import run_folder
from tf_simclr.commands import sweep
from tf_simclr.commands.parts import runs
from tf_simclr.commands.parts.runs import agree, begin_run
from tf_simclr.commands.search import plan as search_plan
from tf_simclr.commands.supervised import finished
from tf_simclr.config import COMMANDS
from tf_simclr.data.sources import Source, from_arrays
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.models.architecture import Architecture
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder

ARCHITECTURE = Architecture(18, cifar_stem=True)
OTHERS = "must resume on the images it was begun with.*differ; bring those back"


def begun(folder: Path, source: Source, *, command: str = "pretrain", devices: Devices = ONE_DEVICE, **options):
    """Begins, or resumes, a training that has saved a checkpoint since."""
    config = COMMANDS[command](model_dir=folder, image_size=8, train_batch_size=2, **options)
    begin_run(config, source, architecture=ARCHITECTURE, devices=devices)
    checkpoint = RunFolder(folder).checkpoint(1)
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.touch()


@pytest.mark.parametrize("kind", [kind for kind in made.SOURCES if "other targets" not in kind])
def test_the_same_images_resume_elsewhere_and_others_under_the_same_names_do_not(kind, tmp_path):
    make, run = made.SOURCES[kind], tmp_path / "run"
    begun(run, make(tmp_path / "here", False))
    begun(run, make(tmp_path / "elsewhere", False))
    with pytest.raises(InputError, match=OTHERS):
        begun(run, make(tmp_path / "others", True))
    begun(run, make(tmp_path / "again", False))


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_two_pictures_that_change_places_are_others(command, tmp_path):
    place, run = made.write_folder(tmp_path / "pets"), tmp_path / "run"
    begun(run, made.sources.from_folder(place), command=command)
    one, two = place / "class0" / "000.bmp", place / "class1" / "001.bmp"
    content = one.read_bytes(), two.read_bytes()
    two.write_bytes(content[0])
    one.write_bytes(content[1])
    with pytest.raises(InputError, match=OTHERS):
        begun(run, made.sources.from_folder(place), command=command)
    one.write_bytes(content[0])
    two.write_bytes(content[1])
    begun(run, made.sources.from_folder(place), command=command)


def test_other_labels_of_the_same_images_are_said(tmp_path):
    pixels, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0])
    begun(tmp_path / "run", from_arrays(pixels, labels))
    with pytest.raises(InputError, match=OTHERS):
        begun(tmp_path / "run", from_arrays(pixels, labels[::-1]))


def test_a_run_that_was_begun_before_contents_were_noted_knows_them_from_its_next_start_on(tmp_path):
    run, here = tmp_path / "run", made.SOURCES["folder"](tmp_path / "here", False)
    begun(run, here)
    noted = json.loads(RunFolder(run).data.read_text())
    write_json(RunFolder(run).data, {name: value for name, value in noted.items() if name != "content"})
    begun(run, here)
    assert json.loads(RunFolder(run).data.read_text()) == noted
    with pytest.raises(InputError, match=OTHERS):
        begun(run, made.SOURCES["folder"](tmp_path / "others", True))


def test_a_finished_run_is_tested_anew_where_its_test_images_are_others(tmp_path, capsys):
    test = made.SOURCES["folder"](tmp_path / "test", False)
    config = COMMANDS["finetune"](model_dir=tmp_path / "run", image_size=8, train_batch_size=2, eval_split="test")
    folder = RunFolder(tmp_path / "run")
    begun(folder.path, test)
    folder.network.touch()
    found = {"step": 1, "seconds": 0, "unreadable": [], "eval_split": "test", "top1": {"accuracy": 0.5}}
    write_json(folder.result, found)
    assert finished(folder, config, test=test) == found, "as earlier versions left it"
    from tf_simclr.evaluation.features import source_digest

    write_json(folder.result, found | {"eval_content": source_digest(test)})
    assert finished(folder, config, test=made.SOURCES["folder"](tmp_path / "moved", False))
    assert finished(folder, config, test=made.SOURCES["folder"](tmp_path / "others", True)) is None
    assert "they are tested anew" in capsys.readouterr().err


class Noting(Devices):
    """Devices of a process that notes what it compares with the others."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "noted", {})

    @property
    def process(self):
        return 0, 2

    def collect(self, value):
        return [value]

    def agree(self, what, value):
        self.noted[what] = value


def compared(folder: Path, source: Source, **options) -> dict:
    """What a process compares with the others."""
    devices = Noting()
    config = COMMANDS["pretrain"](model_dir=folder, image_size=8, train_batch_size=2, **options)
    agree(config, source, devices=devices)
    begin_run(config, source, architecture=ARCHITECTURE, devices=devices)
    return devices.noted


def test_processes_must_have_the_same_images_and_weights_and_may_have_them_anywhere(tmp_path):
    make = made.SOURCES["folder"]
    one = compared(tmp_path / "a", make(tmp_path / "1", False))
    assert compared(tmp_path / "b", make(tmp_path / "2", False))["the images"] == one["the images"]
    assert compared(tmp_path / "c", make(tmp_path / "3", True))["the images"] != one["the images"]
    for name, content in {"x": b"one", "y": b"one", "z": b"two"}.items():
        (tmp_path / f"{name}.keras").write_bytes(content)
    source = make(tmp_path / "1", False)
    x, y, z = (compared(tmp_path / name, source, encoder=str(tmp_path / f"{name}.keras")) for name in "xyz")
    assert x.pop("the images")
    y.pop("the images")
    y = {what: value for what, value in y.items() if not what.startswith("the folder")}
    assert {what: value for what, value in x.items() if not what.startswith("the folder")} == y
    assert z["the weights that options name"] != y["the weights that options name"]


@pytest.mark.parametrize("command", ["pretrain", "finetune", "distill"])
def test_only_what_changes_no_number_may_differ_between_processes(command, tmp_path, monkeypatch):
    """Whatever is not compared may be another one when a run resumes, too; weights are compared by their content."""
    devices = Noting()
    needed = {"teacher": tmp_path / "t.keras"} if command == "distill" else {}
    monkeypatch.setattr(runs, "content_of_option", lambda *_, **__: "content")
    config = COMMANDS[command](model_dir=tmp_path / "run", image_size=8, train_batch_size=2, **needed)
    agree(config, made.SOURCES["folder"](tmp_path / "1", False), devices=devices)
    names = {field.name for field in dataclasses.fields(config)}
    free = names - devices.noted["the options"].keys() - devices.noted["the weights that options name"].keys()
    assert free
    assert free <= {*run_folder._MAY_CHANGE}
    assert {"seed", "cache_dataset", "train_batch_size", "augment_on"} <= devices.noted["the options"].keys()


def test_a_search_knows_the_data_sets_of_libraries_and_moving_averages_by_their_content(
    trials,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    splits = {"train_split": "train[:90%]", "eval_split": "train[90%:]", "train_epochs": 1}
    for name, dataset, place in (("tfds", "greys", "greys"), ("hf", "hf:me/greys", "me___greys")):
        kept = tmp_path / name / place / "1.0.0"
        kept.mkdir(parents=True)
        (kept / "dataset_info.json").write_text("{}")
        (kept / "greys.tfrecord").write_bytes(b"one")
        options = splits | {"dataset": dataset, "data_dir": str(tmp_path / name)}
        run = tmp_path / f"run {name}"
        sweep.run(plan(run, options=options, trials=1))
        shutil.copytree(tmp_path / name, tmp_path / f"{name} moved")
        options["data_dir"] = str(tmp_path / f"{name} moved")
        count = len(trials)
        sweep.run(plan(run, options=options, trials=1))
        assert len(trials) <= count + 1, "no trial is made again"
        (tmp_path / f"{name} moved" / place / "1.0.0" / "greys.tfrecord").write_bytes(b"two")
        with pytest.raises(InputError, match="the same images and weights, but others lie there by now"):
            sweep.run(plan(run, options=options, trials=1))

    content = {False: "weights", True: "averages"}
    monkeypatch.setattr(search_plan, "content_of_option", lambda name, value, ema=False: content[ema])
    options = splits | {"checkpoint": "given", "ema": True}
    sweep.run(plan(tmp_path / "averages", options=options, trials=1))
    content[True] = "other averages"
    with pytest.raises(InputError, match="the same images and weights, but others lie there by now"):
        sweep.run(plan(tmp_path / "averages", options=options, trials=1))
