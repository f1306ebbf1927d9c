"""Conversions from end to end, and what is said of them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import converters
from converters import command
from converters.command import report
from converters.names.describe import version
from converters.names.infer import infer
from converters.names.naming import TF1
from converters.names.recognise import NAMINGS
from converters.values import normalised, rescaled
from tests import golden
from tests.converters import networks, official
from tests.converters.networks import SMALL
from tf_simclr.errors import InputError

NAME = "r18_1x_sk0_cifar"


@pytest.fixture(scope="module")
def tf1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official") / "ckpt_dir"
    official.write_tf1(folder, NAME, selector=1)
    return folder


@pytest.fixture(scope="module")
def pth(tf1):
    path = tf1.parent / "small.pth"
    converters.convert(tf1, path)
    return path


def test_converted_official_checkpoint_computes_the_official_endpoints(pth):
    expected = golden.arrays(f"forward/{NAME}.npz")
    twin = converters.load_torch(pth, selector=0)  # the golden logits read the pooled features
    with torch.inference_mode():
        ends = twin(torch.from_numpy(golden.images(2, 32).transpose(0, 3, 1, 2).copy()))
    arrays = {name: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy() for name, x in ends.items()}
    assert networks.largest_error(arrays, expected) < 1e-5


def test_selector_travels_to_torch_and_back(tf1, pth, tmp_path):
    assert int(torch.load(pth, weights_only=True)["ft_proj_selector"]) == 1
    assert converters.load_torch(pth).architecture.ft_proj_selector == 1
    converters.convert(pth, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "flags.json").read_text())["ft_proj_selector"] == 1
    assert converters.load(tmp_path / "back").architecture == converters.load(tf1).architecture


def test_state_dict_loads_strictly_without_running_code(pth):
    from converters.networks.in_torch import TwinResNet

    state = torch.load(pth, weights_only=True)
    twin = TwinResNet(converters.load(pth).architecture)
    assert twin.load_state_dict(state, strict=True)
    kernel = golden.fill("base_model/conv2d/kernel", (3, 3, 3, 64)).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(state["conv1.weight"].numpy(), kernel)


def test_report_says_what_was_done(tf1, tmp_path):
    done = converters.convert(tf1, tmp_path / "out.safetensors")
    text = report(done)
    for part in (
        "TF1 checkpoint in tf1 names, step 7",
        "ResNet-18 1x; no SK, no SE; small-image (CIFAR) stem; nonlinear projection head 512 → 512 → 512 → 128; 10",
        "121 weights, 47.1 MB, float32, twin names",
        "1 tensor: counters (global_step)",
        "projection layer 1, by model.ckpt-7.meta",
        "weights bit-equal; 13 endpoints differ by at most",
        f'converters.load_torch("{tmp_path / "out.safetensors"}")',
    ):
        assert part in text
    assert done.worst.relative < 1e-12


def test_default_is_torch_from_tensorflow_and_tf1_from_torch(tf1, pth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(converters.convert(tf1, verify=False).target) == "ckpt_dir.pth"
    assert str(converters.convert(pth, verify=False).target) == "small.tf1"
    assert (tmp_path / "small.tf1" / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt-0"')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"naming": "torchvision"}, "projects the first shortcut of group 1"),
        ({"naming": "nobody"}, "naming of pth must be one of twin"),
        ({"to": "onnx"}, "format to write must be one of pth"),
        ({"part": "half"}, "part must be one of encoder"),
        ({"ema": True}, "must hold moving averages"),
        ({"step": 3}, "--step must be that of one checkpoint"),
        ({"to": "tf1", "naming": "twin"}, "naming of tf1 must be one of tf1"),
        ({"rescale": -1.0}, "factor must be above 0"),
    ],
)
def test_wrong_choices_are_one_sentence_and_write_nothing(tf1, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        converters.convert(tf1, tmp_path / "out", **({"to": "pth"} | options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "style"),
    [("r50_1x_v1", "SimCLR v1 style"), ("r50_2x_v1", "SimCLR v1 style"), ("r50_1x_sk0", "SimCLRv2 style")],
)
def test_the_release_is_told_by_what_is_stored(name, style):
    """By the names in the official code's own manifests: v1's have no projection head."""
    shapes = {key: tuple(shape) for key, (shape, _) in official.manifest(name).items() if key != "global_step"}
    found = infer(TF1, shapes, what=name)
    assert version(found, container="TF1 checkpoint", has_ema=False).startswith(style)


def test_no_release_is_told_of_a_part_that_was_taken_without_the_heads(tf1, tmp_path):
    """Heads tell it, and these are stored: that they were left is said, not that they are absent."""
    done = converters.convert(tf1, tmp_path / "encoder.pth", part="encoder", verify=False)
    assert "no projection head stored" not in report(done)
    assert "heads, by --part encoder" in report(done)


def test_options_are_one_object_of_which_single_ones_can_be_given_by_name(tf1, tmp_path):
    options = converters.Options(part="encoder", verify=False, naming="twin")
    whole = converters.convert(tf1, tmp_path / "whole.pth", options=options)
    named = converters.convert(tf1, tmp_path / "named.pth", part="encoder", verify=False, naming="twin")
    assert (tmp_path / "whole.pth").read_bytes() == (tmp_path / "named.pth").read_bytes()
    assert (whole.naming, whole.architecture) == ("twin", named.architecture)
    changed = converters.convert(tf1, tmp_path / "changed.pth", options=options, part="all")
    assert changed.architecture.num_classes
    assert not whole.architecture.num_classes
    with pytest.raises(TypeError, match="nonsense"):
        converters.convert(tf1, tmp_path / "x.pth", nonsense=1)
    assert {field.name for field in dataclasses.fields(converters.Options)} <= {
        field.name for field in dataclasses.fields(command.Arguments)
    }


def test_a_file_that_computes_something_else_is_found(tf1, tmp_path, monkeypatch):
    from converters import verification

    true = verification.written_endpoints

    def wrong(*args, **options):
        ends, engine = true(*args, **options)
        return {name: x * (1 + 1e-6) for name, x in ends.items()}, engine

    monkeypatch.setattr(verification, "written_endpoints", wrong)
    with pytest.raises(InputError, match=r"/out\.pth must .* initial_conv differs by 1\.0e-06 .* not put there"):
        converters.convert(tf1, tmp_path / "out.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_weights_is_found(tf1, tmp_path, monkeypatch):
    from converters import writing as targets

    true = targets.named

    def wrong(network, naming, **options):
        tensors = true(network, naming, **options)
        bias = tensors["fc.bias"]
        return tensors | {
            "fc.bias": dataclasses.replace(bias, read=lambda: np.nextafter(bias.read(), np.float32(9)), chunks=None)
        }

    monkeypatch.setattr(targets, "named", wrong)
    (tmp_path / "out.pth").write_text("older")
    with pytest.raises(InputError, match=r"/out\.pth must hold logits_sup/bias bit by bit .* not put there"):
        converters.convert(tf1, tmp_path / "out.pth")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.pth", "older")]


@pytest.mark.parametrize("to", ["tf1", "huggingface"])
def test_a_folder_that_is_not_proven_leaves_the_files_that_were_there(tf1, tmp_path, monkeypatch, to):
    from converters import verification

    nothing = {"initial_conv": np.zeros(1)}, "NumPy"
    monkeypatch.setattr(verification, "written_endpoints", lambda *args, **options: nothing)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint").write_text("older")
    with pytest.raises(InputError, match="not put there"):
        converters.convert(tf1, tmp_path / "out", to=to)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "checkpoint"]


def test_a_folder_may_hold_other_files_which_stay(tf1, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    converters.convert(tf1, tmp_path / "out", to="tf1", verify=False)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert converters.load(tmp_path / "out").step == 7


def test_pytorch_itself_can_be_asked_for_the_proof(tf1, tmp_path, monkeypatch):
    from converters import verification

    asked = []
    true = verification.torch_endpoints
    monkeypatch.setattr(verification, "torch_endpoints", lambda *args: asked.append(args) or true(*args))
    done = converters.convert(tf1, tmp_path / "out.pth", engine="torch")
    assert asked
    assert 0 < done.worst.relative < 1e-12
    with pytest.raises(InputError, match="engine must be one of auto, numpy, torch"):
        converters.convert(tf1, tmp_path / "out.pth", engine="jax")


def test_nan_weights_are_warned_of_and_kept(tmp_path):
    kernel = golden.fill("base_model/conv2d_2/kernel", (3, 3, 64, 64))
    kernel[0, 0, 0, :2] = np.nan, np.inf
    official.write_tf1(tmp_path / "nan", NAME, values={"base_model/conv2d_2/kernel": kernel})
    done = converters.convert(tmp_path / "nan", tmp_path / "nan.pth")
    assert "WARNING: group1_block1_conv1/kernel has 1 NaN, 1 infinite." in done.network.notes


@pytest.mark.parametrize(
    ("source", "target", "to"),
    [
        ("ck", "ck", "tf1"),
        ("ck/model.ckpt-7", "ck", "tf1"),
        ("ck", "ck/model.ckpt-7.index", "pth"),
        ("ck/model.ckpt-7", "ck/model.ckpt-7.data-00000-of-00001", "pth"),
        ("f/a.pth", "f/a.pth", "pth"),
        ("f/a.pth", "f/link.pth", "pth"),
        ("f", "f/a.pth", "pth"),
    ],
)
def test_what_is_read_is_never_replaced(tf1, pth, tmp_path, source, target, to):
    shutil.copytree(tf1, tmp_path / "ck")
    (tmp_path / "f").mkdir()
    shutil.copy(pth, tmp_path / "f" / "a.pth")
    (tmp_path / "f" / "link.pth").symlink_to("a.pth")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"must not be where the source lies, but .* is read; choose another place"):
        converters.convert(tmp_path / source, tmp_path / target, to=to, verify=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "f" / "link.pth").is_symlink()


def test_what_was_written_beside_the_source_is_written_again(tf1, tmp_path):
    shutil.copytree(tf1, tmp_path / "ck")
    for _ in range(2):
        converters.convert(tmp_path / "ck", tmp_path / "ck" / "w.pth", verify=False)
    assert (tmp_path / "ck" / "w.pth").is_file()


@pytest.mark.parametrize("dtype", ["int32", "int8"])
def test_integer_weights_are_cast_and_it_is_said(tmp_path, dtype):
    values = {"head_supervised/linear_layer/dense/bias": np.arange(10).astype(dtype)}
    official.write_tf1(tmp_path / "int", NAME, values=values)
    done = converters.convert(tmp_path / "int", tmp_path / "int.pth")
    assert f"1 tensor of {dtype} cast to float32." in done.network.notes
    assert torch.load(tmp_path / "int.pth", weights_only=True)["fc.bias"].dtype == torch.float32


def test_double_precision_weights_are_kept_by_torch_and_cast_by_keras(tmp_path):
    from converters import writing as targets
    from converters.conversion import watched

    wide = networks.network(SMALL, np.float64)
    targets.write(wide, tmp_path / "wide.pth", to="pth", naming="twin")
    assert torch.load(tmp_path / "wide.pth", weights_only=True)["conv1.weight"].dtype == torch.float64
    cast = watched(wide, float32=True)
    assert cast["stem_conv1/kernel"].dtype == np.float32
    assert f"{len(wide.weights)} tensors of float64 cast to float32." in cast.notes


@pytest.mark.parametrize("factor", [16.8, 1 / 16.8])
def test_rescaling_changes_no_output_but_the_first_convolutions(tf1, tmp_path, factor):
    done = converters.convert(tf1, tmp_path / "scaled.pth", rescale=factor)
    assert done.rescaling.relative < 1e-5
    before, after = converters.load(tf1), converters.load(tmp_path / "scaled.pth")
    for conv in normalised(before.architecture):
        np.testing.assert_allclose(after[f"{conv}/kernel"], before[f"{conv}/kernel"] * factor, rtol=1e-6)


def test_rescaling_that_would_make_a_variance_negative_is_refused():
    network = networks.network(SMALL)
    with pytest.raises(InputError, match=r"factor must be at least 0\.00\d+ for stem_bn1/moving_variance"):
        rescaled(network, 1e-3)["stem_bn1/moving_variance"]


def test_torchvision_pooling_is_reported_with_both_numbers(tmp_path):
    official.write_tf1(tmp_path / "r50", "r50_1x_v1")
    done = converters.convert(tmp_path / "r50", tmp_path / "r50.pth", naming="torchvision")
    assert done.worst.relative < 1e-12
    assert done.torchvision.relative > 0.01
    assert "model.maxpool = converters.networks.in_torch.TensorFlowMaxPool2d()" in report(done)


def test_hub_folder_describes_itself_to_timm_and_to_us(tmp_path):
    official.write_tf1(tmp_path / "r50", "r50_1x_v1")
    converters.convert(tmp_path / "r50", tmp_path / "hub", to="huggingface", verify=False)
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet50", 1000, 2048)
    assert config["pretrained_cfg"]["mean"] == [0.0, 0.0, 0.0]
    assert "ResNet-50 1x" in (tmp_path / "hub" / "README.md").read_text()
    network = converters.load(tmp_path / "hub")
    assert (network.container, network.naming) == ("safetensors file", "torchvision")
    np.testing.assert_array_equal(network["stem_conv1/kernel"], golden.fill("base_model/conv2d/kernel", (7, 7, 3, 64)))


def test_namings_cite_their_origin():
    assert all(naming.origin for naming in NAMINGS.values())
