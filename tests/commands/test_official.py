"""The official run.py's command lines: what they mean here, and what its evaluation leaves behind."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import golden
from tests.commands import pictures, small_cifar10
from tf_simclr import cli, run
from tf_simclr.config import Finetune, Pretrain
from tf_simclr.errors import InputError
from tf_simclr.official import command as official_task
from tf_simclr.official import flags as official
from tf_simclr.run_folder import RunFolder

TF2_FLAGS = {
    "learning_rate": 0.3,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 10,
    "weight_decay": 1e-6,
    "batch_norm_decay": 0.9,
    "train_batch_size": 512,
    "train_split": "train",
    "train_epochs": 100,
    "train_steps": 0,
    "eval_steps": 0,
    "eval_batch_size": 256,
    "checkpoint_epochs": 1,
    "checkpoint_steps": 0,
    "eval_split": "validation",
    "dataset": "imagenet2012",
    "cache_dataset": False,
    "mode": "train",
    "train_mode": "pretrain",
    "lineareval_while_pretraining": True,
    "checkpoint": None,
    "zero_init_logits_layer": False,
    "fine_tune_after_block": -1,
    "master": None,
    "model_dir": None,
    "data_dir": None,
    "use_tpu": True,
    "tpu_name": None,
    "tpu_zone": None,
    "gcp_project": None,
    "optimizer": "lars",
    "momentum": 0.9,
    "eval_name": None,
    "keep_checkpoint_max": 5,
    "keep_hub_module_max": 1,
    "temperature": 0.1,
    "hidden_norm": True,
    "proj_head_mode": "nonlinear",
    "proj_out_dim": 128,
    "num_proj_layers": 3,
    "ft_proj_selector": 0,
    "global_bn": True,
    "width_multiplier": 1,
    "resnet_depth": 50,
    "sk_ratio": 0.0,
    "se_ratio": 0.0,
    "image_size": 224,
    "color_jitter_strength": 1.0,
    "use_blur": True,
}
"""Names and defaults, as google-research/simclr, tf2/run.py, has them; TF1's two more are in its README's commands."""
TF1_FLAGS = {"train_summary_steps", "variable_schema"}


def test_every_flag_of_the_official_code_is_known_with_its_default():
    assert {flag.name: flag.default for flag in official.FLAGS if flag.name not in TF1_FLAGS} == TF2_FLAGS
    assert official.BY_NAME.keys() > TF1_FLAGS


def test_a_flag_is_an_option_of_its_name_or_the_table_says_what_becomes_of_it():
    options = {field.name for kind in (Pretrain, Finetune) for field in dataclasses.fields(kind)}
    unexplained = {flag.name for flag in official.FLAGS if flag.here == official.SAME}
    assert unexplained <= options


@pytest.mark.parametrize("train_mode", ["pretrain", "finetune"])
def test_the_official_defaults_reach_the_configuration(train_mode):
    config = official.parse(["--model_dir=a", f"--train_mode={train_mode}"]).config
    shared = TF2_FLAGS.keys() & {field.name for field in dataclasses.fields(config)}
    assert {"optimizer", "warmup_epochs", "image_size", "keep_checkpoint_max", "eval_split"} <= shared
    for name in shared - {"model_dir", "checkpoint"}:
        assert getattr(config, name) == TF2_FLAGS[name], name


CIFAR10 = """--train_mode=pretrain --train_batch_size=512 --train_epochs=1000
  --learning_rate=1.0 --weight_decay=1e-4 --temperature=0.5
  --dataset=cifar10 --image_size=32 --eval_split=test --resnet_depth=18
  --use_blur=False --color_jitter_strength=0.5
  --model_dir=/tmp/simclr_test --use_tpu=False"""
CIFAR10_FIRST = CIFAR10.replace("--weight_decay=1e-4", "--weight_decay=1e-6")
IMAGENET = """--train_mode=pretrain --train_batch_size=4096 --train_epochs=100 --temperature=0.1
  --learning_rate=0.075 --learning_rate_scaling=sqrt --weight_decay=1e-4
  --dataset=imagenet2012 --image_size=224 --eval_split=validation
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0"""
IMAGENET_FIRST = """--train_mode=pretrain --train_batch_size=4096 --train_epochs=100
  --learning_rate=0.3 --weight_decay=1e-6 --temperature=0.1
  --dataset=imagenet2012 --image_size=224 --eval_split=validation
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0"""
CIFAR10_HEAD = """--mode=train_then_eval --train_mode=finetune
  --fine_tune_after_block=4 --zero_init_logits_layer=True
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head)'
  --global_bn=False --optimizer=momentum --learning_rate=0.1 --weight_decay=0.0
  --train_epochs=100 --train_batch_size=512 --warmup_epochs=0
  --dataset=cifar10 --image_size=32 --eval_split=test --resnet_depth=18
  --checkpoint=/tmp/simclr_test --model_dir=/tmp/simclr_test_ft --use_tpu=False"""
IMAGENET_HEAD = """--mode=train_then_eval --train_mode=finetune
  --fine_tune_after_block=4 --zero_init_logits_layer=True
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head)'
  --global_bn=False --optimizer=momentum --learning_rate=0.1 --weight_decay=1e-6
  --train_epochs=90 --train_batch_size=4096 --warmup_epochs=0
  --dataset=imagenet2012 --image_size=224 --eval_split=validation
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR --checkpoint=$CHKPT_DIR
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0"""
ONE_PERCENT = """--mode=train_then_eval --train_mode=finetune
  --fine_tune_after_block=-1 --zero_init_logits_layer=True
  --variable_schema='(?!global_step|(?:.*/|^)Momentum|head_supervised)'
  --global_bn=True --optimizer=lars --learning_rate=0.005
  --learning_rate_scaling=sqrt --weight_decay=0
  --train_epochs=60 --train_batch_size=1024 --warmup_epochs=0
  --dataset=imagenet2012_subset/1pct --image_size=224 --eval_split=validation
  --data_dir=$DATA_DIR --model_dir=$MODEL_DIR --checkpoint=$CHKPT_DIR
  --use_tpu=True --tpu_name=$TPU_NAME --train_summary_steps=0
  --num_proj_layers=3 --ft_proj_selector=1"""
"""The commands of the official READMEs (of the repository and of tf2/), behind `python run.py`; `_FIRST`: as the
repository's first README had them."""
VARIABLES = {"$DATA_DIR": "gs://bucket/data", "$MODEL_DIR": "runs/a", "$CHKPT_DIR": "runs/b", "$TPU_NAME": "my-tpu"}


def words(command: str) -> list[str]:
    """The command as a shell passes it on."""
    for name, value in VARIABLES.items():
        command = command.replace(name, value)
    return shlex.split(command)


ON_IMAGENET = {"dataset": "imagenet2012", "image_size": 224, "eval_split": "validation", "resnet_depth": 50}
ON_IMAGENET |= {"data_dir": Path("gs://bucket/data"), "model_dir": Path("runs/a"), "download": True}
ON_IMAGENET |= {"strategy": "tpu", "tpu_name": "my-tpu"}
ON_CIFAR10 = {"dataset": "cifar10", "image_size": 32, "eval_split": "test", "resnet_depth": 18, "download": True}
PRETRAIN_CIFAR10 = ON_CIFAR10 | {"train_batch_size": 512, "train_epochs": 1000, "learning_rate": 1.0}
PRETRAIN_CIFAR10 |= {"weight_decay": 1e-4, "temperature": 0.5, "use_blur": False, "color_jitter_strength": 0.5}
PRETRAIN_CIFAR10 |= {"model_dir": Path("/tmp/simclr_test")}
HEAD = {"fine_tune_after_block": 4, "zero_init_logits_layer": True, "restore_logits_layer": False, "global_bn": False}
HEAD |= {"optimizer": "momentum", "learning_rate": 0.1, "warmup_epochs": 0.0, "ft_proj_selector": 0}
IN_BATCHES_OF_4096 = {"train_batch_size": 4096, "train_epochs": 100, "temperature": 0.1}
LARGE = ON_IMAGENET | IN_BATCHES_OF_4096

MEANINGS = {
    "CIFAR-10": (CIFAR10, PRETRAIN_CIFAR10),
    "CIFAR-10, first README": (CIFAR10_FIRST, PRETRAIN_CIFAR10 | {"weight_decay": 1e-6}),
    "ImageNet": (
        IMAGENET,
        LARGE | {"learning_rate": 0.075, "learning_rate_scaling": "sqrt", "weight_decay": 1e-4},
    ),
    "ImageNet, first README": (IMAGENET_FIRST, LARGE | {"learning_rate": 0.3, "weight_decay": 1e-6}),
    "CIFAR-10, linear head": (
        CIFAR10_HEAD,
        ON_CIFAR10
        | HEAD
        | {"weight_decay": 0.0, "train_epochs": 100, "train_batch_size": 512}
        | {"checkpoint": Path("/tmp/simclr_test"), "model_dir": Path("/tmp/simclr_test_ft")},
    ),
    "ImageNet, linear head": (
        IMAGENET_HEAD,
        ON_IMAGENET
        | HEAD
        | {"weight_decay": 1e-6, "train_epochs": 90, "train_batch_size": 4096, "checkpoint": Path("runs/b")},
    ),
    "1 % of ImageNet": (
        ONE_PERCENT,
        ON_IMAGENET
        | HEAD
        | {"dataset": "imagenet2012_subset/1pct", "fine_tune_after_block": -1, "global_bn": True, "optimizer": "lars"}
        | {"learning_rate": 0.005, "learning_rate_scaling": "sqrt", "weight_decay": 0.0, "train_epochs": 60}
        | {"train_batch_size": 1024, "ft_proj_selector": 1, "checkpoint": Path("runs/b")},
    ),
}
WHERE = {"strategy", "tpu_name"}
"""Options of the devices, which not every command has."""


@pytest.mark.parametrize(("command", "options"), MEANINGS.values(), ids=MEANINGS)
def test_a_documented_command_means_the_configuration_that_it_describes(command, options):
    job = official.parse(words(command))
    finetunes = "finetune" in command
    kind = Finetune if finetunes else Pretrain
    absent = WHERE - {field.name for field in dataclasses.fields(kind)}
    assert job.config == kind(**{name: value for name, value in options.items() if name not in absent})
    assert job.mode == ("train_then_eval" if finetunes else "train")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--use_blur", "use_blur", True),
        ("--nouse_blur", "use_blur", False),
        ("--use_blur=false", "use_blur", False),
        ("--use_blur=0", "use_blur", False),
        ("--use_blur=T", "use_blur", True),
        ("--use_blur False", "use_blur", False),
        ("-use_blur=1", "use_blur", True),
        ("--train_epochs 7", "train_epochs", 7),
        ("--train_epochs=7 --train_epochs=8", "train_epochs", 8),
        ("--warmup_epochs=0.5", "warmup_epochs", 0.5),
        ("--dataset imagenet2012_subset/1pct", "dataset", "imagenet2012_subset/1pct"),
        ("--checkpoint=", "checkpoint", None),
        ("--fine_tune_after_block -1", "fine_tune_after_block", -1),
        ("--use_tpu --train_steps=3", "train_steps", 3),
    ],
)
def test_flags_are_read_as_absl_reads_them(line, name, value):
    assert official.parse(["--model_dir=a", *line.split()]).flags[name] == value


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--trian_epochs=3", r"did you mean --train_epochs\?.*Received: word='--trian_epochs=3'"),
        ("--gpus=3", r"flags must be those of the official run\.py \(--help lists them"),
        ("--nolearning_rate", "flags must be those"),
        ("--nouse_tpu=False", "--nouse_tpu takes no value"),
        ("train", r"every word must be a flag.*word='train'"),
        ("--train_epochs=1e3", "--train_epochs must be a whole number. Received: train_epochs='1e3'"),
        ("--learning_rate=fast", "--learning_rate must be a number"),
        ("--use_blur=maybe", "--use_blur must be True or False"),
        ("--optimizer=adagrad", "--optimizer must be one of momentum, adam, lars"),
        ("--model_dir", "--model_dir must be followed by a value"),
        ("--model_dir=https://b/x", r"model_dir: https://b/x must be a path on this machine"),
        ("--model_dir=", "--model_dir must be given"),
        ("--temperature=0", "temperature must be above 0"),
        ("--train_mode=finetune --variable_schema=(", "--variable_schema must be a regular expression"),
        ("--train_mode=finetune --variable_schema=(?!base)", "must take base_model"),
        ("--train_mode=finetune --ft_proj_selector=1 --variable_schema=(?!head)", "must take head_contrastive"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(line, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        official.parse(["--model_dir=a", *line.split()])
    assert "\n" not in str(caught.value)


def test_a_pattern_that_takes_the_classifier_keeps_it():
    line = "--model_dir=a --train_mode=finetune --checkpoint=b --variable_schema=(?!global_step)"
    assert official.parse(line.split()).config.restore_logits_layer
    assert not official.parse([*line.split(), "--zero_init_logits_layer"]).config.restore_logits_layer


def test_help_lists_every_flag_with_its_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "--help"])
    run.main()
    out = capsys.readouterr().out
    for name, default in TF2_FLAGS.items():
        assert f"--{name} " in out
        assert str(float(default) if isinstance(default, int) and name == "warmup_epochs" else default) in out


def test_an_unknown_flag_ends_the_process_with_code_2_before_tensorflow_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(cli, "task", lambda name: pytest.fail("a task was loaded"))
    monkeypatch.setattr(sys, "argv", ["run", "--model_dir=a", "--batch_size=4"])
    with pytest.raises(SystemExit) as caught:
        run.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """A job of `--mode=eval`, whose network scores each image by its mean colour, and the steps that were exported."""
    pictures.write(tmp_path / "images" / "test", per_class=5, wrong=1)
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    logits = keras.layers.Dense(3, name="logits_sup", kernel_initializer="zeros")
    network = keras.Model(images, {"logits_sup": logits(pooled)})
    logits.kernel.assign(np.eye(3)[:, ::-1])  # classes are blue, green, red
    exports = []

    def convert(source, target, *, to, step, verify):
        exports.append(step)
        target.mkdir(parents=True)

    monkeypatch.setattr(official_task, "load_model", lambda path, step: network)
    monkeypatch.setattr(official_task, "convert", convert)
    line = f"--mode=eval --model_dir={tmp_path} --eval_split=test --image_size=32 --train_steps=20 --weight_decay=0.5"
    job = official.parse([*line.split(), "--eval_batch_size=4", "--keep_hub_module_max=2"])
    config = dataclasses.replace(job.config, image_dir=tmp_path / "images", download=False)
    return dataclasses.replace(job, config=config), exports


def test_an_evaluation_writes_what_the_official_code_writes(evaluated):
    job, exports = evaluated
    folder = RunFolder(job.config.model_dir)
    folder.result.write_text('{"loss": 1.5}')
    result = official_task.evaluate(job, 4)
    assert result == {
        "eval/regularization_loss": 0.5 * 0.5 * 3,  # of the classifier's kernel, the identity
        "eval/label_top_1_accuracy": 0.8,  # a fifth lies in the next class's folder
        "eval/label_top_5_accuracy": 1.0,
        "global_step": 4.0,
    }
    assert json.loads((folder.path / "result_4.json").read_text()) == result
    assert json.loads(folder.result.read_text()) == {"loss": 1.5} | result
    assert json.loads((folder.path / "flags.json").read_text()) == job.flags
    momentum = dataclasses.replace(job, config=dataclasses.replace(job.config, optimizer="momentum"))
    momentum.flags["eval_steps"] = 1
    first = official_task.evaluate(momentum, 5)
    assert first["eval/label_top_1_accuracy"] == 1.0  # the first four are right, the misplaced one comes after them
    official_task.evaluate(job, 6)
    assert exports == [4, 5, 6]
    assert [path.name for path in official_task.exported(folder.path / "saved_model")] == ["5", "6"]


def test_mode_eval_evaluates_new_checkpoints_up_to_that_of_the_last_step(evaluated, monkeypatch, capsys):
    job, _ = evaluated
    folder, waits = RunFolder(job.config.model_dir), []
    (folder.path / "checkpoints").mkdir()
    appear = iter([[], [2, 4], [6], [], [20]])

    def sleep(seconds):
        waits.append(seconds)
        for step in next(appear):
            folder.checkpoint(step).touch()

    found = [result["global_step"] for result in official_task.evaluations(job, sleep=sleep)]
    assert found == [4, 6, 20]
    assert waits == [15] * 5
    assert f"waiting for checkpoints in {folder.path}, up to that of step 20" in capsys.readouterr().err


def test_pretraining_without_a_classifier_is_not_evaluated(tmp_path, capsys):
    line = f"--mode=eval --model_dir={tmp_path} --lineareval_while_pretraining=False"
    official_task.run(official.parse(line.split()))
    assert "no evaluation: without lineareval_while_pretraining" in capsys.readouterr().err


@pytest.fixture(scope="module", params=["made", "real"])
def cifar10(request, tmp_path_factory):
    """A few pictures in the layout that tfds gives CIFAR-10, and the part of the real one, where it is."""
    if request.param == "made":
        return small_cifar10.write(tmp_path_factory.mktemp("tfds"))
    return golden.beside("data/tfds")


FEW = "--train_batch_size=8 --train_steps=3 --eval_batch_size=8 --train_split=train[:40] --eval_split=test[:20]"
"""What a test changes of a documented command, besides its folders."""


@pytest.mark.slow
def test_the_cifar_10_commands_run_and_leave_what_the_official_code_leaves(cifar10, tmp_path):
    def start(command, *more) -> str:
        moved = [w for w in words(command) if not w.startswith(("--model_dir", "--checkpoint"))]
        line = [sys.executable, "-m", "tf_simclr.run", *moved, f"--data_dir={cifar10}", *FEW.split(), *more]
        done = subprocess.run(line, cwd=golden.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pretrained, head = RunFolder(tmp_path / "pretrained"), RunFolder(tmp_path / "head")
    out = start(CIFAR10, f"--model_dir={pretrained.path}", "--mode=train_then_eval")
    assert "step 3: top-1" in out
    check_results(pretrained, step=3)
    out = start(CIFAR10_HEAD, f"--model_dir={head.path}", f"--checkpoint={pretrained.path}")
    assert "step 3: top-1" in out
    check_results(head, step=3)
    before = head.result.read_bytes()
    assert "step 3: top-1" in start(CIFAR10_HEAD, f"--model_dir={head.path}", "--mode=eval")
    assert json.loads(head.result.read_bytes()) == json.loads(before)


def check_results(folder: RunFolder, *, step: int) -> None:
    theirs = json.loads((folder.path / f"result_{step}.json").read_text())
    names = {"eval/regularization_loss", "eval/label_top_1_accuracy", "eval/label_top_5_accuracy", "global_step"}
    assert theirs.keys() == names
    assert theirs["global_step"] == step
    assert 0 <= theirs["eval/label_top_1_accuracy"] <= theirs["eval/label_top_5_accuracy"] <= 1
    assert theirs.items() <= json.loads(folder.result.read_text()).items()
    assert json.loads((folder.path / "flags.json").read_text()).keys() == official.BY_NAME.keys()
    assert [path.name for path in (folder.path / "saved_model").iterdir()] == [str(step)]
    assert np.isfinite(theirs["eval/regularization_loss"])


def test_a_bucket_stays_one_on_its_way_through_a_path():
    from tf_simclr.data import tfds_source

    assert tfds_source._place(Path("gs://bucket/data")) == "gs://bucket/data"
    assert tfds_source._place(Path("/home/data")) == "/home/data"
