"""Damage and lies in formats without checksums: what this project writes there tells; what nobody can mean is refused.

Oracles: the library `safetensors`, and the arrays that went in.
"""

import contextlib
import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from converters import writing as targets
from converters.loading import load, open_source
from converters.other import integrity
from converters.other.safetensors_files import open_safetensors, write_safetensors
from converters.tensors import Stored
from tests.converters import networks
from tests.converters.networks import SMALL
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(2.5),
    "c": np.zeros((0, 4), np.int64),
    "d": np.arange(5, dtype=np.float16),
}
OWN = {"architecture": dataclasses.asdict(Architecture()), "naming": "twin", "step": 7}


def stored(arrays):
    return {name: Stored(value.shape, value.dtype.name, lambda value=value: value) for name, value in arrays.items()}


def written(path, own=OWN):
    write_safetensors(path, stored(ARRAYS), description=own)
    return path


def everything(path):
    """What is read: values by name, step and stored architecture."""
    with contextlib.closing(open_source(path)) as source:
        values = {name: one.read() for name, one in source.tensors.items()}
        return {name: (v.dtype, v.shape, v.tobytes()) for name, v in values.items()}, source.step, source.architecture


def pack(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def parts(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_the_library_reads_what_is_written_and_we_what_the_library_writes(tmp_path):
    ours = load_file(written(tmp_path / "ours.safetensors"))
    assert ours.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert ours[name].dtype == value.dtype
        np.testing.assert_array_equal(ours[name], value)
    save_file(ARRAYS, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    values, step, architecture = everything(tmp_path / "theirs.safetensors")
    assert values == everything(tmp_path / "ours.safetensors")[0]
    assert (step, architecture) == (None, {})
    assert everything(tmp_path / "ours.safetensors")[1:] == (7, OWN["architecture"])


@pytest.mark.parametrize("kind", ["bit", "byte", "run of zeros", "cut", "swap"])
def test_no_damage_of_a_file_of_ours_is_read_otherwise_without_a_word(tmp_path, kind):
    path = written(tmp_path / "ours.safetensors")
    whole, intact = path.read_bytes(), everything(path)
    random, messages = np.random.RandomState(0), []
    for _ in range(300):
        content, place = bytearray(whole), random.randint(len(whole))
        if kind == "bit":
            content[place] ^= 1 << random.randint(8)
        elif kind == "byte":
            content[place] = random.randint(256)
        elif kind == "run of zeros":
            content[place : place + 16] = bytes(len(content[place : place + 16]))
        elif kind == "cut":
            content = content[:place]
        else:
            other = random.randint(len(whole))
            content[place], content[other] = content[other], content[place]
        path.write_bytes(content)
        try:
            assert everything(path) == intact
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("metadata", [
    {"architecture": "resnet50"},
    {"step": "²"},
    {"step": "7", "naming": "twin", "architecture": json.dumps({"ft_proj_selector": 1})},
    {"format": "pt", "": "", "ssc": "x" * 1000, "modelspec.architecture": "[[["},
    {},
])  # fmt: skip
def test_metadata_of_others_are_not_ours(tmp_path, metadata):
    network = networks.network(SMALL)
    targets.write(network, tmp_path / "ours.safetensors", to="safetensors", naming="twin")
    arrays = load_file(tmp_path / "ours.safetensors")
    save_file(arrays, tmp_path / "theirs.safetensors", metadata=metadata)
    with contextlib.closing(load(tmp_path / "theirs.safetensors")) as found:
        assert found.architecture == network.architecture
        assert found.step is None
        for name in network.weights:
            np.testing.assert_array_equal(found[name], network[name])


WRONG = {
    "a selector of 1.9": {"architecture": OWN["architecture"] | {"ft_proj_selector": 1.9}},
    "a depth of 50.0": {"architecture": OWN["architecture"] | {"depth": 50.0}},
    "a boolean number of classes": {"architecture": OWN["architecture"] | {"num_classes": True}},
    "a number of layers in text": {"architecture": OWN["architecture"] | {"num_proj_layers": "3"}},
    "a ratio in text": {"architecture": OWN["architecture"] | {"sk_ratio": "0.0625"}},
    "an unknown part": {"architecture": OWN["architecture"] | {"magic": 1}},
    "a text for an architecture": {"architecture": "resnet50"},
    "no architecture": {"step": 7},
    "a step of 1.5": OWN | {"step": 1.5},
    "a step of a truth": OWN | {"step": True},
    "a step in text": OWN | {"step": "²"},
    "a negative step": OWN | {"step": -1},
}


@pytest.mark.parametrize("case", WRONG)
def test_metadata_that_say_they_are_ours_are_validated(tmp_path, case):
    path = tmp_path / "x.safetensors"
    text, checksums = json.dumps(WRONG[case]), {name: integrity.checksum([v.tobytes()]) for name, v in ARRAYS.items()}
    outline = {name: (v.dtype.name, v.shape) for name, v in ARRAYS.items()}
    own = {integrity.ABOUT: text, integrity.SEAL: integrity.seal(outline, checksums, description=text)}
    save_file(ARRAYS, path, metadata=own)
    with pytest.raises(InputError, match=r"x\.safetensors must be a whole safetensors file, but "):
        open_source(path)


@pytest.mark.parametrize("lost", [integrity.ABOUT, integrity.SEAL])
def test_a_description_without_its_checksum_is_refused(tmp_path, lost):
    path = written(tmp_path / "x.safetensors")
    header, data = parts(path)
    del header["__metadata__"][lost]
    path.write_bytes(pack(header, data))
    with pytest.raises(InputError, match="one is missing"):
        open_source(path)


def test_metadata_of_null_are_none(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack({"__metadata__": None, "w": F32}, bytes(8)))
    with safetensors.safe_open(path, framework="np") as theirs:
        assert theirs.metadata() is None
    assert open_safetensors(path).tensors.keys() == {"w"}


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "a key twice": b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"I32","shape":[2],'
    b'"data_offsets":[0,8]}}',
    "a field twice": b'{"w":{"dtype":"I32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "metadata twice": b'{"__metadata__":{},"__metadata__":{},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "metadata that are no text": {"__metadata__": {"step": 7}, "w": F32},
    "metadata that are a list": {"__metadata__": [], "w": F32},
    "a list": [],
    "a number": b"17",
    "an overlap": {"w": F32, "x": F32},
    "an overlap in part": {"w": F32, "x": F32 | {"shape": [1], "data_offsets": [4, 8]}},
    "a hole": {"w": F32 | {"shape": [1], "data_offsets": [4, 8]}},
    "bytes behind the tensors": {"w": F32 | {"shape": [1], "data_offsets": [0, 4]}},
    "a tensor past the end": {"w": F32 | {"shape": [4], "data_offsets": [0, 16]}},
    "an end before the begin": {"w": F32 | {"shape": [0], "data_offsets": [8, 0]}, "x": F32},
    "offsets of fractions": {"w": F32 | {"data_offsets": [0.0, 8]}},
    "offsets of truths": {"w": F32 | {"data_offsets": [False, 8]}},
    "negative offsets": {"w": F32 | {"data_offsets": [-8, 0]}},
    "three offsets": {"w": F32 | {"data_offsets": [0, 4, 8]}},
    "a shape of fractions": {"w": F32 | {"shape": [1.9]}},
    "a shape of 2.0": {"w": F32 | {"shape": [2.0]}},
    "a shape of truths": {"w": F32 | {"shape": [2, True]}},
    "a shape in text": {"w": F32 | {"shape": ["2"]}},
    "a shape that is a number": {"w": F32 | {"shape": 2}},
    "a negative shape": {"w": F32 | {"shape": [-1, -2]}},
    "an absurd shape": {"w": F32 | {"shape": [1 << 70]}},
    "an absurd shape of nothing": {"w": F32 | {"shape": [0, 1 << 70], "data_offsets": [0, 0]}, "x": F32},
    "absurdly many axes": {"w": F32 | {"shape": [1] * 100 + [2]}},
    "a dtype that is none": {"w": F32 | {"dtype": "F99"}},
    "a dtype that is no text": {"w": F32 | {"dtype": ["F32"]}},
    "another size than the dtype's": {"w": F32 | {"dtype": "F64"}},
    "no dtype": {"w": {"shape": [2], "data_offsets": [0, 8]}},
    "a tensor that is text": {"w": "F32"},
    "deep nesting": b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a name of a megabyte": {"w" * (1 << 20): F32},
    "no UTF-8": b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_no_writer_means_are_refused(tmp_path, case):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(HEADERS[case], bytes(8)))
    lenient = {"a key twice", "a field twice", "metadata twice", "absurdly many axes", "a name of a megabyte"}
    if case not in lenient:  # the library takes the last of two, and any length
        with pytest.raises(safetensors.SafetensorError):
            safetensors.safe_open(path, framework="np")
    with pytest.raises(InputError, match=r"x\.safetensors must be a whole safetensors file, but [^\n]*$"):
        open_safetensors(path)


def test_tensors_of_types_that_no_weight_has_are_listed_and_refused_only_when_read(tmp_path):
    header = {
        "w": F32,
        "scale": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [8, 11]},
        "packed": {"dtype": "F4", "shape": [2], "data_offsets": [11, 12]},
        "half": {"dtype": "U16", "shape": [2], "data_offsets": [12, 16]},
        "phase": {"dtype": "C64", "shape": [1], "data_offsets": [16, 24]},
    }
    (tmp_path / "x.safetensors").write_bytes(pack(header, bytes(24)))
    tensors = open_safetensors(tmp_path / "x.safetensors").tensors
    assert [tensors[key].dtype for key in header] == ["float32", "F8_E4M3", "F4", "uint16", "complex64"]
    assert tensors["phase"].read().tolist() == [0j]
    with pytest.raises(InputError, match=r"tensor scale of .*x\.safetensors must be .* but is of the type F8_E4M3"):
        tensors["scale"].read()


@pytest.mark.parametrize("selector", [1.9, 1.0, True, "1", np.float64(1)])
def test_a_selector_or_step_that_is_no_whole_number_is_refused(tmp_path, selector):
    targets.write(networks.network(SMALL), tmp_path / "x.safetensors", to="safetensors", naming="twin")
    with pytest.raises(InputError, match="selector must be a whole number"):
        load(tmp_path / "x.safetensors", selector=selector)
    with pytest.raises(InputError, match="step must be a whole number"):
        load(tmp_path / "x.safetensors", step=selector)
    with contextlib.closing(load(tmp_path / "x.safetensors", selector=np.int64(1))) as network:
        assert network.architecture.ft_proj_selector == 1


# NumPy's .npz


def npz(path, members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


def npy(value, *, header=None) -> bytes:
    """A `.npy` of an array, or with another header."""
    out = io.BytesIO()
    if header is None:
        np.lib.format.write_array(out, value, allow_pickle=True)
        return out.getvalue()
    text = str(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + value.tobytes()


EIGHT = np.arange(2, dtype="<f4")
PLAIN = {"descr": "<f4", "fortran_order": False, "shape": (2,)}
NPZ = {
    "big-endian numbers": ([("w.npy", npy(EIGHT.astype(">f4")))], "array w is big-endian; save it again as <f4"),
    "objects": ([("w.npy", npy(np.array([{}], object)))], "array w holds objects, which could run code"),
    "records": ([("w.npy", npy(np.zeros(2, "i4,f4")))], "array w holds records"),
    "a shape longer than the bytes": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (3,)}))], "12 bytes .* has 8"),
    "a shape shorter than the bytes": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (1,)}))], "4 bytes .* has 8"),
    "an absurd shape": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (1 << 60, 1 << 60)}))], "can be addressed"),
    "a negative shape": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (-1, -2)}))], "whole number of at least 0"),
    "a shape of fractions": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (1.9,)}))], "shape is not valid|whole"),
    "a shape of truths": ([("w.npy", npy(EIGHT, header=PLAIN | {"shape": (True, 2)}))], "whole number"),
    "a header that is code": ([("w.npy", npy(EIGHT, header="__import__('os').system('true')"))], "damaged"),
    "a dtype that is none": ([("w.npy", npy(EIGHT, header=PLAIN | {"descr": "<q9"}))], "damaged"),
    "no array": ([("w.npy", b"text")], "damaged"),
    "nothing": ([("w.npy", b"")], "damaged"),
    "a newer version": ([("w.npy", b"\x93NUMPY\x09\x00" + bytes(100))], "version"),
    "a name twice": ([("w.npy", npy(EIGHT)), ("w.npy", npy(EIGHT))], "the member w.npy twice"),
}


@pytest.mark.parametrize("case", NPZ)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_arrays_that_no_writer_of_weights_means_are_refused(tmp_path, case):
    members, message = NPZ[case]
    npz(tmp_path / "x.npz", members)
    with pytest.raises(InputError, match=rf"x\.npz must be a whole .*, but .*{message}"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_of_an_npz_is_read_otherwise_without_a_word(tmp_path, save):
    arrays = {
        "w": np.random.RandomState(0).rand(40),
        "f": np.arange(6.0).reshape(2, 3).T,
        "s": np.int64(3),
    }
    save(tmp_path / "x.npz", **arrays)
    path, refused = tmp_path / "x.npz", 0
    whole, intact = path.read_bytes(), everything(path)[0]
    assert {name: value[2] for name, value in intact.items()} == {k: np.asarray(v).tobytes() for k, v in arrays.items()}
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = everything(path)[0]
        except InputError:
            refused += 1
            continue
        # A member's name has no checksum: in the directory and before the data it can be damaged alike, here in one.
        assert sorted(map(str, found.values())) == sorted(map(str, intact.values()))
    assert refused > len(whole) // 2
