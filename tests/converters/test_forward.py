"""The PyTorch twin and the NumPy reference against what the official code computed, and against each other."""

import itertools

import numpy as np
import pytest
import torch

from converters import verification
from converters.networks.in_torch import TensorFlowMaxPool2d, build_twin, shortcut_pool
from tests import golden
from tests.converters import networks
from tests.converters.networks import FORWARD, SMALL, architecture

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FORWARD[1:]]
FORWARDS = {"torch": verification.torch_endpoints, "numpy": verification.numpy_endpoints}


@pytest.mark.parametrize("engine", FORWARDS)
@pytest.mark.parametrize("name", [FORWARD[0], *SLOW])
def test_every_endpoint_equals_the_official_codes(name, engine):
    expected = golden.arrays(f"forward/{name}.npz")
    inputs = golden.images(2, int(expected["config"][4]), seed=int(expected["config"][7]))
    ends = FORWARDS[engine](networks.network(architecture(name)), inputs)
    # Goldens' README, Section 3: depth 152 amplifies rounding.
    assert networks.largest_error(ends, expected) <= (1e-3 if "r152" in name else 1e-5)


BLOCKS = ["r18_1x_sk0_se", "r50_1x_sk1_se", "r34_1x_sk0", "r50_1x_sk1_cifar"]


@pytest.mark.parametrize("name", ["r18_1x_sk0_cifar", *(pytest.param(n, marks=pytest.mark.slow) for n in BLOCKS)])
@pytest.mark.parametrize("size", [32, 47])
def test_torch_and_numpy_agree_in_double_precision(name, size):
    network = networks.network(architecture(name))
    inputs = np.random.RandomState(1).uniform(0, 1, (2, size, size + 9, 3))
    ours, theirs = (forward(network, inputs) for forward in FORWARDS.values())
    assert ours.keys() == theirs.keys()
    assert max(d.relative for d in verification.compare(ours, theirs)) < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["r18_1x_sk0_cifar", *(pytest.param(n, marks=pytest.mark.slow) for n in BLOCKS)])
def test_keras_and_numpy_agree_in_double_precision(name):
    network = networks.network(architecture(name))
    inputs = verification.images(network.architecture, "float64")
    found = verification.compare(
        verification.numpy_endpoints(network, inputs), verification.keras_endpoints(network, inputs)
    )
    assert len(found) == 13
    assert max(d.relative for d in found) < 1e-10


@pytest.mark.parametrize("selector", [0, 1, 2])
def test_classifier_reads_the_selected_projection_layer(selector):
    import dataclasses

    network = networks.network(dataclasses.replace(SMALL, ft_proj_selector=selector))
    inputs = verification.images(SMALL, "float64")
    ends = [forward(network, inputs) for forward in FORWARDS.values()]
    kernel, bias = network["logits_sup/kernel"], network["logits_sup/bias"]
    for end in ends:
        fed = end["final_avg_pool"] if selector == 0 else end[f"proj_{selector}"]
        np.testing.assert_allclose(end["logits_sup"], fed @ kernel.astype("float64") + bias, rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (6, 3), (1, 2)])
def test_max_pool_is_tensorflows(shape):
    x = np.random.RandomState(0).standard_normal((2, *shape, 3))
    got = TensorFlowMaxPool2d()(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(got, pooled(x, size=3, stride=2, count=lambda window: window.max((0, 1))))


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (2, 3)])
def test_shortcut_pool_with_stride_1_leaves_padding_out_of_the_mean(shape):
    x = np.random.RandomState(0).standard_normal((2, *shape, 3))
    got = shortcut_pool(torch.from_numpy(x.transpose(0, 3, 1, 2)), 1).numpy().transpose(0, 2, 3, 1)
    expected = pooled(x, size=2, stride=1, count=lambda window: window.mean((0, 1)))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (5, 7)])
def test_shortcut_pool_with_stride_2_counts_padding(shape):
    x = np.random.RandomState(0).standard_normal((2, *shape, 3))
    got = shortcut_pool(torch.from_numpy(x.transpose(0, 3, 1, 2)), 2).numpy().transpose(0, 2, 3, 1)
    # docs/official-code.md#resnet-d-average-pool: one zero row and column at the end, then windows of four.
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    rows, columns = (n // 2 for n in padded.shape[1:3])
    for i, j in itertools.product(range(rows), range(columns)):
        np.testing.assert_allclose(
            got[:, i, j], padded[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)), rtol=1e-12
        )


def pooled(x, *, size, stride, count):
    """TensorFlow's SAME pooling, window by window, where padding does not count."""
    height, width = (-(-n // stride) for n in x.shape[1:3])
    before = [max((out - 1) * stride + size - n, 0) // 2 for out, n in zip((height, width), x.shape[1:3], strict=True)]
    out = np.empty((len(x), height, width, x.shape[3]))
    for n, i, j in itertools.product(range(len(x)), range(height), range(width)):
        top, left = i * stride - before[0], j * stride - before[1]
        window = x[n, max(top, 0) : top + size, max(left, 0) : left + size]
        out[n, i, j] = count(window)
    return out


def test_state_dict_is_the_twin_namings_table():
    from converters.names.recognise import NAMINGS

    twin, naming = build_twin(networks.network(SMALL)), NAMINGS["twin"]
    assert set(twin.state_dict()) == set(naming.table(SMALL).values()) | set(naming.extras(SMALL))


def test_twin_trains():
    twin = build_twin(networks.network(SMALL)).train()
    ends = twin(torch.rand(4, 3, 32, 32))
    (ends["proj_head_output"].square().mean() + ends["logits_sup"].square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in twin.parameters())
