"""PyTorch's zip files written and read without PyTorch: PyTorch itself is the oracle."""

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from converters.loading import open_source
from converters.networks.in_torch import to_torch
from converters.pytorch import state_pickle as torch_pickle
from converters.pytorch import zip_file as torch_zip
from converters.pytorch.inert_pickle import DamagedPickleError
from converters.pytorch.state import flatten, open_state
from converters.pytorch.state_pickle import decode
from converters.tensors import Stored
from tf_simclr.errors import InputError

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.standard_normal((5, 3, 2, 2)).astype(np.float32),
    "fc.weight": RNG.standard_normal((4, 7)),
    "fc.bias": RNG.standard_normal(3).astype(np.float16),
    "bn.weight": RNG.standard_normal(70_000).astype(ml_dtypes.bfloat16),
    "bn.num_batches_tracked": np.asarray(7),
    "bn.none": np.zeros((0, 3), np.float32),
    "mask.bits": np.array([True, False]),
    **{f"int.{name}": np.arange(-3, 3).astype(name) for name in ("int8", "uint8", "int16", "int32")},
}


def write(path: Path, wrapper: str = "", arrays=ARRAYS) -> Path:
    stored = {key: Stored(a.shape, a.dtype.name, lambda a=a: a) for key, a in arrays.items()}
    torch_zip.write_state(path, stored, wrapper=wrapper)
    return path


def check_equal(state, arrays=ARRAYS):
    assert list(state) == list(arrays)
    for key, array in arrays.items():
        expected = to_torch(array.copy())
        assert state[key].dtype == expected.dtype
        assert state[key].shape == expected.shape
        assert torch.equal(state[key], expected)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written") / "state.pth")


@pytest.mark.parametrize("mmap", [False, True])
def test_pytorch_loads_every_dtype_bit_by_bit_without_running_code(written, mmap):
    check_equal(torch.load(written, weights_only=True, mmap=mmap))


def test_wrapped_states_are_nested_dictionaries(tmp_path):
    state = torch.load(write(tmp_path / "wrapped.pth", "a/{}"), weights_only=True)["a"]
    assert list(state) == ["conv", "fc", "bn", "mask", "int"]
    check_equal(dict(flatten(state, torch.Tensor)))


def test_the_zip_is_whole_and_every_storage_is_aligned(written):
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    reader = torch._C.PyTorchFileReader(str(written))
    assert all(reader.get_record_offset(name) % 64 == 0 for name in reader.get_all_records())
    assert reader.get_record("byteorder") == b"little"


def test_equal_weights_give_equal_files(written, tmp_path):
    assert write(tmp_path / "again.pth").read_bytes() == written.read_bytes()


def test_files_past_4_gib_are_read_by_zipfile_and_pytorch(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, "LIMIT", 141_000)  # as if the zip's plain fields ended here
    path = write(tmp_path / "large.pth")
    data = path.read_bytes()
    assert data.count(b"PK\x06\x06") == 1
    assert b"\xff\xff\xff\xff" in data[-60:]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    check_equal(torch.load(path, weights_only=True))
    assert {key: stored.read().tobytes() for key, stored in open_state(path).tensors.items()} == {
        key: array.tobytes() for key, array in ARRAYS.items()
    }


def test_a_tensor_past_4_gib_is_refused_with_another_format(tmp_path):
    huge = Stored((1 << 30,), "float32", lambda: np.zeros(1))
    with pytest.raises(InputError, match="use --to safetensors"):
        torch_zip.write_state(tmp_path / "huge.pth", {"a": huge})
    assert not list(tmp_path.iterdir())


def test_an_array_of_another_length_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="must have 12 bytes, not 8"):
        torch_zip.write_state(tmp_path / "x.pth", {"a": Stored((3,), "float32", lambda: np.zeros(2, np.float32))})
    assert not list(tmp_path.iterdir())


def module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))


BASE = torch.arange(24.0)
STATES = {
    "plain dictionary": dict(module().state_dict()),
    "state_dict with metadata": module().state_dict(),
    "parameters": {"weight": torch.nn.Parameter(torch.ones(2, 3)), "n": torch.tensor(3)},
    "views of one storage": {"t": BASE.reshape(4, 6).T, "part": BASE[5:9], "all": BASE, "one": BASE[3]},
    "a training script's": {
        "epoch": 3,
        "lr": 0.25,
        "name": "run é",
        "none": None,
        "flags": [True, False, (1, -70_000, 1 << 40)],
        "state_dict": module().state_dict(),
        "optimizer": torch.optim.SGD(module().parameters(), lr=0.1, momentum=0.9).state_dict(),
    },
    "channels last": {"w": torch.rand(4, 3, 5, 5).to(memory_format=torch.channels_last)},
    "bfloat16": {"w": torch.rand(4, 3).to(torch.bfloat16), "h": torch.rand(5).half()},
}


@pytest.mark.parametrize("name", STATES)
def test_what_pytorch_writes_is_read_without_it_bit_by_bit(tmp_path, name):
    torch.save(STATES[name], tmp_path / "x.pth")
    found = open_state(tmp_path / "x.pth").tensors
    expected = dict(flatten(torch.load(tmp_path / "x.pth", weights_only=True), torch.Tensor))
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        array = found[key].read()
        assert array.shape == found[key].shape == tuple(tensor.shape)
        assert array.flags.c_contiguous
        assert torch.equal(to_torch(array.copy()), tensor.detach().contiguous())


def test_step_is_taken_from_a_lightning_checkpoint(tmp_path):
    torch.save({"global_step": 12, "state_dict": {"w": torch.ones(1)}}, tmp_path / "x.ckpt")
    assert open_source(tmp_path / "x.ckpt").step == 12


@pytest.mark.parametrize("depth", [40, None])
def test_dictionaries_without_end_are_refused(tmp_path, depth):
    state: dict = {"w": torch.ones(1)}
    for _ in range(depth or 0):
        state = {"deeper": state}
    if depth is None:
        state["itself"] = state
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(InputError, match="less than 32 dictionaries within each other"):
        open_source(tmp_path / "x.pth")


def rebuilt(**changes) -> bytes:
    """A file's description of one tensor, of which something is not as it should be."""
    tensor = torch_pickle.Tensor("0", "float32", 6, (2, 3), (3, 1))
    return torch_pickle.encode({"w": torch_pickle.Tensor(**(vars(tensor) | changes))})


@pytest.mark.parametrize(
    "lie",
    [
        {"count": 7},
        {"count": 5},
        {"shape": (3, 3)},
        {"shape": (2, 3, 1)},
        {"stride": (4, 1)},
        {"offset": 1},
        {"offset": 1 << 62},
        {"shape": (1 << 40, 3)},
        {"storage": "1"},
        {"storage": "../0"},
        {"dtype": "int64"},
    ],
    ids=str,
)
def test_tensors_that_reach_past_their_storage_are_refused(tmp_path, lie):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", rebuilt(**lie))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data/0", bytes(24))
    with pytest.raises(InputError, match=r"tensor w must lie within its storage"):
        open_source(tmp_path / "x.pth")


def test_no_damaged_byte_of_a_description_does_more_than_be_refused():
    whole = torch_pickle.encode({"w": torch_pickle.Tensor("0", "float32", 6, (2, 3), (3, 1))})
    for place in range(len(whole)):
        for value in (0, 1, 0x28, 0x52, 0x62, 0x63, 0x71, 0x74, 0xFF):
            broken = bytearray(whole)
            broken[place] = value
            try:
                decode(bytes(broken))
            except DamagedPickleError:
                continue
    for length in range(len(whole)):
        with pytest.raises(DamagedPickleError):
            decode(whole[:length])


def members(path: Path, **others: bytes) -> Path:
    """A file of one tensor, in which some members are others."""
    with zipfile.ZipFile(path, "w") as archive:
        fixed = {"x/data.pkl": rebuilt(), "x/version": b"3\n", "x/data/0": np.arange(6, dtype="<f4").tobytes()}
        for name, data in (fixed | others).items():
            archive.writestr(name, data)
    return path


def test_big_endian_files_are_read(tmp_path):
    big = {"x/byteorder": b"big", "x/data/0": np.arange(6, dtype=">f4").tobytes()}
    for path in (members(tmp_path / "little.pth"), members(tmp_path / "big.pth", **big)):
        np.testing.assert_array_equal(open_state(path).tensors["w"].read(), np.arange(6).reshape(2, 3))


def test_two_descriptions_in_one_zip_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must hold one data\.pkl"):
        open_state(members(tmp_path / "x.pth", **{"X/data.pkl": b""}))
