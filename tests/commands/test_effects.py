"""An option that has no effect where it stands is refused, in every command; it is taken where it has one."""

import dataclasses
import json

import pytest

from tf_simclr import cli
from tf_simclr.config import COMMANDS, Finetune, LinearEval, Pretrain, effects
from tf_simclr.config.training import LOSSES
from tf_simclr.errors import InputError

BASES = {
    "linear-eval": "--checkpoint run", "transfer": "--checkpoint run", "embed": "--checkpoint run",
    "export": "--checkpoint run", "distill": "--teacher run", "chest prepare": "raw out",
    "chest evaluate": "--model run --radiographs there", "chest explain": "--model run image.png",
}  # fmt: skip
"""Command → words that it needs."""
IMAGES = ("pretrain", "linear-eval", "finetune", "distill", "embed")
TRAINED = ("pretrain", "finetune", "distill")
CASES = [
    *((command, f"--dataset cifar10 --{source} x", f"--{source} x") for command in IMAGES
      for source in ("image_dir", "radiographs")),
    *((command, "--split_seed 3", "--split_seed 3 --image_dir x") for command in IMAGES),
    ("pretrain", "--eval_split test --knn_epochs 0", "--eval_split test --knn_epochs 0 --image_dir x"),
    ("augmentations", "--exif_orientation", "--exif_orientation photo.jpg"),
    *((command, "--batch_norm_decay 0.8 --encoder own:net", "--batch_norm_decay 0.8")
      for command in ("finetune", "distill")),
    ("checkpoints list", "--match r50 --remote gs://simclr-checkpoints/simclrv2", "--match r50"),
    ("transfer", "--validation_fraction 0.3", "--validation_fraction 0.3 --image_dir x"),
    ("export", "--exif_orientation", "--exif_orientation --image_dir x"),
    ("export", "--seed 2 --image_dir x", "--seed 2"),
    *((command, "--train_epochs 3 --train_steps 3", "--train_epochs 3 --train_steps 0") for command in TRAINED),
    ("linear-eval", "--protocol sgd --train_epochs 3 --train_steps 3", "--protocol sgd --train_epochs 3"),
    ("chest ards", "--pretrain_epochs 3 --pretrain_steps 3", "--pretrain_epochs 3"),
    *((command, "--checkpoint_epochs 3 --checkpoint_steps 3", "--checkpoint_epochs 3") for command in TRAINED),
    *((command, "--momentum 0.8 --optimizer adam", "--momentum 0.8 --optimizer sgd") for command in TRAINED),
    ("linear-eval", "--protocol sgd --momentum 0.8 --optimizer adam", "--protocol sgd --momentum 0.8"),
    ("pretrain", "--queue_length 8", "--queue_length 8 --method moco"),
    ("pretrain", "--key_momentum 0.9", "--key_momentum 0.9 --method moco"),
    ("pretrain", "--temperature 0.1 --loss hadsell", "--temperature 0.1 --loss dcl"),
    ("pretrain", "--num_proj_layers 2 --proj_head_mode linear", "--num_proj_layers 2"),
    ("pretrain", "--proj_out_dim 8 --proj_head_mode none", "--proj_out_dim 8 --proj_head_mode linear"),
    ("pretrain", "--crop_min_area 0.5 --view own:view", "--crop_min_area 0.5"),
    ("pretrain", "--hue 0.1 --jitter_probability 0", "--hue 0.1"),
    ("pretrain", "--hue 0.1 --color_jitter_strength 0", "--hue 0.1 --color_jitter_strength 0.1"),
    ("pretrain", "--knn_images 20 --knn_epochs 0", "--knn_images 20"),
    ("finetune", "--resnet_depth 50 --checkpoint run", "--resnet_depth 50"),
    ("distill", "--width_multiplier 2 --checkpoint run", "--width_multiplier 2"),
    ("distill", "--resnet_depth 18 --self_distillation", "--resnet_depth 18"),
    *((command, "--resnet_depth 18 --checkpoint run", "--resnet_depth 18")
      for command in ("chest ards", "chest findings")),
    *((command, "--ema", "--ema --checkpoint run")
      for command in ("finetune", "chest covid", "chest ards", "chest findings")),
    ("finetune", "--labels_seed 3", "--labels_seed 3 --labels_fraction 0.5"),
    ("distill", "--labels_seed 3", "--labels_seed 3 --labels_fraction 0.5 --alpha 0.5"),
    ("linear-eval", "--train_steps 3", "--train_steps 3 --protocol sgd"),
    ("linear-eval", "--knn 3 --protocol sgd", "--knn 3 --protocol knn"),
    *((command, "--cache_dir x --no-cache_features", "--cache_dir x") for command in ("linear-eval", "transfer")),
    *((command, "--num_replicas 2 --strategy one", "--num_replicas 1 --strategy one") for command in TRAINED),
    *((command, "--tpu_name x --strategy mirrored", "--tpu_name x") for command in TRAINED),
    ("sweep", "--seed 3", "--seed 3 --method random"),
    ("chest prepare", "--no-boxless_siblings", "--no-boxless_siblings --source siim"),
    ("chest prepare", "--path_column file", "--path_column file --source csv"),
    ("chest prepare", "--label_column a --label_columns b --source csv", "--label_columns b --source csv"),
    ("chest prepare", "--patients 3", "--patients 3 --source synthetic"),
    ("chest covid", "--adapted run", "--adapted run --study all"),
    ("chest covid", "--tuning_epochs 3", "--tuning_epochs 3 --study beyond"),
    ("chest ards", "--moco_queue 3 --no-moco", "--moco_queue 3"),
    ("chest findings", "--l2_strengths 3 --ways finetune", "--l2_strengths 3 --ways finetune linear"),
    ("chest findings", "--learning_rate 3", "--learning_rate 3 --ways finetune"),
    ("chest evaluate", "--at_least 0.8", "--at_least 0.8 --operating_point sensitivity"),
    ("chest evaluate", "--split_seed 3", "--split_seed 3 --split test"),
    ("chest explain", "--seed 3 --no-shuffle", "--seed 3"),
]  # fmt: skip
"""Command, words of which the first option has no effect, and words with which it has one."""


def parsed(command: str, words: str) -> object:
    """The configuration of a command's needed words and others."""
    more = "--positive A " if command == "chest ards" else ""
    return cli.parse(f"{command} {BASES.get(command, '')} {more}{words}".split())


def first(idle: str) -> str:
    """The option that has no effect, of a case's words."""
    return idle.removeprefix("--protocol sgd ").split()[0].removeprefix("--").removeprefix("no-")


@pytest.mark.parametrize(("command", "idle", "fine"), CASES)
def test_what_has_no_effect_is_refused_by_name_and_taken_where_it_has_one(command, idle, fine):
    named = first(idle)
    with pytest.raises(InputError, match=rf"^{named} must be left out \w+ .*Received: {named}="):
        parsed(command, idle)
    parsed(command, fine)


def test_every_row_is_tried_in_every_command_that_it_is_about():
    tried = {(command, first(idle)) for command, idle, _ in CASES}
    fields = {command: {field.name for field in dataclasses.fields(kind)} for command, kind in COMMANDS.items()}
    missing = [
        (command, row.names)
        for row in effects.ROWS
        if row.refused
        for command, known in fields.items()
        if {*row.by} <= known and {*row.names} & known and command not in _ALWAYS.get(row.names, ())
        if not any((command, name) in tried for name in row.names)
    ]
    assert not missing
    assert all(any({*row.by} <= known and {*row.names} & known for known in fields.values()) for row in effects.ROWS)


_ALWAYS = {("ema",): ("linear-eval", "transfer", "embed", "export", "distill")}
"""Row → commands that always have what it asks for."""


def test_what_a_preset_or_a_file_sets_is_no_contradiction_but_is_said(tmp_path, capfd):
    config = cli.parse(["pretrain", "--preset", "imagenet", "--image_dir", "x"])
    assert "without effect with --image_dir" in capfd.readouterr().err
    assert config.image_dir is not None
    (tmp_path / "c.json").write_text(json.dumps({"command": "pretrain", "loss": "hadsell", "temperature": 0.7}))
    cli.parse(["--config", str(tmp_path / "c.json")])
    assert "temperature=0.7" in capfd.readouterr().err
    with pytest.raises(InputError, match="temperature must be left out"):
        cli.parse(["--config", str(tmp_path / "c.json"), "--temperature", "0.5"])
    cli.parse(["linear-eval", "--checkpoint", "run", "--image_dir", "x", "--data_dir", "sets"])
    assert "without effect with --image_dir" in capfd.readouterr().err
    cli.parse(["chest", "covid", "--unfreeze", "3"])  # a study's own options, of which some go beyond the table
    assert "without effect with --study table" in capfd.readouterr().err
    cli.parse(["pretrain", "--image_dir", "x", "--no-download", "--num_replicas", "0"])
    cli.parse(["chest", "covid", "--unfreeze", "3", "--study", "all"])
    assert not capfd.readouterr().err


def test_a_stored_source_is_not_passed_over_in_silence(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"command": "pretrain", "image_dir": "pets"}))
    with pytest.raises(InputError, match="dataset must be left out with --image_dir"):
        cli.parse(["--config", str(tmp_path / "c.json"), "--dataset", "cifar10"])


@pytest.mark.parametrize("kind", [Pretrain, Finetune, LinearEval])
@pytest.mark.parametrize("source", ["image_dir", "radiographs"])
def test_two_sources_are_refused_in_python(kind, source):
    needed = {"checkpoint": "run"} if kind is LinearEval else {}
    with pytest.raises(InputError, match=f"dataset must be left out with --{source}"):
        kind(dataset="mnist", **{source: "x"}, **needed)
    dataclasses.replace(kind(dataset="mnist", **needed), image_dir="x")  # a copy: nobody typed the data set


def test_losses_without_a_temperature_are_those_of_the_table():
    assert {name for name, (_, known) in LOSSES.items() if "temperature" not in known} == {*effects.WITHOUT_TEMPERATURE}
