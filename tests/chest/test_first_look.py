"""What cannot work is refused before a framework is loaded, which takes seconds."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.chest import made
from tf_simclr.chest import first_look
from tf_simclr.config import ChestApp, ChestEvaluate, ChestFindings
from tf_simclr.errors import InputError
from tf_simclr.files import write_json

CLASSES = ["Mass", "Edema", "No Finding"]
CARD = {
    "format": "findings 1",
    "findings": ["Mass", "Hernia"],
    "classes": CLASSES,
    "image_size": 32,
    "kept_size": 64,
    "fit": "stretch",
    "windowed": True,
    "crop_proportion": 1.0,
    "card": {},
    "digests": {},
}


@pytest.fixture
def places(tmp_path):
    """A prepared folder and a model's, as far as they are looked at; and tables."""
    ready, run = tmp_path / "ready", tmp_path / "run"
    (run / "model").mkdir(parents=True)
    ready.mkdir()
    about = {"name": "made", "classes": CLASSES, "images": 2, "size": 64, "fit": "stretch", "windowed": True}
    write_json(ready / "settings.json", about)
    rows = [{"labels": [1, 1, 0], "refused": ""}, {"labels": [0, 0, 1], "refused": ""}]
    write_json(ready / "records-00000-of-00001.json", {"rows": rows})
    write_json(run / "model" / "card.json", CARD)
    small = tmp_path / "small"
    small.mkdir()
    write_json(small / "settings.json", about | {"size": 32})
    (tmp_path / "groups.csv").write_text("image,ward\na.png,1\n")
    (tmp_path / "labels.csv").write_text("file,finding\na.png,Mass\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


MISTAKES = [
    ("the class must be one of Mass, Edema, No Finding; --positive names it", "chest covid --radiographs {ready}"),
    ("did you mean Edema", "chest ards --radiographs {ready} --positive Edemaa"),
    ("positive must name the class", "chest ards --radiographs {ready}"),
    ("did you mean Edema", "chest findings --radiographs {ready} --findings Mass Edem"),
    ("named once each", "chest findings --radiographs {ready} --findings Mass Mass"),
    ("did you mean Mass", "finetune --radiographs {ready} --positive Mas --model_dir x"),
    ("did you mean test", "finetune --radiographs {ready} --eval_split tset --model_dir x"),
    ("name one by --positive", "linear-eval --radiographs {ready} --checkpoint {run}"),
    ("must hold a model for radiographs", "chest evaluate --model {empty} --radiographs {ready}"),
    ("others: ", "chest evaluate --model {run} --others {run}/nothing --radiographs {ready}"),
    ("--size 64 --fit stretch", "chest evaluate --model {run} --radiographs {small}"),
    ("classes must begin with findings", "chest evaluate --model {run} --radiographs {ready} --classes Fracture=Mass"),
    ("did you mean device", "chest evaluate --model {run} --radiographs {ready} --subgroups devices"),
    (
        "did you mean ward",
        "chest evaluate --model {run} --radiographs {ready} --subgroup_table {groups} --subgroups wards",
    ),
    ("subgroup_table: ", "chest evaluate --model {run} --radiographs {ready} --subgroup_table {empty}/none.csv"),
    ("must hold a model for radiographs", "chest app --model {empty}"),
    ("every image must be a radiograph that is there", "chest explain {empty}/none.png --model {run}"),
    ("must have the columns", "chest prepare {labels} {empty}/out --source csv"),
    ("must be a readable csv file", "chest prepare {empty} {empty}/out --source siim"),
    ("must hold one of Data_Entry", "chest prepare {empty} {empty}/out --source nih"),
    ("must", "chest prepare {empty} {empty}/out --source chexpert"),
    ("at least one radiograph", "chest prepare {empty} {empty}/out"),
]
"""What is said, and of which words."""
PROGRAM = """
import json, sys, time
from tf_simclr import cli
from tf_simclr.errors import InputError
for words in json.load(sys.stdin):
    began, said = time.process_time(), "went on"
    try:
        cli.execute(words)
    except InputError as error:
        said = str(error)
    loaded = [name for name in ("tensorflow", "keras", "jax", "torch") if name in sys.modules]
    print(json.dumps([said, loaded, time.process_time() - began]))
"""


def test_mistakes_are_told_before_a_framework_is_loaded(places):
    at = {name: str(places / name) for name in ("ready", "run", "small", "empty")}
    at |= {name: str(places / f"{name}.csv") for name in ("groups", "labels")}
    words = [line.format(**at).split() for _, line in MISTAKES]
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(words), capture_output=True, text=True, check=True, cwd=places
    )
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    wrong = [
        (line, said, loaded)
        for (wanted, line), (said, loaded, _) in zip(MISTAKES, found, strict=True)
        if wanted not in said or loaded
    ]
    assert not wrong
    assert max(seconds for _, _, seconds in found) < 1


def test_a_preparation_writes_its_own_lines_and_none_of_the_framework_that_it_loads_late(tmp_path):
    words = [
        "chest",
        "prepare",
        "raw",
        "out",
        "--source",
        "synthetic",
        "--patients",
        "8",
        "--size",
        "32",
        "--workers",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tf_simclr", *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["making", "radiographs"]


def test_a_port_that_is_taken_is_told_before_the_model_is_opened(places):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 must be free"):
            first_look.look_first(ChestApp(model=places / "run", port=port))
    first_look.look_first(ChestApp(model=places / "run", port=0))


def test_what_may_work_is_let_through(places):
    first_look.look_first(ChestFindings(radiographs=str(places / "ready"), findings=("Mass",)))
    first_look.look_first(ChestEvaluate(model=places / "run", radiographs=places / "ready"))


def test_the_look_says_what_the_folder_says_when_it_is_opened(tmp_path):
    from tf_simclr.data.radiographs import settings as look

    data = made.folder(tmp_path / "made", "aabbccdd", size=16)
    about = look.settings(data.folder)
    assert (about.classes, about.size, about.fit, about.windowed, about.made_up) == (
        data.classes,
        data.size,
        data.fit,
        data.windowed,
        data.made_up,
    )
    assert look.seems_single(data.folder) == bool((data.labels.sum(axis=1) == 1).all())
    assert np.array_equal(sorted(look.ATTRIBUTES), sorted(data.attributes))
