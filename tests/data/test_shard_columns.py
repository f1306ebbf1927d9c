"""Shards as others write them: which column is the picture, which the class, and what that means."""

import datetime
import io
import json
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import made
from tf_simclr import prepare_shards
from tf_simclr.commands.parts.images import same_classes
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.hub import from_hub
from tf_simclr.data.shards.source import from_shards
from tf_simclr.errors import InputError

pa = pytest.importorskip("pyarrow", reason="Parquet and Arrow need the extra `shards`")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet and Arrow need the extra `shards`")
datasets = pytest.importorskip("datasets", reason="Hugging Face's files need the extra `shards`")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache of indices"))


def picture(number, kind="PNG", mode="RGB"):
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


PICTURES = [picture(n, *form) for n, form in enumerate([("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("JPEG", "CMYK")])]


def what(source):
    """Bytes and class of each, by name."""
    labels = source.rows.labels
    names = [None] * len(source.rows) if labels is None else [source.class_names[label] for label in labels]
    return [(source.rows.encoded(i), names[i]) for i in range(len(source.rows))]


def saved(features, place, how, **columns):
    found = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    found.to_parquet(place / "a.parquet") if how == "parquet" else found.save_to_disk(place)
    return place


IMAGES = [{"bytes": one, "path": None} for one in PICTURES]
UNDECODED = datasets.Image(decode=False)


@pytest.mark.parametrize("how", ["parquet", "saved"])
@pytest.mark.parametrize("image", [UNDECODED, datasets.Image()])
def test_hugging_face_s_own(tmp_path, how, image):
    names = ["cat", "dög", "no image of it"]
    features = {"id": datasets.Value("int64"), "photo": image, "animal": datasets.ClassLabel(names=names)}
    source = from_shards(saved(features, tmp_path, how, id=[7] * 4, photo=IMAGES, animal=[0, 1, 1, 0]))
    assert source.class_names == tuple(names)
    assert what(source) == list(zip(PICTURES, ["cat", "dög", "dög", "cat"], strict=True))


@pytest.mark.parametrize("how", ["parquet", "saved"])
def test_words_lists_and_what_has_no_label(tmp_path, how):
    features = {"image": UNDECODED, "label": datasets.Value("string")}
    place = saved(features, tmp_path, how, image=IMAGES, label=["b", "a", "b", "a"])
    assert what(from_shards(place)) == list(zip(PICTURES, ["b", "a", "b", "a"], strict=True))
    for labels, note in (([-1, -1, -1, -1], "no labels"), ([0, -1, 1, 0], "1 of 4 images looked at have none")):
        place = tmp_path / note[:3]
        place.mkdir()
        features["label"] = datasets.ClassLabel(names=["a", "b"])
        source = from_shards(saved(features, place, how, image=IMAGES, label=labels))
        assert not source.labelled
        assert note in " ".join(source.notes)


def test_what_the_library_streams_is_what_is_read(tmp_path):
    """A repository's files as they lie there: `datasets` streams them, and by their folder they are read."""
    kinds = {"image": UNDECODED, "label": datasets.ClassLabel(names=["b", "a"])}
    for number, rows in enumerate(([0, 1], [], [2, 3])):
        columns = {"image": [IMAGES[row] for row in rows], "label": [row % 2 for row in rows]}
        one = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
        one.to_parquet(tmp_path / f"train-{number:05}-of-00003.parquet")
    options = {"split": "train", "streaming": True, "cache_dir": str(tmp_path / "cache")}
    stream = datasets.load_dataset(str(tmp_path), **options).cast_column("image", UNDECODED)
    assert [(one["image"]["bytes"], "ba"[one["label"]]) for one in stream] == what(from_shards(tmp_path))
    assert what(from_hub(f"hf:{tmp_path}")) == what(from_shards(tmp_path))


def test_several_classes_or_pictures_are_refused_with_the_list(tmp_path):
    kinds = {name: datasets.ClassLabel(names=["x", "y"]) for name in ("fine", "coarse")}
    columns = {"image": IMAGES, "fine": [0, 1, 0, 1], "coarse": [0, 0, 1, 1]}
    place = saved({"image": UNDECODED, **kinds}, tmp_path, "parquet", **columns)
    source = from_shards(place)
    assert not source.labelled
    assert "label_column: fine, coarse" in " ".join(source.notes)
    with pytest.raises(InputError, match="label_column: fine, coarse"):
        from_shards(place, labelled=True)
    assert from_shards(place, label_column="coarse").rows.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="label_column must be a column of numbers or texts: fine, coarse"):
        from_shards(place, label_column="image")
    two = tmp_path / "two"
    two.mkdir()
    saved({"left": UNDECODED, "right": UNDECODED}, two, "parquet", left=IMAGES, right=IMAGES[::-1])
    with pytest.raises(InputError, match="image_column: left, right"):
        from_shards(two)
    assert [one for one, _ in what(from_shards(two, image_column="right"))] == PICTURES[::-1]
    digests = [from_shards(two, image_column=name).identity() for name in ("left", "right")]
    assert digests[0] != digests[1]


COMPRESSIONS = ["none", "snappy", "zstd", "gzip", "lz4"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet_however_it_is_compressed(tmp_path, compression, dictionary):
    nested = pa.array([{"image": {"bytes": one, "path": None}, "label": n % 2} for n, one in enumerate(PICTURES)])
    table = pa.table({"sample": nested, "caption": ["some words"] * 4})
    options = {"compression": compression, "use_dictionary": dictionary, "row_group_size": 3}
    pq.write_table(table, tmp_path / "a.parquet", **options)
    source = from_shards(tmp_path)
    assert what(source) == [(one, str(n % 2)) for n, one in enumerate(PICTURES)]
    copied = [*tmp_path.rglob("*.pictures")]
    assert bool(copied) == (compression != "none" or dictionary)
    assert what(from_shards(tmp_path, image_column="sample.image", label_column="sample.label")) == what(source)


KINDS = [pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", [None, "zstd", "stream"])
def test_arrow_files_of_bytes_with_nulls(tmp_path, kind, compression):
    words = pa.array(["a", "b", "a", "b", "a"]).dictionary_encode()
    columns = {"img": pa.array([None, *PICTURES], kind), "thumbnail's hash": pa.array([b"x"] * 5), "class": words}
    table = pa.table(columns)
    stream = compression == "stream"
    options = pa.ipc.IpcWriteOptions(compression=None if stream else compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    source = from_shards(tmp_path)
    assert what(source) == list(zip(PICTURES, ["b", "a", "b", "a"], strict=True))
    assert "1 rows without an image" in " ".join(source.notes)


def test_pictures_that_are_only_named_must_lie_below_their_table(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.img").write_bytes(PICTURES[0])
    for name, refused in (("pictures/a.img", False), ("../a.img", True), ("/etc/hostname", True)):
        table = pa.table(
            {"image": [{"bytes": None, "path": name}]}, schema=pa.schema({"image": datasets.Image().pa_type})
        )
        pq.write_table(table, tmp_path / "a.parquet")
        if refused:
            with pytest.raises(InputError, match="must be in it, or lie below its folder"):
                from_shards(tmp_path / "a.parquet")
        else:
            assert what(from_shards(tmp_path / "a.parquet")) == [(PICTURES[0], None)]


def test_tables_without_pictures_are_refused_with_their_columns(tmp_path):
    pq.write_table(pa.table({"text": ["x"], "pixels": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"must have a column of pictures, .* it has text, pixels"):
        from_shards(tmp_path)


def tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


LABELS = {
    "cls": lambda n: [("cls", str(n).encode())],
    "json, a number": lambda n: [("json", json.dumps({"label": n, "caption": "words"}).encode())],
    "json, words": lambda n: [("json", json.dumps({"class_name": "ab"[n]}).encode())],
    "txt, a number": lambda n: [("txt", str(n).encode())],
    "txt, words": lambda n: [("txt", "ab"[n].encode() + b"\n")],
    "json beside a caption": lambda n: [("json", json.dumps({"label": n}).encode()), ("txt", b"words of any kind")],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_classes_of_tars(tmp_path, kind, mode):
    members = [
        (f"{n}.{name}", data) for n, one in enumerate(PICTURES) for name, data in [("png", one), *LABELS[kind](n % 2)]
    ]
    tar(tmp_path / f"x.tar{'.gz' * (mode != 'w')}", members, mode)
    source = from_shards(tmp_path)
    assert source.rows.labels.tolist() == [0, 1, 0, 1]
    assert source.class_names == (("a", "b") if "words" in kind and "number" not in kind else ("0", "1"))
    assert [one for one, _ in what(source)] == PICTURES


FOLDERS = {
    "one above all": (["pets/cat/0", "pets/dog/1", "pets/cat/deep/2"], ["cat", "dog", "cat"]),
    "of the root": (["/cat/0", "./dog/1", "cat/2"], ["cat", "dog", "cat"]),
    "one class": (["cat/0", "cat/1"], ["cat", "cat"]),
    "one class below another folder": (["x/cat/0", "x/cat/1"], ["cat", "cat"]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_in_tars_are_classes_below_what_all_have_in_common(tmp_path, kind):
    """`tar cf pets.tar pets`: before, the class of all was `pets`.  The same over all shards and splits."""
    names, classes = FOLDERS[kind]
    tar(tmp_path / "a" / "x.tar", [(f"{name}.png", one) for name, one in zip(names, PICTURES, strict=False)])
    assert what(from_shards(tmp_path / "a")) == list(zip(PICTURES[: len(classes)], classes, strict=True))
    for number, (name, one) in enumerate(zip(names, PICTURES, strict=False)):
        tar(tmp_path / "b" / f"{'train' if number else 'val'}-{number}.tar", [(f"{name}.png", one)])
    parts = [from_shards(tmp_path / "b", split) for split in ("validation", "train")]
    assert [pair for part in parts for pair in what(part)] == list(zip(PICTURES[: len(classes)], classes, strict=True))
    assert parts[0].class_names == parts[1].class_names == tuple(sorted({*classes}))


def test_classes_that_are_words_are_those_of_all_splits(tmp_path):
    """Before: a class that one split lacks made its labels other numbers."""
    for split, words in (("train", "abc"), ("val", "ac")):
        table = pa.table({"image": PICTURES[: len(words)], "label": [*words]})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    assert from_shards(tmp_path, "val").class_names == ("a", "b", "c")
    assert from_shards(tmp_path, "val").rows.labels.tolist() == [0, 2]


ODD = {
    "whole floats": (pa.array([1.0, 0.0, 1.0, 0.0]), ["1", "0", "1", "0"], ""),
    "numbers in a dictionary": (pa.array([1, 0, 1, 0]).dictionary_encode(), ["1", "0", "1", "0"], ""),
    "NaN": (pa.array([1.0, np.nan, 0.0, 1.0]), None, "1 of 4 images looked at have none"),
    "fractions": (pa.array([0.5, 1.0, 0.0, 1.0]), None, "1 labels (label) that are no whole number, or several,"),
    "several": (pa.array([[0, 1], [1], [0], [1]]), None, "1 labels (label) that are no whole number, or several,"),
    "lists of one": (pa.array([[1], [1], [0], [1]]), ["1", "1", "0", "1"], ""),
}


@pytest.mark.parametrize("kind", ODD)
def test_labels_of_other_kinds_are_classes_or_counted(tmp_path, kind):
    labels, classes, note = ODD[kind]
    pq.write_table(pa.table({"image": PICTURES, "label": labels}), tmp_path / "a.parquet")
    source = from_shards(tmp_path)
    assert what(source) == list(zip(PICTURES, classes or [None] * 4, strict=True))
    assert note in " ".join(source.notes)
    write = {"whole floats": [1.0], "several": [0, 1]}.get(kind)
    if write is not None:
        value = {"float_list": tf.train.FloatList(value=write)} if kind == "whole floats" else {}
        value = value or {"int64_list": tf.train.Int64List(value=write)}
        image = tf.train.Feature(bytes_list=tf.train.BytesList(value=PICTURES[:1]))
        features = tf.train.Features(feature={"image": image, "label": tf.train.Feature(**value)})
        with tf.io.TFRecordWriter(str(tmp_path / "a.tfrec")) as writer:
            writer.write(tf.train.Example(features=features).SerializeToString())
        source = from_shards(tmp_path / "a.tfrec")
        assert what(source) == [(PICTURES[0], "1" if kind == "whole floats" else None)]
        assert note in " ".join(source.notes)


def test_records_without_a_picture_or_with_several_are_counted(tmp_path):
    def example(pictures):
        label = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
        image = tf.train.Feature(bytes_list=tf.train.BytesList(value=pictures))
        features = {"label": label} | ({"image": image} if pictures else {})
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    from array_record.python.array_record_module import ArrayRecordWriter

    for name, groups in (("some", [[], PICTURES[:1], PICTURES[1:3]]), ("none", [[], []])):
        array = ArrayRecordWriter(str(tmp_path / f"{name}.array_record"), "group_size:1")
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.records")) as writer:
            for group in groups:
                writer.write(example(group))
                array.write(example(group))
        array.close()
    for ending in ("records", "array_record"):
        source = from_shards(tmp_path / f"some.{ending}")
        assert what(source) == [(PICTURES[0], "1"), (PICTURES[1], "1")]
        assert "1 records without an encoded image of" in " ".join(source.notes)
        assert "1 further images of a record" in " ".join(source.notes)
        with pytest.raises(InputError, match=r"none\..* must be Examples with an encoded image .*; one has label"):
            from_shards(tmp_path / f"none.{ending}")


def test_records_of_tensorflow_that_are_pictures(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrec")) as writer:
        for one in PICTURES:
            writer.write(one)
    assert what(from_shards(tmp_path)) == [(one, None) for one in PICTURES]


def test_what_img2dataset_writes_beside_its_tars_is_no_shard(tmp_path):
    for number in range(2):
        tar(tmp_path / f"{number:05}.tar", [("0.png", PICTURES[number]), ("0.json", b'{"status": "success"}')])
        pq.write_table(pa.table({"url": ["u"], "caption": ["c"]}), tmp_path / f"{number:05}.parquet")
        (tmp_path / f"{number:05}_stats.json").write_text("{}")
    assert what(from_shards(tmp_path)) == [(one, None) for one in PICTURES[:2]]


def test_shards_that_lie_a_folder_further_down_are_named(tmp_path):
    tar(tmp_path / "00000" / "x.tar", [("0.png", PICTURES[0])])
    with pytest.raises(InputError, match=r"some lie in 00000: give one of these, or a pattern"):
        from_shards(tmp_path)
    assert from_shards(tmp_path / "*" / "*.tar").num_examples == 1


def test_names_with_dots_give_a_short_sentence(tmp_path):
    tar(tmp_path / "x.tar", [(f"n01.{n:05}.png", PICTURES[0]) for n in range(500)])
    with pytest.raises(InputError, match=r"00009\.png and 490 more \(a name's key ends at its first dot") as raised:
        from_shards(tmp_path)
    assert len(str(raised.value)) < 500


def test_words_in_cls_are_classes(tmp_path):
    tar(
        tmp_path / "x.tar",
        [(f"{n}.{e}", d) for n, w in enumerate("ba") for e, d in (("png", PICTURES[n]), ("cls", w.encode()))],
    )
    assert what(from_shards(tmp_path)) == [(PICTURES[0], "b"), (PICTURES[1], "a")]


def record(picture, **labels):
    features = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))}
    for name, label in labels.items():
        features[name.replace("_", "/")] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def records(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in examples:
            writer.write(one)


def tables(place, *columns):
    for number, (name, labels) in enumerate(columns):
        pq.write_table(pa.table({"image": PICTURES[: len(labels)], name: labels}), place / f"{number}.parquet")


A, B, C = [("a/0.png", PICTURES[0]), ("a/0.cls", b"x")], [("b/1.png", PICTURES[1])], [("1.png", PICTURES[1])]
MIXED = {
    "cls and a folder": (lambda place: tar(place / "a.tar", A + B), "cls (1 of 2), folder (1 of 2)"),
    "folders in another shard": (
        lambda place: (tar(place / "a.tar", A), tar(place / "b.tar", B)),
        "cls (1 of 2), folder (1 of 2)",
    ),
    "cls and a number in a text": (
        lambda place: tar(place / "a.tar", [*A, *C, ("1.txt", b"7")]),
        "cls (1 of 2), txt (1 of 2)",
    ),
    "cls and json": (
        lambda place: tar(place / "a.tar", [*A, *C, ("1.json", b'{"label": 5}')]),
        "cls (1 of 2), json (1 of 2)",
    ),
    "columns of two names": (
        lambda place: tables(place, ("label", [0, 1]), ("class", [1])),
        "class (1 of 3), label (2 of 3)",
    ),
    "features of two names": (
        lambda place: records(
            place / "a.tfrec", record(PICTURES[0], label=0), record(PICTURES[1], image_class_label=1)
        ),
        "image/class/label (1 of 2), label (1 of 2)",
    ),
}


@pytest.mark.parametrize("kind", MIXED)
def test_classes_from_several_places_are_told_and_not_mixed(tmp_path, kind):
    """Before: a folder's name became a class beside those of .cls, and another column's numbers were mixed in."""
    write, told = MIXED[kind]
    write(tmp_path)
    source = from_shards(tmp_path)
    assert not source.labelled
    assert f"not all images have their class from the same place; name one by label_column: {told}" in source.notes[0]
    with pytest.raises(InputError, match="name one by label_column"):
        from_shards(tmp_path, labelled=True)


def test_folders_are_classes_beside_other_members_where_somebody_says_so(tmp_path):
    tar(tmp_path / "a.tar", A + B)
    assert what(from_shards(tmp_path, label_column="folder")) == [(PICTURES[0], "a"), (PICTURES[1], "b")]


@pytest.mark.parametrize("names", [(), ("cat", "dog", "emu")])
def test_an_empty_first_shard_changes_no_class(tmp_path, names):
    """Before: its lack of columns counted for all, and ImageNet's classes began with one that nobody has."""
    records(tmp_path / "train-00000-of-00002")
    records(
        tmp_path / "train-00001-of-00002", *(record(one, image_class_label=n + 1) for n, one in enumerate(PICTURES[:3]))
    )
    if names:
        (tmp_path / "image-class-label.labels.txt").write_text("\n".join(names))
    assert what(from_shards(tmp_path)) == list(zip(PICTURES, names or "012", strict=False))


def test_classes_in_another_order_are_refused_with_both(tmp_path):
    """Before: two sentences that named no difference."""
    kinds = {name: datasets.ClassLabel(names=list(name)) for name in ("ab", "ba")}
    for number, (split, kind) in enumerate((("train", "ab"), ("test", "ba"), ("train", "ba"))):
        one = datasets.Dataset.from_dict(
            {"image": IMAGES[:1], "label": [0]}, datasets.Features(image=UNDECODED, label=kinds[kind])
        )
        one.to_parquet(tmp_path / f"{split}-{number}.parquet")
        if number == 1:
            train, test = from_shards(tmp_path), from_shards(tmp_path, "test")
            with pytest.raises(InputError, match=r"same classes, in the same order.*'a', 'b'.*'b', 'a'"):
                same_classes(train, test)
    with pytest.raises(InputError, match=r"same classes, in the same order.*'a', 'b'.*'b', 'a'"):
        from_shards(tmp_path)


LISTS = {
    "of Windows": (b"\xef\xbb\xbfcat\r\nd\xc3\xb6g\r\n\r\n", [b"0", b"1"], ("cat", "dög"), ""),
    "another encoding": (
        "cat\ndög\n".encode("latin-1"),
        [b"0", b"1"],
        None,
        r"classes\.txt must be a list of the classes' names",
    ),
    "an empty line": (b"cat\n\ndog\n", [b"0", b"1"], None, "no line between two names may be empty"),
    "not all": (b"dog\ncat\n", [b"cat", b"emu"], ("cat", "emu"), "is not used: it lacks emu"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_classes_beside_shards(tmp_path, kind):
    """Before: a traceback, a mark of bytes' order in a class's name, or a list that was not used without a word."""
    content, labels, classes, told = LISTS[kind]
    members = [
        (f"{n}.{e}", data) for n, label in enumerate(labels) for e, data in (("png", PICTURES[n]), ("cls", label))
    ]
    tar(tmp_path / "a.tar", members)
    (tmp_path / "classes.txt").write_bytes(content)
    if classes is None:
        with pytest.raises(InputError, match=told):
            from_shards(tmp_path)
        return
    source = from_shards(tmp_path)
    assert source.class_names == classes
    assert told in " ".join(source.notes)


def test_two_members_of_one_name_are_refused(tmp_path):
    """Before: the first one's picture came with the second one's class."""
    tar(tmp_path / "a.tar", [*A, *C, ("a/0.cls", b"y")])
    with pytest.raises(InputError, match=r"two are called a/0\.cls"):
        from_shards(tmp_path)


def test_tars_that_were_joined_are_refused(tmp_path):
    """`cat a.tar b.tar`: before, what the second one holds was lost without a word."""
    for name, members in (("a", A), ("b", B), ("empty", [])):
        tar(tmp_path / "x" / f"{name}.tar", members)
    for first in ("a", "empty"):
        both = [(tmp_path / "x" / f"{name}.tar").read_bytes() for name in (first, "b")]
        (tmp_path / f"{first}.tar").write_bytes(b"".join(both))
        with pytest.raises(InputError, match="nothing may follow the mark of its end"):
            from_shards(tmp_path / f"{first}.tar")


def test_marks_of_bytes_order_and_further_json_do_not_hide_a_class(tmp_path):
    """Before: a `.json` with boxes behind that with the class took it away."""
    tar(tmp_path / "a.tar", [("0.png", PICTURES[0]), ("0.json", b'{"label": 0}'), ("0.boxes.json", b"{}")])
    tar(tmp_path / "b.tar", [("0.png", PICTURES[1]), ("0.cls", b"\xef\xbb\xbf1\r\n")])
    assert from_shards(tmp_path / "a.tar").rows.labels.tolist() == [0]
    assert from_shards(tmp_path / "b.tar").rows.labels.tolist() == [1]


def test_labels_in_json_that_are_none_are_counted(tmp_path):
    members = [
        ("0.png", PICTURES[0]),
        ("0.json", b'{"label": [0, 1]}'),
        ("1.png", PICTURES[1]),
        ("1.json", b'{"label": 1.0}'),
    ]
    tar(tmp_path / "x.tar", members)
    assert "1 label in .json that are neither a class's number nor its name" in " ".join(from_shards(tmp_path).notes)


def test_captions_are_no_classes_unless_they_are_named(tmp_path):
    members = [(f"{n}.{e}", d) for n, one in enumerate(PICTURES) for e, d in (("png", one), ("txt", b"a pet %d" % n))]
    tar(tmp_path / "x.tar", members)
    source = from_shards(tmp_path)
    assert not source.labelled
    assert "captions" in " ".join(source.notes)
    assert from_shards(tmp_path, label_column="txt").num_classes == 4


def test_several_pictures_of_an_example_are_refused_with_the_list(tmp_path):
    endings = {"jpg": PICTURES[3], "seg.png": PICTURES[0], "json": b'{"kind": {"name": "x"}}'}
    tar(tmp_path / "x.tar", [(f"a/{n}.{ending}", data) for n in range(2) for ending, data in endings.items()])
    with pytest.raises(InputError, match=r"image_column: jpg, seg\.png"):
        from_shards(tmp_path)
    assert [one for one, _ in what(from_shards(tmp_path, image_column="seg.png"))] == [PICTURES[0]] * 2
    with pytest.raises(InputError, match=r"an ending of its pictures: jpg, seg\.png"):
        from_shards(tmp_path, image_column="png")
    named = from_shards(tmp_path, image_column="jpg", label_column="kind.name")
    assert named.class_names == ("x",)


def test_splits_are_folders_words_or_patterns(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for shard in range(count):
            tar(tmp_path / split / f"pets-{shard:06}.tar", [("0.png", PICTURES[shard]), ("0.cls", b"%d" % shard)])
    train, other = (from_shards(tmp_path, split) for split in ("train", "validation"))
    assert (train.num_examples, other.num_examples) == (3, 2)
    assert train.class_names == other.class_names == ("0", "1", "2")  # though the last one is in train alone
    both = tmp_path / "{train,val}" / "pets-{000000..000001}.tar"
    assert opening.are_at(both)
    assert [from_shards(both, split).num_examples for split in ("train", "val")] == [2, 2]
    assert from_shards(tmp_path / "train" / "pets-*2.tar").num_examples == 1
    assert from_shards(tmp_path / "train" / "pets-000001.tar").num_examples == 1
    with pytest.raises(InputError, match=r"missing: .*pets-000003\.tar"):
        from_shards(tmp_path / "train" / "pets-{000000..000003}.tar")
    with pytest.raises(InputError, match="there must be shards"):
        from_shards(tmp_path / "train" / "dogs-{0..3}.tar")


def test_a_saved_dictionary_has_its_own_splits_and_what_map_leaves_is_none_of_it(tmp_path):
    features = datasets.Features({"image": UNDECODED, "label": datasets.ClassLabel(names=["a", "b"])})
    one = datasets.Dataset.from_dict({"image": IMAGES, "label": [0, 1, 0, 1]}, features=features)
    datasets.DatasetDict({"train": one, "night": one.select([2])}).save_to_disk(tmp_path)
    (tmp_path / "train" / "cache-0123.arrow").write_bytes(
        (tmp_path / "night" / "data-00000-of-00001.arrow").read_bytes()
    )
    assert from_shards(tmp_path).num_examples == 4
    assert from_shards(tmp_path, "night").num_examples == 1
    with pytest.raises(InputError, match="must be one of night, train"):
        from_shards(tmp_path, "test")


def write_examples(place, name, labels, key="image/class/label", **more):
    with tf.io.TFRecordWriter(str(place / name)) as writer:
        for n, label in enumerate(labels):
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[PICTURES[n % 4]])),
                key: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            for other, text in more.items():
                value = tf.train.BytesList(value=[text(label)])
                features[other.replace("_", "/")] = tf.train.Feature(bytes_list=value)
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def test_classes_that_count_from_one_or_from_zero(tmp_path):
    """ImageNet's from 1, also where a split lacks classes; others, with an example of class 0 anywhere, from 0."""
    words = {"image_class_text": lambda label: b"class %d" % label}
    write_examples(tmp_path, "train-00000-of-00001", [1, 2, 3, 1], **words)
    write_examples(tmp_path, "validation-00000-of-00001", [2, 2], **words)
    for split, labels in (("train", [0, 1, 2, 0]), ("validation", [1, 1])):
        source = from_shards(tmp_path, split)
        assert source.rows.labels.tolist() == labels
        assert source.class_names == ("class 1", "class 2", "class 3")
    write_examples(tmp_path, "train-00000-of-00001", [0, 1, 2, 1])
    write_examples(tmp_path, "validation-00000-of-00001", [2, 2])
    for split, labels in (("train", [0, 1, 2, 1]), ("validation", [2, 2])):
        source = from_shards(tmp_path, split)
        assert source.rows.labels.tolist() == labels
        assert source.class_names == ("0", "1", "2")


def test_features_by_name(tmp_path):
    write_examples(tmp_path, "a.tfrecord", [5, 6], key="my/number", thumb=lambda label: PICTURES[3])
    source = from_shards(tmp_path)
    assert not source.labelled
    source = from_shards(tmp_path, image_column="thumb", label_column="my/number")
    assert source.rows.labels.tolist() == [5, 6]
    assert source.rows.encoded(0) == PICTURES[3]
    with pytest.raises(InputError, match="image_column must name a feature"):
        from_shards(tmp_path, image_column="photo")


def test_tfds_own_array_records(tmp_path, monkeypatch):
    """As tfds writes them, with the names of its classes."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name, VERSION = "pets", tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png")}
            features["label"] = tfds.features.ClassLabel(names=["cat", "dog"])
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            noise = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
            return {"train": ((n, {"image": one, "label": n % 2}) for n, one in enumerate(noise))}

        def _generate_examples(self):
            return iter(())

    builder = Builder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = from_shards(builder.data_dir)
    assert source.class_names == ("cat", "dog")
    expected = sorted((one["image"].tobytes(), int(one["label"])) for one in builder.as_data_source(split="train"))
    found = [(source.rows.pixels(n).tobytes(), int(source.rows.labels[n])) for n in range(6)]
    assert sorted(found) == expected


def test_records_that_are_pictures(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for one in PICTURES:
        writer.write(one)
    writer.close()
    assert what(from_shards(tmp_path)) == [(one, None) for one in PICTURES]


def test_a_disk_without_room_is_refused_and_left_as_it_was(tmp_path, monkeypatch):
    from tf_simclr.data.shards import index

    made.write_compressed_parquet(tmp_path / "shards")
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(InputError, match="must have room for the pictures"):
        from_shards(tmp_path / "shards")
    assert not [*(tmp_path / "cache of indices").rglob("*.pictures")]


def test_a_column_called_label_that_holds_no_classes_is_said(tmp_path):
    days = pa.array([datetime.date(2020, 1, 1)] * 4)
    pq.write_table(pa.table({"image": [picture(i) for i in range(4)], "label": days}), tmp_path / "x.parquet")
    source = from_shards(tmp_path)
    assert not source.labelled
    assert any("a class must be a whole number or a text" in note and "label (date32" in note for note in source.notes)
    with pytest.raises(InputError, match="a class must be a whole number or a text"):
        from_shards(tmp_path, labelled=True)


def test_labels_between_two_classes_are_counted_and_taken_for_none(tmp_path):
    pq.write_table(pa.table({"image": [picture(i) for i in range(4)], "label": [0.0, 0.5] * 2}), tmp_path / "x.parquet")
    source = from_shards(tmp_path)
    assert not source.labelled
    assert any(note.startswith("2 labels (label) that are no whole number") for note in source.notes)


@pytest.mark.parametrize("compression", ["none", "snappy", "ours"])
def test_a_flipped_bit_of_a_page_with_a_checksum_is_refused_and_no_other_picture_taken(tmp_path, compression):
    path = tmp_path / "train.parquet"
    if compression == "ours":
        prepare_shards(made.write_folder(tmp_path / "pets"), tmp_path / "prepared", format="parquet")
        next((tmp_path / "prepared").rglob("*.parquet")).rename(path)
    else:
        table = pq.read_table(sorted(made.write_parquet(tmp_path / "by datasets").rglob("*.parquet"))[0])
        pq.write_table(table, path, compression=compression, use_dictionary=False, write_page_checksum=True)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = {image for _, image, _ in made.examples(False)}
    refused: list[str] = []
    for _ in range(30):
        data = bytearray(whole)
        data[rng.integers(len(data) * 3 // 4)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            source = from_shards(path)
        except InputError as error:
            refused.append(str(error))
            continue
        assert {source.rows.encoded(row) for row in range(source.num_examples)} <= expected
    assert len(refused) > 5
    assert all("train.parquet must be a whole Parquet file" in error for error in refused)
