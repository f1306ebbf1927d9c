import math

import keras
import numpy as np
import pytest

from converters.names.walk import weights
from tests import golden
from tests.models import formula
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.resnet import resnet

SLOW = {"r34_1x_sk0", "r50_2x_sk0", "r101_1x_sk1", "r152_1x_sk0", "r50_1x_sk0_se", "r50_1x_sk1"}


def case(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name


def largest_difference(outputs, stored, key):
    """Of one endpoint, relative to its largest magnitude, and the shapes' agreement."""
    if key in stored:
        return abs(outputs[key] - stored[key]).max() / abs(stored[key]).max()
    assert outputs[key].shape == tuple(stored[f"{key}/shape"])
    expected = stored[f"{key}/sample"]
    return abs(golden.sample(outputs[key]) - expected).max() / abs(expected).max()


@pytest.mark.parametrize("name", [case(name) for name in formula.FORWARD])
def test_every_endpoint_equals_the_reference(name):
    stored = golden.arrays(f"forward/{name}.npz")
    architecture = formula.architecture(name)
    model = network.build(architecture)
    formula.fill(model, architecture)
    size, seed = int(stored["config"][4]), int(stored["config"][-1])
    outputs = {key: value.numpy() for key, value in model(golden.images(2, size, seed), training=False).items()}
    endpoints = {key.split("/")[0] for key in stored} - {"config", "tf1_tf2_max_abs_diff", "tf1_tf2_keys"}
    assert len(endpoints) == (8 if name.endswith("v1") else 11)
    differences = {key: largest_difference(outputs, stored, key) for key in endpoints}
    assert max(differences.values()) <= (1e-3 if architecture.depth == 152 else 1e-4), differences


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (40, 64), (64, 96)])
@pytest.mark.parametrize("sk_ratio", [0.0, 0.0625])
def test_one_network_takes_any_size(size, sk_ratio):
    model = resnet(50, sk_ratio=sk_ratio)
    out = model(np.random.default_rng(0).uniform(size=(1, *size, 3)).astype("float32"))
    assert out.shape == (1, 2048)
    assert np.isfinite(out).all()


PUBLISHED = [(50, 1, 0, 24), (50, 1, 1, 35), (50, 2, 0, 94), (50, 2, 1, 140), (101, 1, 1, 65), (101, 2, 0, 170),
             (152, 1, 0, 58), (152, 3, 1, 795)]  # fmt: skip


@pytest.mark.parametrize(("depth", "width", "sk", "millions"), PUBLISHED)
def test_encoders_have_the_published_number_of_parameters(depth, width, sk, millions):
    """SimCLRv2, Table 1, which leaves the heads out."""
    shapes = weights(Architecture(depth, width, 0.0625 * sk))
    assert round(sum(math.prod(s) for name, s in shapes.items() if "moving" not in name) / 1e6) == millions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 42}, "depth must be one of 18, 34, 50, 101, 152, 200. Received: depth=42"),
        ({"width": 1.5}, "width must be the integer 1, 2, 3 or 4. Received: width=1.5"),
        ({"width": 0}, "width must be"),
        ({"sk_ratio": -0.1}, "sk_ratio must lie in"),
        ({"depth": 18, "sk_ratio": 0.0625}, "sk_ratio must be 0 for depth 18 and 34"),
    ],
)
def test_an_impossible_encoder_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        resnet(**{"depth": 50, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proj_head_mode": "deep"}, "proj_head_mode must be none, linear or nonlinear"),
        ({"num_proj_layers": 2}, "num_proj_layers does not fit proj_head_mode=none. Received: num_proj_layers=2"),
        ({"proj_head_mode": "linear", "num_proj_layers": 2}, "does not fit proj_head_mode=linear"),
        ({"ft_proj_selector": 1}, r"ft_proj_selector must lie in 0..0. Received: ft_proj_selector=1"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
    ],
)
def test_an_impossible_head_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Architecture(**change)


def test_the_classifier_reads_the_selected_projection_layer():
    heads = {"proj_head_mode": "nonlinear", "num_proj_layers": 3, "num_classes": 7}
    images = golden.images(2, 32)
    for selector in range(4):
        architecture = Architecture(18, cifar_stem=True, **heads, ft_proj_selector=selector)
        model = network.build(architecture)
        formula.fill(model, architecture)
        out = model(images)
        kernel, bias = (network.weights_by_name(model)[f"logits_sup/{name}"] for name in ("kernel", "bias"))
        source = out["final_avg_pool" if selector == 0 else f"proj_{selector}"]
        np.testing.assert_allclose(out["logits_sup"], source.numpy() @ kernel.numpy() + bias.numpy(), atol=1e-4)


def test_a_fresh_block_is_the_identity():
    """The last BatchNorm of each branch starts at zero (SimCLRv2's code; arXiv:1706.02677)."""
    model = resnet(18, cifar_stem=True)
    gammas = [w for name, w in network.weights_by_name(model).items() if name.endswith("bn2/gamma")]
    assert len(gammas) == 8
    assert all((g.numpy() == 0).all() for g in gammas)


def test_a_saved_network_gives_the_same_outputs(tmp_path):
    architecture = Architecture(50, sk_ratio=0.0625, se_ratio=0.0625, proj_head_mode="linear", num_proj_layers=1)
    model = network.build(architecture)
    formula.fill(model, architecture)
    model.save(tmp_path / "network.keras")
    images = golden.images(1, 32)
    again = keras.saving.load_model(tmp_path / "network.keras")(images)
    for name, value in model(images).items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
