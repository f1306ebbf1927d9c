"""PyTorch's files that hold more than tensors: read without importing or calling anything; PyTorch is the oracle."""

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import pickle
import random
import struct
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch

from converters.loading import open_source
from converters.pytorch import inert_pickle
from converters.pytorch.inert_pickle import DamagedPickleError, Placeholder
from tf_simclr.errors import InputError


class Color(enum.Enum):
    RED = 1


class AttributeDict(dict):
    """As Lightning's."""


class Config:
    """As omegaconf's: a dictionary inside an object."""

    def __init__(self):
        self._content = {"lr": 0.1, "parent": self}

    def __getstate__(self):
        return self.__dict__ | {"_flags": None}


class Tagged(torch.Tensor):
    """A subclass of tensors."""


class ByKeyword:
    def __new__(cls, *, size):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 3}


class Touch:
    """What a hostile pickle runs."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


NET = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
OPTIMIZER = torch.optim.Adam(NET.parameters())
OPTIMIZER.step(lambda: NET(torch.ones(2, 3, 4, 4)).square().sum().backward())
BASE = torch.arange(24.0)

CONTENT = {
    "epoch": 3,
    "state_dict": NET.state_dict(),
    "nested": {"deep": [{"w": BASE}, (BASE[2:8].reshape(2, 3).T, BASE.reshape(4, 6)[:, ::2])]},
    "optimizer": OPTIMIZER.state_dict(),
    "param": torch.nn.Parameter(BASE),
    "tagged": BASE.as_subclass(Tagged),
    "expanded": torch.ones(1).expand(2, 1000),
    "array": np.arange(6.0).reshape(2, 3).T,
    "rng": torch.get_rng_state(),
    "hyper_parameters": AttributeDict({"lr": 0.1, "mean": torch.ones(3)}),
    "config": Config(),
    "path": pathlib.PurePosixPath("/data/run"),
    "args": argparse.Namespace(lr=0.3),
    "scalar": np.float64(3),
    "dtype": np.dtype("int8"),
    "texts": np.array(["a", "b"]),
    "lists": collections.defaultdict(list, {"a": [1]}),
    "count": collections.Counter("aab"),
    "when": datetime.datetime(2026, 1, 1),
    "optimizer object": OPTIMIZER,
    "scheduler": torch.optim.lr_scheduler.StepLR(OPTIMIZER, 1),
    "color": Color.RED,
    "sets": [{1, 2}, frozenset({3}), {"a": {(1, 2): 3}}],
    "partial": functools.partial(max, 1),
    "torch": [torch.device("cpu"), torch.float32, torch.Size([1, 2])],
    "keyword": ByKeyword(size=3),
    "bytes": [b"ab", bytearray(b"cd"), 1 << 90, -(1 << 70), 1.5, None, True, "é"],
    "class": Color,
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch means to leave quantisation to another package
    QUANTISED = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
ODD = {
    "sparse": torch.eye(3).to_sparse(),
    "quantised": QUANTISED,
    "complex": torch.ones(3, dtype=torch.complex64),
}
NEW = {"float8": torch.ones(3).to(torch.float8_e5m2), "uint16": torch.ones(3).to(torch.uint16)}


def reached(content, key):
    """The tensor at a key, in what PyTorch loads."""
    if isinstance(content, (torch.Tensor, np.ndarray)):
        return content
    names = {str(k): v for k, v in (content.items() if isinstance(content, dict) else enumerate(content))}
    name = max((name for name in names if key == name or key.startswith(name + ".")), key=len)
    return reached(names[name], key[len(name) + 1 :])


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantized", "ignore:TypedStorage")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_as_pytorch_reads_them_and_the_rest_is_told(tmp_path, protocol, zipped):
    path = tmp_path / "run.ckpt"
    content = CONTENT | ODD | (NEW if zipped else {})  # PyTorch itself cannot read the new types from older files
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    source, theirs = open_source(path), torch.load(path, weights_only=False)
    plain = {key: stored for key, stored in source.tensors.items() if not stored.reason}
    for key, stored in plain.items():
        expected = reached(theirs, key)
        expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
        np.testing.assert_array_equal(stored.read(), expected, err_msg=key, strict=True)
    for key in ("state_dict.0.weight", "nested.deep.0.w", "nested.deep.1.0", "hyper_parameters.mean", "expanded"):
        assert key in plain
    assert {key for key in source.tensors if key not in plain} == {"texts", *content.keys() - CONTENT.keys()}
    skipped = {place for places in source.skipped.values() for place in places}
    objects = {"hyper_parameters", "config", "path", "args", "scalar", "dtype", "when", "optimizer object"}
    assert objects | {"scheduler", "color", "partial", "torch.0", "keyword", "class"} <= skipped
    assert not skipped & {"lists", "count", "epoch", "bytes", "sets"}
    (note,) = source.notes
    assert f"Skipped {len([p for places in source.skipped.values() for p in places])} objects" in note
    assert "nothing was imported or called" in note


@pytest.mark.parametrize("key", [*ODD, *NEW])
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantized", "ignore:TypedStorage")
def test_a_tensor_of_a_strange_type_is_an_error_only_where_it_is_asked_for(tmp_path, key):
    torch.save({"w": torch.ones(2), "odd": (ODD | NEW)[key]}, tmp_path / "x.pth")
    tensors = open_source(tmp_path / "x.pth").tensors
    assert tensors["w"].read().tolist() == [1, 1]
    assert tensors["odd"].shape == tuple((ODD | NEW)[key].shape)
    with pytest.raises(InputError, match=r"x\.pth: odd must be a tensor of plain numbers to be read, but is "):
        tensors["odd"].read()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_pickled_module_is_read_by_its_parameters_and_buffers(tmp_path, zipped):
    torch.save({"model": torch.nn.DataParallel(NET)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors = open_source(tmp_path / "x.pth").tensors
    assert {key: value.read().tolist() for key, value in tensors.items()} == {
        f"model.module.{key}": value.tolist() for key, value in NET.state_dict().items()
    }


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_bare_pickles_of_arrays_and_tensors_are_read(tmp_path, protocol):
    content = {"model": {"a": torch.arange(6.0).reshape(2, 3).T, "b": np.arange(3, dtype=">i4")}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    source = open_source(tmp_path / "x.pkl")
    assert source.container == "pickle file"
    np.testing.assert_array_equal(source.tensors["model.a"].read(), content["model"]["a"].numpy(), strict=True)
    np.testing.assert_array_equal(source.tensors["model.b"].read(), np.arange(3, dtype=np.int32), strict=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::DeprecationWarning")
def test_torchscript_is_read_by_its_attributes(tmp_path):
    torch.jit.save(torch.jit.script(NET), tmp_path / "x.pt")
    source = open_source(tmp_path / "x.pt")
    assert list(source.tensors) == list(NET.state_dict())
    for key, tensor in NET.state_dict().items():
        np.testing.assert_array_equal(source.tensors[key].read(), tensor.numpy(), strict=True)
    assert any("program was not read" in note for note in source.notes)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 5])
def test_code_in_a_pickle_beside_tensors_is_told_and_not_run(tmp_path, protocol, zipped):
    path, mark = tmp_path / "x.pth", tmp_path / "mark"
    content = {"w": torch.ones(2), "hook": Touch(mark)}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    source = open_source(path)
    assert source.tensors["w"].read().tolist() == [1, 1]
    assert "pathlib.Path.touch at hook" in source.notes[0]
    assert not mark.exists()


def test_no_module_is_imported_for_what_a_file_names(tmp_path):
    name = "tests.converters.no_such_module"
    (tmp_path / "x.pkl").write_bytes(
        b"\x80\x02}X\x01\x00\x00\x00acX\nY\n)\x81s.".replace(b"X\nY", f"{name}\nY".encode())
    )
    with pytest.raises(InputError, match=rf"other code, which was not run \({name}\.Y at a\)"):
        open_source(tmp_path / "x.pkl")
    assert name not in sys.modules


def decode(data: bytes):
    return inert_pickle.read(data, calls={}, persistent=lambda identity: ("storage", identity))[0]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_that_were_pickled(protocol):
    values = [1, -1, 255, 256, 1 << 31, -(1 << 62), 1 << 200, 0.1, -0.0, "a\nb'é\u2028", b"\0\xff", None, True, False]
    values += [
        (),
        (1,),
        (1, 2, 3, 4),
        [],
        [1, [2]],
        {},
        {"a": {1: (2.5,)}},
        {"": "x" * 300},
        b"y" * 300,
        bytearray(b"z"),
    ]
    shared = ["twice"]
    assert decode(pickle.dumps([*values, shared, shared], protocol)) == [*values, shared, shared]
    assert sorted(decode(pickle.dumps({3, 1, 2}, protocol))) == [1, 2, 3]


def test_objects_within_themselves_are_read():
    content: dict = {"a": []}
    content["a"].append(content)
    found = decode(pickle.dumps(content))
    assert found["a"][0] is found
    thing = decode(pickle.dumps(Config()))
    assert isinstance(thing, Placeholder)
    assert thing.kind.endswith("Config")
    assert thing.state["_content"]["parent"] is thing


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x06N.",
        b"N",
        b".",
        b"NN.",
        b"\xff.",
        b"t.",
        b"h\x05.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff\x8c",
        b"X\xff\xff\xff\x7fa.",
        b"\x8b\xff\xff\xff\x7fa.",
        b"\x8b\xff\xff\xff\xff.",
        b"cnever ends",
        b"\x82\x01.",
        b"\x97.",
        b"Na.",
        b"N(NNu.",
        b"NNR.",
        b"I" + b"9" * 70_000 + b"\n.",
    ],
)
def test_what_is_no_whole_pickle_is_refused(data):
    with pytest.raises(DamagedPickleError):
        decode(data)


def test_keys_that_hash_slowly_or_never_cost_nothing():
    key = b")" + b"\x94h".join(b"" for _ in range(0))
    steps = b"".join(b"q\x00h\x00\x86" for _ in range(200))  # a tuple of itself twice, 200 times
    found = decode(b"}" + key + steps + b"K\x01s.")
    assert list(found.values()) == [1]
    clash = (1 << 61) - 1  # Python hashes multiples of this prime alike
    numbers = b"".join(b"\x8a\x20" + (n * clash).to_bytes(32, "little") + b"N" for n in range(1, 20_000))
    assert len(decode(b"}(" + numbers + b"u.")) == 19_999


def test_dictionaries_that_name_each_other_again_and_again_are_refused(tmp_path):
    level: dict = {"w": torch.ones(1)}
    for _ in range(30):
        level = {"a": level, "b": level}
    torch.save(level, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth"):
        open_source(tmp_path / "x.pth")


def test_a_long_history_of_numbers_refuses_nothing(tmp_path):
    history = {"losses": [float(i) for i in range(300_000)], "last": collections.deque([1.0], maxlen=3)}
    torch.save([{"w": torch.ones(1)}, history], tmp_path / "x.pth")
    source = open_source(tmp_path / "x.pth")
    assert list(source.tensors) == ["0.w"]
    assert not source.notes


def test_two_tensors_of_one_name_are_refused(tmp_path):
    torch.save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="no two of its tensors may have one name"):
        open_source(tmp_path / "x.pth")


def all_read(path):
    return {key: stored.read().tobytes() for key, stored in open_source(path).tensors.items()}


def test_no_damaged_byte_of_a_zip_is_read_otherwise_without_a_word(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"w": torch.rand(40, 5), "n": torch.tensor(3)}, "args": argparse.Namespace(lr=1)}, path)
    whole, true, rng = path.read_bytes(), all_read(path), random.Random(0)
    refused = 0
    for place in rng.sample(range(len(whole)), 700):
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            found = all_read(path)
        except InputError:
            refused += 1
            continue
        assert found == true, place
    assert refused > 300


def test_a_file_with_a_tensors_member_damaged_is_refused_when_that_is_read(tmp_path):
    torch.save({"a": torch.zeros(1000), "b": torch.ones(1000)}, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[data.index(struct.pack("<f", 1) * 8) + 5] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    tensors = open_source(tmp_path / "x.pth").tensors
    assert not tensors["a"].read().any()
    with pytest.raises(InputError, match=r"x\.pth must hold x/data/1 as it was written, but its CRC-32 differs"):
        tensors["b"].read()


def test_a_zip_that_was_packed_again_with_compression_is_read_and_checked(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as old,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert all_read(tmp_path / "y.pth") == all_read(tmp_path / "x.pth")
    data = bytearray((tmp_path / "y.pth").read_bytes())
    crc = struct.pack("<I", zlib.crc32(bytes(4000)))
    data[data.rindex(crc)] ^= 1
    (tmp_path / "y.pth").write_bytes(data)
    with pytest.raises(InputError, match=r"y\.pth"):
        all_read(tmp_path / "y.pth")


def test_a_file_that_was_written_without_checksums_says_so(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    source = open_source(tmp_path / "x.pth")
    assert source.tensors["w"].read().tolist() == [1, 1, 1]
    assert any("no checksums" in note for note in source.notes)
