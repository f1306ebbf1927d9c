"""`~` and `$VAR` in every path of every command and converter, however it comes in; oracle: the shell."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from converters import command, inspect, verify
from tf_simclr import cli, files
from tf_simclr.config import COMMANDS, plain
from tf_simclr.config.parts import Data
from tf_simclr.errors import InputError
from tf_simclr.files import lock, places
from tf_simclr.official import flags as official
from tf_simclr.run_folder import RunFolder

CONVERTERS = {"tf2torch and torch2tf": command.Arguments, "verify": verify.Options, "inspect": inspect.Options}
KINDS = COMMANDS | CONVERTERS

NO_PLACES = {
    "finding": "the name of one",
    **dict.fromkeys(("loss", "view"), "a name, or module:name of the user's code"),
    "push_to": "a repository of the hub",
    "dataset": "a name of TensorFlow Datasets, or of the hub",
    "image_column": "a column of shards",
    "label_column": "a column of shards",
    "datasets": "names of TensorFlow Datasets",
    "name": "of an official checkpoint or a preset, or a gs:// address",
    "remote": "a gs:// address",
    "match": "a part of a name",
    "modalities": "codes of DICOM",
    "data_service": "host and port",
    "host": "an address",
    "origin": "an address",
    "source_part": "the beginning of names in a checkpoint",
    "tpu_name": "a name, or a grpc:// address",
    "coordinator": "host:port, or auto",
    "positive": "a class",
    "task": "a command",
    **dict.fromkeys(("split", "train_split", "eval_split"), "a split"),
    **dict.fromkeys(("findings", "classes", "subgroups"), "names of findings, classes and of what tells people apart"),
    **dict.fromkeys(("endpoint", "endpoints", "layer", "metric"), "names in a network or a result"),
    **dict.fromkeys(("to", "naming", "source_naming"), "formats and namings"),
    **dict.fromkeys(
        ("image_column", "path_column", "label_column", "label_columns", "patient_column"), "of a csv file"
    ),
    **dict.fromkeys(("tpu_zone", "gcp_project", "wandb", "mlflow"), "names elsewhere"),
}
"""Knobs that are text and mean no path, and what they mean: a new one must be put here, or be a `Path` or `Place`."""
OPTION_DICTS = {"options", "search", "final"}
"""Of `sweep`: options of another command, whose own configuration expands them."""


def fields(kind) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(kind) if places.names_place(field.type)]


def text_kinds(kind) -> set:
    """The leaves of a type, without those of literals, which have all their values listed."""
    if get_origin(kind) is Literal:
        return set()
    return {kind}.union(*map(text_kinds, get_args(kind))) if get_args(kind) else {kind}


PLACES = [
    pytest.param(name, field.name, id=f"{name} {field.name}")
    for name in KINDS
    for field in fields(KINDS[name])
    if field.name not in ("encoder", "teacher_encoder")  # of files, those of Keras alone: below
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "of a variable"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", KINDS)
def test_each_text_knob_is_a_place_or_known_to_be_none(name):
    for field in dataclasses.fields(KINDS[name]):
        text = str in text_kinds(field.type) and not places.names_place(field.type)
        assert not text or field.name in NO_PLACES | dict.fromkeys(OPTION_DICTS), field.name


def test_there_are_places_in_nearly_every_command():
    """The introspection finds what a reader of --help finds: a test over nothing cannot fail."""
    assert {name for name in KINDS if not fields(KINDS[name])} == {"checkpoints list", "doctor", "presets"}
    assert {"image_dir", "data_dir", "radiographs", "checkpoint", "model_dir"} <= {
        f.name for f in fields(COMMANDS["pretrain"])
    }
    assert "radiographs" in {f.name for f in fields(COMMANDS["chest covid"])}
    assert "radiographs" in {f.name for f in fields(COMMANDS["chest ards"])}


def made(name: str, knob: str, value: str, **others):
    """A configuration with this value for a place; what it needs besides is given."""
    kind = KINDS[name]
    needed = {f.name: f.type for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    values = {n: Path("x") if "Path" in str(t) else "x" for n, t in needed.items()} | others
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    values["images"] = (Path("x.png"),)
    values["positive"] = "x"
    values |= {"teacher_views": "cached"} if knob == "teacher_logits" else {}
    values |= {"study": "all"} if knob == "adapted" else {}
    values |= {"radiographs": Path("x")} if "image_dir" in types and knob != "image_dir" else {}
    values |= {"radiographs": None, "positive": None} if knob == "image_dir" else {}
    path = value if "Annotated[str" in str(types[knob]) else Path(value)
    values[knob] = (path,) if "tuple" in str(types[knob]) else path
    return kind(**{n: v for n, v in values.items() if n in types})


def only(config, knob: str) -> str:
    value = getattr(config, knob)
    return str(value[0] if isinstance(value, tuple) else value)


@pytest.mark.parametrize(("name", "knob"), PLACES)
def test_python_expands_every_place(home, name, knob):
    ending = ".npz"  # what embed wants; others take it
    assert only(made(name, knob, f"~/a b{ending}"), knob) == f"{home}/a b{ending}"
    assert only(made(name, knob, f"$PLACE/é{ending}"), knob) == f"{home}/of a variable/é{ending}"
    assert only(made(name, knob, f"x/${{PLACE}}_{ending}"), knob) == f"x{home}/of a variable_{ending}"
    with pytest.raises(InputError, match=rf"{knob}.*\$NOWHERE is not"):
        made(name, knob, f"$NOWHERE/x{ending}")
    again = made(name, knob, only(made(name, knob, f"~/x{ending}"), knob))
    assert again == made(name, knob, f"~/x{ending}"), "expanded twice is expanded once"


@pytest.mark.parametrize(("name", "knob"), PLACES)
def test_a_place_to_write_has_a_name_that_every_library_can_write(home, name, knob):
    """Bytes that are no UTF-8, `\\xff`, were a traceback of TensorFlow or Arrow in the middle of the work."""
    if knob in places.FOLDERS | places.KEPT | places.WRITTEN.keys():
        with pytest.raises(InputError, match=rf"^{knob}: a place to write must have a name in UTF-8"):
            made(name, knob, "run\udcff.npz")
    elif knob in ("image_dir", "radiographs", "raw"):
        assert only(made(name, knob, "run\udcff.npz"), knob) == "run\udcff.npz"


@pytest.mark.parametrize(("name", "knob"), PLACES)
def test_python_may_give_texts_for_paths(home, name, knob):
    config = made(name, knob, "~/x.npz")
    text = only(config, knob)
    again = dataclasses.replace(config, **{knob: (text,) if isinstance(getattr(config, knob), tuple) else text})
    assert again == config


def test_each_knob_takes_addresses_or_is_known_not_to():
    taken = {"read": set(places.READ), "filled": places.FOLDERS, "written": set(places.WRITTEN), "kept": places.KEPT}
    knobs = {case.values[1] for case in PLACES}
    every = set().union(*taken.values())
    assert knobs == every - {"encoder", "teacher_encoder"}
    assert sum(map(len, taken.values())) == len(every), "each is of one kind"
    assert set(places.NAMED) <= taken["read"]


@pytest.mark.parametrize(("name", "knob"), PLACES)
def test_an_address_is_taken_or_refused_and_never_a_folder(home, name, knob):
    """`Path` makes a folder `gs:` of it: a run that lies there is lost with the machine."""
    for text in ("gs://bucket/x.npz", "s3://bucket/x.npz", "memory://x.npz", "https://x.org/x.npz", "abfs://c@a/x.npz"):
        stored = not text.startswith("https") or places.READ.get(knob) == "images"
        if stored or knob in places.NAMED:
            assert places.written(Path(only(made(name, knob, text), knob))) == text
        else:
            with pytest.raises(InputError, match=rf"{knob}: {text} must be a path on this machine, not an address"):
                made(name, knob, text)
    assert not list(home.iterdir())


@pytest.mark.parametrize("name", [name for name in KINDS if "encoder" in {f.name for f in fields(KINDS[name])}])
def test_an_encoder_is_a_word_or_a_file(home, name):
    for word in ("applications:ConvNeXtTiny", "mynets:build", "keras_hub:vit"):
        assert made(name, "encoder", word).encoder == word
    assert made(name, "encoder", "~/a.keras").encoder == f"{home}/a.keras"
    assert made(name, "encoder", "gs://bucket/a.keras").encoder == "gs://bucket/a.keras"
    with pytest.raises(InputError, match=r"encoder: https://x/a.keras must be a path on this machine"):
        made(name, "encoder", "https://x/a.keras")


@pytest.mark.parametrize("make", [files.replacing_path, files.replacing_folder, lock.hold, files.replacing])
def test_nothing_is_written_at_an_address(home, make):
    refused = pytest.raises(InputError, match="gs://bucket/x must be a path on this machine, not an address")
    with refused, make(Path("gs://bucket/x")):
        pass
    assert not list(home.iterdir())


@pytest.mark.parametrize(("name", "knob"), [case for case in PLACES if case.values[0] in COMMANDS])
def test_a_stored_configuration_expands_every_place(home, name, knob):
    stored = plain(made(name, knob, "x.npz"))
    kind = {field.name: field.type for field in dataclasses.fields(KINDS[name])}[knob]
    stored[knob] = ["~/x.npz"] if "tuple" in str(kind) else "~/x.npz"
    stored = json.loads(json.dumps(stored, default=str))
    (home / "config.json").write_text(json.dumps(stored))
    assert only(cli.parse(["--config", "~/config.json"]), knob) == f"{home}/x.npz"
    assert only(cli.parse(["--config=$HOME/config.json"]), knob) == f"{home}/x.npz"


@pytest.mark.parametrize(("name", "knob"), [case for case in PLACES if case.values[0] in COMMANDS])
def test_words_expand_every_place_behind_an_equals_sign_too(home, name, knob):
    (home / "config.json").write_text(json.dumps(plain(made(name, knob, "x.npz")), default=str))
    kind = {field.name: field.type for field in dataclasses.fields(KINDS[name])}[knob]
    if "Annotated" in str(kind) and "Annotated[str" not in str(kind):
        words = [
            *name.split(),
            "$PLACE/x.npz",
            *(["$PLACE/x.npz"] if name in ("chest prepare", "checkpoints convert") else []),
        ]
        words += ["--model", "x"] if name == "chest explain" else []
    else:
        words = ["--config", "config.json", f"--{knob}=$PLACE/x.npz"]
    assert only(cli.parse(words), knob) == f"{home}/of a variable/x.npz"


@pytest.mark.parametrize(
    "text", ["~/x", "~", "$PLACE/x", "${PLACE}/x", "x$PLACE", "~/a/$PLACE", "a~/x", "./~/x", "x/~"]
)
def test_as_the_shell_does(text):
    word = subprocess.run(["sh", "-c", f'v={text}; printf %s "$v"'], capture_output=True, text=True, check=True).stdout
    assert places.expanded(text) == Path(word)


def test_of_another_user(monkeypatch):
    import pwd

    user = pwd.getpwuid(0)
    assert places.expanded(f"~{user.pw_name}/x") == Path(user.pw_dir) / "x"
    with pytest.raises(InputError, match="~nobody-of-this-name must be in the home of a user"):
        places.expanded("~nobody-of-this-name/x")


def test_what_only_looks_like_a_place_stays(home):
    for text in ("gs://bucket/~/$NOWHERE", "file:///~x", "grpc://$NOWHERE", "https://x.org/~me/$x"):
        assert places.expanded(text) == Path(text)
    assert places.expanded(Path("gs://bucket/$NOWHERE")) == Path("gs://bucket/$NOWHERE")
    assert COMMANDS["checkpoints get"](name="gs://bucket/$NOWHERE").name == "gs://bucket/$NOWHERE"
    assert made("chest covid", "radiographs", "synthetic").radiographs == "synthetic"
    assert places.expanded("price$") == Path("price$")
    assert places.expanded("a$-$1") == Path("a$-$1"), "no names of variables"


def test_a_folder_really_called_so_is_found_and_values_are_not_expanded_again(home, monkeypatch):
    (home / "$RECYCLE.BIN" / "x").mkdir(parents=True)
    assert places.expanded("$RECYCLE.BIN/x") == Path("$RECYCLE.BIN/x")
    assert places.expanded(f"{home}/$RECYCLE.BIN/y") == home / "$RECYCLE.BIN" / "y"
    (home / "of a variable" / "$x").mkdir(parents=True)
    assert places.expanded("$PLACE/$x/y") == home / "of a variable" / "$x" / "y"
    (home / "~x").mkdir()
    assert places.expanded("~x/y") == Path("~x/y")
    monkeypatch.setenv("PLACE", "$NOWHERE")
    assert places.expanded("$PLACE/x") == Path("$NOWHERE/x")
    odd = home / "$NOWHERE"
    odd.mkdir()
    monkeypatch.setenv("HOME", str(odd))
    assert places.expanded(places.expanded("~/new")) == odd / "new"


def test_public_functions_expand(home):
    import converters
    from tf_simclr.chest.model import deployed
    from tf_simclr.data.radiographs import prepared
    from tf_simclr.data.sources import from_folder

    (home / "missing").mkdir()
    for read in (converters.load, converters.convert, prepared.load, deployed.load, from_folder):
        with pytest.raises(InputError) as caught:
            read("~/missing")
        assert "exist" not in str(caught.value), "it looked into the folder, and missed a file in it"
        with pytest.raises(InputError, match="NOWHERE is not"):
            read("$NOWHERE/missing")
    assert RunFolder(Path("~/run")).config == home / "run" / "config.json"


def test_the_official_flags_expand(home):
    job = official.parse(["--model_dir=~/run", "--data_dir=$PLACE", "--dataset=cifar10", "--mode=train"])
    assert (job.config.model_dir, job.config.data_dir) == (home / "run", home / "of a variable")


def test_an_undefined_variable_is_said_without_a_traceback(home):
    for words in (
        ["tf_simclr", "pretrain", "--image_dir=$NOWHERE/pets"],
        ["tf_simclr", "--config=$NOWHERE/config.json"],
        ["converters.tf2torch", "$NOWHERE/x"],
        ["converters.verify", "$NOWHERE/x", "y"],
        ["converters.inspect", "$NOWHERE/x"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, check=False, env={**os.environ}
        )
        assert done.returncode == 2
        text = " ".join(done.stderr.replace("│", " ").split())  # options' errors stand in a box
        assert "$NOWHERE is not: set it" in text
        assert "Traceback" not in done.stderr


def test_the_guard_against_a_missing_split_holds_behind_a_tilde(home):
    """Before, `--image_dir=~/pets` was tested on all its images: `~/pets` was no folder, so the guard let it pass."""
    from tests.commands import pictures
    from tf_simclr.commands.parts.images import open_source

    pictures.write(home / "pets" / "train", per_class=1)
    config = Data(image_dir=Path("~/pets"))
    assert open_source(config, "train", labelled=True).num_examples == 3
    with pytest.raises(InputError, match="must hold a folder of the split's name, test"):
        open_source(config, "test", labelled=True)
