"""Small files that would hang a reader, take all memory, or bring in bytes of other files: one function each.

Each makes its file in a folder and returns the path; all must be refused within `reader.SECONDS` and `reader.BYTES`.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from converters.tensorflow.bundle import HEADER, write_bundle
from converters.tensorflow.object_graph import GRAPH_KEY, SUFFIX, Node, encode_graph
from converters.tensorflow.sstable import FOOTER, MAGIC, append_block
from tf_simclr.foreign.wire import encode, encode_varint

Maker = Callable[[Path], Path]
CASES: dict[str, Maker] = {}
"""Name → maker of a path that `doors.network` must refuse."""


def case(make: Maker) -> Maker:
    """Enters a maker into `CASES`."""
    CASES[make.__name__] = make
    return make


def varied(name: str, values: dict[str, object]) -> Callable[[Callable], Callable]:
    """Enters one maker for each value: `name-key`."""

    def enter(make: Callable) -> Callable:
        for key, value in values.items():
            CASES[f"{name}-{key}"] = lambda folder, value=value: make(folder, value)
        return make

    return enter


# TensorFlow's bundles


def table(blocks: list[bytes], handles: list[bytes]) -> bytes:
    """A table of ready blocks, whose index names the handles in this order."""
    out = bytearray()
    for content in blocks:
        out += content
    index = append_block(out, [(b"%08d" % i, where) for i, where in enumerate(handles)], interval=1)
    tail = append_block(out, []) + index
    return bytes(out) + tail.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")


def as_checkpoint(folder: Path, index: bytes) -> Path:
    (folder / "model.ckpt-1.index").write_bytes(index)
    (folder / "model.ckpt-1.data-00000-of-00001").write_bytes(bytes(64))
    return folder / "model.ckpt-1"


def sealed(content: bytes, kind: int = 0) -> bytes:
    """A block with its trailer."""
    from tf_simclr.files.contents import crc32c, mask

    content += bytes([kind])
    return content + mask(crc32c(content)).to_bytes(4, "little")


def place(offset: int, size: int) -> bytes:
    return encode_varint(offset) + encode_varint(size)


@case
def keys_that_share_their_beginnings(folder: Path) -> Path:
    """584 kB of index whose keys would be 4 GB: each adds a byte to the one before."""
    rows = b"".join(encode_varint(i) + b"\x01\x00" + b"a" for i in range(90_000))
    block = rows + struct.pack("<II", 0, 1)
    return as_checkpoint(folder, table([sealed(block)], [place(0, len(block))]))


@case
def one_block_named_often(folder: Path) -> Path:
    out = bytearray()
    where = append_block(out, [(b"", bytes(HEADER))] + [(b"k%06d" % i, b"\x08\x01") for i in range(5000)])
    return as_checkpoint(folder, table([bytes(out)], [where] * 20_000))


@case
def compressed_block_that_claims_gigabytes(folder: Path) -> Path:
    block = encode_varint((1 << 32) - 1) + b"\x00a" + b"\xfe\x01\x00" * 100_000
    return as_checkpoint(folder, table([sealed(block, 1)], [place(0, len(block))]))


@case
def compressed_blocks_that_become_gigabytes(folder: Path) -> Path:
    copies = (1 << 22) // 64
    block = encode_varint(1 + 64 * copies) + b"\x00a" + b"\xfe\x01\x00" * copies
    size = len(sealed(block, 1))
    return as_checkpoint(folder, table([sealed(block, 1)] * 60, [place(i * size, len(block)) for i in range(60)]))


@case
def tensors_without_end(folder: Path) -> Path:
    entry = encode(1, 1) + encode(2, encode(2, encode(1, 0)))
    out, rows = bytearray(), [(b"", bytes(HEADER))] + [(b"tensor%08d" % i, entry) for i in range(200_000)]
    where = append_block(out, rows)
    return as_checkpoint(folder, table([bytes(out)], [where]))


@case
def tensor_of_a_million_axes(folder: Path) -> Path:
    write_bundle(folder / "model.ckpt-1", [("a", np.float32(1))])
    shape = encode(2, encode(1, 1)) * 1_000_000
    out = bytearray()
    where = append_block(out, [(b"", bytes(HEADER)), (b"a", encode(1, 1) + encode(2, shape) + encode(5, 4))])
    (folder / "model.ckpt-1.index").write_bytes(table([bytes(out)], [where]))
    return folder / "model.ckpt-1"


def graph_checkpoint(folder: Path, nodes: list[Node]) -> Path:
    """An object checkpoint with this graph, and a value for each of its keys."""
    keys = {node.key for node in nodes if node.key}
    write_bundle(folder / "ckpt-1", [*((key, np.float32(1)) for key in keys), (GRAPH_KEY, encode_graph(nodes))])
    return folder / "ckpt-1"


@case
def object_graph_that_is_a_chain(folder: Path) -> Path:
    nodes = [Node([("child", i + 1)]) for i in range(60_000)] + [Node(key="a" + SUFFIX)]
    return graph_checkpoint(folder, nodes)


@case
def object_graph_with_long_names(folder: Path) -> Path:
    nodes = [Node([("x" * 100_000, i + 1)]) for i in range(300)] + [Node(key="a" + SUFFIX)]
    return graph_checkpoint(folder, nodes)


@case
def object_graph_of_empty_nodes(folder: Path) -> Path:
    write_bundle(folder / "ckpt-1", [("a", np.float32(1)), (GRAPH_KEY, b"\x0a\x00" * 10_000_000)])
    return folder / "ckpt-1"


@case
def object_graph_all_of_whose_nodes_lead_to_all(folder: Path) -> Path:
    edges = [(f"e{i}", i) for i in range(600)]
    return graph_checkpoint(folder, [Node(edges) for _ in range(600)] + [Node(key="a" + SUFFIX)])


LONG = {
    "resnet": "resnet/" * 6000,
    "heads": "projection_head/nl_0/" * 3000,
    "model": "resnet_model/" * 4000 + "x",
    "classifier": "head_supervised/linear_layer/dense_1/" * 2000,
    "dots": "encoder." * 6000,
}


@varied("name", LONG)
def long_name(folder: Path, name: str) -> Path:
    write_bundle(folder / "model.ckpt-1", [(name + "kernel", np.float32(1))])
    return folder / "model.ckpt-1"


@varied("variable", LONG)
def long_name_of_a_variable(folder: Path, name: str) -> Path:
    nodes = [Node([("variables", 1)]), Node(key="a" + SUFFIX, name=name + "conv2d/kernel!")]
    return graph_checkpoint(folder, nodes)


@varied("many-names", {key: (text[:1900], 2000) for key, text in LONG.items()})
def many_long_names_of_variables(folder: Path, name: tuple[str, int]) -> Path:
    """Each short enough; a pattern that backtracks takes minutes for all of them."""
    text, count = name
    names = [f"{text}{i}conv2d/kernel!" for i in range(count)]
    nodes = [Node([("variables", i + 1) for i in range(count)])]
    nodes += [Node(key=f"a{i}{SUFFIX}", name=one) for i, one in enumerate(names)]
    return graph_checkpoint(folder, nodes)


@case
def state_file_of_empty_lines(folder: Path) -> Path:
    for step in (1, 2):
        write_bundle(folder / f"model.ckpt-{step}", [("a", np.float32(1))])
    (folder / "checkpoint").write_text("\n" * 300_000 + "x")
    return folder


def with_graph_file(folder: Path, name: str, content: bytes) -> Path:
    write_bundle(folder / "model.ckpt-1", [("a", np.float32(1))])
    (folder / name).write_bytes(content)
    return folder / "model.ckpt-1"


@case
def meta_of_fields_of_two_bytes(folder: Path) -> Path:
    return with_graph_file(folder, "model.ckpt-1.meta", b"\x08\x01" * 15_000_000)


@case
def meta_of_empty_nodes(folder: Path) -> Path:
    graph = b"\x0a\x00" * 15_000_000
    return with_graph_file(folder, "model.ckpt-1.meta", encode(2, graph))


@case
def meta_of_functions_with_a_mark(folder: Path) -> Path:
    function = encode(1, encode(3, b"\x0a\x00" * 1000 + encode(1, "linear_layer/dense")))
    return with_graph_file(folder, "model.ckpt-1.meta", encode(2, encode(2, function * 10_000)))


@varied("json", {"deep": b"[" * 5_000_000, "objects": b'{"a":' * 1_000_000, "digits": b"9" * 5_000_000})
def flags_of_hostile_json(folder: Path, content: bytes) -> Path:
    return with_graph_file(folder, "flags.json", content)


@case
def flags_of_many_lists(folder: Path) -> Path:
    return with_graph_file(folder, "flags.json", b"[" + b"[]," * 10_000_000 + b"[]]")


# safetensors


def safetensors(folder: Path, header: bytes, data: bytes = bytes(4)) -> Path:
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    return folder / "x.safetensors"


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NONE = {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}


@varied("safetensors-keys", {"100000": 100_000, "300000": 300_000})
def safetensors_with_many_keys(folder: Path, count: int) -> Path:
    entries = {"conv1.weight": ONE} | {f"extra{i}": NONE for i in range(count)}
    return safetensors(folder, json.dumps(entries, separators=(",", ":")).encode())


@case
def safetensors_with_large_metadata(folder: Path) -> Path:
    header = {"__metadata__": {str(i): "" for i in range(700_000)}, "conv1.weight": ONE}
    return safetensors(folder, json.dumps(header, separators=(",", ":")).encode())


@varied("safetensors-json", {"deep": b'{"a":' + b"[" * 2_000_000, "digits": b'{"a":' + b"9" * 2_000_000 + b"}"})
def safetensors_of_hostile_json(folder: Path, header: bytes) -> Path:
    return safetensors(folder, header)


@varied(
    "safetensors-shape",
    {
        "million-axes": [1] * 1_000_000,
        "huge": [10**30, 0],
        "text": ["1"],
        "float": [1.0],
        "true": [True],
        "negative": [-1, -1],
    },
)
def safetensors_of_a_hostile_shape(folder: Path, shape: list) -> Path:
    return safetensors(folder, json.dumps({"conv1.weight": ONE | {"shape": shape}}).encode())


@varied(
    "safetensors-architecture", {"text": "resnet50", "deep": "[" * 1_000_000, "list": "[]", "nan": '{"depth": NaN}'}
)
def safetensors_of_a_hostile_architecture(folder: Path, text: str) -> Path:
    header = {"__metadata__": {"architecture": text, "tf_simclr": text, "step": "²"}, "conv1.weight": ONE}
    return safetensors(folder, json.dumps(header).encode())


# Zips


FLUSHED = 1 << 20


def deflated_zeros(count: int, fill: bytes = b"\0") -> bytes:
    """`count` MiB of one byte, deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(fill * FLUSHED) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * count + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zip_with(path: Path, members: dict[str, bytes], *, bombs: dict[str, tuple[int, bytes]]) -> Path:
    """A zip of members and, for each bomb, of so many MiB of one byte, without its right checksum."""
    content, directory = bytearray(), bytearray()
    for name, data in {**members, **dict.fromkeys(bombs)}.items():
        count, fill = bombs.get(name, (0, b""))
        packed = deflated_zeros(count, fill) if name in bombs else data
        size = min(count * FLUSHED, 0xFFFFFFFE) if name in bombs else len(data)
        crc = 0 if name in bombs else zlib.crc32(data)
        fields = (20, 0, 8 if name in bombs else 0, 0, 33, crc, len(packed), size, len(name))
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *fields, 0, 0, 0, 0, 0, len(content))
        directory += name.encode()
        content += struct.pack("<4s5H3I2H", b"PK\x03\x04", *fields, 0) + name.encode() + packed
    count = len(members) + len(bombs)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(content), 0)
    path.write_bytes(content + directory + end)
    return path


@varied("keras-bomb", {"zeros": b"\0", "spaces": b" ", "lists": b"["})
def keras_configuration_of_gigabytes(folder: Path, fill: bytes) -> Path:
    return zip_with(folder / "x.keras", {"model.weights.h5": b""}, bombs={"config.json": (3000, fill)})


@case
def keras_weights_of_gigabytes(folder: Path) -> Path:
    config = json.dumps({"class_name": "Functional", "config": {"layers": []}}).encode()
    return zip_with(folder / "x.keras", {"config.json": config}, bombs={"model.weights.h5": (3000, b"\0")})


@case
def zip_member_of_gigabytes(folder: Path) -> Path:
    members = {"model.ckpt-1.index": b""}
    return zip_with(folder / "v1.zip", members, bombs={"model.ckpt-1.data-00000-of-00001": (4000, b"\0")})


@case
def zip_of_many_members(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "v1.zip", "w") as archive:
        for i in range(30_000):
            archive.writestr(f"{i}.index", b"")
    return folder / "v1.zip"


@case
def zip_whose_members_overlap(folder: Path) -> Path:
    """Many names for the same megabytes."""
    data = deflated_zeros(50)
    name = b"model.ckpt-%04d.index"
    fields = (20, 0, 8, 0, 33, 0, len(data), 50 << 20, len(name % 0))
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", *fields, 0) + name % 0 + data
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *fields, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + name % i for i in range(2000))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2000, 2000, len(directory), len(local), 0)
    (folder / "v1.zip").write_bytes(local + directory + end)
    return folder / "v1.zip"


@varied("npz-shape", {"large": (1 << 36,), "axes": (1,) * 60 + (1 << 36,), "strides": (1 << 20, 1 << 20)})
def npz_that_claims_terabytes(folder: Path, shape: tuple[int, ...]) -> Path:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("a.npy", member.getvalue() + bytes(64))
    return folder / "x.npz"


@case
def npz_member_of_gigabytes(folder: Path) -> Path:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (3000 << 20,)})
    return zip_with(folder / "x.npz", {"b.npy": member.getvalue()}, bombs={"a.npy": (3000, b"\0")})


@case
def npz_of_many_members(folder: Path) -> Path:
    member = io.BytesIO()
    np.lib.format.write_array(member, np.zeros(0, np.float32))
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for i in range(61_000):
            archive.writestr(f"{i}.npy", member.getvalue())
    return folder / "x.npz"


# tar


def tar_gz(folder: Path, write: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(folder / "module.tar.gz", "w:gz", compresslevel=1) as archive:
        write(archive)
    return folder / "module.tar.gz"


@case
def tar_member_of_gigabytes(folder: Path) -> Path:
    member = tarfile.TarInfo("variables/variables.data-00000-of-00001")
    member.size = 4000 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(member.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    content = b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + head + deflated_zeros(4001) + bytes(8)
    (folder / "module.tar.gz").write_bytes(content)
    return folder / "module.tar.gz"


@case
def tar_of_many_members(folder: Path) -> Path:
    blocks = b"".join(tarfile.TarInfo(f"{i}.index").tobuf() for i in range(40_000))
    (folder / "module.tar.gz").write_bytes(gzip.compress(blocks + bytes(1024), 1))
    return folder / "module.tar.gz"


@case
def tar_that_is_sparse(folder: Path) -> Path:
    """A GNU sparse member: 16 bytes that claim to be 8 TB."""
    member = tarfile.TarInfo("variables/variables.index")
    member.size, member.type = 0, tarfile.GNUTYPE_SPARSE
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[386:398], head[398:410] = b"00000000000\0", b"00000000000\0"
    head[483:495] = b"77777777777\0"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    (folder / "module.tar").write_bytes(bytes(head) + bytes(1024))
    return folder / "module.tar"


@varied("tar-header", {"pax": tarfile.XHDTYPE, "long-name": tarfile.GNUTYPE_LONGNAME})
def tar_with_a_header_of_gigabytes(folder: Path, kind: bytes) -> Path:
    member = tarfile.TarInfo("x")
    member.size, member.type = 4000 << 20, kind
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(member.tobuf(tarfile.GNU_FORMAT)) + packer.flush(zlib.Z_FULL_FLUSH)
    (folder / "module.tar.gz").write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + head + deflated_zeros(4001) + bytes(8))
    return folder / "module.tar.gz"


@varied("tar-link", {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "up": b"0"})
def tar_that_leads_elsewhere(folder: Path, kind: bytes) -> Path:
    member = tarfile.TarInfo("../outside.index" if kind == b"0" else "model.ckpt-1.index")
    member.type, member.linkname = kind, "/etc/passwd"
    return tar_gz(folder, lambda archive: archive.addfile(member))


# PyTorch


def torch_zip(folder: Path, pickled: bytes, storage: bytes = bytes(8)) -> Path:
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        for name, data in {"data.pkl": pickled, "data/0": storage, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", data)
    return folder / "x.pth"


def each_other(levels: int) -> bytes:
    """2 to the power of `levels` ways through dictionaries, each of which is named twice by the one around."""
    content: dict = {"weight": 1}
    for _ in range(levels):
        content = {"a": content, "b": content}
    return pickle.dumps(content, protocol=2)


@case
def dictionaries_that_name_each_other(folder: Path) -> Path:
    return torch_zip(folder, each_other(30))


@case
def dictionaries_that_name_each_other_without_a_zip(folder: Path) -> Path:
    content: dict = {"weight": torch.zeros(1)}
    for _ in range(30):
        content = {"a": content, "b": content}
    torch.save(content, folder / "x.pth", _use_new_zipfile_serialization=False)
    return folder / "x.pth"


@case
def dictionary_that_contains_itself(folder: Path) -> Path:
    content: dict = {}
    content["self"] = content
    return torch_zip(folder, pickle.dumps(content, protocol=2))


@varied("pickle", {"lists": b"]" * 3_000_000, "marks": b"(" * 3_000_000, "deep": b"(" * 500_000 + b"l" * 500_000})
def pickle_without_end(folder: Path, opcodes: bytes) -> Path:
    return torch_zip(folder, b"\x80\x02" + opcodes + b".")


@varied("pickle-nested", {"tuples": b"\x85", "lists": b"]a"})
def pickle_of_nested_values(folder: Path, opcodes: bytes) -> Path:
    made = b")" + b"\x85" * 300_000 if opcodes == b"\x85" else b"]" * 300_000 + b"a" * 299_999
    return torch_zip(folder, b"\x80\x02}X\x01\x00\x00\x00a" + made + b"s.")


@case
def pickle_that_repeats_a_text(folder: Path) -> Path:
    """A text of a megabyte is a key's beginning at each of many levels."""
    content: dict = {f"weight{i}": 1 for i in range(1000)}
    for _ in range(20):
        content = {"x" * 1_000_000: content}
    return torch_zip(folder, pickle.dumps(content, protocol=2))


def stride_zero(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(1).expand(*shape)


STRIDES = {"classes": (10_000_000, 2048), "one-axis": (1 << 40,), "many": (1 << 8,) * 5}


@varied("stride-0", STRIDES)
def tensor_of_stride_zero(folder: Path, shape: tuple[int, ...]) -> Path:
    torch.save({"conv1.weight": stride_zero(shape)}, folder / "x.pth")
    return folder / "x.pth"


@varied("stride-0-legacy", STRIDES)
def tensor_of_stride_zero_without_a_zip(folder: Path, shape: tuple[int, ...]) -> Path:
    torch.save({"conv1.weight": stride_zero(shape)}, folder / "x.pth", _use_new_zipfile_serialization=False)
    return folder / "x.pth"


@case
def many_tensors_of_stride_zero(folder: Path) -> Path:
    one = torch.zeros(1).expand(1000, 1000)
    torch.save({f"layer{i}.weight": one for i in range(1000)}, folder / "x.pth")
    return folder / "x.pth"


@case
def torch_zip_with_a_bomb(folder: Path) -> Path:
    pickled = pickle.dumps({}, protocol=2)
    members = {"archive/data.pkl": pickled, "archive/version": b"3\n"}
    return zip_with(folder / "x.pth", members, bombs={"archive/data/0": (4000, b"\0")})


@case
def torch_pickle_of_gigabytes(folder: Path) -> Path:
    return zip_with(folder / "x.pth", {"archive/version": b"3\n"}, bombs={"archive/data.pkl": (3000, b"]")})


# HDF5


def h5(folder: Path, write: Callable[[h5py.File], None]) -> Path:
    with h5py.File(folder / "x.weights.h5", "w") as file:
        write(file)
    return folder / "x.weights.h5"


VARS = "layers/conv2d/vars/"


@varied("h5-unwritten", {"chunked": (1 << 15, 1 << 10), "contiguous": None, "compact": None})
def h5_never_written(folder: Path, chunks: tuple[int, ...] | None) -> Path:
    def write(file: h5py.File) -> None:
        file.create_dataset(VARS + "0", (1 << 20, 1 << 10), "f4", chunks=chunks, fillvalue=1.0 if chunks else None)

    return h5(folder, write)


@case
def h5_of_compressed_zeros(folder: Path) -> Path:
    def write(file: h5py.File) -> None:
        data = file.create_dataset(VARS + "0", (1 << 28,), "f4", chunks=(1 << 22,), compression="gzip")
        packed = zlib.compress(bytes(1 << 24), 9)
        for i in range(64):
            data.id.write_direct_chunk((i << 22,), packed)

    return h5(folder, write)


@case
def h5_of_many_groups(folder: Path) -> Path:
    def write(file: h5py.File) -> None:
        for i in range(30_000):
            file.create_group(f"layers/conv2d_{i}/vars")
        file[VARS + "0"] = np.zeros(1, np.float32)

    return h5(folder, write)


@case
def h5_of_nested_groups(folder: Path) -> Path:
    def write(file: h5py.File) -> None:
        group = file
        for _ in range(3000):
            group = group.create_group("layers")
        group["vars/0"] = np.zeros(1, np.float32)

    return h5(folder, write)


def other_file(folder: Path) -> Path:
    """Weights of somebody else."""
    with h5py.File(folder / "secret.h5", "w") as file:
        file["data"] = np.arange(4, dtype=np.float32)
    (folder / "secret.raw").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return folder


def external_storage(file: h5py.File, folder: Path) -> None:
    where = [(str(other_file(folder) / "secret.raw"), 0, 16)]
    file.create_dataset(VARS + "0", (4,), "f4", external=where)


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(other_file(folder) / "secret.h5", "data", (4,))
    file.create_virtual_dataset(VARS + "0", layout)


def virtual_of_itself(file: h5py.File, folder: Path) -> None:
    file["data"] = np.arange(4, dtype=np.float32)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(".", "data", (4,))
    file.create_virtual_dataset(VARS + "0", layout)


def external_link(file: h5py.File, folder: Path) -> None:
    file[VARS + "0"] = h5py.ExternalLink(str(other_file(folder) / "secret.h5"), "/data")


def external_link_to_a_group(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["conv2d/vars/0"] = np.arange(4, dtype=np.float32)
    file["layers"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["data"] = np.arange(4, dtype=np.float32)
    file[VARS + "0"] = h5py.SoftLink("/data")


def soft_link_loop(file: h5py.File, folder: Path) -> None:
    file[VARS + "1"] = h5py.SoftLink("/" + VARS + "0")
    file[VARS + "0"] = h5py.SoftLink("/" + VARS + "1")


def hard_link_loop(file: h5py.File, folder: Path) -> None:
    file[VARS + "0"] = np.zeros(4, np.float32)
    file["layers/again"] = file["layers"]


def object_reference(file: h5py.File, folder: Path) -> None:
    file["data"] = np.arange(4, dtype=np.float32)
    file.create_dataset(VARS + "0", data=np.array([file["data"].ref] * 4, object), dtype=h5py.ref_dtype)


def region_reference(file: h5py.File, folder: Path) -> None:
    data = file.create_dataset("data", data=np.arange(4, dtype=np.float32))
    file.create_dataset(VARS + "0", data=np.array([data.regionref[:2]] * 4, object), dtype=h5py.regionref_dtype)


def user_filter(file: h5py.File, folder: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((4,))
    group = file.create_group(VARS)
    made = h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, dcpl=plist)
    made.write_direct_chunk((0,), np.arange(4, dtype=np.float32).tobytes())


def strings(file: h5py.File, folder: Path) -> None:
    file.create_dataset(VARS + "0", data=["a" * 100, "b"], dtype=h5py.string_dtype())


ELSEWHERE = {
    make.__name__.replace("_", "-"): make
    for make in (
        external_storage,
        virtual,
        virtual_of_itself,
        external_link,
        external_link_to_a_group,
        soft_link,
        soft_link_loop,
        hard_link_loop,
        object_reference,
        region_reference,
        user_filter,
        strings,
    )
}


@varied("h5", ELSEWHERE)
def h5_that_leads_elsewhere(folder: Path, write: Callable[[h5py.File, Path], None]) -> Path:
    return h5(folder, lambda file: write(file, folder))


@varied("keras", ELSEWHERE)
def keras_that_leads_elsewhere(folder: Path, write: Callable[[h5py.File, Path], None]) -> Path:
    layer = {"class_name": "Conv2D", "config": {"name": "stem_conv1"}}
    config = {"class_name": "Functional", "config": {"layers": [layer]}}
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", h5_that_leads_elsewhere(folder, write).read_bytes())
    return folder / "x.keras"
