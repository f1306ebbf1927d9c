"""Objects are written whole, on the condition that was asked for, whatever the store does; oracle: its own answers."""

import itertools
import os
import random

import pytest

from tests.buckets.conftest import filled
from tf_simclr.buckets import patience, store
from tf_simclr.buckets.store import ABSENT, Raced, Store
from tf_simclr.errors import InputError

KINDS = pytest.mark.parametrize("proxy", ["s3", "gs"], indirect=True)
ADDRESSES = ["memory://{}", "file://{}"]


@pytest.fixture(params=["s3", "gs", "memory", "file"])
def place(request, servers, tmp_path):
    """An empty place in each kind of store."""
    name = os.urandom(8).hex()
    if request.param in ("s3", "gs"):
        servers(request.param)
        return f"{request.param}://bucket/{name}"
    return f"memory://{name}" if request.param == "memory" else f"file://{tmp_path}/{name}"


def test_what_is_written_is_listed_and_read(place, tmp_path):
    files = {"a.txt": b"a", "folder/b c ü.bin": os.urandom(1000), "folder/deep/empty": b""}
    one = filled(place, files)
    assert {name: found.size for name, found in one.find().items()} == {n: len(c) for n, c in files.items()}
    assert {name: one.read(name)[0] for name in files} == files
    assert all(one.stat(name) == found for name, found in one.find().items())
    for name, found in one.find().items():
        assert one.patiently_get(name, tmp_path / "x", wanted=found) == found
        assert (tmp_path / "x").read_bytes() == files[name]
    assert Store(f"{place}/a.txt").find().keys() == {""}
    one.delete([*files, "not there"])
    assert one.find() == {}
    assert one.stat("a.txt") is None
    assert one.read("a.txt") is None


def test_writes_on_conditions(place):
    one = Store(place)
    first = one.put("x", b"1", only=ABSENT)
    with pytest.raises(Raced, match=r"x was written by somebody else meanwhile"):
        one.put("x", b"2", only=ABSENT)
    assert one.put("x", b"1", only=ABSENT) == first, "the same content: a try whose answer was lost"
    second = one.put("x", b"2", only=first)
    assert second != first
    with pytest.raises(Raced):
        one.put("x", b"3", only=first)
    assert one.read("x") == (b"2", second)
    one.delete(["x"])
    with pytest.raises(Raced):
        one.put("x", b"3", only=second)
    assert one.find() == {}


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # gcsfs' own way
def test_a_file_too_large_for_one_request(place, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_IN_MEMORY", 1 << 20)
    content = os.urandom(6 << 20)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "other").write_bytes(content[::-1])
    one = Store(place)
    one.put("large", tmp_path / "large", only=ABSENT)
    with pytest.raises(Raced):
        one.put("large", tmp_path / "other", only=ABSENT)
    one.put("large", tmp_path / "large", only=ABSENT)
    assert one.read("large")[0] == content


@pytest.mark.parametrize("proxy", ["s3", pytest.param("gs", marks=pytest.mark.slow)], indirect=True)
def test_a_store_that_fails_now_and_then_loses_nothing(proxy, bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(patience, "PATIENCE", 180.0)  # as it is for users: two of three requests fail here
    draw = random.Random(0)
    kinds = [None, None, None, "500", "503", "429", "cut", "lost", "half"]
    proxy.fault = lambda method, path, body: draw.choice(kinds)
    one, versions, expected = Store(bucket), {}, {}
    for number in range(8 if proxy.kind == "s3" else 4):
        name, content = f"{number % 5}", os.urandom(500)
        versions[name] = one.put(name, content, only=versions.get(name, ABSENT))
        expected[name] = content
    for name, found in one.find().items():
        got = one.patiently_get(name, tmp_path / "x", wanted=found)
        assert (got.version, (tmp_path / "x").read_bytes()) == (versions[name], expected[name])
    assert proxy.count > 3
    proxy.fault = lambda *_: None
    assert {name: one.read(name) for name in one.find()} == {n: (c, versions[n]) for n, c in expected.items()}


@pytest.mark.parametrize("kind", ["500", "cut", "lost"])
def test_a_store_that_is_away_is_said_in_a_sentence(proxy, bucket, monkeypatch, kind):
    monkeypatch.setattr(patience, "PATIENCE", 0.5)
    one = Store(bucket)
    proxy.fault = lambda *_: kind
    with pytest.raises(InputError, match=rf"^{bucket}/x must be reachable, but the store failed for 0 seconds"):
        one.put("x", b"1", only=ABSENT)


@KINDS
def test_a_bucket_that_is_not_there(proxy):
    for ask in (Store.find, lambda one: one.put("x", b"1", only=ABSENT)):
        with pytest.raises(InputError, match=rf"must be in a bucket that is there: {proxy.kind}://no-bucket is not"):
            ask(Store(f"{proxy.kind}://no-bucket/x"))


@KINDS
def test_no_rights_are_said_at_once(proxy, bucket):
    proxy.fault = lambda *_: "403"
    with pytest.raises(InputError, match=rf"^{bucket}.* must be open to you: give credentials"):
        Store(bucket).put("x", b"1")
    assert proxy.count <= 2


def test_what_is_no_address_or_needs_a_package(monkeypatch):
    with pytest.raises(InputError, match=r"must be of a store that fsspec knows.*'nonsense://x'"):
        Store("nonsense://x")
    for text in ("s3://bucket//x", "s3://bucket/../x", "s3://", "gs://b/./x"):
        with pytest.raises(InputError, match="without empty parts"):
            Store(text)
    with pytest.raises(InputError, match="not one of its versions"):
        Store("s3://bucket/x?versionId=3")
    import fsspec

    def missing(protocol):
        raise ImportError(f"Install {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match=r"^s3://bucket/x needs s3fs: pip install 'tf-simclr\[s3\]'"):
        Store("s3://bucket/x")
    with pytest.raises(InputError, match=r"^gs://bucket/x needs gcsfs: pip install 'tf-simclr\[gcs\]'"):
        Store("gs://bucket/x")


def test_hostile_names_are_refused(proxy, bucket):
    one = filled(bucket, {"a/good": b"1"})
    one.fs.call_s3("put_object", Bucket="bucket", Key=f"{bucket.split('/', 3)[3]}/../../evil", Body=b"x")
    with pytest.raises(InputError, match=r"names at .* must be names of files"):
        one.find()


@pytest.mark.parametrize("value", ["3m", "nan", "inf", "-1", "²", "9" * 5000 + "x"])
def test_patience_that_is_no_number_of_seconds_is_refused_where_it_is_first_needed(monkeypatch, value):
    monkeypatch.setenv("TF_SIMCLR_PATIENCE", value)
    with pytest.raises(InputError, match="TF_SIMCLR_PATIENCE must be a number of seconds, at least 0"):
        patience.patiently(lambda: pytest.fail("it was tried"), "s3://b/x")


def test_patience_of_the_environment_goes_before(monkeypatch):
    monkeypatch.setenv("TF_SIMCLR_PATIENCE", "0")
    with pytest.raises(InputError, match="the store failed for 0 seconds"):
        patience.patiently(_away, "s3://b/x")


def _away():
    raise ConnectionError("away")


def test_waits_grow_and_are_drawn(monkeypatch):
    waits, fails = [], itertools.count()
    monkeypatch.setattr(patience, "PATIENCE", 1000.0)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.5)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 30.0)
    monkeypatch.setattr(patience.time, "sleep", waits.append)

    def do():
        if next(fails) < 9:
            raise OSError("away")
        return "done"

    assert patience.patiently(do, "s3://b") == "done"
    limits = [min(0.5 * 2**n, 30.0) for n in range(9)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == 9
