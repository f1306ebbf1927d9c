"""What `find` finds, says and refuses."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops, multi_device_iterator_ops

from tests import golden
from tf_simclr import replicas
from tf_simclr.errors import InputError
from tf_simclr.frameworks import untuned
from tf_simclr.replicas.find import cluster_of, leave_processors_to_input
from tf_simclr.replicas.fitting import feed

ALONE = {"cluster": {"worker": ["127.0.0.1:1234"]}, "task": {"type": "worker", "index": 0}}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)


def test_auto_takes_one_cpu_where_there_is_nothing_else():
    devices = replicas.find()
    assert devices == replicas.Devices(1, "1 CPU")
    assert (devices.process, devices.chief, devices.collect("x")) == ((0, 1), True, ["x"])


def test_auto_ignores_a_cluster_of_one(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(ALONE))
    assert replicas.find().description == "1 CPU"


@pytest.mark.parametrize(("count", "name"), [(1, "1 CPU"), (2, "2 CPUs"), (4, "4 CPUs")])
def test_mirrored_works_with_any_number_of_devices(count, name):
    devices = replicas.find("mirrored", num_replicas=count)
    assert (devices.count, devices.description) == (count, f"{name}: MirroredStrategy")
    with devices.scope():
        assert replicas.count() == count
    assert replicas.count() == 1


class Doubled(replicas.FitOnReplicas, keras.Model):
    """As small a model as can be trained on replicas."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, x):
        return self.layer(x)


@pytest.mark.parametrize("count", [1, 2])
def test_no_iterator_of_a_training_has_the_thread_that_tunes_it(count, monkeypatch):
    """Whoever drops an iterator waits for that thread, a minute at worst, for each of the devices."""
    made, original = [], iterator_ops.OwnedIterator._create_iterator

    def noted(self, dataset):
        made.append(dataset.options().autotune.enabled)
        return original(self, dataset)

    monkeypatch.setattr(iterator_ops.OwnedIterator, "_create_iterator", noted)
    devices = replicas.find("mirrored", num_replicas=count)
    with devices.scope():
        model = Doubled()
        model.compile("sgd", "mse")
    data = untuned(tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1)))).repeat())
    devices.fit(model, data.skip, steps_per_epoch=2, verbose=0)
    assert set(made) == {False}
    assert len(made) >= count
    tuned = multi_device_iterator_ops._create_device_dataset
    assert tuned.__module__ == multi_device_iterator_ops.__name__  # what was put in its place is gone


def test_several_devices_without_a_strategy_named_mean_mirrored():
    assert replicas.find(num_replicas=2).description == "2 CPUs: MirroredStrategy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "parallel"}, "strategy must be one of auto, one, mirrored"),
        ({"strategy": "mirrored", "num_replicas": 9}, "num_replicas must be at most the number of CPUs"),
        ({"strategy": "mirrored", "num_replicas": -1}, "num_replicas must be at least 0"),
        ({"strategy": "one", "num_replicas": 2}, "num_replicas must be left out with strategy one"),
        ({"strategy": "data_parallel"}, "data_parallel must be run with KERAS_BACKEND=jax"),
        ({"strategy": "multi_worker"}, "TF_CONFIG must have the form .* Received: nothing"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        replicas.find(**options)


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker", "tpu"])
def test_strategies_of_tensorflow_are_refused_on_jax(monkeypatch, strategy):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"strategy must be auto, one or .*KERAS_BACKEND='jax'"):
        replicas.find(strategy)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0.5}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}',
        '{"cluster": {"worker": ["a:99999", "b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:²", "b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "multi_worker"])
def test_a_malformed_tf_config_is_refused_with_the_form_that_it_must_have(monkeypatch, text, strategy):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=r"TF_CONFIG must .*Received: "):
        replicas.find(strategy)


def test_a_chief_is_the_first_process():
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    for job, index, number in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        text = json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
        assert cluster_of(text) == (["c:1", "a:1", "b:1"], number)


def test_a_chief_alone_is_alone(monkeypatch):
    alone = {"cluster": {"chief": ["127.0.0.1:0"]}, "environment": "cloud", "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(alone).replace(":0", ":2222"))  # as Vertex AI has it
    assert replicas.find().description == "1 CPU"


def test_without_a_tpu_the_message_tells_what_was_tried():
    with pytest.raises(InputError) as caught:
        replicas.find("tpu")
    assert re.search(
        r"Tried: TPU_NAME, COLAB_TPU_ADDR .*: Please provide a TPU Name.*; local: TPUs not", str(caught.value)
    )
    assert "KERAS_BACKEND=jax" in str(caught.value)


@pytest.mark.parametrize(("backend", "threads"), [("tensorflow", 0), ("torch", 1)])
def test_where_something_else_trains_an_operation_of_the_input_has_one_thread(backend, threads):
    found = f"""
import keras, tensorflow as tf
from tf_simclr import replicas
keras.backend.backend = lambda: {backend!r}
replicas.find()
print(tf.config.threading.get_intra_op_parallelism_threads())
"""
    done = subprocess.run([sys.executable, "-c", found], cwd=golden.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(threads)  # 0: as many as there are cores


def test_leaving_the_processors_to_the_input_comes_too_late_without_harm():
    tf.zeros(1)
    leave_processors_to_input()


@pytest.fixture
def tpu(monkeypatch):
    """A TPU of two cores that is not there: notes how it is reached."""
    calls = []

    def resolver(**given):
        calls.append(given)
        return SimpleNamespace(master=lambda: "grpc://10.0.0.2:8470")

    def strategy(_):
        made = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
        monkeypatch.setattr(type(made.extended), "num_hosts", 1, raising=False)
        return made

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", lambda _: calls.append("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", lambda _: calls.append("initialise"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", strategy)
    return calls


def test_a_tpu_is_resolved_connected_and_initialised_as_the_reference_does(tpu):
    devices = replicas.find("tpu", tpu_name="mine", zone="europe-west4-a", project=None)
    assert tpu == [{"tpu": "mine", "zone": "europe-west4-a"}, "connect", "initialise"]
    assert devices.description == "TPU grpc://10.0.0.2:8470: 2 cores, 1 host: TPUStrategy"
    assert devices.jit_compile(True) is False  # its program is compiled as a whole


@pytest.mark.parametrize("name", ["TPU_NAME", "COLAB_TPU_ADDR"])
def test_auto_takes_the_tpu_that_the_environment_names(tpu, monkeypatch, name):
    monkeypatch.setenv(name, "10.0.0.2:8470")
    assert replicas.find().description.startswith("TPU")
    assert tpu[0] == {}  # TensorFlow reads the environment itself


def test_a_batch_that_the_replicas_cannot_divide_is_refused():
    devices = replicas.Devices(4, "4 GPUs: MirroredStrategy")
    devices.check_batch(8)
    message = r"multiple of the number of replicas \(4 GPUs: MirroredStrategy\). Received: train_batch_size=6"
    with pytest.raises(InputError, match=message):
        devices.check_batch(6)


def test_xla_is_refused_where_tensorflow_cannot_compile():
    one, two = replicas.Devices(), replicas.Devices(2, "2 GPUs: MirroredStrategy")
    assert (one.jit_compile(None), one.jit_compile(True), one.jit_compile(False)) == ("auto", True, False)
    assert (two.jit_compile(None), two.jit_compile(False)) == (False, False)
    with pytest.raises(InputError, match="jit_compile must be None or False with several TensorFlow replicas"):
        two.jit_compile(True)


def test_processes_that_disagree_are_named_with_what_they_have(monkeypatch):
    devices = replicas.Devices()
    monkeypatch.setattr(replicas.Devices, "collect", lambda _, value: [value, {"seed": 1, "depth": 18}])
    with pytest.raises(InputError, match=r"options must be the same for every worker, but worker 0 has {'seed': 0}; "):
        devices.agree("the options", {"seed": 0, "depth": 18})


@pytest.mark.parametrize("processes", [1, 2])
def test_a_lost_worker_becomes_a_message_only_where_there_are_several(monkeypatch, processes):
    monkeypatch.setattr(replicas.Devices, "process", (0, processes))
    expected = InputError if processes > 1 else tf.errors.UnavailableError
    message = "start all of them again" if processes > 1 else "gone"
    with pytest.raises(expected, match=message), replicas.Devices().together():
        raise tf.errors.UnavailableError(None, None, "gone\nwith details")


def test_a_replica_gets_its_rows_of_the_global_batch():
    devices = replicas.find("mirrored", num_replicas=4)
    data = tf.data.Dataset.range(8).batch(8, drop_remainder=True).repeat()
    for batch, _ in zip(feed(devices.strategy, lambda step: data, step=0), range(2), strict=False):
        rows = [part.numpy().tolist() for part in devices.strategy.experimental_local_results(batch)]
        assert rows == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(InputError, match="must have one known size"):
        feed(devices.strategy, lambda step: data.unbatch().batch(8), step=0)
    np.testing.assert_array_equal(next(iter(feed(None, lambda step: data, step=0))), np.arange(8))
