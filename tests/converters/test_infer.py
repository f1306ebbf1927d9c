"""The architecture from names and shapes alone."""

import dataclasses

import pytest

from converters.names.infer import expected_shapes, infer
from converters.names.recognise import NAMINGS
from tests.converters.networks import SMALL, TF1_MANIFESTS, architecture
from tf_simclr.errors import InputError


@pytest.mark.parametrize("naming", ["keras", "tf1", "tf2", "twin", "separius", "torchvision", "mmselfsup"])
@pytest.mark.parametrize("name", TF1_MANIFESTS)
def test_every_official_architecture_is_found(name, naming):
    network, chosen = architecture(name), NAMINGS[naming]
    if chosen.refuses(network) is None:
        if naming == "torchvision":
            network = dataclasses.replace(network, proj_head_mode="none", num_proj_layers=0)
        assert infer(chosen, expected_shapes(chosen, network), what="file") == network


@pytest.mark.parametrize("ratios", [{"sk_ratio": 0.25}, {"se_ratio": 0.25}, {"sk_ratio": 0.125, "se_ratio": 0.5}])
def test_other_ratios_are_found(ratios):
    network = dataclasses.replace(architecture("r50_2x_v1"), **ratios)
    assert infer(NAMINGS["tf1"], expected_shapes(NAMINGS["tf1"], network), what="file") == network


def test_classifier_on_the_last_projection_layer_is_told_by_its_shape():
    network = dataclasses.replace(SMALL, ft_proj_selector=2)
    assert infer(NAMINGS["tf1"], expected_shapes(NAMINGS["tf1"], network), what="file") == network


def test_partial_weights_are_listed():
    shapes = expected_shapes(NAMINGS["tf1"], SMALL)
    del shapes["base_model/conv2d_3/kernel"]
    shapes["base_model/conv2d_99/kernel"] = (1, 1, 2, 3)
    shapes["base_model/conv2d_4/kernel"] = (5, 5, 64, 64)
    with pytest.raises(InputError) as error:
        infer(NAMINGS["tf1"], shapes, what="folder")
    lines = str(error.value).splitlines()
    assert "nearest is depth=18 width=1" in lines[0]
    assert lines[1:] == [
        " - base_model/conv2d_3/kernel",
        " + base_model/conv2d_99/kernel",
        " ≠ base_model/conv2d_4/kernel: expected (3, 3, 64, 64), found (5, 5, 64, 64)",
    ]


def test_long_lists_end_in_a_count():
    shapes = expected_shapes(NAMINGS["tf1"], architecture("r50_1x_v1"))
    half = {key: shape for i, (key, shape) in enumerate(shapes.items()) if i % 2 or not key.startswith("base")}
    with pytest.raises(InputError) as error:
        infer(NAMINGS["tf1"], half, what="folder")
    assert str(error.value).splitlines()[-1].startswith(" … and ")
    assert len(str(error.value).splitlines()) == 22


def test_torchvisions_own_small_resnets_are_refused_with_the_reason():
    shapes = expected_shapes(NAMINGS["tonylins"], dataclasses.replace(SMALL, proj_head_mode="none", num_proj_layers=0))
    own = {key: shape for key, shape in shapes.items() if not key.startswith("layer1.0.downsample.")}
    with pytest.raises(InputError, match=r"as torchvision's own ResNet-18 and 34 do not"):
        infer(NAMINGS["tonylins"], own, what="resnet18.pth")
