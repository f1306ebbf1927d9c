"""Shards beside the matrix of properties: what is cut off, hostile, corrupt, without labels or splits."""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import tarfile
import zlib

import cramjam
import numpy as np
import pytest
import tensorflow as tf

from tests.data import made
from tests.data.test_sources import records_of, store_tiny
from tf_simclr.data.pipeline import Unreadable, evaluation_batches, training_batches
from tf_simclr.data.shards import index, opening
from tf_simclr.data.shards.source import KINDS, from_shards
from tf_simclr.errors import InputError
from tf_simclr.foreign import DAMAGED

WRITERS = made.SHARDS
every_kind = pytest.mark.parametrize("kind", WRITERS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache of indices"))


@pytest.mark.parametrize("kept", [0, 1])
def test_a_shard_that_is_cut_off_between_records_is_known_by_the_note_of_tfds(tmp_path, kept):
    store_tiny(tmp_path)
    place = next(tmp_path.glob("tiny/*/"))
    assert from_shards(place).num_examples == 30
    shard = sorted(place.glob("*.tfrecord-*"))[-1]
    data, ends = records_of(shard)
    count = len(ends) - 1
    assert count > kept
    shard.write_bytes(data[: ends[kept]])
    message = rf"the {count} records that dataset_info.json beside it counts, but holds {kept}: .* copy them anew"
    with pytest.raises(InputError, match=message):
        from_shards(place)
    (place / "dataset_info.json").unlink()
    assert from_shards(place).num_examples == 30 - count + kept, "without the note nothing tells"


def first(place):
    """The first shard, which has pictures."""
    return opening.listed(place)[0]


def renamed(place, old, new):
    """The shards' names, or their folder's, with another word."""
    for path in [*opening.listed(place), *place.glob(f"{old}*/")]:
        if path.exists() and old in path.name:
            path.rename(path.with_name(path.name.replace(old, new)))


def outcome(function):
    """The sentence by which something is refused, or what it gives."""
    try:
        return "", function()
    except InputError as error:
        return str(error), None


bmp = made.bmp


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@every_kind
def test_each_image_comes_with_its_class(tmp_path, kind):
    source = from_shards(WRITERS[kind](tmp_path))
    assert source.num_classes == made.CLASSES
    expected = [(image, label) for _, image, label in made.examples(False)]
    assert [(source.read(r["image"]).numpy(), int(r["label"])) for r in source.ordered()] == expected
    assert [source.rows.encoded(i) for i in range(made.COUNT)] == [image for image, _ in expected]
    assert not source.notes or kind == "tar"


@every_kind
def test_a_shard_that_is_cut_off_anywhere_is_refused(tmp_path, kind):
    path = first(WRITERS[kind](tmp_path))
    whole = path.read_bytes()
    for length in np.linspace(1, len(whole) - 1, 23).astype(int):
        cut = whole[:length]
        if kind == "tar" and not whole[length:].strip(b"\0") and cut[-512:] == bytes(512):
            continue  # only a part of the zeros behind its end is missing
        path.write_bytes(cut)
        error, found = outcome(lambda: from_shards(tmp_path))
        if error:
            assert path.name in error
            assert "\n" not in error
        else:  # between two records, as TensorFlow's own reader has it
            assert kind == "tfrecord"
            assert found.num_examples == made.COUNT - 25 + len(list(tf.data.TFRecordDataset(str(path))))


@every_kind
def test_a_corrupt_image_is_named_and_replaced(tmp_path, kind, monkeypatch):
    """Whatever its bytes are in the shard: of formats with checksums it is one that is not what was written."""
    path = first(WRITERS[kind](tmp_path))
    bad = made.bmp(made.picture(3))
    if bad in path.read_bytes():
        path.write_bytes(path.read_bytes().replace(bad, b"no" + bad[2:]))
    else:
        monkeypatch.setattr(made, "bmp", lambda pixels: b"no" * 51 if pixels.flat[0] == 3 else bmp(pixels))
        WRITERS[kind](tmp_path)
    source = from_shards(tmp_path)
    unreadable = Unreadable()
    batches = evaluation_batches(source, batch_size=20, image_size=8, unreadable=unreadable)
    assert sum(len(labels) for _, labels, _ in batches) == made.COUNT - 1
    (name,) = unreadable.names
    assert path.name in name
    stream = training_batches(
        source, lambda image, _: tf.reduce_mean(image)[None], batch_size=60, buffer=1, seed=0, unreadable=unreadable
    )
    assert len(next(iter(stream))[0]) == 60


@every_kind
def test_the_index_is_made_once_and_found_by_the_shard_s_content(tmp_path, kind):
    place = WRITERS[kind](tmp_path / "a")
    paths, one = opening.listed(place), KINDS[opening.kind_of(first(place))]
    calls = []

    def counted(path, columns, *, copy):
        calls.append(path.name)
        return one.listing(path, columns, copy=copy)

    before = index.of_all(paths, counted, what="whole", say=print)
    made_first = len(calls)
    assert made_first <= len(paths)  # empty ones are alike
    for found in (index.of_all(paths, counted, what="whole", say=print),):
        assert (len(calls), [x.names for x in found]) == (made_first, [x.names for x in before])
    os.utime(paths[0])
    moved = (tmp_path / "b") / paths[0].name
    moved.parent.mkdir()
    moved.write_bytes(paths[0].read_bytes())
    again = index.of_all([paths[0], moved], counted, what="whole", say=print)
    assert len(calls) == made_first
    assert again[0].places == again[1].places == before[0].places
    moved.write_bytes(paths[-1].read_bytes())
    index.of_all([moved], counted, what="whole", say=print)
    moved.write_bytes(b"no shard")
    assert moved.name in outcome(lambda: index.of_all([moved], counted, what="whole", say=print))[0]


@every_kind
def test_a_split_that_nobody_asks_for_is_not_read(tmp_path, kind, monkeypatch):
    """Of ImageNet's validation alone the index of its training images would take half an hour."""
    place = WRITERS[kind](tmp_path)
    renamed(place, "train", "val")
    if kind == "arrow":
        (place / "dataset_dict.json").write_text('{"splits": ["train", "val"]}')
    WRITERS[kind](tmp_path / "more")
    shutil.move(*((tmp_path / "more" / "train", place) if kind == "arrow" else (tmp_path / "more", place / "train")))
    read, whole = [], index.of_shard
    monkeypatch.setattr(
        index, "of_shard", lambda path, *given, **options: read.append(path) or whole(path, *given, **options)
    )
    source = from_shards(place, "validation", asked=["validation"])
    assert source.num_examples == made.COUNT
    assert not [path for path in read if "train" in path.relative_to(place).parts]
    from_shards(place, "validation", asked=["train", "validation"])
    named = kind in ("parquet", "arrow")
    assert bool([path for path in read if "train" in path.relative_to(place).parts]) != named


@every_kind
def test_processes_read_disjoint_images(tmp_path, kind):
    source = from_shards(WRITERS[kind](tmp_path))
    options = {"batch_size": 20, "buffer": 1, "seed": 5, "unreadable": Unreadable()}

    def greys(share):
        stream = training_batches(source, lambda image, _: tf.reduce_mean(image)[None], share=share, **options)
        return [np.round(255 * batch[0][:, 0].numpy()) for batch in stream.take(3)]

    alone, halves = greys((0, 1)), [greys((n, 2)) for n in range(2)]
    for whole, *parts in zip(alone, *halves, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(set(np.concatenate(alone))) == made.COUNT


@every_kind
def test_shards_without_splits_are_divided_by_content(tmp_path, kind):
    place = WRITERS[kind](tmp_path)
    renamed(place, "train", "data" if kind == "arrow" else "some")
    for note in place.glob("dataset_dict.json"):
        note.unlink()
    options = {"asked": ["train", "test"], "whole": False}
    parts = [from_shards(place, part, **options) for part in ("train", "test")]
    names = [{r["name"].numpy() for r in part.ordered()} for part in parts]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == made.COUNT
    assert parts[1].division["images"] == len(names[1]) == 12
    assert from_shards(place, "train").num_examples == made.COUNT
    with pytest.raises(InputError, match="split"):
        from_shards(place, "holdout")


def renumber(shards, note=None):
    """Has the names of shards, and a note that holds them, count these alone."""
    for number, path in enumerate(shards):
        name = re.sub(r"-\d{5}-of-\d{5}", f"-{number:05}-of-{len(shards):05}", path.name)
        path.rename(path.with_name(name))
        if note is not None:
            note.write_text(note.read_text().replace(path.name, name))


@every_kind
def test_a_split_that_is_missing_beside_others_is_refused(tmp_path, kind):
    place = WRITERS[kind](tmp_path)
    with pytest.raises(InputError, match="must be one of train"):
        from_shards(place, "test")
    path = first(place)
    size = from_shards(path).num_examples
    if kind == "arrow":
        shutil.copytree(path.parent, place / "val", ignore=shutil.ignore_patterns("data-*"))
        note, moved = path.parent / "state.json", place / "val" / path.name
        note.write_text(note.read_text().replace(path.name, "gone"))
    else:
        note, moved = None, path.with_name(path.name.replace("train", "val"))
    shutil.move(path, moved)
    renumber([moved], note and place / "val" / "state.json")
    renumber(sorted(one for one in path.parent.glob("*-of-*") if "val" not in one.name), note)
    assert from_shards(place, "validation").num_examples == size
    assert from_shards(place, "train").num_examples == made.COUNT - size


def test_members_that_are_no_examples_are_counted_and_never_unpickled(tmp_path):
    tar_of(tmp_path / "a.tar", [("x.bmp", made.bmp(made.picture(1))), ("x.pyd", b"cos\nsystem\n"), ("y.cls", b"1")])
    notes = " ".join(from_shards(tmp_path).notes)
    assert "1 members .pyd" in notes
    assert "1 examples without an image" in notes


def test_classes_of_tars_are_numbers_json_or_folders(tmp_path):
    image = made.bmp(made.picture(1))
    forms = {
        "cls": [("a.bmp", image), ("a.cls", b"0"), ("b.bmp", image), ("b.cls", b"1")],
        "json": [("a.bmp", image), ("a.json", b'{"label": 0}'), ("b.bmp", image), ("b.json", b'{"label": 1}')],
        "folders": [("cat/a.bmp", image), ("dog/b.bmp", image)],
        "none": [("a.bmp", image), ("b.bmp", image)],
    }
    for name, members in forms.items():
        path = tmp_path / name / "x.tar"
        path.parent.mkdir()
        tar_of(path, members)
        source = from_shards(path)
        assert source.class_names == {"folders": ("cat", "dog"), "none": ()}.get(name, ("0", "1"))
        if source.labelled:
            assert [int(r["label"]) for r in source.ordered()] == [0, 1]
    (tmp_path / "cls" / "classes.txt").write_text("cat\ndog\n")
    assert from_shards(tmp_path / "cls").class_names == ("cat", "dog")


HOSTILE = {
    "a number that is none": [("a.bmp", b"x"), ("a.cls", b"1\n2")],
    "a number beyond all classes": [("a.bmp", b"x"), ("a.cls", b"99999999999")],
    "JSON that is none": [("a.bmp", b"x"), ("a.json", b"{")],
    "a key twice": [("a.bmp", b"x"), ("a.json", b'{"label": 1, "label": 2}')],
    "a class of a gigabyte": [("a.bmp", b"x"), ("a.cls", bytes(2 << 20))],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_members_are_refused_in_a_sentence(tmp_path, what):
    tar_of(tmp_path / "a.tar", HOSTILE[what])
    with pytest.raises(InputError, match=r"a\.tar"):
        from_shards(tmp_path)


def test_a_header_that_asks_for_all_memory_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 26
    with path.open("wb") as file:
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.truncate((1 << 26) + 2048)
    with pytest.raises(InputError, match="header"):
        from_shards(path)


PACKINGS = {
    "tar.gz": ("tar", gzip.compress),
    "tar": ("tar", gzip.compress),
    "tar.bz2": ("tar", bz2.compress),
    "tar.xz": ("tar", lzma.compress),
    "tar.zst": ("tar", lambda data: bytes(cramjam.zstd.compress(data))),
    "tfrecord.gz": ("tfrecord", gzip.compress),
    "tfrecord": ("tfrecord", zlib.compress),  # TensorFlow's own "ZLIB"
}
"""Ending → kind, and who compresses; by what the file is, whatever its name says."""


@pytest.mark.parametrize("ending", PACKINGS)
def test_compressed_shards_are_unpacked_once(tmp_path, ending):
    kind, compress = PACKINGS[ending]
    for number, path in enumerate(opening.listed(WRITERS[kind](tmp_path))):
        content = compress(path.read_bytes())
        path.unlink()
        (tmp_path / f"train-{number:06}.{ending}").write_bytes(content)
    source = from_shards(tmp_path)
    expected = [(image, label) for _, image, label in made.examples(False)]
    assert [(source.rows.encoded(i), source.rows.labels[i]) for i in range(made.COUNT)] == expected
    path = first(tmp_path)
    whole = path.read_bytes()
    for length in (20, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        said = outcome(lambda: from_shards(path))[0]
        assert path.name in said
        assert "\n" not in said


def test_a_record_whose_length_looks_like_gzip_is_a_record(tmp_path):
    """Before: one TFRecord file in 65,536 was taken for a compressed one by its first two bytes."""
    for name, size, options in (("a", 0x8B1F, ""), ("b", 0x08_8B1F, ""), ("c", 0x9C78, "")):
        image = made.bmp(made.picture(1))
        records = [made.tf_example(image + bytes(size), 1), made.tf_example(image, 0)]
        records[0] = made.tf_example(image + bytes(2 * size - len(records[0])), 1)
        assert len(records[0]) == size
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord"), options) as writer:
            for record in records:
                writer.write(record)
        source = from_shards(tmp_path / f"{name}.tfrecord")
        assert source.num_examples == 2
        assert source.rows.encoded(1) == image


def test_what_is_compressed_and_no_shard_is_refused(tmp_path):
    for name in ("a.tar", "a.tgz", "a.tfrecord"):
        (tmp_path / name).write_bytes(b"\x1f\x8b\x08" + bytes(40))
        assert "damaged" in outcome(lambda: from_shards(tmp_path / name))[0]  # noqa: B023
    assert not [*tmp_path.rglob("*.pictures")]


@pytest.mark.parametrize("kind", ["tfrecord", "arrayrecord"])
def test_a_flipped_bit_of_a_record_is_said_and_its_image_never_learned_from(tmp_path, kind):
    """Of each kind of byte: what the picture shows, its label, its key, a checksum."""
    place = WRITERS[kind](tmp_path)
    path = first(place)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    expected = {image: label for _, image, label in made.examples(False)}
    seen = 0
    for _ in range(40):
        data = bytearray(whole)
        data[rng.integers(len(data) if kind == "tfrecord" else 4000)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        error, source = outcome(lambda: from_shards(place))
        if error:
            assert path.name in error
            continue
        unreadable = []
        for row in range(source.num_examples):
            try:
                assert expected[source.rows.encoded(row)] == source.rows.labels[row]
            except DAMAGED:
                unreadable.append(source.rows.names[row])
        assert len(unreadable) <= 1
        assert source.class_names == ("class 0", "class 1", "class 2")
        noted = [note for note in source.notes if "checksum" in note]
        assert len(noted) == len(unreadable)
        assert all(f"{path.name}:" in note for note in noted)
        seen += len(noted)
    assert seen > 5


def test_names_in_a_tar_that_are_no_utf_8_are_shown_and_told_apart(tmp_path):
    place = tmp_path / "x.tar"
    with tarfile.open(place, "w", format=tarfile.GNU_FORMAT) as file:
        for number, name in enumerate((b"\xe9t\xe9", b"\xe8t\xe9", "été".encode())):
            member = tarfile.TarInfo(f"{os.fsdecode(name)}/{number}.bmp")
            content = made.bmp(made.picture(number))
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    for _ in range(2):  # read, and of its index
        source = from_shards(place)
        assert sorted(source.class_names) == sorted(["\\xe9t\\xe9", "\\xe8t\\xe9", "été"])
        assert len({*source.rows.names}) == source.num_examples == 3


@pytest.mark.parametrize("content", [b"", b"9" * 30, b"-5", b"\xff"])
def test_a_cls_that_is_no_class_is_said(tmp_path, content):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for name, data in (("1.bmp", made.bmp(made.picture(1))), ("1.cls", content)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    with pytest.raises(
        InputError, match=r"neither a class's number nor its name|is no number of a class|UnicodeDecodeError"
    ):
        from_shards(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "arrayrecord"])  # which compresses each record
def test_a_bit_that_flips_after_the_index_was_made_is_seen(tmp_path, kind):
    """Before: in tars, Parquet and Arrow, which have no checksums of pictures, it was learned from."""
    place = WRITERS[kind](tmp_path)
    source = from_shards(place)
    picture = made.bmp(made.picture(3))
    copies = (tmp_path / "cache of indices").rglob("*.pictures")  # of what is compressed
    path = next(one for one in (*copies, first(place)) if picture in one.read_bytes())
    times = os.stat(path)
    data = bytearray(path.read_bytes())
    data[data.index(picture) + 60] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a disk that forgets tells nobody
    with pytest.raises(ValueError, match="damaged"):
        source.rows.encoded(3)
    source.rows.encoded(4)


@every_kind
def test_a_shard_that_is_written_anew_while_it_is_read_gives_no_picture_of_another(tmp_path, kind):
    place = WRITERS[kind](tmp_path)
    source = from_shards(place)
    before = [source.rows.encoded(i) for i in range(made.COUNT)]
    path = first(place)
    path.write_bytes(path.read_bytes()[::-1])  # bytes enough at each place
    sentences = []
    for number in range(made.COUNT):
        try:
            assert source.rows.encoded(number) == before[number]
        except OSError as error:
            sentences.append(str(error))
    assert all("was written anew since it was opened" in sentence for sentence in sentences)
    refused = len(sentences)
    # Pictures that were copied, out of what is compressed, stay what they were.
    assert (refused == 0) == (kind == "parquet, compressed")
    unreadable = Unreadable()
    batches = evaluation_batches(source, batch_size=20, image_size=8, unreadable=unreadable)
    assert sum(len(labels) for _, labels, _ in batches) == made.COUNT - refused
    assert len(unreadable.names) == refused


def test_records_of_other_things_are_refused(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(InputError, match="encoded image"):
        from_shards(tmp_path)


def test_changed_bytes_of_shards_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for kind, write in WRITERS.items():
        path = first(write(tmp_path / kind))
        whole, reader = path.read_bytes(), KINDS[opening.kind_of(path)].listing
        for _ in range(60):
            data = bytearray(whole)
            data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
            error, _ = outcome(lambda: index.of_shard(path, reader, what="whole"))  # noqa: B023
            assert "\n" not in error


@every_kind
def test_shards_beside_pictures_do_not_take_their_place(tmp_path, kind):
    place = WRITERS[kind](tmp_path)
    assert opening.are_at(place)
    made.write_folder(place)
    assert not opening.are_at(place)


@pytest.mark.parametrize("name", ["metadata.parquet", "notes.txt", "pets.json.gz"])
def test_other_files_are_no_shards(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert not opening.are_at(tmp_path)


@every_kind
def test_workers_of_the_data_service_do_not_get_them(tmp_path, kind):
    """What Python reads in this process is not there in another one."""
    source = from_shards(WRITERS[kind](tmp_path))
    view = lambda image, seed: image  # noqa: E731
    with pytest.raises(InputError, match=r"data_service's workers cannot read .*; leave data_service out"):
        training_batches(source, view, batch_size=4, buffer=1, seed=0, unreadable=None, data_service="localhost:1")


COUNTED = [kind for kind in made.SHARDS if kind not in ("tar", "parquet, compressed")]
"""Kinds whose names tell how many there are."""


@pytest.mark.parametrize("kind", COUNTED)
def test_part_of_a_set_and_two_sets_in_one_another_are_refused(kind, tmp_path):
    """Before: eleven of twelve shards, or a set of four beside one of twelve, were trained on without a word."""
    made.SHARDS[kind](tmp_path)
    shards = sorted(path for path in tmp_path.rglob("*-of-*") if path.is_file())
    folder, last = shards[0].parent, shards[-1]
    whole = from_shards(tmp_path, "train").num_examples
    patterns = [folder / "*train*", folder / last.name.replace(f"{len(shards) - 1:05}-of", "?????-of")]
    patterns += [folder / last.name.replace(f"{len(shards) - 1:05}-of", "0000[0-9]-of")]
    content = last.read_bytes()
    last.unlink()
    for place in (tmp_path, *patterns[kind == "arrow" :]):
        with pytest.raises(InputError, match=rf"all {len(shards)} shards .*must be there, but 1 is missing: 0000"):
            from_shards(place, "train")
    # Whoever names them by their numbers may want a part.
    assert from_shards(shards[0], "train").num_examples < whole
    part = "{" + ",".join(path.name for path in shards[:2]) + "}"
    assert from_shards(folder / part, "train").num_examples < whole
    last.write_bytes(content)
    start, _, end = last.name.partition(f"-of-{len(shards):05}")
    (folder / f"{start}-of-00012{end}").write_bytes(content)
    if kind != "arrow":  # of `save_to_disk` a note tells which files are its own
        with pytest.raises(InputError, match="must be of one set"):
            from_shards(tmp_path, "train")
    (folder / f"{start}-of-00012{end}").unlink()
    assert from_shards(tmp_path, "train").num_examples == whole


NUMBERED = [kind for kind in made.SHARDS if kind != "parquet, compressed"]
"""Kinds of shards whose classes are numbers; of the other they are words."""


@pytest.mark.parametrize("kind", NUMBERED)
def test_labels_that_are_none_are_no_class(kind, tmp_path, monkeypatch):
    """Of all images, and of one: -1, where classes count from 0, and 0, where they count from 1 as ImageNet's."""
    known = made.examples(False)
    for name, without in (("all", len(known)), ("one", 1)):
        if name == "one" and kind in ("tfrecord", "arrayrecord"):
            continue  # a 0 beside others is the first of classes that count from 0
        labels = [label if number >= without else -1 for number, (*_, label) in enumerate(known)]
        found = [(key, image, label) for (key, image, _), label in zip(known, labels, strict=True)]
        monkeypatch.setattr(made, "examples", lambda changed, found=found: found)
        source = from_shards(made.SHARDS[kind](tmp_path / name))
        assert (source.labelled, source.num_examples) == (False, len(known))
        said = "has no labels (all are -1)" if name == "all" else "1 of 60 images looked at have none (-1)"
        assert any(said in note for note in source.notes)
