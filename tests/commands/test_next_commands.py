"""What a command prints to type next can be typed as it stands, whatever images it had and wherever its folder is."""

import re
import shlex
import shutil
from pathlib import Path

import keras
import pytest

from converters.command import Arguments, asked
from tests.chest import made
from tests.commands import pictures, small_cifar10
from tf_simclr import cli, prepare_shards
from tf_simclr.commands import pretrain
from tf_simclr.commands.parts import images, networks
from tf_simclr.config import Pretrain, plain
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build
from tf_simclr.run_folder import RunFolder

SMALLEST = Architecture(depth=18, proj_head_mode="linear", num_proj_layers=1, proj_out_dim=8)
"""With the ImageNet stem, which is 16 times cheaper at 32 pixels."""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A network in a file: what a pretraining leaves."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("network") / "network.keras"
    build(SMALLEST).save(path)
    return path


@pytest.fixture
def at_home(tmp_path, monkeypatch) -> Path:
    """A working directory, which is the home folder, too, with a name that a shell would take apart."""
    home = tmp_path / "a home's folder"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    return home


def folder_of(kind: str, place: Path) -> list[str]:
    """Writes images of a kind and gives the options that name them."""
    if kind == "splits":
        for split in ("train", "test"):
            pictures.write(place / "my pets" / split, per_class=8)
        return ["--image_dir", "my pets"]
    if kind == "train and val":
        for split in ("train", "val"):
            pictures.write(place / "pets" / split, per_class=8)
        return ["--image_dir", "~/pets"]
    if kind == "classes":
        return ["--image_dir", str(pictures.write(place / "pets $5", per_class=8))]
    if kind == "train alone":
        pictures.write(place / "pets" / "train", per_class=8)
        return ["--image_dir", "./pets"]
    if kind == "flat":
        pictures.write(place / "classes", per_class=8)
        (place / "flat pets").mkdir()
        for file in (place / "classes").rglob("*.png"):
            shutil.move(file, place / "flat pets" / file.name)
        return ["--image_dir", "flat pets"]
    if kind in ("tar", "tfrecord", "parquet", "arrayrecord", "hf"):
        for split in ("train", "test"):
            pictures.write(place / "pets" / split, per_class=8)
        out = place / f"{kind} of pets"
        prepare_shards(place / "pets", out, format="parquet" if kind == "hf" else kind)
        return ["--dataset", f"hf:{out}"] if kind == "hf" else ["--image_dir", out.name]
    if kind == "tfds":
        return ["--dataset", "cifar10", "--data_dir", str(small_cifar10.write(place / "sets"))]
    made.folder(place / "chest x-rays", "abcdefghijklmnopqrst", size=32)
    return ["--radiographs", "chest x-rays"]


def pretrained(words: list[str], network: Path, *, model_dir: str) -> str:
    """What a pretraining of these words says at its end, and its run folder with this network."""
    config = cli.parse(["pretrain", *words, "--image_size", "32", "--train_batch_size", "4", "--model_dir", model_dir])
    source = pretrain.to_pretrain_on(config)
    RunFolder(config.model_dir).begin(plain(config), SMALLEST, data={"images": source.num_examples})
    shutil.copy(network, RunFolder(config.model_dir).network)
    return pretrain.summary(config, {"step": 1, "seconds": 1, "unreadable": []}, source=source)


def commands(text: str) -> list[list[str]]:
    """The commands of this program in a text, as a shell takes them apart."""
    return [shlex.split(found) for found in re.findall(r"python -m tf_simclr (.+)$", text, re.MULTILINE)]


WAYS = {
    "splits": ["linear-eval"],
    "train and val": ["linear-eval", "--eval_split", "val"],
    "classes": ["linear-eval"],
    "train alone": ["embed"],
    "flat": ["embed"],
    "tfds": ["linear-eval"],
    "radiographs": ["linear-eval"],
    **{kind: ["linear-eval"] for kind in ("tar", "tfrecord", "parquet", "arrayrecord", "hf")},
}


QUICK = ("train and val", "flat")
ALL = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in WAYS]


@pytest.mark.parametrize("kind", ALL)
def test_after_pretraining(kind, network, at_home, capfd):
    text = pretrained(folder_of(kind, at_home), network, model_dir="my runs/first one")
    [words] = commands(text)
    assert words[:1] + words[3 : len(WAYS[kind]) + 2] == WAYS[kind]
    capfd.readouterr()
    cli.execute([*words, "--cache_dir", "kept"] if words[0] == "linear-eval" else words)
    out, err = capfd.readouterr()
    assert "as in the run my runs/first one: image_size 32" in err
    assert "16 times" not in err
    if words[0] == "embed":
        assert out.startswith("my runs/first one/features.npz: final_avg_pool of 24 images")
        return
    assert "top-1 accuracy in %" in out
    for further in commands(out):
        cli.execute(further)
    assert "figure  my runs/first one/figures/confusion_0.png" in capfd.readouterr().out


@pytest.mark.slow
def test_after_finetuning_and_distillation(network, at_home, capfd):
    pretrained(folder_of("splits", at_home), network, model_dir="~/runs/a b")
    small = ["--train_steps", "1", "--train_batch_size", "4", "--learning_rate", "0.01"]
    cli.execute(["finetune", "--checkpoint", "~/runs/a b", "--model_dir", "runs/c d", *small])
    out = capfd.readouterr().out
    assert [words[0] for words in commands(out)] == ["compare", "export"]
    for words in commands(out):
        cli.execute(words)
    assert "32 px" in capfd.readouterr().err
    cli.execute(["distill", "--teacher", "runs/c d", "--self_distillation", "--model_dir", "runs/e", *small])
    found = capfd.readouterr()
    assert "as in the run runs/c d: image_size 32, image_dir my pets" in found.err
    assert [words[0] for words in commands(found.out)] == ["compare", "export"]


@pytest.mark.slow
def test_an_export_that_resizes_has_the_size_of_the_run(network, at_home, capfd):
    pretrained(folder_of("splits", at_home), network, model_dir="run")
    cli.execute("export --checkpoint run --to keras --resize --samples 8")
    assert "of which it takes the view of evaluation at 32 px" in capfd.readouterr().out


def test_a_stem_for_images_of_another_size_is_told(capfd):
    small, large = (build(Architecture(depth=18, cifar_stem=stem)) for stem in (True, False))
    for network, size, word in ((small, 224, "16 times the work"), (large, 32, "leaves 1 × 1 places")):
        networks.warn_of_stem(network, size)
        assert word in capfd.readouterr().err
    for network, size in ((small, 32), (small, 64), (large, 224), (large, 64)):
        networks.warn_of_stem(network, size)
    assert capfd.readouterr().err == ""


NAMES = ("my runs", "it's", "costs $5", "-dashed", "--two", "größe", "a;b & #c", 'the "best"', "back\\slash", "{a,b}*")
"""Of folders, which a shell or a program would take for something else."""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_names_the_same_folder_whatever_its_name(name, network, at_home, capfd):
    text = pretrained(folder_of("splits", at_home), network, model_dir=f"./{name}")
    [words] = commands(text)
    assert cli.parse(words).checkpoint == Path(name)
    capfd.readouterr()
    [words] = [shlex.split(found) for found in re.findall(r"python -m converters\.tf2torch (.+)$", text, re.MULTILINE)]
    assert asked(Arguments, words, program="tf2torch", description="").source == Path(name)
    [words] = [shlex.split(found) for found in re.findall(r"tensorboard (.+), or ", text)]
    assert Path(words[1]) == Path(name) / "logs"
    cli.execute(["prepare-shards", "--image_dir", "my pets", f"--out={Path(name)}/shards"])
    [words] = commands(capfd.readouterr().out)
    assert cli.parse(words).image_dir == Path(name) / "shards"


def test_a_folder_behind_hf_has_the_splits_of_its_shards(at_home):
    """Before: a pretraining on it ended with an error where it should have said what to type next."""
    for split in ("train", "test"):
        pictures.write(at_home / "pets" / split, per_class=1, size=8)
    prepare_shards(at_home / "pets", at_home / "shards of pets")
    config = Pretrain(dataset=f"hf:{at_home / 'shards of pets'}")
    assert images.splits_to_test(config) == images.splits_to_test(Pretrain(image_dir=at_home / "shards of pets"))


def test_no_split_to_test_on_is_no_command(at_home):
    pictures.write(at_home / "pets" / "train", per_class=1)
    with pytest.raises(LookupError):
        images.splits_to_test(Pretrain(image_dir=at_home / "pets"))
