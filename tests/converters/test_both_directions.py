"""From files that TensorFlow wrote in the official layouts to PyTorch and back, read by TensorFlow again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch

import converters
from converters import inspect
from converters.loading import open_source
from tests import golden
from tests.converters import networks, official
from tests.converters.networks import FORWARD, TF2_MANIFESTS, architecture

SMALLEST = "r18_1x_sk0_cifar"
QUICK_AND_SLOW = [FORWARD[0], *(pytest.param(name, marks=pytest.mark.slow) for name in FORWARD[1:])]


def same_as_formula(network, name: str) -> None:
    """Every weight, bit by bit."""
    expected = networks.network(architecture(name))
    assert network.architecture == expected.architecture
    assert list(network.weights) == list(expected.weights)
    for key in expected.weights:
        np.testing.assert_array_equal(network[key], expected[key], err_msg=key, strict=True)


@pytest.mark.parametrize("name", QUICK_AND_SLOW)
def test_a_golden_network_computes_the_official_numbers_in_torch_and_comes_back_bit_by_bit(tmp_path, name):
    official.write_tf1(tmp_path / "official", name)
    converters.convert(tmp_path / "official", tmp_path / "there.pth", verify=False)

    expected = golden.arrays(f"forward/{name}.npz")
    images = golden.images(2, int(expected["config"][4]), seed=int(expected["config"][7]))
    with torch.inference_mode():
        ends = converters.load_torch(tmp_path / "there.pth")(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    arrays = {key: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy() for key, x in ends.items()}
    assert networks.largest_error(arrays, expected) <= (1e-3 if "r152" in name else 1e-5)

    converters.convert(tmp_path / "there.pth", tmp_path / "back", to="tf1", verify=False)
    theirs, ours = (tf.train.load_checkpoint(str(tmp_path / folder)) for folder in ("official", "back"))
    assert ours.get_variable_to_shape_map() == theirs.get_variable_to_shape_map()
    for key in theirs.get_variable_to_shape_map():
        if key != "global_step":  # PyTorch's file has none
            np.testing.assert_array_equal(ours.get_tensor(key), theirs.get_tensor(key), err_msg=key, strict=True)


@pytest.mark.parametrize(
    "name", [TF2_MANIFESTS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in TF2_MANIFESTS[1:])]
)
@pytest.mark.parametrize("slots", [True, False])
def test_object_checkpoints_are_read_with_and_without_their_optimizer(tmp_path, name, slots):
    official.write_tf2(tmp_path, name, slots=slots)
    network = converters.load(tmp_path)
    same_as_formula(network, name)
    trained = sum(official.SLOT in key for key in official.tf2_manifest(name)["checkpoint_keys"])
    assert (network.slots > 0) == (slots and trained > 0)
    assert network.step == 7


def test_an_official_saved_model_is_read_with_its_selector(tmp_path):
    official.write_saved_model(tmp_path / "saved", SMALLEST, selector=1)
    network = converters.load(tmp_path / "saved")
    assert network.architecture.ft_proj_selector == 1
    assert network.container == "TF2 SavedModel"
    same_as_formula(converters.load(tmp_path / "saved", selector=0), SMALLEST)


def test_a_safetensors_file_says_what_it_holds(tmp_path):
    official.write_tf1(tmp_path / "official", SMALLEST, selector=1)
    path = tmp_path / "weights.safetensors"
    converters.convert(tmp_path / "official", path, verify=False)
    content = path.read_bytes()
    said = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert said["format"] == "pt"
    own = json.loads(said["tf_simclr"])
    assert (own["naming"], own["source"], own["step"]) == ("twin", "TF1 checkpoint", 7)
    assert own["architecture"]["ft_proj_selector"] == 1
    source = open_source(path)
    assert (source.step, source.architecture["depth"]) == (7, 18)


def test_inspect_names_tensors_with_suspicious_values_and_the_scale_of_the_kernels(tmp_path):
    values = official.tf1_values(SMALLEST)
    broken, infinite, empty = (f"base_model/conv2d{end}/kernel" for end in ("", "_1", "_2"))
    values[broken][0, 0, 0, 0], values[infinite][0, 0, 0, :2], values[empty][:] = np.nan, np.inf, 0
    official.write_tf1(tmp_path, SMALLEST, values={key: values[key] for key in (broken, infinite, empty)})
    lines = inspect.describe_network(converters.load(tmp_path))
    found = {text.split(": ")[1] for head, text in lines if head == "Suspicious"}
    assert found == {"1 NaN", "2 infinite", "all zero"}
    assert "16.8×" in dict(lines)["Scale"]


PEAK = """
import resource, sys
import converters.command, converters.conversion, converters.tensorflow.source
if len(sys.argv) > 1:
    converters.conversion.convert(sys.argv[1], sys.argv[2], verify=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows counts memory otherwise")
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_peak_memory_is_at_most_1_3_times_the_weights_written_where_slots_and_averages_are_stored_too(tmp_path, ending):
    official.write_tf1(tmp_path / "official", "r50_1x_sk0.ema_style_SYNTHETIC")
    target = tmp_path / f"weights{ending}"

    def peak(*arguments: Path) -> int:
        command = [sys.executable, "-c", PEAK, *map(str, arguments)]
        return int(subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=True).stdout)

    imports = peak()
    assert peak(tmp_path / "official", target) <= imports + 1.3 * target.stat().st_size
