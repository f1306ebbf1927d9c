"""Files that appear whole or not at all."""

import json
import os
import resource

import pytest

from tf_simclr.errors import InputError
from tf_simclr.files import replacing, replacing_folder, replacing_path, write_json


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_at_its_place_only_after_the_block(tmp_path):
    target = tmp_path / "deep" / "file"
    with replacing(target) as [file]:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError, SystemExit])
def test_what_was_there_stays_when_the_block_is_left_early(tmp_path, error):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")

    def write():
        with replacing(tmp_path / "a", tmp_path / "b") as files:
            for file in files:
                file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ["a", "b"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}


def test_paths_are_put_in_place_in_their_order(tmp_path, monkeypatch):
    order, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (order.append(target.name), replace(source, target)))
    with replacing(*(tmp_path / name for name in "cab")):
        assert order == []
    assert order == ["c", "a", "b"]


def test_a_writer_that_wants_a_name_gets_one_with_the_same_ending_in_the_same_folder(tmp_path):
    with replacing_path(tmp_path / "network.keras") as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".keras")
        temporary.write_text("new")
    assert names(tmp_path) == ["network.keras"]

    def write():
        with replacing_path(tmp_path / "network.keras") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == ["network.keras"]
    assert (tmp_path / "network.keras").read_text() == "new"


def test_a_place_that_cannot_be_a_folder_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match=r"file/result.json must be writable: .*; choose another place"):
        write_json(tmp_path / "file" / "result.json", {})
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes everywhere")
def test_a_folder_that_is_read_only_is_refused_by_name(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"result.json must be writable: Permission denied; choose another place"):
        write_json(tmp_path / "result.json", {})


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # as a full disk, but of this process alone
    try:
        with pytest.raises(InputError, match="file must be writable: File too large"), replacing(target) as [file]:
            file.write(bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["file"]
    assert target.read_bytes() == b"old"


def test_json_is_for_persons_to_read_and_ends_in_a_newline(tmp_path):
    content = {"path": tmp_path, "numbers": [1, 0.1], "nothing": None}
    write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text()
    assert text.endswith("}\n")
    assert '\n  "numbers": [' in text
    assert json.loads(text) == content | {"path": str(tmp_path)}


def test_what_must_survive_a_loss_of_power_is_on_the_disk_before_and_after_it_gets_its_name(tmp_path, monkeypatch):
    """Content first, then the name in its folder, then the folder's own name."""
    done = []
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.readlink(f"/proc/self/fd/{file}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    with replacing(tmp_path / "new" / "file", durable=True) as [file]:
        file.write(b"content")
    assert done == [str(tmp_path / "new" / f".{os.getpid()}.file"), "named", str(tmp_path / "new"), str(tmp_path)]


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    place = tmp_path / "model"
    with replacing_folder(place) as folder:
        (folder / "a").write_text("1")

    def failing():
        with replacing_folder(place) as folder:
            (folder / "a").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert (place / "a").read_text() == "1"
    with replacing_folder(place) as folder:
        (folder / "b").write_text("3")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "b"]
