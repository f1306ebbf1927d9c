"""Two processes never train in one folder, and nobody waits for a dead one."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests import golden
from tf_simclr.errors import InputError
from tf_simclr.files import lock
from tf_simclr.files.lock import hold

HOLD = """
import sys, time
from pathlib import Path
from tf_simclr.files.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, cwd=golden.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def brief(monkeypatch):
    """Signs of life in hundredths of a second."""
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "SILENCE", 0.4)


def signed(folder, **changes) -> None:
    """Leaves a lock in a folder that nobody holds."""
    holder = lock.signature() | changes
    (folder / "lock").write_text(json.dumps(holder))


def test_a_second_process_is_refused_by_name_while_the_first_one_lives(tmp_path, other):
    with pytest.raises(InputError) as caught, hold(tmp_path):
        pytest.fail("held twice")
    who = f"process {other.pid} on {socket.gethostname()}"
    assert str(caught.value) == f"{tmp_path} is in use by {who}; wait for it, stop it, or take another folder"


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / "lock").exists()
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), hold(tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with hold(tmp_path):
        pass


def test_a_process_may_hold_a_folder_within_its_own_hold(tmp_path):
    with hold(tmp_path):
        with hold(tmp_path):
            assert (tmp_path / "lock").exists()
        assert (tmp_path / "lock").exists()


def test_a_holder_on_another_machine_is_gone_after_silence(tmp_path, brief):
    signed(tmp_path, host="elsewhere", pid=12)
    said: list[str] = []
    with hold(tmp_path, say=said.append):
        assert said == [f"{tmp_path} was in use by process 12 on elsewhere; waiting 0 seconds for a sign of life"]
        assert json.loads((tmp_path / "lock").read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("changes", [{"machine": "another boot pid:[1]"}, {"machine": None}, {"machine": ["x"]}])
def test_a_machine_is_not_known_by_its_name_alone(tmp_path, brief, monkeypatch, changes):
    """Containers of a cluster may have one name each, and number their processes alike."""
    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    signed(tmp_path, pid=2**22 + 1, **changes)
    said: list[str] = []
    with hold(tmp_path, say=said.append):
        assert "waiting 0 seconds for a sign of life" in said[0]


def test_a_lock_of_an_earlier_version_is_waited_for(tmp_path, brief, monkeypatch):
    (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    said: list[str] = []
    with hold(tmp_path, say=said.append):
        assert bool(said) == bool(lock.signature()["machine"])


def test_a_holder_on_another_machine_that_shows_life_keeps_its_lock(tmp_path, monkeypatch):
    signed(tmp_path, host="elsewhere", pid=12)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / "lock"))  # it renews its lock meanwhile
    with pytest.raises(InputError, match="in use by process 12 on elsewhere"), hold(tmp_path):
        pytest.fail("held twice")


def test_a_holder_shows_life_by_the_time_of_its_lock(tmp_path, brief, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 5.0)
    with hold(tmp_path):
        path = tmp_path / "lock"
        os.utime(path, (0, 0))
        file = os.open(path, os.O_RDWR)
        with pytest.raises(InputError, match="in use by"):
            lock.wait_for_silence(file, tmp_path)


def no_locks(file, kind):
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["our own number, reused", "nobody's number"])
def test_where_files_cannot_be_locked_a_dead_process_of_this_machine_holds_nothing(tmp_path, monkeypatch, pid):
    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock.time, "sleep", lambda _: pytest.fail("waits for a dead process"))
    signed(tmp_path, pid=pid)
    with hold(tmp_path):
        pass


def test_where_files_cannot_be_locked_a_living_process_keeps_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / "lock"))
    signed(tmp_path, pid=os.getppid())
    with pytest.raises(InputError, match=f"in use by process {os.getppid()} on"), hold(tmp_path):
        pytest.fail("held twice")


def test_a_lock_that_was_cut_off_as_it_was_signed_holds_nobody_out(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1')
    with hold(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/run must be writable"), hold(tmp_path / "file" / "run"):
        pytest.fail("held")


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot tell links when it opens files")
def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    for target in (victim, tmp_path / "new", folder / "lock", tmp_path):
        (folder / "lock").symlink_to(target)
        with pytest.raises(InputError, match=r"run/lock must be a plain file, and no link; remove it"), hold(folder):
            pytest.fail("held")
        (folder / "lock").unlink()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "pipe"])
def test_a_folder_or_a_pipe_in_place_of_the_lock_is_one_sentence(tmp_path, make):
    make(tmp_path / "lock")
    with pytest.raises(InputError, match=r"lock must be a plain file, and no link; remove it"), hold(tmp_path):
        pytest.fail("held")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 2000,
        b"\xff\xfe",
        b"[" * 1000,
        b"null",
        b'{"pid": 1e400, "host": "x"}',
        b'{"pid": ' + b"9" * 900 + b', "host": "x"}',
        b'{"pid": -1, "host": "x"}',
        b'{"pid": 0, "host": "x"}',
        b'{"pid": true, "host": "x"}',
        b'{"pid": 1, "host": "\\u001b[2J\\n"}',
        b'{"pid": 1, "host": ["x"]}',
    ],
)
def test_a_lock_of_any_content_without_a_holder_is_taken(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_a_block_that_leaves_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(InputError), hold(tmp_path / "new" / "run"):
        raise InputError("refused")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_there_and_one_that_holds_something_stay(tmp_path):
    (tmp_path / "empty").mkdir()
    with hold(tmp_path / "empty"):
        pass
    with hold(tmp_path / "new" / "run"):
        (tmp_path / "new" / "result").write_text("kept")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["empty", "new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]
