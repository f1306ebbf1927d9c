"""Words to configurations, and what users read when something they gave cannot be used."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tf_simclr
from tests import golden
from tf_simclr import cli
from tf_simclr.config import (
    COMMANDS,
    CheckpointsGet,
    ChestCovid,
    Demo,
    Embed,
    Export,
    Finetune,
    LinearEval,
    Pretrain,
    options,
    plain,
    plain_defaults,
)
from tf_simclr.config.options import HIDDEN, POSITIONAL
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.models.architecture import Architecture
from tf_simclr.run_folder import RunFolder
from tools import command_pages

NEEDED = {"linear-eval": ["--checkpoint", "run"], "transfer": ["--checkpoint", "run"], "distill": ["--teacher", "run"]}
NEEDED |= {command: ["--checkpoint", "run"] for command in ("embed", "export")}
NEEDED["prepare-shards"] = ["--image_dir", "images", "--out", "shards"]
NEEDED["chest prepare"] = ["raw", "out"]  # by position
NEEDED |= {f"checkpoints {verb}": ["name"] for verb in ("get", "convert")}  # by position
NEEDED["chest evaluate"] = ["--model", "run", "--radiographs", "prepared"]
NEEDED |= {"chest app": ["--model", "run"], "chest explain": ["--model", "run", "image.png"]}
"""Options without a default."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_alone_means_the_defaults(command):
    needed = NEEDED.get(command, [])
    values = {word: Path(word) for word in needed}
    if needed and needed[0].startswith("--"):
        options = 2 * sum(word.startswith("--") for word in needed)
        values = {needed[i].removeprefix("--"): Path(needed[i + 1]) for i in range(0, options, 2)}
        if needed[options:]:
            values["images"] = tuple(map(Path, needed[options:]))
    kinds = {field.name: field.type for field in dataclasses.fields(COMMANDS[command])}
    values = {name: value if "Path" in str(kinds[name]) else str(value) for name, value in values.items()}
    assert cli.parse([*command.split(), *needed]) == COMMANDS[command](**values)


OFFICIAL = {
    "train_batch_size": 512,
    "train_epochs": 100,
    "train_steps": 0,
    "learning_rate": 0.3,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 10,
    "weight_decay": 1e-6,
    "batch_norm_decay": 0.9,
    "optimizer": "lars",
    "momentum": 0.9,
    "eval_batch_size": 256,
    "checkpoint_epochs": 1,
    "checkpoint_steps": 0,
    "train_split": "train",
    "keep_checkpoint_max": 5,
    "temperature": 0.1,
    "hidden_norm": True,
    "proj_head_mode": "nonlinear",
    "proj_out_dim": 128,
    "num_proj_layers": 3,
    "global_bn": True,
    "width_multiplier": 1,
    "resnet_depth": 50,
    "sk_ratio": 0.0,
    "se_ratio": 0.0,
    "image_size": 224,
    "color_jitter_strength": 1.0,
    "use_blur": True,
    "lineareval_while_pretraining": True,
}
"""Flags of the official run.py that we have, with its defaults (google-research/simclr, tf2/run.py).

`dataset` and `eval_split` are left out: ours fit CIFAR-10, which anybody can download, those there ImageNet.
"""


def test_names_and_defaults_are_those_of_the_official_flags():
    fields = {field.name: field.default for kind in (LinearEval, Pretrain) for field in dataclasses.fields(kind)}
    assert {name: fields[name] for name in OFFICIAL} == OFFICIAL


def test_each_option_is_read_in_its_own_type():
    words = "pretrain --image_dir photos --train_epochs 3 --use_blur False --optimizer adam --learning_rate 1e-3"
    expected = Pretrain(image_dir=Path("photos"), train_epochs=3, use_blur=False, optimizer="adam", learning_rate=0.001)
    assert cli.parse(words.split()) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_each_option_with_its_default(command):
    out = io.StringIO()
    with pytest.raises(SystemExit) as caught, redirect_stdout(out):
        cli.parse([*command.split(), "--help-all"])
    assert caught.value.code in (0, None)
    lines = {}
    name = None
    for line in out.getvalue().splitlines():
        words = line.strip("│ ").split()
        name = words[0].removeprefix("--") if words and words[0].startswith("--") else name
        lines[name] = lines.get(name, "") + " ".join(words) + " "
    for field in dataclasses.fields(COMMANDS[command]):
        kind = [marker for marker in getattr(field.type, "__metadata__", ()) if marker in MARKED]
        if HIDDEN in kind:  # from --config alone
            continue
        if kind:
            assert "positional arguments" in lines[None]
            continue
        required = field.default is dataclasses.MISSING
        default = field.default or ("''" if field.default == "" else field.default)
        default = " ".join(map(str, default)) if isinstance(default, tuple) else default
        said = ["(required)"] if required else [f"(default: {default})", f"(default: '{default}')"]
        assert any(words in lines[field.name] for words in said)
        assert len(lines[field.name].split()) >= 5, f"{field.name} is not explained"


MARKED = (POSITIONAL, HIDDEN)


@pytest.fixture
def stored(tmp_path):
    """A configuration as a run folder has it."""
    config = Pretrain(image_dir=Path("photos"), train_epochs=3, model_dir=tmp_path)
    write_json(tmp_path / "config.json", plain(config))
    return tmp_path / "config.json", config


def test_a_stored_configuration_sets_the_command_and_all_its_options(stored):
    path, config = stored
    for words in (["--config", str(path)], [f"--config={path}"], ["pretrain", "--config", str(path)]):
        assert cli.parse(words) == config


def test_lists_of_numbers_are_read_from_words_and_from_a_stored_configuration(tmp_path):
    config = ChestCovid(unfreeze=(3, -1), direct=())
    assert cli.parse(["chest", "covid", "--unfreeze", "3", "-1", "--direct"]) == config
    write_json(tmp_path / "config.json", plain(config))
    assert cli.parse(["--config", str(tmp_path / "config.json")]) == config
    write_json(tmp_path / "config.json", plain(config) | {"unfreeze": [3, "all"]})
    with pytest.raises(InputError, match="must hold values of the options' types"):
        cli.parse(["--config", str(tmp_path / "config.json")])


def test_options_beside_a_stored_configuration_change_it(stored):
    path, config = stored
    for words in (
        ["--config", str(path), "--train_epochs", "5"],
        ["pretrain", "--train_epochs", "5", f"--config={path}"],
    ):
        assert cli.parse(words) == dataclasses.replace(config, train_epochs=5)


@pytest.mark.parametrize("config", [Pretrain(data_dir=Path("x")), LinearEval(checkpoint=Path("run")), Demo()])
def test_every_configuration_survives_its_file(tmp_path, config):
    write_json(tmp_path / "config.json", plain(config))
    assert cli.read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "must be a run folder's config.json"),
        ("[1]", "must be a run folder's config.json"),
        ('{"command": "baking"}', "must be a run folder's config.json, which names its command"),
        ('{"command": {"command": "linear-eval"}}', "which names its command"),  # a linear_eval.json
        ('{"command": "demo", "batch": 1}', r"must hold options of demo only\. Received: unknown=\['batch'\]"),
        ('{"command": "linear-eval"}', r"every option of linear-eval without a default\. .*missing=\['checkpoint'\]"),
        ('{"command": "demo", "seed": "1"}', r"must hold values of the options' types\. Received: seed='1'"),
        ('{"command": "pretrain", "use_blur": 1, "optimizer": "x"}', r"use_blur=1, optimizer='x'"),
        ('{"command": "pretrain", "train_batch_size": 0}', "train_batch_size must be at least 1"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_reason(tmp_path, content, sentence):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        cli.parse(["--config", str(path)])


def test_a_configuration_of_another_command_is_refused(stored):
    with pytest.raises(
        InputError, match=r"config.json must be of the command given, demo\. Received: command='pretrain'"
    ):
        cli.parse(["demo", "--config", str(stored[0])])


def test_config_without_a_file_is_refused():
    with pytest.raises(InputError, match=r"--config must be followed by a config\.json"):
        cli.parse(["pretrain", "--config"])


def refused(monkeypatch, capfd, *words) -> str:
    """What a command that cannot run leaves on stderr."""
    monkeypatch.setattr(sys, "argv", ["tf-simclr", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capfd.readouterr()
    assert caught.value.code == 2
    assert "Traceback" not in err
    assert out == ""
    return err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pretrain --temperature -1", "temperature must be above 0. Received: temperature=-1.0"),
        ("pretrain --train_batch_size 0", "train_batch_size must be at least 1"),
        ("pretrain --train_batch_size many", "invalid literal for int() with base 10: 'many'"),
        ("pretrain --image_size 4", "image_size must be at least 8"),
        ("pretrain --optimizer adagrad", "adagrad"),
        ("pretrain --batch 4", "--batch"),
        ("linear-eval", "--checkpoint"),
        ("linear-eval --checkpoint x --knn 0", "knn must be at least 1"),
        ("demo --label_draws 1", "label_draws must be at least 2"),
        ("train", "must be a command (did you mean pretrain?); `tf-simclr --help` lists them"),
        ("anything", "must be a command; `tf-simclr --help` lists them"),
    ],
)
def test_a_bad_value_is_named_before_tensorflow_is_needed(monkeypatch, capfd, words, sentence):
    monkeypatch.setattr(cli, "task", lambda name: pytest.fail("a task was loaded"))
    err = " ".join(refused(monkeypatch, capfd, *words.split()).replace("│", " ").split())
    assert sentence in err


def one_sentence(monkeypatch, capfd, *words) -> str:
    """As `refused`, for errors that the task finds; third parties' log lines and the devices found do not count."""
    other = ("WARNING:absl", "devices: ")
    ours = [line for line in refused(monkeypatch, capfd, *words).splitlines() if not line.startswith(other)]
    assert len(ours) == 1
    return ours[0]


@pytest.fixture
def images(tmp_path):
    """Six readable images in two classes."""
    import keras

    for i in range(6):
        path = tmp_path / "images" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, np.random.default_rng(i).uniform(0, 255, (8, 8, 3)), scale=False)
    return tmp_path / "images"


def test_a_data_set_that_is_not_there_is_named(monkeypatch, capfd, tmp_path):
    err = one_sentence(monkeypatch, capfd, "pretrain", "--dataset", "no_such_set", "--data_dir", tmp_path)
    assert err.startswith("the data set must be one that tfds finds. Received: 'no_such_set'")
    err = one_sentence(monkeypatch, capfd, "pretrain", "--dataset", "mnist", "--data_dir", tmp_path)
    assert err.startswith(f"the data set mnist must be prepared, but is not in {tmp_path}")


def test_a_folder_that_is_not_there_is_named(monkeypatch, capfd, tmp_path):
    err = one_sentence(monkeypatch, capfd, "pretrain", "--image_dir", tmp_path / "none")
    assert err == f"the image folder must exist. Received: folder='{tmp_path}/none'"


def test_a_folder_without_images_is_named(monkeypatch, capfd, tmp_path):
    err = one_sentence(monkeypatch, capfd, "pretrain", "--image_dir", tmp_path)
    assert err.startswith("a folder of images must hold at least one file of the kinds .jpg")
    assert err.endswith(f"Received: folder='{tmp_path}'")


def test_a_split_that_is_not_there_is_named(monkeypatch, capfd, images):
    rule = "image_dir must hold a folder of the split's name"
    err = one_sentence(monkeypatch, capfd, "pretrain", "--image_dir", images, "--train_split", "trian")
    assert err == f"{rule}, trian (it has train) (did you mean train?). Received: image_dir='{images}'"
    err = one_sentence(monkeypatch, capfd, "linear-eval", "--checkpoint", "x", "--image_dir", images)
    assert err == f"{rule}, test (it has train). Received: image_dir='{images}'"


def test_too_few_images_for_a_batch_are_counted_and_bind_the_folder_to_nothing(monkeypatch, capfd, images, tmp_path):
    words = [
        "pretrain",
        "--image_dir",
        images,
        "--image_size",
        "32",
        "--resnet_depth",
        "18",
        "--model_dir",
        tmp_path / "run",
    ]
    err = refused(monkeypatch, capfd, *words, "--train_batch_size", "7")
    rule = f"{images}/train must hold enough images for one batch; take a smaller batch_size or more images"
    assert err.splitlines()[-1] == f"{rule}. Received: images=6, batch_size=7"
    corrected = Pretrain(
        image_dir=images, image_size=32, resnet_depth=18, train_batch_size=4, model_dir=tmp_path / "run"
    )
    RunFolder(tmp_path / "run").begin(plain(corrected), Architecture(18))


def test_a_folder_with_another_run_is_named_with_what_differs(monkeypatch, capfd, images, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(plain(Pretrain(image_dir=images, model_dir=run.path, train_epochs=3)), Architecture())
    run.checkpoint(1).parent.mkdir()
    run.checkpoint(1).touch()
    err = one_sentence(monkeypatch, capfd, "pretrain", "--image_dir", images, "--model_dir", run.path)
    assert err.startswith(f"{run.path} holds a run with other options")
    assert err.endswith(": train_epochs=3 there, 100 here")


@pytest.mark.parametrize(("kind", "finished"), [(Pretrain, False), (Pretrain, True), (Finetune, True)])
def test_a_run_begun_before_an_option_came_had_its_default(monkeypatch, capfd, images, tmp_path, kind, finished):
    """Before: `exif_orientation=None there, False here`."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(images / "train", images / "test")
    config = kind(image_dir=images, model_dir=run.path, image_size=32, train_batch_size=4)
    stored = plain(config)
    for option in ("exif_orientation", "validation_fraction", "checkpoint"):
        del stored[option]
    run.begin(stored, Architecture())
    run.checkpoint(1).parent.mkdir()
    run.checkpoint(1).write_bytes(b"damaged, so that nothing can be trained here")
    if finished:
        run.network.write_bytes(b"")
        write_json(run.result, {"loss": 0.5})
    defaults = plain_defaults(stored["command"])
    run.begin(plain(config), Architecture(), defaults=defaults)
    with pytest.raises(InputError, match=r"anew: exif_orientation=False there, True here$"):
        run.begin(plain(dataclasses.replace(config, exif_orientation=True)), Architecture(), defaults=defaults)
    words = [stored["command"], "--image_dir", images, "--model_dir", run.path, "--image_size", "32"]
    words += ["--train_batch_size", "4", "--exif_orientation", "True"]
    assert "exif_orientation=False there, True here" in one_sentence(monkeypatch, capfd, *words)


def test_a_checkpoint_that_is_not_there_is_named(monkeypatch, capfd, images, tmp_path):
    (images / "train").rename(images / "test")
    words = ["--image_dir", images, "--train_split", "test", "--checkpoint", tmp_path / "none"]
    assert str(tmp_path / "none") in one_sentence(monkeypatch, capfd, "linear-eval", *words)


def cheap(monkeypatch, capfd, *words) -> str:
    """What is refused before a task, and with it a framework, is imported."""
    monkeypatch.setattr(cli, "task", lambda name: pytest.fail("a task was loaded"))
    err = refused(monkeypatch, capfd, *words)
    assert err.count("\n") == 1
    return err


def test_cheap_mistakes_are_answered_before_a_framework_loads(monkeypatch, capfd, images, tmp_path):
    run, small = tmp_path / "run", ["--image_dir", images, "--train_batch_size", "7"]
    (tmp_path / "runs" / "pets").mkdir(parents=True)
    near = tmp_path / "runs" / "pet"
    cases = {
        "must hold enough images for one batch": ["pretrain", *small],
        "images=6, batch_size=7": ["finetune", *small, "--eval_split", "train"],
        "the split's name, trian (it has train)": ["pretrain", "--image_dir", images, "--train_split", "trian"],
        "the split's name, test (it has train)": ["finetune", "--image_dir", images, "--train_batch_size", "4"],
        "the split's name, all": ["embed", "--image_dir", images, "--split", "all", "--checkpoint", images],
        f"checkpoint: {near} must exist": ["export", "--checkpoint", near],
        f"(did you mean {near}s?)": ["transfer", "--checkpoint", near],
        "teacher: nowhere must exist": ["distill", "--teacher", "nowhere"],
        "model: nowhere must exist": ["chest", "app", "--model", "nowhere"],
        "images: nowhere.png must exist": ["augmentations", "nowhere.png"],
        "must be a whole prepared folder": ["pretrain", "--radiographs", images],
        "(did you mean cifar10_1 or cifar10?)": ["pretrain", "--dataset", "cifar11", "--data_dir", run],
        "mnist must be prepared, but is not in": ["pretrain", "--dataset", "mnist", "--data_dir", run],
    }  # fmt: skip
    for sentence, words in cases.items():
        assert sentence in cheap(monkeypatch, capfd, *words), words


def test_a_prepared_data_set_is_looked_at_by_its_notes(monkeypatch, capfd, tmp_path):
    notes = tmp_path / "flowers" / "1.0.0" / "dataset_info.json"
    splits = [{"name": "train", "shardLengths": ["3", "2"]}, {"name": "holdout", "shardLengths": ["1"]}]
    write_json(notes, {"name": "flowers", "splits": splits})
    words = ["pretrain", "--dataset", "flowers", "--data_dir", tmp_path]
    assert "flowers (train) must hold enough images" in cheap(monkeypatch, capfd, *words)
    err = cheap(monkeypatch, capfd, *words, "--train_split", "train+holdut[:50%]")
    assert "the split must be one of holdout, train, or a part of these (did you mean holdout?)" in err
    monkeypatch.setattr(cli, "task", lambda name: SimpleNamespace(run=lambda config: None))
    cli.execute([*map(str, words), "--train_batch_size", "5"])


NAMES = {
    "linear-eval --checkpoint run --endpoint proj_1": LinearEval(checkpoint=Path("run"), layer="proj_1"),
    "export --checkpoint run --endpoints a,b": Export(checkpoint=Path("run"), layer="a,b"),
    "chest covid --data prepared": ChestCovid(radiographs="prepared"),
    "embed --checkpoint run --train_split test": Embed(checkpoint=Path("run"), split="test"),
}


@pytest.mark.parametrize("words", NAMES)
def test_a_name_that_an_option_had_is_taken_with_a_line(capfd, words, tmp_path):
    assert cli.parse(words.split()) == NAMES[words]
    old = next(word for word in words.split() if word.startswith("--") and word != "--checkpoint")
    assert capfd.readouterr().err.startswith(f"{old} is called --")
    stored = plain(NAMES[words])
    new = next(name for name in NAMES[words].RENAMED.values())
    stored[old.removeprefix("--")] = stored.pop(new)
    write_json(tmp_path / "config.json", stored)
    assert cli.parse(["--config", str(tmp_path / "config.json")]) == NAMES[words]


def test_yes_and_no_are_said_in_any_of_the_usual_ways():
    for words in ("--no-use_blur", "--no-use-blur", "--no_use_blur", "--use_blur False", "--use_blur=false"):
        assert cli.parse(["pretrain", *words.split()]).use_blur is False
    for words in ("--download", "--download True", "--download=true", "--no-download False"):
        assert cli.parse(["pretrain", *words.split()]).download is True
    assert cli.parse(["pretrain", "--jit_compile"]).jit_compile is True
    assert cli.parse(["pretrain", "--no-jit_compile"]).jit_compile is False
    assert cli.parse(["pretrain", "--jit_compile", "None"]).jit_compile is None
    explained = cli.parse(["chest", "explain", "--shuffle", "a.png", "--model", "run", "--no-shuffle", "b.png"])
    assert explained.images == (Path("a.png"), Path("b.png"))
    assert explained.shuffle is False


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("pretain", "(did you mean pretrain?)"),
        ("chest explian x.png", "(did you mean chest explain?)"),
        ("pretrain --batch_size 4", " or --train_batch_size?)"),
        ("pretrain --learning-rat 1", "(did you mean --learning_rate"),
        ("pretrain --optimizer adm", "(did you mean adam"),
        ("pretrain --preset imagenett", "(did you mean imagenet"),
        ("presets --name cifar", "(did you mean cifar10?)"),
        ("pretrain --no-temperature", "(did you mean --temperature?)"),
        ("pretrain --use_blur maybe", "takes options"),
        ("pretrain --use_blur=maybe", "use_blur must be True or False"),
        ("pretrain --seed --image_size 8", "--seed must be followed by a value"),
        ("pretrain --learning_rate fast", "learning_rate must be a number"),
        ("checkpoints get", "checkpoints get needs NAME"),
        ("linear-eval", "linear-eval needs --checkpoint"),
    ],
)
def test_a_wrong_word_is_answered_with_what_may_have_been_meant(monkeypatch, capfd, words, hint):
    assert hint in cheap(monkeypatch, capfd, *words.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_matters_in_groups_and_where_the_rest_is(capfd, command):
    with pytest.raises(SystemExit) as end:
        cli.parse([*command.split(), "--help"])
    assert not end.value.code
    out = capfd.readouterr().out
    known = options.options(COMMANDS[command])
    shown = [name for name in known if f"\n  --{name} " in out or f"\n  {name.upper()} " in out]
    assert shown == list(known) or (len(shown) <= 15 and f"{len(known) - len(shown)} more options" in out)
    assert {name for name, option in known.items() if option.required} <= {*shown}
    assert {*options.MATTER.get(command, ())} <= known.keys()
    assert all(option.text for option in known.values())


def test_pretrains_help_has_the_groups_of_its_dozen(capfd):
    with pytest.raises(SystemExit):
        cli.parse(["pretrain", "--help"])
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line in options.ORDER] == [
        "data",
        "model",
        "method",
        "optimisation",
        "devices",
        "run",
    ]


def test_every_part_that_help_has_a_group_for_is_a_part_of_a_configuration():
    parts = {part.__name__ for kind in COMMANDS.values() for part in kind.__mro__}
    assert options._GROUP_OF_PART.keys() <= parts
    known = options.options(COMMANDS["pretrain"])
    assert known["data_service"].group == "data"
    assert known["checkpoint_steps"].group == known["wandb"].group == "run"


@pytest.mark.parametrize("words", ["--version", "-V", "pretrain --version", "chest covid --radiographs x --version"])
def test_the_version_is_told(capfd, words):
    cli.execute(words)
    assert capfd.readouterr().out == f"tf-simclr {tf_simclr.__version__}\n"


def stored_run(folder, **values) -> Path:
    write_json(folder / "config.json", plain(Pretrain(**values)))
    return folder


def test_how_a_run_saw_its_images_is_taken_from_it(capfd, tmp_path):
    run = stored_run(tmp_path / "run", image_dir=tmp_path / "a b", image_size=32, split_seed=3)
    for command, option in (("linear-eval", "checkpoint"), ("embed", "checkpoint"), ("finetune", "checkpoint"),
                            ("distill", "teacher")):  # fmt: skip
        config = cli.parse([command, f"--{option}", str(run)])
        assert (config.image_dir, config.image_size, config.split_seed) == (tmp_path / "a b", 32, 3)
        assert f"as in the run {run}: image_size 32, image_dir {tmp_path / 'a b'}" in capfd.readouterr().err
    assert cli.parse(["export", "--checkpoint", str(run), "--resize"]).image_size == 32
    assert cli.parse(["transfer", "--checkpoint", str(run)]).image_size == 32
    assert cli.parse(["transfer", "--checkpoint", str(run)]).image_dir is None


def test_what_is_given_otherwise_than_in_the_run_counts_and_is_said(capfd, tmp_path):
    run = stored_run(tmp_path / "run", image_dir=tmp_path / "a", image_size=32)
    config = cli.parse(["linear-eval", "--checkpoint", str(run), "--image_size", "64", "--dataset", "cifar10"])
    assert (config.image_dir, config.dataset, config.image_size) == (None, "cifar10", 64)
    images = f"dataset is cifar10 here, image_dir {tmp_path / 'a'} there"
    assert capfd.readouterr().err == f"not as in the run {run}: {images}; image_size is 64 here, 32 there\n"
    assert cli.parse(["linear-eval", "--checkpoint", str(tmp_path)]) == LinearEval(checkpoint=tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_process_ends_with_code_2_and_one_sentence(tmp_path):
    command = [sys.executable, "-m", "tf_simclr", "pretrain", "--image_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("a folder of images must hold")
    assert done.stderr.count("\n") == 1


def test_plain_is_json():
    assert json.loads(json.dumps(plain(LinearEval(checkpoint=Path("run")))))["checkpoint"] == "run"


@pytest.mark.parametrize(("command", "package", "extra"), [("sweep", "optuna", "sweep"), ("pretrain", "jax", "jax")])
def test_a_package_of_an_extra_that_is_missing_is_named_with_the_extra(monkeypatch, capfd, command, package, extra):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    err = refused(monkeypatch, capfd, command)
    assert err == f"{command} needs {package}: pip install 'tf-simclr[{extra}]'\n"


def test_a_command_runs_in_this_process_from_one_string(monkeypatch):
    ran = []
    monkeypatch.setattr(cli, "task", lambda name: SimpleNamespace(run=lambda config: ran.append((name, config))))
    cli.execute("checkpoints get 'a name' --tf2 True")
    assert ran == [("checkpoints get", CheckpointsGet(name="a name", tf2=True))]


def test_the_documentations_page_has_every_command_and_option():
    page = command_pages.page()
    for name, kind in COMMANDS.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert all(option.head.replace("|", "\\|") in section for option in options.options(kind).values()), name


def test_every_command_and_the_official_one_have_a_module():
    for name in (*COMMANDS, "official"):
        assert importlib.util.find_spec(f"tf_simclr.{cli.place(name)}"), name


_WITHOUT = """
import importlib, sys
from types import SimpleNamespace
from tf_simclr import cli
from tf_simclr.config import COMMANDS
for room in ("config", "chest"):
    importlib.import_module(f"tf_simclr.{room}.first_look").look_first = lambda config: None
cli.task = lambda name, **where: SimpleNamespace(run=lambda config: reached.append(name))
reached = []
for name, kind in COMMANDS.items():
    cli._run(object.__new__(kind))
    loaded = [framework for framework in ("keras", "tensorflow", "jax", "torch") if framework in sys.modules]
    assert not loaded, (name, loaded)
assert reached == list(COMMANDS), reached
"""


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "JAX_PROCESS_ID"])
def test_what_computes_nothing_asks_nothing_of_a_launcher(monkeypatch, capsys, variable):
    """Half of a launcher's variables, as a shell on a cluster's node may have them, is said by what trains alone."""
    monkeypatch.setenv(variable, "2")
    for name in COMMANDS.keys() - set(cli._COMPUTING):
        cli.task(name)
    cli.execute("presets")
    assert "cifar10" in capsys.readouterr().out


def test_no_framework_is_loaded_before_its_task_where_what_its_libraries_write_is_kept():
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], cwd=golden.ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["", "--help", "-h", "chest", "chest -h", "--help chest", "checkpoints"])
def test_who_names_no_command_sees_which_there_are(words, capsys):
    cli.execute(words)
    out = capsys.readouterr().out
    group = words.replace("--help", "").replace("-h", "").strip()
    assert {name for name in COMMANDS if f"\n  {name} " in out} == {n for n in COMMANDS if n.startswith(group)}


@pytest.mark.parametrize("asked", [None, "0"])
def test_notes_of_tensorflow_are_left_out_unless_they_are_asked_for(asked, monkeypatch):
    """Before: lines of XLA among those of the progress."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", asked or "")
    if asked is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    cli.task("presets")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (asked or "1")


def test_a_command_may_be_written_as_options_are():
    assert cli.parse(["linear_eval", "--checkpoint", "run"]) == cli.parse(["linear-eval", "--checkpoint", "run"])


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            "pretrain",
            ["--help pretrain", "pretrain --help", "pretrain --image_dir -h --seed 1", "--config FILE --help"],
        ),
        ("chest covid", ["--help chest covid", "chest --help covid", "chest covid -h --bogus", "chest covid x --help"]),
    ],
)
def test_help_may_stand_anywhere(capsys, stored, command, lines):
    texts = []
    for words in lines:
        with pytest.raises(SystemExit):
            cli.execute(words.replace("FILE", str(stored[0])))
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1
    assert texts[0].startswith(f"usage: tf-simclr {command} ")


def test_a_file_and_a_preset_each_once(stored, tmp_path):
    for words, sentence in (
        (f"--config {stored[0]} --config {stored[0]}", "--config must be given once"),
        (f"pretrain --preset cifar10 --config {stored[0]}", "--config and --preset each set all options"),
        ("pretrain --preset cifar10 --preset=imagenet", "--preset must be given once"),
        (f"--config {tmp_path}", f"must be followed by a file, but {tmp_path} is a folder: name {stored[0]}"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            cli.parse(words.split())


def test_of_an_option_given_twice_the_last_value_counts_and_it_is_said(capsys):
    assert cli.parse(["demo", "--seed", "1", "--seed", "1"]) == Demo(seed=1)
    assert capsys.readouterr().err == ""
    assert cli.parse(["demo", "--seed", "1", "--seed=2"]) == Demo(seed=2)
    assert capsys.readouterr().err == "--seed is given twice: 2 counts, not 1\n"
    assert cli.parse(["pretrain", "--remat", "--no-remat"]).remat is False
    assert capsys.readouterr().err == "--remat is given twice: False counts, not True\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--image_dir 'my pets' pretrain --seed 1", "tf-simclr pretrain --seed 1 --image_dir 'my pets'; "),
        ("--model x chest app", "tf-simclr chest app --model x; "),
        ("pretran --seed 1", r"must be a command \(did you mean pretrain\?\); `tf-simclr --help` lists them"),
        ("nothing of it", r"must be a command; .* Received: nothing of$"),
    ],
)
def test_words_that_begin_with_no_command_are_told_how(words, says):
    with pytest.raises(InputError, match=says):
        cli.execute(words)


def test_help_is_no_wider_than_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    asked = [[], *([*name.split(), "--help-all"] for name in COMMANDS)]
    for words in asked:
        with contextlib.suppress(SystemExit):
            cli.execute(words)
    for program in ("tf2torch", "torch2tf", "inspect", "verify"):
        with pytest.raises(SystemExit):
            importlib.import_module(f"converters.{program}").main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1000
    assert [line for line in lines if len(line) > 80] == []
