"""Every function that a path is given to, and every kind of content: it is read, or refused in one sentence.

A reader that is not inside `foreign.reading` shows here as a traceback.
"""

import gzip
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import changes
from tests.fuzz.containers import CONTAINERS
from tf_simclr.errors import InputError


def checkpoint(path: Path) -> None:
    import contextlib

    from converters.loading import open_source

    with contextlib.closing(open_source(path)) as source:
        for stored in source.tensors.values():
            stored.read()


def network(path: Path) -> None:
    import converters

    converters.load(path).close()


def arrays(path: Path) -> None:
    from tf_simclr.run_folder import read_arrays

    read_arrays(path)


def json_of_a_run(path: Path) -> None:
    from tf_simclr.run_folder import read_json

    read_json(path)


def config(path: Path) -> None:
    from tf_simclr.cli import read_config

    read_config(path)


def history(path: Path) -> None:
    from tf_simclr.run_folder import RunFolder
    from tf_simclr.training.callbacks import read_history

    (path.parent / "history.csv").write_bytes(path.read_bytes())
    read_history(RunFolder(path.parent))


def lock(path: Path) -> None:
    from tf_simclr.files.lock import hold

    (path.parent / "lock").write_bytes(path.read_bytes())
    with hold(path.parent):
        pass


def record(path: Path) -> None:
    from converters.published.download import RECORD, is_whole

    (path.parent / RECORD).write_bytes(path.read_bytes())
    assert not is_whole(path.parent, "gs://bucket/folder")


def answers(path: Path) -> None:
    from tf_simclr.evaluation.reports import read_answers

    path.with_suffix(".npz").write_bytes(path.read_bytes())
    read_answers(path)


def kept_features(path: Path) -> None:
    from tf_simclr.evaluation.features import damage_of

    (path.parent / "entry.json").write_bytes(path.read_bytes())
    assert damage_of(path.parent)


def parts_of_features(path: Path) -> None:
    from tf_simclr.evaluation.embeddings import parts

    list(parts([path]))


def identity_of_features(path: Path) -> None:
    from tf_simclr.evaluation.embeddings import begin

    (path.parent / "of.json").write_bytes(path.read_bytes())
    begin(path.parent, {"a": 1})


def radiograph(path: Path) -> None:
    from tf_simclr.chest.files.reading import read

    read(path)


def table(path: Path) -> None:
    from tf_simclr.chest.collections.tables import from_csv

    from_csv(path)


def nih(path: Path) -> None:
    from tf_simclr.chest.collections.nih import collection

    for name in ("Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt"):
        (path.parent / name).write_bytes(path.read_bytes())
    collection(path.parent)


def siim(path: Path) -> None:
    from tf_simclr.chest.collections.siim import collection

    for name in ("train_study_level.csv", "train_image_level.csv"):
        (path.parent / name).write_bytes(path.read_bytes())
    collection(path.parent)


def prepared(path: Path) -> None:
    from tf_simclr.data.radiographs.prepared import load

    for name in ("settings.json", "records-00000-of-00001.json", "records-00000-of-00001.tfrecord"):
        (path.parent / name).write_bytes(path.read_bytes())
    load(path.parent)


def card(path: Path) -> None:
    from tf_simclr.chest.model.card import read_card

    (path.parent / "card.json").write_bytes(path.read_bytes())
    read_card(path.parent)


def trusted(path: Path) -> None:
    from tf_simclr.chest.model.trusted import check_plain

    check_plain(path)


def kept_fit(path: Path) -> None:
    from tf_simclr.chest.covid.rows import Fit
    from tf_simclr.chest.kept import read

    read(path, Fit, text="{}")


def cases(path: Path) -> None:
    from tf_simclr.chest.model.cases import array

    array(path, kind=np.float32, axes=2, what="features")


DOORS: list[Callable[[Path], None]] = [
    checkpoint, network, arrays, json_of_a_run, config, history, lock, record, answers, kept_features,
    parts_of_features, identity_of_features, radiograph, table, nih, siim, prepared, card, trusted, kept_fit, cases,
]  # fmt: skip


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def saved(array: object) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), allow_pickle=True)
    return out.getvalue()


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """Files of every container, changed ones, and such as fit none."""
    random_bytes = random.Random(0).randbytes
    found = {
        "nothing": b"",
        "a zero": b"\0",
        "zeros": bytes(1000),
        "noise": random_bytes(1000),
        "text": b"hello\n",
        "latin": "Größe,Fälle\n1,2\n".encode("latin-1"),
        "csv": b"path,label,patient\na.png,1,x\n",
        "csv with quotes": b'path,label\n"a',
        "csv with zeros": b"path,label\n\0,\0\n",
        "csv with a long cell": b"path,label,patient\n" + b"x" * 200_000 + b",1,x\n",
        "nih csv": b"Image Index,Finding Labels,Patient ID\n1.png,Nothing,\n",
        "siim csv": b"id,StudyInstanceUID,boxes,label,Negative for Pneumonia\n1_study,1," + b"[" * 5000 + b",x,1\n",
        "deep JSON": b"[" * 100_000,
        "deep objects": b'{"a":' * 50_000,
        "digits": b"9" * 10_000,
        "null": b"null",
        "list": b"[]",
        "object": b"{}",
        "numbers": b'{"results": 1e999, "files": -1, "rows": NaN, "images": 1, "depth": "x"}',
        "wrong kinds": b'{"files": [], "rows": {}, "images": [], "settings": 3, "command": 4, "results": null}',
        "twice": b'{"a": 1, "a": 2}',
        "surrogates": b'{"\\ud800": "\\udfff"}',
        "array": saved(np.zeros((2, 2), np.float32)),
        "object array": saved(np.array([{}], object)),
        "npz": zipped(values__npy=saved([1.0]), labels__npy=saved(["x"]), names__npy=saved(3)),
        "npz of objects": zipped(values__npy=saved(np.array([{}], object))),
        "npz of texts": zipped(values__npy=b"hello", config__json=b"[" * 100_000),
        "empty zip": zipped(),
        "keras": zipped(metadata__json=b"{}", config__json=b"[" * 100_000, model__weights__h5=b""),
        "gzip": gzip.compress(b"hello"),
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    }
    rng = random.Random(1)
    for kind, container in CONTAINERS.items():
        folder = tmp_path_factory.mktemp("intact")
        container.make(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, content = f"{kind}: {path.name}", path.read_bytes()
            found[name] = content
            found[f"{name}, cut"] = content[: len(content) // 2]
            found[f"{name}, changed"] = changes.raw(content, rng)
    return found


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_any_content_is_read_or_refused_in_a_sentence(tmp_path, contents, door):
    refused, wrong = 0, []
    for number, (name, content) in enumerate(contents.items()):
        folder = tmp_path / f"folder-{number}"
        folder.mkdir()
        path = folder / "file-of-any-kind"
        path.write_bytes(content)
        try:
            door(path)
        except InputError as error:
            refused += 1
            where = str(folder) in str(error) or "file-of-any-kind" in str(error) or "csv" in str(error)
            if not (where and len(str(error)) < 5000 and str(error).replace("\n", "").isprintable()):
                wrong.append(f"{name}: no sentence: {error}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert refused or door in (lock, record, kept_features, history)
