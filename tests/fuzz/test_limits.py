"""The budget refuses what no checkpoint is, and nothing that one is; other files stay closed."""

import contextlib
import ctypes
import os
import sys
import time

import numpy as np
import pytest

import converters
from converters.loading import open_source
from converters.tensorflow.bundle import write_bundle
from tests.fuzz import hostile
from tf_simclr.errors import InputError
from tf_simclr.foreign.wire import encode


def test_a_checkpoint_of_twice_the_tensors_of_the_largest_with_slots_and_averages_is_opened(tmp_path):
    names = [f"base_model/batch_normalization_{i}/moving_variance/ExponentialMovingAverage" for i in range(8000)]
    write_bundle(tmp_path / "model.ckpt-1", [(name, np.float32(1)) for name in names])
    with contextlib.closing(open_source(tmp_path / "model.ckpt-1")) as source:
        assert len(source.tensors) == 8000


def test_the_graph_of_a_large_training_is_read(tmp_path):
    """60,000 nodes of nine fields, as a ResNet-152's with its gradients and optimizer."""
    write_bundle(tmp_path / "model.ckpt-1", [("a", np.float32(1))])
    attributes = b"".join(encode(5, encode(1, f"attribute{i}") + encode(2, b"\x30\x01")) for i in range(4))
    nodes = b"".join(
        encode(
            1, encode(1, f"resnet/block/op_{i}") + encode(2, "Mul") + encode(3, "a") * 3 + encode(4, "TPU") + attributes
        )
        for i in range(60_000)
    )
    (tmp_path / "model.ckpt-1.meta").write_bytes(encode(2, nodes))
    begin = time.process_time()
    open_source(tmp_path / "model.ckpt-1").close()
    assert time.process_time() - begin < 20


IN_OPEN = 0x20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who opens a file")
@pytest.mark.parametrize("kind", ["h5", "keras"])
@pytest.mark.parametrize("name", hostile.ELSEWHERE)
def test_no_file_of_weights_has_another_file_opened(tmp_path, kind, name):
    path = hostile.CASES[f"{kind}-{name}"](tmp_path)
    others = [one for one in tmp_path.iterdir() if one.name.startswith("secret")]
    library = ctypes.CDLL(None, use_errno=True)
    watch = library.inotify_init1(os.O_NONBLOCK)
    try:
        for other in others:
            assert library.inotify_add_watch(watch, os.fsencode(other), IN_OPEN) > 0
        with pytest.raises(InputError):
            converters.load(path)
        with contextlib.suppress(BlockingIOError):
            assert not os.read(watch, 4096), "another file was opened"
        for other in others:
            other.read_bytes()
            assert os.read(watch, 4096), "the watch must see what is opened"
    finally:
        os.close(watch)
