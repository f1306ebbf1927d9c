"""What every command makes of the same images: a matrix of commands and properties of where images come from."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.chest import made as radiographs
from tests.commands import pictures
from tests.data import made
from tf_simclr.commands import distill, pretrain, transfer
from tf_simclr.commands.parts import images as parts_images
from tf_simclr.commands.parts import plans
from tf_simclr.config import Distill, Embed, Finetune, LinearEval, Pretrain, Transfer
from tf_simclr.data import tfds_source
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.shards.prepare import prepare_shards
from tf_simclr.data.sources import Source, from_arrays
from tf_simclr.errors import InputError, surfacing

RUN = Path("run")


def transferred(**knobs) -> tuple[Source, ...]:
    """Of `transfer`, whose folder holds a folder a set; it has no data set but those of the paper."""
    found = transfer.open_sets(Transfer(checkpoint=RUN, **knobs), "cars196")
    for source in found.values():
        parts_images.check_labels(source)
    return found["train"], found["test"]


def distilled(**knobs) -> tuple[Source, Source]:
    return distill.sources(Distill(teacher=RUN, alpha=0.5, **knobs))


SUPERVISED: dict[str, Callable[..., tuple[Source, ...]]] = {
    "linear-eval": lambda **knobs: parts_images.labelled_sources(LinearEval(checkpoint=RUN, **knobs)),
    "finetune": lambda **knobs: parts_images.labelled_sources(Finetune(**knobs)),
    "finetune, few labels": lambda **knobs: parts_images.labelled_sources(Finetune(labels_fraction=0.5, **knobs)),
    "distill, with labels": distilled,
    "distill, tested": lambda **knobs: distill.sources(Distill(teacher=RUN, **knobs)),
    "transfer": transferred,
}
"""Command → the images to learn from and to test on."""
LEARNS = [name for name in SUPERVISED if name != "distill, tested"]
OTHERS: dict[str, Callable[..., Source]] = {
    "pretrain": lambda **knobs: pretrain.to_pretrain_on(Pretrain(**knobs)),
    "embed": lambda **knobs: parts_images.open_source(Embed(checkpoint=RUN, **knobs), "train"),
}
"""Command → the images that it takes without asking for labels."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache of digests"))
    return tmp_path


def folder(home: Path, command: str) -> Path:
    """Where a command's images belong, and `--image_dir` for them."""
    return home / "pets" / "cars196" if command == "transfer" else home / "pets"


PETS = {"image_dir": Path("~/pets")}


@pytest.mark.parametrize("command", SUPERVISED)
def test_a_missing_split_is_refused_behind_a_tilde_too(home, command):
    """Before, `~/pets` was no folder, so the guard let it pass, and training images were tested."""
    pictures.write(folder(home, command) / "train", per_class=2)
    with pytest.raises(InputError, match="must hold a folder of the split's name, test"):
        SUPERVISED[command](**PETS)


@pytest.mark.parametrize("command", SUPERVISED)
def test_classes_without_splits_are_divided(home, command):
    pictures.write(folder(home, command), per_class=10)
    train, test = SUPERVISED[command](**PETS)
    assert (train.num_examples, test.num_examples) == (24, 6)
    assert train.class_names == test.class_names == ("blue", "green", "red")
    names = [{record["name"].numpy() for record in source.ordered()} for source in (train, test)]
    assert not names[0] & names[1]
    assert test.division is not None
    assert test.division["drawn_by"] == "content"
    train, test = SUPERVISED[command](**PETS, validation_fraction=0.5)
    assert (train.num_examples, test.num_examples) == (15, 15)


@pytest.mark.parametrize("command", SUPERVISED)
def test_the_division_is_said(home, command, capsys):
    pictures.write(folder(home, command), per_class=5)
    SUPERVISED[command](**PETS)
    said = capsys.readouterr().err
    assert "20 % of each class are held out, drawn by content; test has 3 of 15 images" in said


CACHED: dict[str, Any] = {"cache": "resized", "cache_size": 32, "cache_format": "raw", "image_size": 32}


@pytest.mark.parametrize("command", [name for name in (*SUPERVISED, *OTHERS) if name != "transfer"])
def test_a_cache_of_smaller_images_has_the_same_images_and_is_made_once(home, command, capsys):
    pictures.write(home / "pets", per_class=4)

    def opened(**knobs) -> list[Source]:
        found = (SUPERVISED | OTHERS)[command](**PETS, **knobs)
        return [found] if isinstance(found, Source) else list(found)

    own, cached = opened(image_size=32), opened(**CACHED)
    parts = len({source.num_examples for source in own})
    assert capsys.readouterr().err.count("shrinking") == parts
    for one, other in zip(own, cached, strict=True):
        same = {"batch_size": 5, "image_size": 32, "unreadable": Unreadable(), "crop_proportion": 1.0}
        for before, after in zip(evaluation_batches(one, **same), evaluation_batches(other, **same), strict=True):
            np.testing.assert_array_equal(before[1], after[1])
            np.testing.assert_array_equal(before[2], after[2])
            np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    (home / "pets").rename(home / "elsewhere")
    (home / "pets").symlink_to(home / "elsewhere")
    opened(**CACHED)
    assert "shrinking" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
@pytest.mark.parametrize("command", OTHERS)
def test_radiographs_of_a_cache_are_those_that_were_prepared(home, command, kind):
    """None is shrunk: pixels are kept as they are, and files of quality 90 are near."""
    radiographs.folder(home / "chest", "abcdefghijklmnopqrstuvwxyz", size=32)
    given = {"radiographs": home / "chest"}
    own, cached = (OTHERS[command](**given, **more) for more in ({"image_size": 32}, CACHED | {"cache_format": kind}))
    assert own.num_examples == cached.num_examples > 5
    assert (own.class_names, own.notes, own.division) == (cached.class_names, cached.notes, cached.division)
    same = {"batch_size": 4, "image_size": 32, "unreadable": Unreadable(), "crop_proportion": 1.0}
    for before, after in zip(evaluation_batches(own, **same), evaluation_batches(cached, **same), strict=True):
        np.testing.assert_array_equal(before[1], after[1])
        np.testing.assert_array_equal(before[2], after[2])
        np.testing.assert_allclose(after[0], before[0], atol=1e-6 if kind == "raw" else 2 / 255)
    assert not same["unreadable"].names


@pytest.mark.parametrize("command", [name for name in (*SUPERVISED, *OTHERS) if name != "transfer"])
@pytest.mark.parametrize("kind", ["folder", "tar", "radiographs"])
def test_a_seed_by_which_nothing_is_drawn_is_said(home, command, kind, capsys):
    """Beside splits of one's own the option passed without a word."""
    knobs = PETS
    if kind == "radiographs":
        letters = "abcdefghijkl"
        splits = dict(zip(letters, ["train"] * 6 + ["val"] * 2 + ["test"] * 4, strict=True))
        radiographs.folder(home / "chest", letters, splits=splits)
        knobs = {"radiographs": home / "chest"}
    for split in ("train", "test"):
        pictures.write(home / "apart" / split, per_class=3)
    if kind == "folder":
        (home / "apart").rename(home / "pets")
    if kind == "tar":
        prepare_shards(home / "apart", home / "pets", format="tar")
    opened = (SUPERVISED | OTHERS)[command]
    opened(**knobs)
    assert "split_seed" not in capsys.readouterr().err
    opened(**knobs, split_seed=3)
    assert "without effect: split_seed=3; " in capsys.readouterr().err


@pytest.mark.parametrize("command", SUPERVISED)
def test_a_share_to_test_on_is_refused_beside_splits(home, command):
    for split in ("train", "test"):
        pictures.write(folder(home, command) / split, per_class=3)
    with pytest.raises(InputError, match=r"validation_fraction must be left out: .* has splits of its own"):
        SUPERVISED[command](**PETS, validation_fraction=0.5)


@pytest.mark.parametrize("command", OTHERS)
def test_what_tests_nothing_takes_all_of_them_unless_asked(home, command):
    pictures.write(home / "pets", per_class=10)
    assert OTHERS[command](**PETS).num_examples == 30
    assert OTHERS[command](**PETS, validation_fraction=0.1).num_examples == 27


def test_pretraining_that_is_tested_or_learns_from_labels_holds_images_back(home):
    pictures.write(home / "pets", per_class=10)
    for knobs in ({"eval_split": "test"}, {"loss": "supcon"}):
        assert OTHERS["pretrain"](**PETS, **knobs).num_examples == 24


@pytest.mark.parametrize("command", SUPERVISED)
def test_a_class_called_train_is_a_class(home, command):
    place = pictures.write(folder(home, command), per_class=10)
    (place / "red").rename(place / "train")
    train, test = SUPERVISED[command](**PETS)
    assert train.class_names == test.class_names == ("blue", "green", "train")


@pytest.mark.parametrize("command", OTHERS)
def test_a_class_called_train_is_a_class_without_labels_too(home, command):
    place = pictures.write(home / "pets", per_class=2)
    (place / "red").rename(place / "train")
    assert OTHERS[command](**PETS).num_examples == 6


@pytest.mark.parametrize("command", SUPERVISED)
def test_a_flat_folder_is_told_how_to_be_laid_out(home, command):
    place = pictures.write(folder(home, command) / "x", per_class=2)
    for number, path in enumerate(place.rglob("*.png")):
        path.rename(place.parent / f"{number}.png")
    with pytest.raises(InputError, match=r"ROOT/CLASS/image\.jpg, or ROOT/train/CLASS"):
        SUPERVISED[command](**PETS)


@pytest.mark.parametrize("command", [*SUPERVISED, *OTHERS])
def test_odd_files_are_said(home, command, capsys):
    place = pictures.write(folder(home, command), per_class=5)
    (place / "red" / "a.heic").write_bytes(b"x")
    (SUPERVISED | OTHERS)[command](**PETS)
    assert "1 file of" in capsys.readouterr().err


@pytest.mark.parametrize("command", SUPERVISED)
def test_a_single_class_is_refused(home, command):
    """Before: 100 %."""
    for split in ("train", "test"):
        place = pictures.write(folder(home, command) / split, per_class=2)
        for name in ("red", "green"):
            for path in (place / name).iterdir():
                path.rename(place / "blue" / f"{name} {path.name}")
            (place / name).rmdir()
    with pytest.raises(InputError, match=r"at least two classes: .*Received: classes=\['blue'\]"):
        SUPERVISED[command](**PETS)


def test_pretraining_on_a_single_class_has_no_probe(home, capsys):
    pictures.write(home / "pets", per_class=2)
    for name in ("red", "green"):
        for path in (home / "pets" / name).iterdir():
            path.unlink()
    source = OTHERS["pretrain"](**PETS)
    assert not source.labelled
    said = capsys.readouterr().err
    assert "no class, since no file in it can be read as a picture: green, red" in said
    assert "one class, blue: it is taken without labels" in said
    with pytest.raises(InputError, match="at least two classes"):
        OTHERS["pretrain"](**PETS, loss="supcon", validation_fraction=0.5)


# Shards

FORMATS = ["tar", "tfrecord", "parquet", "arrayrecord"]


@pytest.mark.parametrize("command", SUPERVISED)
@pytest.mark.parametrize("format", FORMATS)
def test_shards_are_taken_as_the_folder_is(home, command, format):
    """With splits, and without, where both are divided alike."""
    place = folder(home, command)
    for split, count in (("train", 4), ("test", 2)):
        pictures.write(home / "split" / split, per_class=count, size=8)
    pictures.write(home / "whole", per_class=10, size=8)
    for source, sizes in (("split", (12, 6)), ("whole", (24, 6))):
        prepare_shards(home / source, home / "made", format=format)
        place.parent.mkdir(exist_ok=True)
        (home / "made").rename(place)
        found = SUPERVISED[command](**PETS)
        assert tuple(one.num_examples for one in found) == sizes
        known = [(one.class_names, content(one)) for one in found]
        if command != "transfer":  # the hub's way of naming a folder of shards
            of_hub = SUPERVISED[command](dataset="hf:~/pets")
            assert known == [(one.class_names, content(one)) for one in of_hub]
        shutil.rmtree(place)
        (home / source).rename(place)
        assert known == [(one.class_names, content(one)) for one in SUPERVISED[command](**PETS)]
        shutil.rmtree(place)


def content(source):
    """Bytes and label of each image, whatever the order."""
    rows = source.rows
    return sorted((rows.encoded(i), int(rows.labels[i])) for i in range(len(rows)))


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.parametrize("format", FORMATS)
def test_shards_are_taken_whole_where_nothing_is_tested(home, command, format):
    pictures.write(home / "whole", per_class=10)
    prepare_shards(home / "whole", home / "pets", format=format)
    assert OTHERS[command](**PETS).num_examples == 30
    assert OTHERS[command](dataset=f"hf:{home / 'pets'}").num_examples == 30


@pytest.mark.parametrize("command", [name for name in (*SUPERVISED, *OTHERS) if name != "transfer"])
def test_columns_are_refused_where_there_are_none(home, command):
    pictures.write(home / "pets", per_class=2)
    with pytest.raises(InputError, match="image_column must be left out"):
        (SUPERVISED | OTHERS)[command](**PETS, image_column="image")


# Labels that are none


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A data set like STL-10: splits with labels, without any (-1), with some, and with one far on."""
    labels = {
        "train": [0, 1, 2] * 4,
        "test": [0, 1, 2] * 2,
        "unlabelled": [-1] * 12,
        "some": [0, -1, 1, 2] * 3,
        "late": [0, 1, 2] * 3 + [-1] * 3,
    }

    class Stl(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "stl"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kinds = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
            features = tfds.features.FeaturesDict(kinds)
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label"), disable_shuffling=True
            )

        def _split_generators(self, manager):
            def examples(values):
                for i, label in enumerate(values):
                    yield i, {"image": np.full((8, 8, 3), 10 * i, np.uint8), "label": label}

            return {name: examples(values) for name, values in labels.items()}

        def _generate_examples(self):
            return iter(())

    place = tmp_path_factory.mktemp("tfds")
    Stl(data_dir=place).download_and_prepare()
    return {"dataset": "stl", "data_dir": place}


TFDS = [name for name in SUPERVISED if name != "transfer"]


@pytest.mark.parametrize("command", TFDS)
def test_a_test_without_labels_is_refused(sets, command):
    with pytest.raises(InputError, match=r"stl \(unlabelled\) must have labels to learn from or to test on"):
        SUPERVISED[command](**sets, eval_split="unlabelled")
    with pytest.raises(InputError, match=r"stl \(some\) must have labels"):
        SUPERVISED[command](**sets, eval_split="some")


@pytest.mark.parametrize("command", [name for name in TFDS if name in LEARNS])
@pytest.mark.parametrize("split", ["unlabelled", "some"])
def test_learning_from_labels_that_are_none_is_refused(sets, command, split):
    with pytest.raises(InputError, match=rf"stl \({split}\) must have labels"):
        SUPERVISED[command](**sets, train_split=split)


def test_distilling_on_images_without_labels_needs_none(sets):
    train, test = SUPERVISED["distill, tested"](**sets, train_split="unlabelled")
    assert (train.labelled, test.labelled) == (False, True)


@pytest.mark.parametrize("command", OTHERS)
def test_images_without_labels_are_taken_without_and_said(sets, command, capsys):
    source = parts_images.open_source(LinearEval(checkpoint=RUN, **sets), "unlabelled")
    assert not source.labelled
    assert "label" not in next(iter(source.ordered()))
    assert "stl (unlabelled) has no labels (all are -1)" in capsys.readouterr().err
    source = parts_images.open_source(LinearEval(checkpoint=RUN, **sets), "some")
    assert not source.labelled
    assert "stl (some) is taken without labels: 3 of 12 images looked at have none (-1)" in capsys.readouterr().err


def test_supcon_and_a_probe_need_labels(sets):
    with pytest.raises(InputError, match="must have labels"):
        OTHERS["pretrain"](**sets, train_split="unlabelled", loss="supcon")
    source = OTHERS["pretrain"](**sets, train_split="unlabelled")
    assert pretrain.describe(Pretrain(**sets), source).num_classes == 0
    plan = plans.plan_of(Pretrain(**sets), 12)
    assert pretrain.watchers(Pretrain(**sets, collapse_images=0), source, plan=plan, views=None) == []
    config, source = Pretrain(**sets, eval_split="unlabelled", collapse_images=0), OTHERS["pretrain"](**sets)
    with pytest.raises(InputError, match=r"stl \(unlabelled\) must have labels"):
        pretrain.watchers(config, source, plan=plan, views=None)


def test_a_label_that_is_none_far_on_is_one_sentence(sets, monkeypatch):
    monkeypatch.setattr(tfds_source, "LOOKED_AT", 5)
    source = parts_images.open_source(LinearEval(checkpoint=RUN, **sets), "late", labelled=True)
    with pytest.raises(InputError, match=r"each image must have a label, .* but a label further on is -1"), surfacing():
        list(evaluation_batches(source, batch_size=4, image_size=8, unreadable=Unreadable()))


def test_arrays_whose_labels_are_none_have_none():
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    source = from_arrays(pixels, np.array([-1, -1, -1, -1]))
    assert not source.labelled
    assert source.notes == ("arrays has no labels (all are -1)",)
    assert from_arrays(pixels, np.array([0, 1, 1, 0])).labelled
    for labels in ([0, -2, 1, 1], [0, -1, 1, 1]):
        with pytest.raises(InputError, match="labels must be one integer from 0 on"):
            from_arrays(pixels, np.array(labels))


def one_class(place: Path) -> Path:
    """Shards whose labels leave room for others, of which none occurs."""
    for split in ("train", "test"):
        place.mkdir(parents=True, exist_ok=True)
        with tarfile.open(place / f"{split}-0.tar", "w") as file:
            for number in range(4):
                picture = io.BytesIO()
                Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "PNG")
                for name, data in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", b"7")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
    return place


@pytest.mark.parametrize("command", [name for name in SUPERVISED if name != "transfer"])
def test_images_of_one_class_are_refused_however_many_their_labels_could_be(home, command):
    place = one_class(home / "pets")
    with pytest.raises(InputError, match=r"must have at least two classes.*all_images_are='7'"):
        SUPERVISED[command](image_dir=place)


def test_pretraining_on_images_of_one_class_has_no_probe(home, capsys):
    assert not OTHERS["pretrain"](image_dir=one_class(home / "pets")).labelled
    assert "has one class, 7: it is taken without labels, and there is no probe" in capsys.readouterr().err


def test_a_set_of_tfds_that_is_stored_in_an_order_is_looked_at_for_a_second_class(home, monkeypatch):
    monkeypatch.setattr(tfds_source, "LOOKED_AT", 1)
    made.write_tfds(home / "data", ordered=True, files=1)
    found = {split: tfds_source.from_tfds("made", split, data_dir=home / "data") for split in ("train", "train[:1]")}
    assert [source.only for source in found.values()] == ["", "0"]
