"""Identity by content: against hashlib, whatever was remembered before, from several processes and after damage."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tf_simclr.errors import InputError
from tf_simclr.files import contents


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A memory of its own; files count as settled at once."""
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "RESOLUTION", -1)
    return tmp_path / "cache" / "contents.sqlite"


@pytest.fixture
def reads(monkeypatch):
    """Paths of the files that are read."""
    found, original = [], contents.hashed
    monkeypatch.setattr(contents, "hashed", lambda path: (found.append(path), original(path))[1])
    return found


def oracle(path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def write(folder, count: int, size: int = 100):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.bmp" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * size)
    return paths


@pytest.mark.parametrize("count", [1, 7, 120])  # few are looked up one by one, many at once
def test_a_digest_is_that_of_the_bytes_and_is_remembered(tmp_path, memory, reads, count):
    paths = write(tmp_path / "data", count)
    for _ in range(3):
        assert contents.digests(paths[::-1]) == [oracle(path) for path in paths[::-1]]
    assert len(reads) == count


def test_sizes_around_a_block_and_nothing_at_all(tmp_path, memory):
    for size in (0, 1, contents._BLOCK - 1, contents._BLOCK, 2 * contents._BLOCK + 3):
        (tmp_path / "file").write_bytes(os.urandom(size))
        assert contents.digest(tmp_path / "file") == oracle(tmp_path / "file")


def test_a_file_written_over_is_another_one_even_with_its_old_size_and_time(tmp_path, memory, reads):
    (path,) = write(tmp_path / "data", 1)
    first, old = contents.digest(path), path.stat()
    path.write_bytes(b"x" * 100)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert contents.digest(path) == oracle(path) != first
    other = tmp_path / "data" / "new"
    other.write_bytes(b"y" * 100)
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(path)
    assert contents.digest(path) == oracle(path)
    assert len(reads) == 3


def test_folders_that_change_places_are_told_apart(tmp_path, memory):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.bmp").write_bytes(name.encode() * 100)
        os.utime(tmp_path / name / "1.bmp", ns=(0, 0))  # as from an archive
    before = contents.digests([tmp_path / "a/1.bmp", tmp_path / "b/1.bmp"])
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    assert contents.digest(tmp_path / "a/1.bmp") == before[1]


def test_what_changed_just_now_is_not_remembered(tmp_path, memory, reads, monkeypatch):
    monkeypatch.setattr(contents, "RESOLUTION", 60 * 10**9)
    (path,) = write(tmp_path / "data", 1)
    for _ in range(2):
        assert contents.digest(path) == oracle(path)
    assert len(reads) == 2
    future = time.time_ns() + 10**12
    os.utime(path, ns=(future, future))
    monkeypatch.setattr(contents, "RESOLUTION", 0)
    for _ in range(2):
        contents.digest(path)
    assert len(reads) == 4


def test_what_cannot_be_read_has_no_digest(tmp_path, memory):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    names = ["missing", "link", "pipe", ".", "nul\0"]
    assert contents.digests([tmp_path / name for name in names]) == [None] * len(names)
    with pytest.raises(InputError, match="missing must be a file that can be read"):
        contents.digest(tmp_path / "missing")


def test_names_that_are_no_text_and_relative_paths(tmp_path, memory, reads, monkeypatch):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(b"content")
    monkeypatch.chdir(tmp_path)
    expected = hashlib.blake2b(b"content", digest_size=16).hexdigest()
    assert contents.digest(os.fsdecode(name)) == contents.digest(os.fsdecode(b"\xff.png")) == expected
    assert len(reads) == 1


@pytest.mark.parametrize("damage", [b"no database" * 100, b"", b"SQLite format 3\0" + b"\xff" * 200])
def test_a_damaged_memory_is_begun_anew(tmp_path, memory, reads, damage):
    paths = write(tmp_path / "data", 3)
    contents.digests(paths)
    memory.write_bytes(damage)
    for _ in range(2):
        assert contents.digests(paths) == [oracle(path) for path in paths]
    assert len(reads) == 6


def test_values_of_another_kind_in_the_memory_are_not_believed(tmp_path, memory):
    import sqlite3

    (path,) = write(tmp_path / "data", 1)
    contents.digest(path)
    with sqlite3.connect(memory) as connection:
        connection.execute("UPDATE files SET digest = 'text'")
    connection.close()
    assert contents.digest(path) == oracle(path)


def test_a_memory_that_cannot_be_written_costs_time_only_and_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(contents, "RESOLUTION", -1)
    said = []
    paths = write(tmp_path / "data", 2)
    assert contents.digests(paths, say=said.append) == [oracle(path) for path in paths]
    assert len(said) == 1
    assert "are not remembered" in said[0]


def test_a_full_memory_forgets_the_folder_that_was_longest_not_asked_for(tmp_path, memory, reads, monkeypatch):
    monkeypatch.setattr(contents, "LIMIT", 60_000)
    clock = iter(range(10**9, 2 * 10**9))
    monkeypatch.setattr(contents.time, "time", lambda: next(clock))
    folders = [write(tmp_path / f"data{number}", 200) for number in range(4)]
    for paths in folders:
        contents.digests(paths)
    assert len(reads) == 800
    contents.digests(folders[-1])
    assert len(reads) == 800
    contents.digests(folders[0])
    assert len(reads) == 1000
    assert memory.stat().st_size < 3 * contents.LIMIT


def test_processes_share_the_memory(tmp_path, memory, reads):
    paths = write(tmp_path / "data", 60)
    code = (
        "import sys; from tf_simclr.files import contents; contents.RESOLUTION = -1\n"
        "for _ in range(20):\n  for path in sys.argv[1:]: print(contents.digest(path))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, paths)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    expected = [oracle(path) for path in paths] * 20
    assert all(process.communicate()[0].split() == expected for process in processes)
    contents.digests(paths)
    assert not reads


def test_arrays_differ_by_type_shape_and_bytes_alone():
    base = np.arange(12, dtype=np.int32).reshape(3, 4)
    same = [base.copy(), np.asfortranarray(base), np.repeat(base, 2, axis=1)[:, ::2]]
    assert {contents.of_array(one) for one in same} == {contents.of_array(base)}
    others = [base.reshape(4, 3), base.astype(np.uint32), base.astype(np.int64), base + 1, base.astype(">i4")]
    others += [np.zeros((0, 3)), np.zeros((3, 0)), np.array(["a"]), np.array(7), base.view([("x", np.int32)])]
    assert len({contents.of_array(one) for one in [base, *others]}) == 1 + len(others)
    with pytest.raises(InputError, match="must hold numbers or text"):
        contents.of_array(np.array([object()]))


def test_values_differ_by_what_they_say():
    assert contents.of_values({"a": 1, "b": [2]}) == contents.of_values({"b": [2], "a": 1})
    cases = [(1,), ("1",), ([1],), (1, 1), ({"1": 1},), (None,), (1.0,), ("\udcff",)]
    assert len({contents.of_values(*case) for case in cases}) == len(cases)
    assert contents.of_bytes(b"a", b"b") == hashlib.blake2b(b"ab", digest_size=16).hexdigest()
