"""Folders as people have them: odd files, odd names, classes that look like splits, and a division by content."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import oracles
from tf_simclr.commands.parts.images import open_folder
from tf_simclr.data import folders
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError
from tf_simclr.files import contents


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache of digests"))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(oracles.synth(8, 9, number)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number))
    return path


def classes_of(root: Path, **counts: int) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write(root / name / f"{i}.png", 1000 * label + i)
    return root


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


# What is a picture


@pytest.mark.parametrize("ending", [".tif", ".TIFF", ".jfif", ".JPG", ".jpe", ".avif", ".jp2", ".ppm", ".bmp", ".apng"])
def test_a_file_is_a_picture_by_its_ending_and_decoded_by_its_content(root, ending):
    """A PNG under any of the names: wrong endings are common."""
    write(root / "cat" / f"a{ending}", 1)
    write(root / "dog" / "b.png", 2)
    source = from_folder(root)
    assert source.class_names == ("cat", "dog")
    images, labels, _ = next(iter(evaluation_batches(source, batch_size=9, image_size=8, unreadable=Unreadable())))
    assert (len(images), labels.numpy().tolist()) == (2, [0, 1])


def test_what_is_no_picture_is_counted_and_named(root):
    classes_of(root, cat=2, dog=2)
    for i in range(7):
        (root / "cat" / f"notes{i}.heic").write_bytes(b"x")
    (root / "fox").mkdir()
    (root / "fox" / "a.heic").write_bytes(b"x")
    (root / "empty").mkdir()
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "loop.png").symlink_to(root / "dog" / "loop.png")
    os.mkfifo(root / "dog" / "pipe.png")
    for hidden in ("._a.jpg", ".DS_Store", "Thumbs.db"):
        (root / "dog" / hidden).write_bytes(b"x")
    source = from_folder(root)
    assert (source.num_examples, source.class_names) == (4, ("cat", "dog"))
    notes = "\n".join(source.notes)
    assert "8 files of" in notes
    assert "no pictures by their endings: cat/notes0.heic, cat/notes1.heic" in notes
    assert "and 3 more" in notes
    assert "links that lead nowhere: dog/gone.png, dog/loop.png" in notes
    assert "no regular files: dog/pipe.png" in notes
    assert "no class, since no file in it can be read as a picture: empty, fox" in notes
    assert not any(hidden in notes for hidden in ("._a", "DS_Store", "humbs"))
    assert source.identity() is not None, "it does not stumble over links"


def test_only_other_files_is_an_error_that_names_them(root):
    root.mkdir()
    (root / "a.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"at least one file of the kinds .*others='1 files: a\.heic'"):
        from_folder(root)


def test_names_that_are_no_utf_8_or_have_new_lines_are_read_and_shown_on_a_line(root):
    root.mkdir()
    for name in (b"\xff\xfe.png", b"a\nb.png", "é.png".encode(), b"\x1b[31m.png"):
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(png(1))
    source = from_folder(root)
    unreadable = Unreadable()
    batch = next(iter(evaluation_batches(source, batch_size=9, image_size=8, unreadable=unreadable)))
    assert (len(batch[0]), unreadable.names) == (4, [])
    names = [name.decode() for name in batch[2].numpy()]  # UTF-8, all of them
    assert sorted(os.path.basename(name) for name in names) == ["\\x1b[31m.png", "\\xff\\xfe.png", "a\\nb.png", "é.png"]
    assert len(source.identity()[0]) == 4


def test_class_folders_that_are_no_utf_8_are_classes(root):
    write(root / "cat" / "a.png")
    odd = os.path.join(os.fsencode(root), b"\xff")
    os.mkdir(odd)
    with open(os.path.join(odd, b"a.png"), "wb") as file:
        file.write(png(2))
    assert from_folder(root).class_names == ("cat", "\\xff")


def test_empty_files_are_unreadable_and_named(root):
    classes_of(root, cat=2)
    (root / "cat" / "zero.jpg").touch()
    unreadable = Unreadable()
    found = list(evaluation_batches(from_folder(root), batch_size=9, image_size=8, unreadable=unreadable))
    assert sum(len(images) for images, *_ in found) == 2
    assert [os.path.basename(name) for name in unreadable.names] == ["zero.jpg"]


# Classes and splits


def test_a_class_called_train_beside_others_is_no_split(root):
    classes_of(root, bus=10, car=10, train=10)
    assert folders.split_folder(root, "train", asked=["train", "test"]) is None
    train = open_folder(root, "train", labelled=True, asked=["train", "test"])
    assert train.class_names == ("bus", "car", "train")
    assert train.num_examples == 24
    assert open_folder(root, "train", whole=True).num_examples == 30
    test = open_folder(root, "test", labelled=True, asked=["train", "test"])
    assert (test.class_names, test.num_examples) == (train.class_names, 6)


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_any_class_with_a_splits_name_beside_others_is_none(root, name):
    classes_of(root, bus=5, **{name: 5})
    assert open_folder(root, "train", labelled=True, asked=["train", "test"]).class_names == tuple(
        sorted(("bus", name))
    )


@pytest.mark.parametrize("beside", [["test"], ["val", "unlabelled"], [], ["holdout2"]])
def test_splits_are_splits(root, beside):
    """By their names, or because somebody asks for the other one, or because their classes are the same."""
    for name in ["train", *beside]:
        classes_of(root / name, cat=2, dog=1)
    assert open_folder(root, "train", labelled=True, asked=["train"]).num_examples == 3
    assert open_folder(root, "train").num_examples == 3


def test_a_folder_with_two_readings_is_refused(root):
    classes_of(root / "train", steam=2, diesel=2)
    classes_of(root, bus=2)
    with pytest.raises(InputError, match="can be read in two ways, train as a split"):
        open_folder(root, "train", labelled=True)


def test_a_split_that_is_missing_beside_others_is_an_error(root):
    classes_of(root / "train", cat=2, dog=2)
    for split in ("test", "train[:10%]", "trian"):
        with pytest.raises(InputError, match=r"must hold a folder of the split's name, .* \(it has train\)"):
            open_folder(root, split, labelled=True)


def test_a_flat_folder_says_how_to_lay_files_out(root):
    write(root / "a.png")
    with pytest.raises(InputError, match=r"must lie in class folders, ROOT/CLASS/image\.jpg, or ROOT/train/"):
        open_folder(root, "train", labelled=True)
    assert open_folder(root, "train", whole=True).num_examples == 1


# The division


def names(source) -> set[str]:
    return {record["name"].numpy().decode() for record in source.ordered()}


def test_the_division_is_stratified_disjoint_and_whole(root):
    classes_of(root, cat=50, dog=20, owl=7)
    parts = {name: open_folder(root, name, labelled=True, asked=["train", "test"]) for name in ("train", "test")}
    assert not names(parts["train"]) & names(parts["test"])
    assert len(names(parts["train"]) | names(parts["test"])) == 77
    labels = [int(record["label"]) for record in parts["test"].ordered()]
    assert np.bincount(labels).tolist() == [10, 4, 1]
    assert parts["test"].division == {
        "part": "test", "images": 15, "of": 77, "held_out": 0.2, "seed": 0, "drawn_by": "content",
    }  # fmt: skip
    assert "20 % of each class are held out, drawn by content; test has 15 of 77" in parts["test"].notes[-1]
    half = open_folder(root, "test", labelled=True, asked=["train", "test"], fraction=0.5)
    assert half.num_examples == 25 + 10 + 4
    other = open_folder(root, "test", labelled=True, asked=["train", "test"], seed=1)
    assert names(other) != names(parts["test"])


def test_validation_is_apart_from_test_and_from_what_is_trained_on_beside_it(root):
    classes_of(root, cat=50, dog=20)
    asked = ["train", "validation"]
    train, validation = (open_folder(root, name, labelled=True, asked=asked) for name in asked)
    test = open_folder(root, "test", labelled=True, asked=["train", "test"])
    assert not names(train) & names(validation)
    assert not names(train) & names(test)
    assert not names(validation) & names(test)
    assert len(names(train) | names(validation) | names(test)) == 70


def test_the_division_follows_content_not_names_or_places(root, tmp_path):
    classes_of(root, cat=30, dog=30)
    before = {name: content(open_folder(root, name, labelled=True)) for name in ("train", "test")}
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"renamed {i * 7 % 60}.png"))
    root.rename(tmp_path / "moved")
    after = {name: content(open_folder(tmp_path / "moved", name, labelled=True)) for name in ("train", "test")}
    assert after == before


def content(source) -> list[str]:
    return sorted(contents.of_bytes(source.read(record["image"]).numpy()) for record in source.ordered())


def test_copies_land_on_one_side_even_across_classes(root):
    classes_of(root, cat=20, dog=20)
    for i in range(20):
        for copy in range(3):
            write(root / "cat" / f"copy {i} {copy}.png", i)
        write(root / "dog" / f"as a dog {i}.png", i)
    train, test = (open_folder(root, name, labelled=True) for name in ("train", "test"))
    assert not set(content(train)) & set(content(test))
    assert train.num_examples + test.num_examples == 120


def test_a_class_with_one_picture_cannot_be_divided(root):
    classes_of(root, cat=9, dog=1)
    with pytest.raises(InputError, match=r"at least 2 different pictures .*too_few=\['dog'\]"):
        open_folder(root, "test", labelled=True)


def test_zero_byte_files_are_no_copies_of_each_other(root):
    classes_of(root, cat=10, dog=10)
    for i in range(10):
        (root / "cat" / f"zero {i}.png").touch()
    test = open_folder(root, "test", labelled=True)
    labels = [int(record["label"]) for record in test.ordered()]
    assert np.bincount(labels).tolist() == [4, 2]
    assert not any(os.path.basename(name).startswith("zero") for name in names(test))


def test_the_same_images_elsewhere_have_the_same_roster(root, tmp_path):
    classes_of(root, cat=3, dog=2)
    here = from_folder(root).roster
    root.rename(tmp_path / "moved")
    assert from_folder(tmp_path / "moved").roster == here
    (tmp_path / "moved" / "cat" / "0.png").rename(tmp_path / "moved" / "cat" / "new.png")
    assert from_folder(tmp_path / "moved").roster != here


@pytest.mark.parametrize("root", [".", "pets", "./pets/../pets", "here"])
def test_names_below_a_root_are_those_of_relative_paths(tmp_path, monkeypatch, root):
    """They are cut off by the length of the root, however that is written."""
    monkeypatch.chdir(tmp_path)
    for name in ("pets/cat/a.jpg", "pets/cat/more/b.jpg", "pets/dog.jpg/c.jpg", "pets/é/d\n.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    place = tmp_path / "pets" if root == "here" else Path(root)
    found = folders.look(place)
    assert found.below == tuple(file.relative_to(place).as_posix() for file in found.files)
    assert len(found.below) == 4
    if root != ".":
        assert found.classes == ("cat", "dog.jpg", "é")
        assert found.labels().tolist() == [0, 0, 1, 2]
