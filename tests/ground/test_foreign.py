"""One budget and one list of exceptions for every reader of foreign bytes."""

import itertools
import lzma
import os
import pickle
import struct
import tarfile
import threading
import time
import zipfile
import zlib

import pytest

from tf_simclr import foreign
from tf_simclr.errors import InputError

RAISED = [
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    zlib.error("Error -3 while decompressing data"),
    lzma.LZMAError("Corrupt input data"),
    EOFError(),
    struct.error("unpack requires 4 bytes"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    NotImplementedError("That compression method is not supported"),
    KeyError("name\nwith a line"),
    TypeError("'int' object is not iterable"),
    IndexError(),
    AttributeError("no attribute"),
    OverflowError("int too large"),
    ZeroDivisionError(),
    AssertionError(),
    SyntaxError("broken PNG file"),
    SystemError("tile cannot extend outside image"),
    OSError(5, "Input/output error"),
    IsADirectoryError(21, "Is a directory"),
    zipfile.BadZipFile("File is not a zip file"),
    tarfile.ReadError("not a gzip file"),
    pickle.UnpicklingError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_parser_raises_is_one_sentence_with_the_path(tmp_path, error):
    with pytest.raises(InputError) as caught, foreign.reading(tmp_path / "x.bin", "an intact thing"):
        raise error
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.bin'} must be an intact thing, but ")
    assert "\n" not in message
    assert caught.value.__cause__ is error


def test_exceptions_of_the_parsers_themselves_mean_damaged(tmp_path):
    import pydicom.errors
    from PIL import Image, UnidentifiedImageError

    for error in (pydicom.errors.InvalidDicomError(), Image.DecompressionBombError("large"), UnidentifiedImageError()):
        with pytest.raises(InputError, match=r"x\.bin"), foreign.reading(tmp_path / "x.bin"):
            raise error


def test_what_is_no_damage_passes(tmp_path):
    class Own(Exception):
        pass

    for error in (KeyboardInterrupt(), SystemExit(3), Own(), ImportError("no torch")):
        with pytest.raises(type(error)), foreign.reading(tmp_path / "x.bin"):
            raise error


def test_an_input_error_passes_and_is_given_the_path_where_it_does_not_name_it(tmp_path):
    with pytest.raises(InputError, match=r"^x\.bin is too old$"), foreign.reading(tmp_path / "x.bin"):
        raise InputError("x.bin is too old")
    with pytest.raises(InputError, match=r"x\.bin must be whole, but it ends early$"):  # noqa: SIM117
        with foreign.reading(tmp_path / "x.bin", "whole"):
            raise InputError("it ends early")


def test_readers_within_each_other_draw_from_one_budget(tmp_path):
    def read():
        with foreign.reading(tmp_path / "outer"):
            for _ in range(3):
                with foreign.reading(tmp_path / "inner"):
                    foreign.spend(items=foreign.ITEMS // 2)

    with pytest.raises(InputError, match="more parts than any checkpoint"):
        read()


def test_a_budget_ends_with_its_reading(tmp_path):
    for _ in range(3):
        with foreign.reading(tmp_path / "x"):
            foreign.spend(items=foreign.ITEMS // 2)
    foreign.spend(items=10 * foreign.ITEMS)  # nothing is being read


def test_what_is_read_later_and_in_other_threads_draws_from_the_same_budget(tmp_path):
    with foreign.reading(tmp_path / "x") as budget:
        foreign.spend(items=foreign.ITEMS - 10)
    refused = []

    def later():
        with pytest.raises(InputError, match="more parts"), foreign.reading(tmp_path / "x", budget=budget):
            foreign.spend(items=11)
        refused.append(True)

    thread = threading.Thread(target=later)
    thread.start()
    thread.join()
    assert refused


def test_a_large_file_may_become_more(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.truncate(1 << 30)
    with foreign.reading(tmp_path / "x"):
        assert foreign.spend_tensor((1 << 10, 1 << 20), 4) == 1 << 32
        with pytest.raises(InputError, match="far more memory"):
            foreign.spend_tensor((1 << 10, 1 << 20), 8)
    (tmp_path / "ckpt-7.index").write_bytes(b"1")
    (tmp_path / "ckpt-7.data").write_bytes(b"123")
    assert foreign.size_at(tmp_path / "ckpt-7") == 4
    assert foreign.size_at(tmp_path) == (1 << 30) + 4
    assert foreign.size_at(tmp_path / "no\0name") == 0


def test_depth_counts_what_is_open_at_once(tmp_path):
    def nest(levels):
        if levels:
            with foreign.deeper():
                nest(levels - 1)

    with foreign.reading(tmp_path / "x"):
        for _ in range(3):
            nest(foreign.DEPTH)
        with pytest.raises(InputError, match="nested more deeply"):
            nest(foreign.DEPTH + 1)


def test_time_is_bounded(tmp_path, monkeypatch):
    # A budget begins by the real clock, which has gone on with every test before this one.
    monkeypatch.setattr(foreign.time, "thread_time", itertools.count(time.thread_time(), 20).__next__)

    def read():
        with foreign.reading(tmp_path / "x"):
            for _ in range(1000):
                foreign.spend(items=1)

    with pytest.raises(InputError, match="more than 30 seconds"):
        read()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"a": 1, "a": 2}', "[" + "9" * 100_000 + "]", "{", "", "\ud800", "nul"],
    ids=["deep", "deep objects", "twice", "huge number", "cut", "empty", "surrogate", "word"],
)
def test_json_is_read_once_or_refused(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"x\.json must be intact JSON"):
        foreign.read_json(tmp_path / "x.json")


def test_json_of_too_many_parts_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_bytes(b"[" + b"[]," * foreign.ITEMS + b"[]]")
    monkeypatch.setattr(foreign.json, "loads", None)
    with pytest.raises(InputError, match="more parts"):
        foreign.read_json(tmp_path / "x.json")


def test_names_have_an_end(tmp_path):
    with foreign.reading(tmp_path / "x"):
        assert foreign.checked_name("resnet/conv") == "resnet/conv"
        with pytest.raises(InputError, match="42,000 characters"):
            foreign.checked_name("resnet/" * 6000)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot tell links when it opens files")
def test_links_pipes_and_devices_are_not_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "/dev/zero", "."):
        with pytest.raises(OSError):  # noqa: PT011
            foreign.open_unlinked(tmp_path / name, os.O_RDONLY)
    os.close(foreign.open_unlinked(tmp_path / "secret", os.O_RDWR))
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(InputError, match=r"result\.json must be intact JSON, but is a pipe, socket or device"):
        foreign.read_json(tmp_path / "result.json")
