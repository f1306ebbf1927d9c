"""What a run folder holds: nothing is taken that is damaged, of another model or of another run."""

import dataclasses
import json
import re
import zipfile

import keras
import numpy as np
import pytest

from tests import golden, tiny_runs
from tests.converters import networks, official
from tests.models import formula
from tf_simclr.data import STREAM
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build_encoder
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS
from tf_simclr.run_folder import (
    STREAM_KEY,
    RunFolder,
    captured,
    read_arrays,
    read_json,
    restore_state,
    state,
    write_state,
)
from tf_simclr.weights import load_encoder, load_model


def values(model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in state(model).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint after two steps, and what it should hold."""
    model, path = tiny_runs.model(), tmp_path_factory.mktemp("saved") / "step-00000002.npz"
    model.fit(tiny_runs.stream(0), steps_per_epoch=2, shuffle=False, verbose=0)
    write_state(path, captured(model))
    return path, values(model)


def test_a_checkpoint_brings_back_every_variable_bit_by_bit(saved):
    path, expected = saved
    model = tiny_runs.model(start=1)
    restore_state(path, model)
    assert {n: v.tobytes() for n, v in values(model).items()} == {n: v.tobytes() for n, v in expected.items()}
    momenta = [name for name in expected if name.endswith("_momentum")]
    assert len(momenta) == len(model.trainable_variables)
    assert all(abs(expected[name]).max() > 0 for name in momenta)
    assert {name.split("/")[0] for name in expected} == {"model", "optimizer", "metrics"}
    assert {"model/dense/kernel", "model/bn/moving_mean", "model/proj1_dense/kernel"} <= expected.keys()


def test_a_checkpoint_that_is_cut_off_anywhere_is_refused_by_name(saved, tmp_path):
    whole, path = saved[0].read_bytes(), tmp_path / "step-00000002.npz"
    for length in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"^{path} must be a whole checkpoint, but it is damaged .*; remove it$"):
            read_arrays(path)


def test_a_flipped_bit_is_noticed_wherever_it_changes_a_number(saved, tmp_path):
    whole, expected = saved[0].read_bytes(), saved[1]
    refused = 0
    for at in np.random.default_rng(0).choice(len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path = tmp_path / "flipped.npz"
        path.write_bytes(damaged)
        try:
            arrays = read_arrays(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - both are right: a flip may hit what nobody reads
            refused += 1
        else:
            assert arrays.pop(STREAM_KEY) == STREAM
            assert all(arrays[name].tobytes() == expected[name].tobytes() for name in arrays)
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "step-00000001.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        restore_state(path, tiny_runs.model())


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "step-00000001.npz"
    np.savez(path, evil=np.array([{}], object))
    with pytest.raises(InputError, match="must be a whole checkpoint"):
        read_arrays(path)


def test_missing_unexpected_and_misshapen_variables_are_listed_and_nothing_is_assigned(saved, tmp_path):
    path, arrays = tmp_path / "step-00000002.npz", dict(saved[1])
    del arrays["model/dense/kernel"], arrays["model/bn/gamma"]
    np.savez(path, **arrays | {"model/dens/kernel": 0, "model/dense/bias": np.zeros(7, np.float32)})
    model = tiny_runs.model()
    before = values(model)
    with pytest.raises(InputError) as caught:
        restore_state(path, model)
    assert str(caught.value).splitlines() == [
        f"{path} does not fit this model; 4 variables differ:",
        " - model/bn/gamma (missing)",
        " - model/dense/kernel (missing)",
        " + model/dens/kernel (unexpected)",
        " ! model/dense/bias must have the shape (6,), not (7,)",
    ]
    assert all(np.array_equal(before[name], value) for name, value in values(model).items())


def test_at_most_twenty_differences_are_listed_and_all_are_counted(saved, tmp_path):
    path = tmp_path / "step-00000002.npz"
    np.savez(path, **saved[1] | {f"model/more_{i}": 0 for i in range(30)})
    with pytest.raises(InputError, match="30 variables differ") as caught:
        restore_state(path, tiny_runs.model())
    assert len(str(caught.value).splitlines()) == 21


CONFIG = {"command": "pretrain", "train_batch_size": 8, "model_dir": "here", "keep_checkpoint_max": 5}
ARCHITECTURE = Architecture(18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=10)


@pytest.fixture
def begun(tmp_path):
    """A run folder with one checkpoint."""
    run = RunFolder(tmp_path)
    run.begin(CONFIG, ARCHITECTURE)
    run.checkpoint(1).parent.mkdir()
    run.checkpoint(1).touch()
    return run


def test_a_run_notes_its_options_and_architecture(begun):
    assert json.loads(begun.config.read_text()) == CONFIG
    assert Architecture(**json.loads(begun.architecture.read_text())) == ARCHITECTURE


def test_a_folder_with_another_run_is_refused_with_both_values(begun):
    with pytest.raises(InputError) as caught:
        begun.begin(CONFIG | {"train_batch_size": 16, "seed": 1}, ARCHITECTURE)
    assert str(caught.value) == (
        f"{begun.path} holds a run with other options; give the same ones to resume it, or another folder to start "
        "anew: seed=None there, 1 here; train_batch_size=8 there, 16 here"
    )
    assert json.loads(begun.config.read_text()) == CONFIG


def test_a_run_resumes_from_another_place_and_with_another_number_of_kept_checkpoints(begun):
    begun.begin(CONFIG | {"model_dir": "/there", "keep_checkpoint_max": 1}, ARCHITECTURE)


def test_a_run_resumes_on_as_many_images_as_it_was_begun_with(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(CONFIG, ARCHITECTURE, data={"images": 50_000, "origin": "cifar10 train"})
    assert json.loads(run.data.read_text()) == {"images": 50_000, "origin": "cifar10 train"}
    run.checkpoint(1).parent.mkdir()
    run.checkpoint(1).touch()
    run.begin(CONFIG, ARCHITECTURE, data={"images": 50_000, "origin": "/elsewhere/cifar10"})
    with pytest.raises(InputError) as caught:
        run.begin(CONFIG, ARCHITECTURE, data={"images": 49_999, "origin": "/data/train"})
    assert str(caught.value) == (
        f"{tmp_path} must resume on the images it was begun with, 50,000 of cifar10 train, but there are 49,999 of "
        "/data/train; bring those back, or take another folder to start anew"
    )


def test_the_random_state_of_layers_is_part_of_a_checkpoint(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2, name="dense")])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    assert [name for name in state(model) if name.startswith("random/")] == ["random/0000"]
    write_state(tmp_path / "before.npz", captured(model))
    first = model(np.ones((2, 3)), training=True)
    second = model(np.ones((2, 3)), training=True)
    assert np.any(first != second)
    restore_state(tmp_path / "before.npz", model)
    np.testing.assert_array_equal(first, model(np.ones((2, 3)), training=True))


def test_a_run_without_a_checkpoint_gives_way_to_another(tmp_path):
    run = RunFolder(tmp_path)
    run.begin(CONFIG, ARCHITECTURE)
    run.begin(CONFIG | {"train_batch_size": 4}, dataclasses.replace(ARCHITECTURE, num_classes=3))
    assert json.loads(run.config.read_text())["train_batch_size"] == 4
    assert json.loads(run.architecture.read_text())["num_classes"] == 3


@pytest.mark.parametrize("content", ['{"command": "pretr', "[]", ""])
def test_a_damaged_configuration_is_named(begun, content):
    begun.config.write_text(content)
    with pytest.raises(InputError, match=re.escape(str(begun.config))):
        begun.begin(CONFIG, ARCHITECTURE)


def test_checkpoints_are_listed_the_newest_first_and_other_files_are_not(begun):
    for name in ("step-00000012.npz", "step-00000002.npz", "step-3.npz", ".12.step-00000020.npz", "notes.txt"):
        (begun.path / "checkpoints" / name).touch()
    assert begun.checkpoints() == [begun.checkpoint(step) for step in (12, 2, 1)]


GOLDEN = "r18_1x_sk0_cifar"


@pytest.fixture(scope="module")
def expected():
    return golden.arrays(f"forward/{GOLDEN}.npz")


@pytest.fixture(scope="module")
def inputs(expected):
    return golden.images(2, int(expected["config"][4]), seed=int(expected["config"][7]))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of the golden network: what `training` writes of it."""
    architecture = formula.architecture(GOLDEN)
    head = projection_head(architecture.feature_dim, architecture.num_proj_layers)
    model = SimCLR(build_encoder(architecture), head, num_classes=architecture.num_classes)
    formula.fill(model, architecture)
    model.compile(LARS())
    model.optimizer.build(model.trainable_variables)
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.begin(CONFIG, architecture)
    write_state(run.checkpoint(7), captured(model))
    return run.path


@pytest.fixture(scope="module")
def official_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    official.write_tf1(folder, GOLDEN)
    return folder


@pytest.mark.parametrize("kind", ["run_folder", "official_folder"])
def test_every_endpoint_of_a_loaded_network_is_the_official_codes(request, kind, inputs, expected):
    model = load_model(request.getfixturevalue(kind))
    ends = {name: np.asarray(value) for name, value in model(inputs, training=False).items()}
    assert networks.largest_error(ends, expected) <= 1e-4  # goldens' README, Section 3
    assert model.trainable_weights


@pytest.mark.parametrize("kind", ["run_folder", "official_folder"])
def test_a_loaded_encoder_gives_the_official_codes_features(request, kind, inputs, expected):
    encoder = load_encoder(request.getfixturevalue(kind))
    features = np.asarray(encoder(inputs, training=False))
    wanted = expected["final_avg_pool"]
    assert features.shape == wanted.shape
    assert np.abs(features - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert not any("proj" in layer.name or "logits" in layer.name for layer in encoder.layers)


def test_a_run_that_has_saved_nothing_yet_cannot_be_loaded(tmp_path):
    RunFolder(tmp_path).begin(CONFIG, ARCHITECTURE)
    with pytest.raises(InputError, match="must hold a checkpoint"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "data.json", "result.json"])
@pytest.mark.parametrize("text", ['{"seed": 1, "seed": 2}', "{", "[]", "[" * 100_000])
def test_a_runs_json_that_is_none_or_has_a_key_twice_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name} must "):
        read_json(tmp_path / name)


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_of_another_stream_is_told_so_before_its_options_are_compared(begun, finished):
    begun.checkpoint(2).write_bytes(b"")  # a damaged one is passed over
    np.savez(begun.checkpoint(1), x=np.zeros(1))
    if finished:
        for path in (begun.network, begun.result):
            path.write_text("{}")
    rule = "holds a run with other options" if finished else "order of version 1, and this is 2"
    with pytest.raises(InputError, match=rule):
        begun.begin(CONFIG | {"an_option_of_today": False}, ARCHITECTURE)


def test_a_state_with_a_member_that_is_no_array_is_refused(tmp_path):
    np.savez(tmp_path / "step.npz", a=np.ones(2))
    with zipfile.ZipFile(tmp_path / "step.npz", "a") as archive:
        archive.writestr("b.npy", b"no array")
    with pytest.raises(InputError, match=r"step\.npz must be a whole checkpoint, but it must hold arrays only.*'b'"):
        read_arrays(tmp_path / "step.npz")
