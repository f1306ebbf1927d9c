"""Tables against the names that projects really have."""

from dataclasses import replace

import numpy as np
import pytest

from converters import layout
from converters.names import naming as namings
from converters.names import pytorch as torch_namings
from converters.names.recognise import NAMINGS, recognise
from tests import golden
from tests.converters.networks import SMALL, TF1_MANIFESTS, TF2_MANIFESTS, architecture
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SHORTCUT = "group1_block1_shortcut_"
LIGHTLY = ("projection_head.layers.3.weight", "online_classifier.classification_head.bias")
R50 = Architecture(50, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=1000)


@pytest.mark.parametrize("name", TF1_MANIFESTS)
def test_tf1_names_are_the_references_in_its_order(name):
    manifest = golden.data(f"manifests/tf1/{name}.json")
    table = namings.TF1.table(architecture(name))
    assert list(table.values()) == [key for key in manifest if key != "global_step"]


@pytest.mark.parametrize("name", TF2_MANIFESTS)
def test_tf2_object_paths_are_the_references(name):
    keys = golden.data(f"manifests/tf2/{name}.json")["checkpoint_key_to_tf1"]
    expected = {tf1: key.removesuffix(SUFFIX) for key, tf1 in keys.items() if ".OPTIMIZER_SLOT" not in key}
    tf1, tf2 = (naming.table(architecture(name)) for naming in (namings.TF1, namings.TF2))
    assert {tf1[hub]: tf2[hub] for hub in tf1} == expected


def test_linear_projection_head_has_the_references_own_name():
    table = namings.TF1.table(Architecture(18, proj_head_mode="linear", num_proj_layers=1))
    assert table["proj1_bn/gamma"] == "head_contrastive/l_0/batch_normalization/gamma"
    assert "proj1_bn/beta" not in table


@pytest.mark.parametrize(
    ("hub", "torchvision", "separius"),
    [
        ("stem_conv1/kernel", "conv1.weight", "resnet.net.0.0.weight"),
        ("stem_bn1/moving_variance", "bn1.running_var", "resnet.net.0.1.0.running_var"),
        (SHORTCUT + "conv/kernel", "layer1.0.downsample.0.weight", "resnet.net.1.blocks.0.projection.shortcut.weight"),
        (SHORTCUT + "bn/beta", "layer1.0.downsample.1.bias", "resnet.net.1.blocks.0.projection.bn.0.bias"),
        ("group3_block6_conv2/kernel", "layer3.5.conv2.weight", "resnet.net.3.blocks.5.net.2.weight"),
        ("group4_block3_bn3/gamma", "layer4.2.bn3.weight", "resnet.net.4.blocks.2.net.5.0.weight"),
        ("logits_sup/bias", "fc.bias", "resnet.fc.bias"),
    ],
)
def test_torch_names_are_the_projects(hub, torchvision, separius):
    assert NAMINGS["torchvision"].table(R50)[hub] == torchvision
    assert NAMINGS["tonylins"].table(R50)[hub] == torchvision
    assert NAMINGS["twin"].table(R50)[hub] == torchvision
    assert NAMINGS["separius"].table(R50)[hub] == separius


@pytest.mark.parametrize(
    ("hub", "separius"),
    [
        ("stem_conv3/kernel", "resnet.net.0.4.weight"),
        ("group2_block1_shortcut_conv/kernel", "resnet.net.2.blocks.0.projection.shortcut.2.weight"),
        ("group2_block1_sk_bn1/gamma", "resnet.net.2.blocks.0.net.2.mixing_conv.1.0.weight"),
        ("group2_block1_conv3/kernel", "resnet.net.2.blocks.0.net.3.weight"),
        ("proj3_bn/gamma", "head.layers.7.weight"),
    ],
)
def test_separius_names_of_selective_kernels(hub, separius):
    assert NAMINGS["separius"].table(architecture("r50_1x_sk1"))[hub] == separius


@pytest.mark.parametrize(
    ("naming", "conv", "projection", "classifier"),
    [
        ("lightly", "backbone.conv1.weight", *LIGHTLY),
        ("lightly-sequential", "backbone.0.weight", *LIGHTLY),
        ("solo-learn", "backbone.conv1.weight", None, "classifier.bias"),
        ("lightning-bolts", "encoder.conv1.weight", None, None),
        ("mmselfsup", "backbone.conv1.weight", "neck.fc1.weight", "head.fc.bias"),
        ("vissl", "trunk._feature_blocks.conv1.weight", None, None),
        ("moco", "module.encoder_q.conv1.weight", None, None),
    ],
)
def test_library_names_are_the_libraries(naming, conv, projection, classifier):
    table = NAMINGS[naming].table(R50)
    assert table["stem_conv1/kernel"] == conv
    assert table.get("proj2_dense/kernel") == projection
    assert table.get("logits_sup/bias") == classifier


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("name", ["r18_1x_sk0", "r50_1x_sk0", "r50_1x_sk1_se", "r152_3x_sk1"])
def test_no_two_weights_share_a_key(naming, name):
    network = architecture(name)
    if NAMINGS[naming].refuses(network) is None:
        keys = list(NAMINGS[naming].table(network).values())
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("naming", "network", "reason"),
    [
        ("torchvision", Architecture(18), "projects the first shortcut of group 1"),
        ("tonylins", Architecture(34), "projects the first shortcut of group 1"),
        ("torchvision", architecture("r50_1x_sk1"), "selective kernels"),
        ("lightly", architecture("r50_1x_sk0_se"), "squeeze-excite"),
        ("separius", architecture("r50_1x_sk0_se"), "squeeze-excite"),
        ("tf2", Architecture(18, proj_head_mode="linear", num_proj_layers=1), "linear projection head"),
        ("torchvision", replace(R50, ft_proj_selector=1), "reads projection layer 1"),
    ],
)
def test_what_a_naming_cannot_hold_is_refused_with_the_reason(naming, network, reason):
    with pytest.raises(InputError, match=reason):
        NAMINGS[naming].check(network)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("outer", ["", "module.", "state_dict.model."])
def test_keys_are_recognised_behind_any_prefix(naming, outer):
    chosen = NAMINGS[naming]
    if chosen.torch or not outer:
        match = recognise([outer + key for key in chosen.table(R50).values()], what="file")
        assert match.naming.table(R50)["stem_conv1/kernel"].endswith(chosen.table(R50)["stem_conv1/kernel"][-12:])
        prefix = match.outer + match.naming.table(R50)["group4_block1_conv1/kernel"]
        assert prefix == outer + chosen.table(R50)["group4_block1_conv1/kernel"]


def test_of_two_momentum_encoders_the_query_encoder_is_taken():
    keys = NAMINGS["torchvision"].table(R50).values()
    match = recognise([f"encoder_{one}.{key}" for key in keys for one in "kq"], what="file")
    assert match.outer + match.naming.table(R50)["stem_conv1/kernel"] == "encoder_q.conv1.weight"


def test_strange_keys_are_refused_with_what_was_tried():
    with pytest.raises(InputError, match=r"keras, tf1, tf2, .*it begins with blocks\.0"):
        recognise(["blocks.0.attn.qkv.weight"], what="vit.pth")


def test_layout_there_and_back_is_the_same_and_contiguous():
    for shape in (
        (7, 7, 3, 64),
        (1, 1, 300, 129),
        (512, 128),
        (64,),
        (3, 3, 130, 257),
        (3, 3, 700, 300),
        (1, 1, 2100, 700),
    ):
        array = np.arange(np.prod(shape)).reshape(shape)
        there = layout.to_layout(array, torch=True)
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
        np.testing.assert_array_equal(there, array.transpose(axes))
        assert there.shape == layout.layout_shape(shape, torch=True)
        assert there.flags.c_contiguous
        np.testing.assert_array_equal(layout.from_layout(there, torch=True), array)
    assert layout.to_layout(np.zeros((7, 7, 3, 64)), torch=True).shape == (64, 3, 7, 7)


def test_every_normalisation_has_a_counter_for_torch_and_the_last_bias_is_zero():
    extras = torch_namings.SEPARIUS.extras(R50)
    assert extras["head.layers.7.num_batches_tracked"] == 0
    assert len(extras) == sum("moving_mean" in hub for hub in torch_namings.SEPARIUS.table(R50))
    assert torch_namings.SEPARIUS.zeros(R50) == {"head.layers.7.bias": 128}
    assert torch_namings.TWIN.zeros(SMALL) == {}
