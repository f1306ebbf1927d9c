"""Runs in a bucket: whole at any moment, of one writer, and resumed anywhere; oracle: what was written step by step."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import golden, sent_run
from tests.buckets.conftest import filled
from tests.buckets.test_mirror import contents
from tf_simclr.buckets import check_sent, local, locks, mirror, patience, sending, staging
from tf_simclr.buckets.mirror import MANIFEST, read_manifest
from tf_simclr.buckets.sending import Sending
from tf_simclr.buckets.store import Store, crc32c
from tf_simclr.errors import InputError

PLACES = pytest.mark.parametrize("kind", ["s3", "gs", "memory", "file"])


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine by its number: its cache is its own."""

    def be(number: int) -> None:
        monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / f"machine {number}"))

    return be


@pytest.fixture
def place(kind, servers, tmp_path):
    if kind in ("s3", "gs"):
        servers(kind)
        return f"{kind}://bucket/{os.urandom(8).hex()}"
    return f"memory://{os.urandom(8).hex()}" if kind == "memory" else f"file://{tmp_path}/store"


def begun(address: str) -> Sending:
    one = Sending(address, say=lambda line: None)
    one.begin()
    return one


def check_whole(address: str) -> list[int]:
    """Every checkpoint that the manifest names is there and right; returns their steps."""
    store = Store(address)
    manifest = read_manifest(store)
    if manifest is None:
        return []
    found = []
    for name, (size, checksum) in manifest.files.items():
        if mirror.is_fixed(name):
            content, _ = store.read(name)
            step = int(name.split("-")[1].split(".")[0])
            assert content == sent_run.content(step)
            assert (len(content), crc32c(content)) == (size, checksum)
            found.append(step)
    return sorted(found)


@PLACES
def test_a_run_goes_on_on_another_machine(place, machine):
    machine(1)
    one = begun(place)
    for step in range(1, 6):
        sent_run.write(one.path, step)
    (one.path / "config.json").write_text("{}")
    one.close()
    assert check_whole(place) == [3, 4, 5]
    left = contents(one.path)
    assert Store(place).find().keys() == left.keys() | {MANIFEST}, "old checkpoints and the lock are gone"
    machine(2)
    assert contents(local(place)) == left
    two = begun(place)
    assert two.path != one.path
    assert contents(two.path) == left
    sent_run.write(two.path, 6)
    two.close()
    assert check_whole(place) == [4, 5, 6]
    machine(1)
    again = begun(place)
    assert sent_run.steps(again.path) == [4, 5, 6], "what lay on this machine is older"
    again.close()


@PLACES
def test_a_writer_that_was_replaced_is_refused_and_changes_nothing(place, machine, monkeypatch):
    """It slept for longer than the lock holds: the other one took over, and has not yet written a step."""
    machine(1)
    sleeper = begun(place)
    sent_run.write(sleeper.path, 1)
    sleeper.look()
    for beat in sleeper.beats:
        beat.stop()
    monkeypatch.setattr(sending, "SENDING", {sleeper.path: sleeper})
    machine(2)
    other = begun(place)
    assert sent_run.steps(other.path) == [1]
    machine(1)
    sent_run.write(sleeper.path, 2)
    sleeper.look()
    with pytest.raises(InputError, match=rf"this process has lost {place} to another one and stops"):
        check_sent(sleeper.path)
    with pytest.raises(InputError, match="this process has lost"):
        sleeper.close()
    sent_run.write(other.path, 2)
    sent_run.write(other.path, 3)
    other.close()
    assert check_whole(place) == [1, 2, 3]


def test_a_lock_is_refused_while_its_holder_lives_and_taken_when_it_is_silent(proxy, bucket, monkeypatch):
    monkeypatch.setattr(locks, "_is_gone", lambda holder: False)
    # Slower than a busy machine reads the lock, which it does until nobody has written meanwhile.
    monkeypatch.setattr(locks, "BEAT", 0.25)
    monkeypatch.setattr(locks, "SILENCE", 2.5)
    one, said = begun(bucket), []
    with pytest.raises(InputError, match=rf"{bucket} is in use by process {os.getpid()} on .*; wait for it, stop it"):
        Sending(bucket, say=said.append).begin()
    assert "waiting 2 seconds for a sign of life" in said[0]
    for beat in one.beats:
        beat.stop()
    two = begun(bucket)
    one._show_life()
    assert one.lost is not None
    two.close()
    assert "lock" not in Store(bucket).find()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"pid": true, "host": "x"}', b'{"pid": 1, "host": "\\n"}'])
def test_a_lock_of_whatever_content_is_waited_for(bucket, content):
    filled(bucket, {"lock": content})
    one = begun(bucket)
    one.close()
    assert "lock" not in Store(bucket).find()


def test_a_store_that_is_away_does_not_stop_a_run(proxy, bucket, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    said = []
    one = Sending(bucket, say=said.append)
    one.begin()
    sent_run.write(one.path, 1)
    one.look()
    proxy.fault = lambda *_: "503"
    for step in (2, 3):
        sent_run.write(one.path, step)
        one.look()
        check_sent(one.path)
    assert len([line for line in said if "the command goes on, and tries again" in line]) == 1
    proxy.fault = lambda *_: None
    one.close()
    assert check_whole(bucket) == [1, 2, 3]
    assert any("is reached again" in line for line in said)


def test_a_manifest_that_could_not_be_written_is_written_when_nothing_else_is_new(proxy, bucket, monkeypatch):
    """Before, the next look found nothing to send, and said that all was there."""
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    said = []
    one = Sending(bucket, say=said.append)
    one.begin()
    for beat in one.beats:
        beat.stop()
    sent_run.write(one.path, 1)
    one.look()
    proxy.fault = lambda method, path, body: "503" if method == "PUT" and MANIFEST in path else None
    for step in range(2, 7):
        sent_run.write(one.path, step)
        one.look()
        one.look()
    assert one.trouble is not None
    assert not any("is reached again" in line for line in said)
    assert check_whole(bucket) == [1]
    proxy.fault = lambda *_: None
    one.look()
    assert any("is reached again" in line for line in said)
    assert check_whole(bucket) == [4, 5, 6]
    one.close()
    assert check_whole(bucket) == [4, 5, 6]


def test_what_could_not_be_sent_is_sent_by_the_same_command_later(proxy, bucket, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    one = begun(bucket)
    sent_run.write(one.path, 1)
    one.look()
    proxy.fault = lambda *_: "cut"
    sent_run.write(one.path, 2)
    with pytest.raises(InputError, match=rf"must be reachable.*lies in {one.path}, from which the same command sends"):
        one.close()
    proxy.fault = lambda *_: None
    assert check_whole(bucket) == [1]
    again = begun(bucket)
    assert sent_run.steps(again.path) == [1, 2]
    again.close()
    assert check_whole(bucket) == [1, 2]


@pytest.mark.parametrize("lost", ["all", "manifest"])
def test_what_could_not_be_sent_at_all_is_sent_by_the_same_command_later(proxy, bucket, machine, monkeypatch, lost):
    """As where rights to write are lost behind the lock; before, the second start removed what the first had made."""
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    machine(1)
    one = begun(bucket)
    proxy.fault = lambda method, path, body: "403" if method == "PUT" and (lost == "all" or MANIFEST in path) else None
    sent_run.write(one.path, 1)
    one.look()
    sent_run.write(one.path, 2)
    with pytest.raises(
        InputError, match=rf"must be open to you.*lies in {one.path}, from which the same command sends"
    ):
        one.close()
    proxy.fault = lambda *_: None
    assert read_manifest(Store(bucket)) is None
    again = begun(bucket)
    assert sent_run.steps(again.path) == [1, 2]
    sent_run.write(again.path, 3)
    again.close()
    assert check_whole(bucket) == [1, 2, 3]
    # Somebody else has removed it: what is here was there, and is not brought back.
    Store(bucket).delete(Store(bucket).find())
    anew = begun(bucket)
    assert sent_run.steps(anew.path) == []
    anew.close()


def test_a_run_that_another_machine_began_meanwhile_counts(proxy, bucket, machine, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    machine(1)
    one = begun(bucket)
    proxy.fault = lambda method, path, body: "403" if method == "PUT" else None
    sent_run.write(one.path, 1)
    with pytest.raises(InputError, match="must be open to you"):
        one.close()
    proxy.fault = lambda *_: None
    machine(2)
    two = begun(bucket)
    for step in (1, 2, 3, 4):
        sent_run.write(two.path, step)
    two.close()
    machine(1)
    again = begun(bucket)
    assert sent_run.steps(again.path) == [2, 3, 4]
    again.close()
    assert check_whole(bucket) == [2, 3, 4]


def test_a_folder_that_was_copied_there_by_hand_goes_on(bucket):
    filled(bucket, {"checkpoints/step-00000007.npz": sent_run.content(7), "config.json": b"{}"})
    one = begun(bucket)
    assert sent_run.steps(one.path) == [7]
    sent_run.write(one.path, 8)
    one.close()
    assert check_whole(bucket) == [7, 8]


@pytest.mark.parametrize("before", ["a fetch that was stopped", "a start without a step"])
def test_what_was_copied_there_by_hand_is_fetched_whole_whatever_was_before(bucket, monkeypatch, before):
    copied = {f"checkpoints/step-{step:08d}.npz": sent_run.content(step) for step in (7, 8)} | {"config.json": b"{}"}
    if before == "a start without a step":
        begun(bucket).close()
        filled(bucket, copied)
    else:
        filled(bucket, copied)
        came, fetched = [], sending.fetched

        def stopped(store, name, **options):
            came.append(name)
            if len(came) > 1:
                raise KeyboardInterrupt
            return fetched(store, name, **options)

        monkeypatch.setattr(sending, "fetched", stopped)
        with pytest.raises(KeyboardInterrupt):
            begun(bucket)
        monkeypatch.setattr(sending, "fetched", fetched)
    for _ in range(2):
        again = begun(bucket)
        assert sent_run.steps(again.path) == [7, 8]
        assert (again.path / "config.json").read_bytes() == b"{}"
        again.close()
        assert check_whole(bucket) == [7, 8]


def test_a_checkpoint_appears_before_the_manifest_and_goes_after_it(proxy, bucket):
    one = begun(bucket)
    proxy.writes.clear()
    for step in range(1, 5):
        sent_run.write(one.path, step)
        one.look()
    one.close()
    order = [(method, path.rsplit("/", 1)[1].split("?")[0]) for method, path in proxy.writes if "lock" not in path]
    last = max(i for i, entry in enumerate(order) if entry == ("PUT", "step-00000004.npz"))
    manifests = [i for i, entry in enumerate(order) if entry == ("PUT", MANIFEST)]
    removed = order.index(("DELETE", "step-00000001.npz"))
    assert any(last < i < removed for i in manifests)


def _killed(address: str, *, environment: dict, last: int, draw: random.Random, kills: int) -> list[int]:
    """Kills runs at random moments until one is finished; returns the newest steps that were found after each."""
    found = []
    command = [sys.executable, "-m", "tests.sent_run", address, str(last)]
    for number in range(kills + 1):
        with subprocess.Popen(
            command, cwd=golden.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            if number < kills:
                process.stdout.readline()
                time.sleep(draw.uniform(0, 0.6))
                process.kill()
                process.communicate()
            else:
                _, errors = process.communicate()
                assert process.returncode == 0, errors
        found.append(max(check_whole(address), default=0))
    return found


@pytest.mark.parametrize(
    ("proxy", "kills"),
    [("s3", 1), *(pytest.param(kind, 20, marks=pytest.mark.slow) for kind in ("s3", "gs"))],
    indirect=["proxy"],
)
def test_killed_at_random_moments_it_goes_on(proxy, bucket, tmp_path, kills):
    draw = random.Random(kills)
    environment = os.environ | {"TF_SIMCLR_CACHE": str(tmp_path / "cache")}
    if kills > 2:
        chaos = random.Random(1)
        proxy.fault = lambda method, path, body: chaos.choice([None] * 12 + ["500", "503", "cut", "lost"])
    last = 40 * kills
    found = _killed(bucket, environment=environment, last=last, draw=draw, kills=kills)
    assert found == sorted(found), "no step that was there is lost"
    assert found[-1] == last
    proxy.fault = lambda *_: None
    history = Store(bucket).read("history.csv")[0]
    assert history == b"".join(b"%d\n" % number for number in range(1, last + 1))


@pytest.fixture
def unheard():
    """What signals do in a program that a terminal started: in the background, some are ignored."""
    first = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in first.items()}
    yield first
    for number, handler in before.items():
        signal.signal(number, handler)


def command(address, number):
    """Fills a folder in a bucket, and is sent a signal in its midst, if any."""
    with staging.filled(address, say=lambda line: None) as folder:
        folder.mkdir(parents=True)
        (folder / "one").write_bytes(b"1")
        sending.send_now(folder)
        (folder / "two").write_bytes(b"2")
        if number is not None:
            os.kill(os.getpid(), number)
            pytest.fail("it went on")


@pytest.mark.parametrize(
    ("sent", "ending", "code"), [("TERM", SystemExit, 143), ("HUP", SystemExit, 129), ("INT", KeyboardInterrupt, None)]
)
@pytest.mark.parametrize("moment", ["in the midst", "while it sends", "while it sends the last"])
def test_a_signal_ends_a_command_when_all_is_sent(proxy, bucket, unheard, moment, sent, ending, code):
    """Oracle: what was written is there, and nobody holds the folder."""
    number, told, sendings = signal.Signals[f"SIG{sent}"], [], []

    def fault(method, path, body):
        if method == "PUT" and body == b"2":
            sendings.append(path)
            if moment == "while it sends" and len(sendings) == 1:
                os.kill(os.getpid(), number)
                return "503"  # it is tried again
        if moment == "while it sends the last" and method == "DELETE" and "lock" in path and not told:
            told.append(path)
            os.kill(os.getpid(), number)
        return None

    proxy.fault = fault
    with pytest.raises(ending) as caught:
        command(bucket, number if moment == "in the midst" else None)
    assert code is None or caught.value.code == code
    assert {*Store(bucket).find()} == {"one", "two", MANIFEST}
    assert signal.getsignal(number) == unheard[number]


def test_a_second_ctrl_c_ends_a_command_while_it_sends(proxy, bucket, unheard):
    def fault(method, path, body):
        if method == "PUT" and body == b"2":
            os.kill(os.getpid(), signal.SIGINT)
            return "503"
        return None

    proxy.fault = fault
    with pytest.raises(KeyboardInterrupt):
        command(bucket, signal.SIGINT)
    proxy.fault = lambda method, path, body: None
    assert "two" not in Store(bucket).find()
    with staging.filled(bucket, say=lambda line: None):  # the same command later: nobody else is waited for
        pass
    assert {*Store(bucket).find()} == {"one", "two", MANIFEST}


@PLACES
def test_a_signal_ends_a_command_when_all_is_sent_to_any_store(place, unheard):
    with pytest.raises(SystemExit):
        command(place, signal.SIGTERM)
    assert {*Store(place).find()} == {"one", "two", MANIFEST}


@pytest.mark.slow
def test_two_processes_one_of_which_is_refused(proxy, bucket, tmp_path):
    command = [sys.executable, "-m", "tests.sent_run", bucket, "60"]
    environments = [os.environ | {"TF_SIMCLR_CACHE": str(tmp_path / str(i))} for i in range(2)]
    running = [
        subprocess.Popen(command, cwd=golden.ROOT, env=one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for one in environments
    ]
    said = [process.communicate() for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == [0, 2], said
    assert "is in use by process" in said[codes.index(2)][1]
    assert check_whole(bucket) == [58, 59, 60]
