"""Files with several networks, with names that wrappers changed, with tensors that do not matter, and near misses."""

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

import converters
from converters import inspect
from converters.names.candidates import candidates, unwrapped
from converters.names.network import understand
from converters.tensors import Source, Stored
from tests import golden
from tests.converters import networks, official
from tests.converters.test_network import torch_state
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture

ENCODER = Architecture(18, cifar_stem=True)
STATE = torch_state(networks.network(ENCODER))
OTHER = STATE | {"conv1.weight": STATE["conv1.weight"] + 1}
CLASSIFIER = {"fc.weight": np.ones((10, 512), np.float32), "fc.bias": np.zeros(10, np.float32)}


def source(tensors: dict[str, np.ndarray], **options) -> Source:
    stored = {key: Stored(array.shape, array.dtype.name, lambda a=array: a) for key, array in tensors.items()}
    return Source(Path("x.pth"), "PyTorch file", stored, **options)


def below(prefix: str, state=STATE) -> dict[str, np.ndarray]:
    return {prefix + key: array for key, array in state.items()}


def stem(network) -> np.ndarray:
    """The first kernel in PyTorch's layout: it tells the networks here apart."""
    return network["stem_conv1/kernel"].transpose(3, 2, 0, 1)


TRAINED_AND_AVERAGE = [
    ("model.", "ema."),
    ("model_state_dict.", "ema."),
    ("model.", "ema_model.module."),
    ("model.", "model_ema."),
    ("state_dict.", "state_dict_ema."),
    ("state_dict.model.", "state_dict.ema_model."),
    ("state_dict.backbone.", "state_dict.ema_backbone."),
    ("state_dict.backbone.", "state_dict.backbone_ema."),
    ("state_dict.model.", "state_dict.averaged_model."),
    ("model.", "swa_model.module."),
    ("", "ema."),
    ("", "ema.ema_model."),
    ("net.", "emaNet."),
    ("a.b.c.model.", "a.b.c.model_ema.module."),
]
TRAINED_AND_FOLLOWER = [
    ("fast_encoder.", "slow_encoder."),
    ("student.", "teacher."),
    ("student.module.backbone.", "teacher.backbone."),
    ("model.student.", "model.teacher."),
    ("online_encoder.net.", "target_encoder.net."),
    ("online_network_state_dict.", "target_network_state_dict."),
    ("module.encoder_q.", "module.encoder_k."),
    ("state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."),
    ("backbone.", "momentum_backbone."),
    ("backbone.", "backbone_momentum."),
    ("encoder.", "key_encoder."),
    ("", "teacher."),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("trained", "other"), TRAINED_AND_AVERAGE + TRAINED_AND_FOLLOWER)
def test_of_several_networks_the_trained_one_is_taken_and_the_others_are_told(trained, other, reverse):
    parts = [below(trained), below(other, OTHER)]
    tensors = {key: value for part in (reversed(parts) if reverse else parts) for key, value in part.items()}
    network = understand(source(tensors))
    np.testing.assert_array_equal(stem(network), STATE["conv1.weight"])
    (note,) = (note for note in network.notes if "networks" in note)
    assert note.startswith(f"Holds 2 networks: {trained or '(no prefix)'} was taken; also there: {other}")
    assert "same shapes, other values (from conv1.weight on)" in note
    average = (trained, other) in TRAINED_AND_AVERAGE
    assert network.has_ema == average
    assert ("--ema)" in note) == average
    assert sum(len(keys) for keys in network.left.values()) == sum("batches" not in key for key in parts[1])
    chosen = understand(source(tensors), source_part=other)
    np.testing.assert_array_equal(stem(chosen), OTHER["conv1.weight"])
    assert chosen.ema == average
    np.testing.assert_array_equal(stem(understand(source(tensors), source_part=trained)), STATE["conv1.weight"])
    if average:
        averaged = understand(source(tensors), ema=True)
        np.testing.assert_array_equal(stem(averaged), OTHER["conv1.weight"])
    else:
        with pytest.raises(InputError, match=r"must hold moving averages .* has none; it holds "):
            understand(source(tensors), ema=True)


def test_pytorchs_averaged_model_is_told_by_its_counter():
    tensors = below("model.") | below("swa.module.", OTHER) | {"swa.n_averaged": np.asarray(3)}
    tensors = {key.replace("swa.", "second."): value for key, value in tensors.items()}
    assert stem(understand(source(tensors)))[0, 0, 0, 0] == STATE["conv1.weight"][0, 0, 0, 0]
    assert understand(source(tensors), ema=True).ema
    alone = understand(source(below("module.") | {"n_averaged": np.asarray(3)}))
    assert alone.ema
    assert any("These are moving averages" in note for note in alone.notes)


def test_lightnings_weight_averaging_puts_the_average_at_the_usual_place():
    tensors = below("state_dict.model.", OTHER) | below("current_model_state.model.")
    tensors["averaging_state.n_averaged"] = np.asarray(3)
    np.testing.assert_array_equal(stem(understand(source(tensors))), STATE["conv1.weight"])
    np.testing.assert_array_equal(stem(understand(source(tensors), ema=True)), OTHER["conv1.weight"])


def test_tensorflows_exponential_moving_averages_stand_behind_the_names(tmp_path):
    values = official.tf1_values("r18_1x_sk0_cifar")
    trained = [key for key in values if key.startswith("base_model/") and "moving_" not in key]
    shadows = {f"{key}/ExponentialMovingAverage": values[key] + 1 for key in trained}
    official.save(tmp_path / "model.ckpt-7", values | shadows)
    raw, averaged = (converters.load(tmp_path / "model.ckpt-7", ema=ema) for ema in (False, True))
    assert raw.has_ema
    assert not raw.ema
    assert averaged.ema
    assert raw.architecture == averaged.architecture
    np.testing.assert_array_equal(raw["stem_conv1/kernel"], values["base_model/conv2d/kernel"])
    np.testing.assert_array_equal(averaged["stem_conv1/kernel"], values["base_model/conv2d/kernel"] + 1)
    for name in ("stem_bn1/moving_mean", "logits_sup/bias", "proj1_dense/kernel"):
        np.testing.assert_array_equal(raw[name], averaged[name])
    assert sorted(raw.left["moving averages (--ema takes these instead)"]) == sorted(shadows)


def test_mmengines_averages_are_swapped_with_the_trained_weights():
    tensors = below("state_dict.backbone.", OTHER) | below("ema_state_dict.module.backbone.")
    tensors["ema_state_dict.steps"] = np.asarray(3)
    np.testing.assert_array_equal(stem(understand(source(tensors, writer="mmengine"))), STATE["conv1.weight"])
    np.testing.assert_array_equal(stem(understand(source(tensors, writer="mmengine"), ema=True)), OTHER["conv1.weight"])


def test_without_a_clear_default_the_choices_are_listed():
    tensors = below("encoder_rgb.") | below("encoder_depth.", OTHER)
    with pytest.raises(InputError) as error:
        understand(source(tensors))
    text = str(error.value)
    assert "x.pth must hold one network that is clearly meant, but holds encoder_depth., encoder_rgb." in text
    assert "same shapes, other values (from conv1.weight on)" in text
    assert "--source_part encoder_depth" in text
    assert "source_part=" in text
    for part, state in (("encoder_rgb", STATE), ("encoder_depth.", OTHER)):
        np.testing.assert_array_equal(stem(understand(source(tensors), source_part=part)), state["conv1.weight"])


def test_equal_networks_need_no_choice_and_it_is_said():
    network = understand(source(below("first.") | below("second.")))
    assert any("same shapes and equal values" in note for note in network.notes)


def test_networks_of_other_sizes_are_told_by_their_shapes():
    wide = torch_state(networks.network(Architecture(18, width=2, cifar_stem=True)))
    network = understand(source(below("student.") | below("teacher.", wide)))
    assert network.architecture.width == 1
    assert any("other shapes (conv1.weight: (64, 3, 3, 3) and (128, 3, 3, 3))" in note for note in network.notes)
    assert (
        understand(source(below("student.") | below("teacher.", wide)), source_part="teacher").architecture.width == 2
    )


@pytest.mark.parametrize("part", ["nobody", "stud", "conv1"])
def test_a_part_that_is_not_there_is_refused_with_the_choices(part):
    with pytest.raises(InputError, match=r"--source_part must be one of student\., teacher\. .* of x\.pth, not"):
        understand(source(below("student.") | below("teacher.", OTHER)), source_part=part)


def test_each_network_has_its_own_heads():
    heads = {
        "projection_head.layers.0.weight": np.ones((512, 512), np.float32),
        **{
            f"projection_head.layers.1.{w}": np.ones(512, np.float32) for w in ("weight", "running_mean", "running_var")
        },
        "projection_head.layers.1.bias": np.zeros(512, np.float32),
    }
    student, teacher = below("backbone.") | heads, below("backbone.", OTHER)
    tensors = below("student.", student) | below("teacher.", teacher)
    assert understand(source(tensors)).naming == "lightly"
    assert understand(source(tensors), source_part="teacher").architecture.num_proj_layers == 0


@pytest.mark.parametrize("container", ["tf1", "tf2", "keras", "npz"])
def test_tensorflows_and_keras_files_with_two_networks(container):
    network = networks.network(ENCODER)
    naming = converters.names.recognise.NAMINGS["keras" if container == "npz" else container]
    names = naming.table(ENCODER)
    plain = {names[hub]: network[hub] for hub in names}
    if container == "tf2":
        plain = {key.removeprefix("model/"): value for key, value in plain.items()}
    other = {key: value + 1 for key, value in plain.items()}
    tensors = {f"student/{key}": value for key, value in plain.items()}
    tensors |= {f"teacher/{key}": value for key, value in other.items()}
    found = understand(source(tensors))
    np.testing.assert_array_equal(found["stem_conv1/kernel"], network["stem_conv1/kernel"])
    chosen = understand(source(tensors), source_part="teacher")
    np.testing.assert_array_equal(chosen["stem_conv1/kernel"], network["stem_conv1/kernel"] + 1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"model._orig_mod.module.{key}",
        lambda key: key.replace("layer", "_fsdp_wrapped_module.layer"),
        lambda key: ".".join(f"{part}._fsdp_wrapped_module" if part.isdigit() else part for part in key.split(".")),
        lambda key: key.replace(".conv1", "._checkpoint_wrapped_module.conv1"),
        lambda key: key.replace("layer2.", "layer2.module._checkpoint_wrapped_module.").replace(
            "bn1.", "bn1._orig_mod."
        ),
        lambda key: f"state_dict.backbone.module.{key}",
        lambda key: f"state_dict.module.encoder_q._orig_mod.{key}",
        lambda key: "_fsdp_wrapped_module." + key.replace(".", "._fsdp_wrapped_module.", 1),
    ],
)
def test_wrappers_within_names_are_passed_over_and_said(wrap):
    network = understand(source({wrap(key): array for key, array in STATE.items()}))
    assert network.architecture == ENCODER
    np.testing.assert_array_equal(stem(network), STATE["conv1.weight"])
    if any("_" in wrap(key).replace(key, "") for key in STATE):
        assert any(note.startswith("Took _") for note in network.notes) or "state_dict" in wrap("conv1.weight")


def test_networks_that_only_a_wrapper_tells_apart_stay_apart():
    for word in ("_orig_mod", "module", "_fsdp_wrapped_module"):
        tensors = below("") | below(f"{word}.", OTHER | {"fc.weight": CLASSIFIER["fc.weight"]})
        assert set(unwrapped(tensors).values()) == set(tensors)
        network = understand(source(tensors))
        np.testing.assert_array_equal(stem(network), STATE["conv1.weight"])
        np.testing.assert_array_equal(stem(understand(source(tensors), source_part=word)), OTHER["conv1.weight"])
        assert not network.architecture.num_classes


ODD = {
    "complex64": np.ones(3, np.complex64),
    "uint16": np.ones(3, np.uint16),
    "uint64": np.ones(3, np.uint64),
    "bool": np.ones(3, bool),
    "str96": np.array(["a", "bcd"]),
    "object": np.array([b"x"], object),
    "float8_e4m3fn": np.ones(3, ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("name", ["extra", "layer1.0.extra", "queue.ptr", "conv1.scale"])
@pytest.mark.parametrize("dtype", ODD)
def test_a_tensor_of_a_strange_type_that_does_not_matter_is_left_with_its_reason(dtype, name):
    network = understand(source(STATE | {name: ODD[dtype]}))
    assert network.architecture == ENCODER
    assert network.left == {f"{ODD[dtype].dtype.name} numbers, no part of this network": [name]}


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "bool", "float8_e4m3fn", "complex128"])
@pytest.mark.parametrize("key", ["conv1.weight", "layer4.1.bn2.running_var"])
def test_a_needed_tensor_of_a_strange_type_is_an_error(dtype, key):
    kind = getattr(ml_dtypes, dtype, None) or dtype
    with pytest.raises(
        InputError, match=rf"{key} of x\.pth must be plain real numbers, .* is {dtype} numbers"
    ) as error:
        understand(source(STATE | {key: STATE[key].astype(kind)}))
    assert ("imaginary" in str(error.value)) == dtype.startswith("complex")


def test_a_bias_of_a_strange_type_is_no_tensor_that_does_not_matter():
    with pytest.raises(InputError, match=r"unexpected 1: layer1\.0\.conv1\.bias"):
        understand(source(STATE | {"layer1.0.conv1.bias": np.ones(64, np.complex64)}))


@pytest.mark.parametrize(
    "name",
    [
        "bn1.num_batches_tracked",
        "layer1.0.conv1.activation_post_process.scale",
        "layer2.0.bn1.renorm_mean",
        "layer1.0.conv1.weight_fake_quant.fake_quant_enabled",
    ],
)
def test_buffers_of_other_normalisations_and_of_quantisation_do_not_matter(name):
    assert understand(source(STATE | {name: np.ones(1, np.float32)})).architecture == ENCODER


HEADS = {
    "bias-free": {"fc.weight": np.ones((10, 512), np.float32)},
    "1x1 convolution": {"fc.weight": np.ones((10, 512, 1, 1), np.float32), "fc.bias": np.ones(10, np.float32)},
    "scalar": {"fc.weight": np.ones((10, 512), np.float32), "fc.bias": np.asarray(1, np.float32)},
    "list": {"fc.0.weight": np.ones((10, 512), np.float32), "fc.0.bias": np.ones(10, np.float32)},
    "of a strange type": CLASSIFIER | {"fc.weight": np.ones((10, 512), np.complex64)},
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_cut_before_they_are_looked_at(head):
    for part in ("encoder", "encoder+projection"):
        network = understand(source(STATE | HEADS[head]), part=part)
        assert network.architecture == ENCODER
        assert sorted(key for keys in network.left.values() for key in keys) == sorted(HEADS[head])


@pytest.mark.parametrize("head", [head for head in HEADS if "strange" not in head])
def test_a_classifier_that_is_built_otherwise_is_left_and_said(head):
    network = understand(source(STATE | HEADS[head]))
    assert network.architecture == ENCODER
    assert sorted(key for keys in network.left.values() for key in keys) == sorted(HEADS[head])


def test_a_classifier_of_a_strange_type_says_how_to_leave_it():
    with pytest.raises(InputError, match=r"fc\.weight of x\.pth .* complex64 .* leave the heads with --part encoder"):
        understand(source(STATE | HEADS["of a strange type"]))


NEAR = {
    "one is missing": (
        {k: v for k, v in STATE.items() if k != "conv1.weight"},
        "missing 1: conv1.weight; unexpected 0",
    ),
    "one is renamed": (
        {k.replace("layer3.0.conv1", "layer3.0.convA"): v for k, v in STATE.items()},
        "missing 1: layer3.0.conv1.weight; unexpected 1: layer3.0.convA.weight",
    ),
    "underscores": (
        {k.replace(".", "_"): v for k, v in STATE.items()},
        r" in torchvision names, with 0 of its \d+ names and 10\d spelled otherwise; missing \d+: bn1",
    ),
    "stages": (
        {k.replace("layer", "stage"): v for k, v in STATE.items()},
        r"missing .*: layer1\.0\.bn1.*; unexpected .*: stage1\.0",
    ),
    "below a prefix": (
        {f"model.{k}": v for k, v in STATE.items() if k != "conv1.weight"},
        r"names below 'model\.', with .* missing 1: conv1\.weight",
    ),
    "another shape": (
        STATE | {"layer4.0.conv1.weight": np.ones((7, 7), np.float32)},
        r"of another shape 1: layer4\.0\.conv1\.weight",
    ),
}


@pytest.mark.parametrize("case", NEAR)
def test_near_misses_name_the_nearest_network_and_what_differs(case):
    state, message = NEAR[case]
    with pytest.raises(
        InputError, match=f"(?s)nearest network: ResNet-18.*{message}" if "near" not in message else message
    ):
        understand(source(state))


def test_names_of_other_networks_are_near_to_none():
    with pytest.raises(InputError, match="it begins with blocks"):
        understand(source({"blocks.0.attn.qkv.weight": np.ones((3, 3))}))


def test_roles_are_told_by_whole_words():
    keys = [f"{prefix}{key}" for prefix in ("mkey.", "semantic.", "emanet.", "avgpooled.") for key in STATE]
    assert {one.role for one in candidates(keys)} == {"trained"}


def test_commands_and_python_choose_a_part(tmp_path):
    def tensors(state):
        return {key: torch.from_numpy(np.array(array)) for key, array in state.items()}

    path = tmp_path / "dino.pth"
    torch.save({"student": tensors(STATE), "teacher": tensors(OTHER), "epoch": 3}, path)
    done = converters.convert(path, tmp_path / "teacher.safetensors", source_part="teacher")
    np.testing.assert_array_equal(stem(done.network), OTHER["conv1.weight"])
    np.testing.assert_array_equal(stem(converters.load(path)), STATE["conv1.weight"])
    lines = inspect.describe_network(converters.load(path))
    assert any("Holds 2 networks: student. was taken; also there: teacher." in text for _, text in lines)

    def run(*arguments):
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=False)

    done = run(
        "converters.verify", path, tmp_path / "teacher.safetensors", "--source_part", "teacher", "--engine=numpy"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("converters.inspect", path, "--source_part", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--source_part must be one of student., teacher.")


def test_tensors_of_tensorflows_strange_types_do_not_matter(tmp_path):
    import tensorflow as tf

    values = {key: tf.constant(value) for key, value in official.tf1_values("r18_1x_sk0_cifar").items()}
    values |= {
        "texts": tf.constant(["a", "b"]),
        "complex": tf.constant([1j]),
        "uint16": tf.constant([1], tf.uint16),
        "flag": tf.constant([True]),
        "quantised": tf.quantization.quantize([1.0], 0.0, 1.0, tf.qint8).output,
    }
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt-7"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    network = converters.load(tmp_path / "model.ckpt-7")
    left = {key: why for why, keys in network.left.items() for key in keys}
    assert left["texts"] == "of the type string, no part of this network"
    assert left["quantised"] == "of the type qint8, no part of this network"
    assert {"complex", "uint16", "flag"} <= left.keys()


def test_safetensors_with_a_strange_tensor_are_read(tmp_path):
    header, data = {}, b""
    for key, array in (STATE | {"scale": np.zeros(4, np.uint8)}).items():
        end = len(data) + array.nbytes
        kind = {"float32": "F32", "int64": "I64", "uint8": "F8_E4M3"}[array.dtype.name]
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += np.ascontiguousarray(array).tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    network = converters.load(tmp_path / "x.safetensors")
    assert network.left == {"of the type F8_E4M3, no part of this network": ["scale"]}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_kernels_of_whole_numbers_are_said(dtype):
    whole = (STATE["conv1.weight"] * 9).astype(dtype)
    network = understand(source(STATE | {"conv1.weight": whole}))
    np.testing.assert_array_equal(stem(network), whole)
    assert any(f"1 kernels are whole numbers ({dtype}; stem_conv1/kernel)" in note for note in network.notes)
    assert not any("whole numbers" in note for note in understand(source(STATE)).notes)
