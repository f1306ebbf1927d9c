"""Runs before any test: quiet TensorFlow, four logical CPUs, a cache of its own, and float64 where it is asked for."""

import atexit
import gc
import os
import shutil
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "TF_SIMCLR_CACHE" not in os.environ:  # what is kept for later stays out of the developer's home
    os.environ["TF_SIMCLR_CACHE"] = tempfile.mkdtemp(prefix="tf_simclr_cache_")
    atexit.register(shutil.rmtree, os.environ["TF_SIMCLR_CACHE"], ignore_errors=True)

import keras
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops

from tf_simclr.frameworks import untuned

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


_made = iterator_ops.OwnedIterator._create_iterator


def _untuned(self, dataset):
    """Makes an iterator of Keras' or of a test's own as the product makes its own (`untuned`)."""
    return _made(self, dataset if dataset.options().autotune.enabled is not None else untuned(dataset))


iterator_ops.OwnedIterator._create_iterator = _untuned


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def pytest_collection_finish():
    """What was imported stays: it need not be looked through with each collection of garbage."""
    gc.collect()
    gc.freeze()


LONG = 10.0
"""Seconds of a test after which its garbage is collected."""


@pytest.fixture(autouse=True)
def collected():
    """Collects what a long test leaves behind, soon."""
    begin = time.monotonic()
    yield
    if time.monotonic() - begin > LONG:
        gc.collect()


@pytest.fixture
def float64():
    """Keras in double precision, where parity is far sharper than in single."""
    for name in ("float64", "float32"):
        keras.config.set_floatx(name)
        keras.config.set_dtype_policy(name)
        if name == "float64":
            yield
