"""Checkpoints understood: averages, slots, heads, what feeds the classifier, strange weights."""

import contextlib
import dataclasses

import ml_dtypes
import numpy as np
import pytest

from converters.loading import open_source
from converters.names.network import understand
from converters.tensors import Source, Stored
from tests import golden
from tests.converters import networks, official
from tests.converters.networks import SMALL, architecture
from tf_simclr.errors import InputError


def source(tensors: dict[str, np.ndarray], **options) -> Source:
    from pathlib import Path

    stored = {key: Stored(array.shape, array.dtype.name, lambda a=array: a) for key, array in tensors.items()}
    return Source(Path("file"), "test", stored, **options)


def torch_state(network, naming: str = "twin") -> dict[str, np.ndarray]:
    from converters.names.recognise import NAMINGS
    from converters.names.translate import named

    return {key: stored.read() for key, stored in named(network, NAMINGS[naming]).items()}


@pytest.fixture(scope="module")
def small():
    return networks.network(SMALL)


@pytest.fixture(scope="module")
def ema(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ema")
    official.write_tf1(folder, "r50_1x_sk0.ema_style_SYNTHETIC")
    return folder


def test_averages_are_taken_for_trunk_and_projection_head_together(ema):
    raw, averaged = (understand(open_source(ema), ema=choice) for choice in (False, True))
    for name, tf1 in (
        ("stem_conv1/kernel", "base_model/conv2d/kernel"),
        ("proj2_bn/gamma", "head_contrastive/nl_1/batch_normalization/gamma"),
    ):
        np.testing.assert_array_equal(raw[name], golden.fill(tf1, raw.weights[name].shape))
        np.testing.assert_array_equal(averaged[name], golden.fill("ema_model/" + tf1, raw.weights[name].shape))
    np.testing.assert_array_equal(raw["logits_sup/bias"], averaged["logits_sup/bias"])


def test_everything_that_is_not_a_weight_is_listed_with_the_reason(ema):
    network = understand(open_source(ema))
    listed = {key for keys in network.left.values() for key in keys}
    manifest = golden.data("manifests/tf1_training/r50_1x_sk0.ema_style_SYNTHETIC.json")
    assert len(network.weights) + len(listed) == len(manifest)
    assert network.slots == sum(key.endswith("/Momentum") for key in manifest)
    assert network.step == 7


def test_averages_that_are_not_there_are_refused(tmp_path):
    official.write_tf1(tmp_path, "r18_1x_sk0_cifar")
    with pytest.raises(InputError, match=r"must hold moving averages .* has none"):
        understand(open_source(tmp_path), ema=True)


@pytest.mark.parametrize("name", ["pretrain.adam", "finetune_after4.momentum", "finetune_all.lars"])
def test_training_checkpoints_are_read_without_their_slots(tmp_path, name):
    official.write_tf1(tmp_path, f"r18_1x_sk0_cifar.{name}")
    network = understand(open_source(tmp_path))
    assert network.slots > 0
    assert network.architecture.num_classes == (10 if "finetune" in name else 0)
    name, stored = next(iter(network.weights.items()))
    np.testing.assert_array_equal(network[name], golden.fill("base_model/conv2d/kernel", stored.shape))


KERNEL = "head_supervised/linear_layer/dense/kernel"


@pytest.mark.parametrize(("stored", "expected", "inputs"), [(0, 0, 512), (1, 1, 512), ("last", 3, 128)])
def test_selector_is_read_from_the_stored_graph(tmp_path, stored, expected, inputs):
    values = {KERNEL: golden.fill(KERNEL, (inputs, 10))}
    official.write_tf1(tmp_path, "r18_1x_sk0_cifar", selector=stored, values=values)
    network = understand(open_source(tmp_path))
    assert network.architecture.ft_proj_selector == expected
    assert any("by model.ckpt-7.meta" in note for note in network.notes)


def test_without_a_graph_the_assumption_is_said_and_can_be_set(tmp_path):
    official.write_tf1(tmp_path, "r18_1x_sk0_cifar")
    network = understand(open_source(tmp_path))
    assert network.architecture.ft_proj_selector == 0
    assert any("--selector 1" in note for note in network.notes)
    assert understand(open_source(tmp_path), selector=1).architecture.ft_proj_selector == 1
    with pytest.raises(InputError, match="ft_proj_selector must lie in"):
        understand(open_source(tmp_path), selector=4)


def test_hub_modules_and_zips_are_read(tmp_path):
    import shutil

    official.write_tf1(tmp_path / "hub", "r18_1x_sk0_cifar", hub=True)
    (tmp_path / "hub" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    network = understand(open_source(tmp_path / "hub"))
    assert (network.container, network.architecture) == ("TF1 hub module", architecture("r18_1x_sk0_cifar"))
    official.write_tf1(tmp_path / "ResNet", "r18_1x_sk0_cifar")
    shutil.make_archive(str(tmp_path / "ResNet"), "zip", tmp_path, "ResNet")
    network = understand(open_source(tmp_path / "ResNet.zip"))
    assert (network.container, network.step) == ("TF1 checkpoint in a zip", 7)
    network.close()


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_float_types_are_kept(small, dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    state = {key: a.astype(kind) if a.dtype == np.float32 else a for key, a in torch_state(small).items()}
    network = understand(source(state))
    assert {stored.dtype for stored in network.weights.values()} == {dtype}


def test_parts_can_be_chosen(small):
    encoder = understand(source(torch_state(small)), part="encoder")
    assert not [name for name in encoder.weights if name.startswith(("proj", "logits"))]
    assert encoder.architecture == dataclasses.replace(SMALL, proj_head_mode="none", num_proj_layers=0, num_classes=0)
    both = understand(source(torch_state(small)), part="encoder+projection")
    assert both.architecture.num_proj_layers == 2
    assert list(both.left.values()) == [["fc.bias", "fc.weight"]]


def test_missing_classifier_bias_is_an_error(small):
    state = torch_state(small)
    del state["fc.bias"]
    with pytest.raises(InputError, match=r"(?s)whole heads.* \+ fc.weight"):
        understand(source(state))


def test_a_torchvision_resnet_18_is_refused_with_lists(small):
    state = {
        key: a
        for key, a in torch_state(networks.restrict(small, "encoder")).items()
        if "layer1.0.downsample" not in key
    }
    with pytest.raises(InputError, match=r"(?s) - layer1\.0\.downsample\.0\.weight"):
        understand(source(state))


def test_last_bias_of_a_projection_head_must_be_zero():
    network = networks.network(architecture("r50_1x_sk1"))
    state = torch_state(networks.restrict(network, "encoder+projection"), "separius")
    assert understand(source(state)).architecture.num_proj_layers == 3
    with pytest.raises(InputError, match=r"head\.layers\.7\.bias .* must be zero"):
        understand(source(state | {"head.layers.7.bias": np.ones(128, np.float32)}))


def test_library_heads_that_are_built_otherwise_are_left_behind():
    encoder = networks.restrict(networks.network(architecture("r50_1x_v1")), "encoder")
    state = torch_state(encoder, "lightly")
    heads = {
        "projection_head.layers.0.weight": np.zeros((512, 2048), np.float32),
        "projection_head.layers.1.weight": np.ones(512, np.float32),
        "projection_head.layers.1.bias": np.zeros(512, np.float32),
        "projection_head.layers.1.running_mean": np.zeros(512, np.float32),
        "projection_head.layers.1.running_var": np.ones(512, np.float32),
        "projection_head.layers.3.weight": np.zeros((128, 512), np.float32),
    }
    network = understand(source(state | heads))
    assert network.naming == "lightly"
    assert network.architecture == encoder.architecture
    (reason,) = network.left
    assert "built otherwise" in reason
    assert sorted(heads) == network.left[reason]


def test_own_classifier_and_queue_of_moco_are_left_behind():
    encoder = networks.restrict(networks.network(architecture("r50_1x_v1")), "encoder")
    state = {f"state_dict.{key}": a for key, a in torch_state(encoder, "moco").items()}
    extra = {
        key: np.zeros((4, 4), np.float32)
        for key in ("state_dict.module.queue", "state_dict.module.encoder_q.fc.0.weight")
    }
    network = understand(source(state | extra))
    assert (network.naming, network.architecture) == ("moco", encoder.architecture)
    assert network.left == {"no part of this network": sorted(extra)}


def test_run_folders_are_read_at_their_newest_step_or_another(tmp_path, small):
    import json

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "architecture.json").write_text(json.dumps(dataclasses.asdict(SMALL)))
    for step in (10, 20):
        arrays = {f"model/{name}": small[name] + step for name in small.weights}
        arrays["optimizer/iteration"] = np.asarray(step)
        np.savez(tmp_path / "checkpoints" / f"step-{step:08d}.npz", **arrays)
    newest, older = understand(open_source(tmp_path)), understand(open_source(tmp_path, step=10))
    with contextlib.closing(newest), contextlib.closing(older):
        assert (newest.container, newest.step, older.step) == ("run folder", 20, 10)
        assert newest.architecture == SMALL
        np.testing.assert_array_equal(newest["logits_sup/bias"], small["logits_sup/bias"] + 20)
        np.testing.assert_array_equal(older["logits_sup/bias"], small["logits_sup/bias"] + 10)
        assert any("Took step 20; [10] also there" in note for note in newest.notes)
    with pytest.raises(InputError, match=r"--step must be one of \[10, 20\]"):
        open_source(tmp_path, step=15)
