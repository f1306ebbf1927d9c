"""Intact files of every container, and changes to what is in them, with the checksums and lengths made to fit.

A container is made once in a folder; a mutant is a copy of that folder in which one file was changed: half of them
byte by byte (`raw`), half inside its structure, whose checksums are then recomputed (`sealed`).
"""

import gzip
import io
import json
import random
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from converters.other.safetensors_files import write_safetensors
from converters.tensorflow.bundle import write_bundle
from converters.tensorflow.object_graph import write_tf2
from converters.tensorflow.sstable import read_table, write_table
from converters.tensors import Stored
from tests.converters import tables
from tests.fuzz import changes
from tf_simclr.foreign.wire import encode
from tf_simclr.models.architecture import Architecture

Change = Callable[[bytes, random.Random], bytes]

TENSORS = {
    "base_model/conv2d/kernel": np.arange(3 * 3 * 3 * 8, dtype=np.float32).reshape(3, 3, 3, 8),
    "base_model/batch_normalization/gamma": np.linspace(-1, 1, 8, dtype=np.float32),
    "base_model/batch_normalization/moving_mean": np.linspace(0, 1, 8, dtype=np.float32),
    "head_contrastive/nl_0/dense/kernel": np.arange(64, dtype=np.float16).reshape(8, 8),
    "counter": np.asarray(7, np.int64),
}


@dataclass(frozen=True)
class Container:
    """A kind of file.

    Attributes:
        make: Makes intact files in a folder and returns the path to open.
        door: Of `doors.py`.
        inside: Name's ending → structural change of a file of that name.
        unchecked: Endings of files whose format has no checksum over all of it: other bytes can be read otherwise.
        weight: Mutants of it, relative to others.
    """

    make: Callable[[Path], Path]
    door: str = "checkpoint"
    inside: dict[str, Change] | None = None
    unchecked: tuple[str, ...] = ()
    weight: float = 1.0


def stored(array: np.ndarray) -> Stored:
    return Stored(array.shape, array.dtype.name, lambda: array)


# TensorFlow


def bundle(folder: Path) -> Path:
    write_bundle(folder / "model.ckpt-7", list(TENSORS.items()))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    return folder


def compressed_bundle(folder: Path) -> Path:
    bundle(folder)
    index = folder / "model.ckpt-7.index"
    index.write_bytes(tables.table(read_table(index.read_bytes(), "x").items(), tables.COMPRESSORS["google"]))
    return folder


def objects(folder: Path) -> Path:
    """A TF2 checkpoint in a SavedModel's place, with a graph beside it."""
    names = {f"model/resnet_model/{name}": array for name, array in TENSORS.items()}
    prefix = write_tf2(folder / "variables", names.items())
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        path.rename(path.with_name("variables" + path.name.removeprefix(prefix.name)))
    (folder / "variables" / "checkpoint").unlink()
    (folder / "saved_model.pb").write_bytes(encode(1, 1) + encode(2, meta_graph()))
    return folder


def meta_graph() -> bytes:
    """A classifier on the second layer of a projection head."""
    nodes = [("pool", "Mean", []), ("w", "VarHandleOp", []), ("p0/MatMul", "MatMul", ["pool", "w"])]
    nodes += [("p1/MatMul", "MatMul", ["p0/MatMul", "w"]), ("logits_sup/MatMul", "MatMul", ["p1/MatMul", "w"])]
    return encode(2, b"".join(encode(1, encode_node(*node)) for node in nodes))


def encode_node(name: str, op: str, inputs: list[str]) -> bytes:
    return encode(1, name) + encode(2, op) + b"".join(encode(3, one) for one in inputs)


def beside_graphs(folder: Path) -> Path:
    bundle(folder)
    (folder / "model.ckpt-7.meta").write_bytes(meta_graph())
    (folder / "flags.json").write_text(json.dumps({"ft_proj_selector": -1, "num_proj_layers": 3}))
    (folder / "graph.pbtxt").write_text('node {\n  name: "a"\n  op: "MatMul"\n  input: "b"\n}\n' * 3)
    return folder


def index(content: bytes, rng: random.Random) -> bytes:
    """Another index: a key or an entry is another, or gone; its blocks' checksums fit, compressed or not."""
    try:
        pairs = read_table(content, "x")
    except Exception:
        return changes.raw(content, rng)
    key = rng.choice(list(pairs))
    value = pairs.pop(key)
    if (action := rng.random()) < 0.7:
        pairs[key] = changes.message(value, rng)
    elif action < 0.9:
        pairs[changes.raw(key, rng)] = value
    pairs = dict(sorted(pairs.items()))
    if rng.random() < 0.5:
        return write_table(pairs.items())
    return tables.table(pairs.items(), tables.COMPRESSORS[rng.choice(list(tables.COMPRESSORS))])


# Zips


def inside_zip(**by_ending: Change) -> Change:
    """Another zip: a member's content, name or compression is another, or it is gone, or there twice."""

    def change(content: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:
            return changes.raw(content, rng)
        i, action = rng.randrange(len(members)), rng.random()
        name, data = members[i]
        inner = next((by_ending[end] for end in by_ending if name.endswith(end.replace("_", "."))), changes.raw)
        if action < 0.75:
            members[i] = name, inner(data, rng)
        elif action < 0.8:
            del members[i]
        elif action < 0.85:
            members.append((name, data))
        else:
            members[i] = changes.raw(name.encode(), rng).decode("utf-8", "replace").replace("\0", "_") or "x", data
        out = io.BytesIO()
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
            warnings.simplefilter("ignore")  # a name that is there twice
            for name, data in members:
                archive.writestr(name, data)
        return out.getvalue()

    return change


def npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", **{name.replace("/", "."): array for name, array in TENSORS.items()})
    return folder / "x.npz"


def zipped(folder: Path) -> Path:
    (folder / "inside").mkdir()
    bundle(folder / "inside")
    shutil.make_archive(str(folder / "v1"), "zip", folder / "inside")
    shutil.rmtree(folder / "inside")
    return folder / "v1.zip"


def tarred(folder: Path) -> Path:
    (folder / "inside").mkdir()
    objects(folder / "inside")
    shutil.make_archive(str(folder / "module"), "gztar", folder / "inside")
    shutil.rmtree(folder / "inside")
    return folder / "module.tar.gz"


def tar(content: bytes, rng: random.Random) -> bytes:
    """Another tar: a member's content or header is another, with its checksums; sometimes raw inside the gzip."""
    inside = gzip.decompress(content)
    if rng.random() < 0.3:
        return gzip.compress(changes.raw(inside, rng), 1)
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(inside)) as archive, tarfile.open(fileobj=out, mode="w") as made:
        members = archive.getmembers()
        chosen = rng.randrange(len(members))
        for i, member in enumerate(members):
            data = archive.extractfile(member).read() if member.isreg() else b""
            if i == chosen:
                if rng.random() < 0.6:
                    data = index(data, rng) if member.name.endswith(".index") else changes.raw(data, rng)
                elif rng.random() < 0.5:
                    member.type = rng.choice(
                        (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S")
                    )
                    member.linkname = rng.choice(changes.TEXTS)
                else:
                    member.name = rng.choice(("../x.index", "/x.index", "x\ny", "", "a" * 300, "..", "variables"))
                member.size = len(data) if member.isreg() else 0
            made.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return gzip.compress(out.getvalue(), 1)


# PyTorch


def torch_state() -> dict:
    import torch

    state = {name.replace("/", "."): torch.from_numpy(array.copy()) for name, array in TENSORS.items()}
    return {"state_dict": state, "epoch": 3, "args": {"lr": 0.3, "arch": "resnet50"}, "global_step": 7}


def torch_zip(folder: Path) -> Path:
    import torch

    torch.save(torch_state(), folder / "x.pth")
    return folder / "x.pth"


def torch_legacy(folder: Path) -> Path:
    import torch

    torch.save(torch_state(), folder / "x.pth", _use_new_zipfile_serialization=False)
    return folder / "x.pth"


def bare_pickle(folder: Path) -> Path:
    import pickle

    content = {name.replace("/", "."): np.asarray(array) for name, array in TENSORS.items()}
    (folder / "x.pth").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "x.pth"


# safetensors


def safetensors(folder: Path) -> Path:
    """As this project writes it, with its seal."""
    write_safetensors(
        folder / "x.safetensors",
        {n: stored(a) for n, a in TENSORS.items()},
        description={"architecture": asdict(Architecture(18, 1))},
    )
    return folder / "x.safetensors"


def plain_safetensors(folder: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({name: array.copy() for name, array in TENSORS.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def header(content: bytes, rng: random.Random) -> bytes:
    """Another header of a safetensors file, whose length fits."""
    size = int.from_bytes(content[:8], "little")
    text = changes.json_text(content[8 : 8 + size], rng)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def hub(folder: Path) -> Path:
    safetensors(folder)
    (folder / "x.safetensors").rename(folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"library_name": "timm", "architecture": "resnet50", "num_classes": 0})
    )
    (folder / "README.md").write_text("# A model\n")
    return folder


# Keras


def weights_h5(folder: Path) -> Path:
    with h5py.File(folder / "x.weights.h5", "w") as file:
        for i, array in enumerate(TENSORS.values()):
            file[f"layers/conv2d_{i}/vars/0"] = array
        file["layers/conv2d_0"].attrs["name"] = "stem_conv1"
    return folder / "x.weights.h5"


def keras(folder: Path) -> Path:
    weights_h5(folder)
    names = [("Conv2D", "stem_conv1"), *(("Conv2D", f"conv{i}") for i in range(4))]
    layers = [{"class_name": kind, "config": {"name": name}, "inbound_nodes": [], "name": name} for kind, name in names]
    config = {"class_name": "Functional", "config": {"name": "encoder", "layers": layers}}
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(folder / "x.weights.h5", "model.weights.h5")
    (folder / "x.weights.h5").unlink()
    return folder / "x.keras"


def hdf5(content: bytes, rng: random.Random) -> bytes:
    """Another HDF5 file: an array, a link or an attribute is another."""
    if rng.random() < 0.4:
        return changes.raw(content, rng)
    memory = io.BytesIO(content)
    try:
        with h5py.File(memory, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = rng.choice(names)
            action = rng.randrange(7)
            if action == 0:
                del file[name]
            elif action == 1:
                file[name].attrs[rng.choice(("name", "backend", "x"))] = rng.choice(("", "x" * 1000, "²", 1e300))
            else:
                del file[name]
                if action == 2:
                    file[name] = np.zeros(
                        rng.choice(((), (0,), (3, 3), (1, 2, 3))), rng.choice(("f8", "i1", ">f4", "c8"))
                    )
                elif action == 3:
                    file[name] = h5py.SoftLink(rng.choice(("/", "/" + name, "/nowhere", "/layers")))
                elif action == 4:
                    file[name] = h5py.ExternalLink("other.h5", "/")
                elif action == 5:
                    file.create_dataset(name, (1 << 20, 1 << 10), "f4", chunks=(1024, 1024))
                else:
                    file.create_dataset(name, data=["text"], dtype=h5py.string_dtype())
    except (OSError, KeyError, ValueError, RuntimeError, TypeError):
        return changes.raw(content, rng)
    return memory.getvalue()


# A run's files


def run_folder(folder: Path) -> Path:
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name, content in {
        "config.json": {"seed": 0, "image_dir": "x", "epochs": 3, "learning_rate": 0.3},
        "data.json": {"images": 100, "origin": "x"},
        "architecture.json": {"depth": 18, "width": 1},
    }.items():
        (run / name).write_text(json.dumps(content, indent=2))
    (run / "history.csv").write_text("step,loss\n1,2.0\n2,1.5\n")
    (run / "lock").write_text('{"pid": 999999999, "host": "elsewhere"}')
    (run / "lock").unlink()
    np.savez(run / "checkpoints" / "step-00000002.npz", **{f"model/{n}": a for n, a in TENSORS.items()})
    return run


# Pictures


def picture() -> np.ndarray:
    return (np.add.outer(np.arange(48), np.arange(40)) * 2).astype(np.uint8)


def png(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture()).save(folder / "x.png")
    return folder / "x.png"


def jpeg(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture()).save(folder / "x.jpg", quality=95)
    return folder / "x.jpg"


def dicom(folder: Path) -> Path:
    from tests.chest.dicoms import content, dataset
    from tests.chest.dicoms import stored as values

    (folder / "x.dcm").write_bytes(content(dataset(values(12), bits=12)))
    return folder / "x.dcm"


def compressed_dicom(folder: Path) -> Path:
    from tests.chest.dicoms import compressed, content, dataset
    from tests.chest.dicoms import stored as values

    (folder / "x.dcm").write_bytes(content(compressed(dataset(values(8), bits=8), "JPEG 2000")))
    return folder / "x.dcm"


def chunks(content: bytes, rng: random.Random) -> bytes:
    """Another PNG: a chunk is another, gone or there twice; its checksum fits."""
    found, place = [], 8
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += size + 12
    i, action = rng.randrange(len(found)), rng.random()
    kind, data = found[i]
    if action < 0.7:
        found[i] = kind, changes.raw(data, rng)
    elif action < 0.8:
        del found[i]
    elif action < 0.9:
        found.append(found[i])
    else:
        found.insert(1, (rng.choice((b"zTXt", b"iCCP", b"PLTE", b"acTL", b"tRNS", b"eXIf")), rng.randbytes(40)))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in found
    )


def elements(content: bytes, rng: random.Random) -> bytes:
    """Another DICOM file: an element has another value, or is gone."""
    import pydicom

    try:
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(io.BytesIO(content))
        keys = list(data.keys())
        key = rng.choice(keys)
        if rng.random() < 0.2:
            del data[key]
        else:
            element = data[key]
            pool = {"US": (0, 1, 7, 8, 65535), "OW": (b"", b"\0" * 100), "OB": (b"",), "UI": ("1.2.3", "")}
            element.value = rng.choice(pool.get(element.VR, ("", "0", "-1", "1e30", "x" * 64)))
        out = io.BytesIO()
        data.save_as(out, enforce_file_format=False)
    except Exception:
        return changes.raw(content, rng)
    return out.getvalue()


CONTAINERS: dict[str, Container] = {
    "TF1 bundle": Container(bundle, inside={".index": index}, unchecked=("checkpoint",), weight=2),
    "TF1, compressed index": Container(
        compressed_bundle, inside={".index": index}, unchecked=("checkpoint",), weight=2
    ),
    "SavedModel": Container(
        objects, inside={".index": index, ".pb": changes.message}, unchecked=("saved_model.pb",), weight=2
    ),
    "graphs beside": Container(
        beside_graphs,
        inside={".meta": changes.message, ".json": changes.json_text, ".index": index},
        unchecked=("checkpoint", ".meta", ".json", ".pbtxt"),
    ),
    "zip of a bundle": Container(zipped, inside={".zip": inside_zip(_index=index)}),
    "tar.gz": Container(tarred, inside={".gz": tar}),
    "PyTorch": Container(torch_zip, inside={".pth": inside_zip(data_pkl=changes.opcodes)}, weight=3),
    "PyTorch, legacy": Container(torch_legacy, inside={".pth": changes.opcodes}, unchecked=(".pth",)),
    "bare pickle": Container(bare_pickle, inside={".pth": changes.opcodes}, unchecked=(".pth",)),
    "safetensors, ours": Container(safetensors, inside={".safetensors": header}, weight=2),
    "safetensors, others'": Container(plain_safetensors, inside={".safetensors": header}, unchecked=(".safetensors",)),
    "hub folder": Container(
        hub, inside={".safetensors": header, ".json": changes.json_text}, unchecked=(".json", ".md")
    ),
    ".npz": Container(npz, inside={".npz": inside_zip()}),
    ".weights.h5": Container(weights_h5, door="hdf5", inside={".h5": hdf5}, unchecked=(".h5",)),
    ".keras": Container(keras, door="hdf5", inside={".keras": inside_zip(config_json=changes.json_text, _h5=hdf5)}),
    "run folder": Container(
        run_folder, door="run", inside={".json": changes.json_text, ".npz": inside_zip()}, unchecked=(".json", ".csv")
    ),
    "run as a checkpoint": Container(
        run_folder, inside={".json": changes.json_text, ".npz": inside_zip()}, unchecked=(".json", ".csv")
    ),
    "PNG": Container(png, door="radiograph", inside={".png": chunks}),
    "JPEG": Container(jpeg, door="radiograph", unchecked=(".jpg",)),
    "DICOM": Container(dicom, door="radiograph", inside={".dcm": elements}, unchecked=(".dcm",)),
    "DICOM, JPEG 2000": Container(compressed_dicom, door="radiograph", inside={".dcm": elements}, unchecked=(".dcm",)),
}


@dataclass(frozen=True)
class Mutant:
    """A changed copy.

    Attributes:
        path: To open.
        file: The file that was changed, within it.
        sealed: Whether its checksums fit the change, or its format has none: it may be read otherwise.
    """

    path: Path
    file: str
    sealed: bool


def mutate(container: Container, intact: Path, folder: Path, *, path: Path, rng: random.Random) -> Mutant:
    """Makes a mutant.

    Args:
        container: Its kind.
        intact: The folder of the intact files, of which `path` is what is opened.
        folder: To make.
        path: As `container.make` returned it.
        rng: Decides everything.
    """
    shutil.copytree(intact, folder)
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    inside = container.inside or {}
    chosen = rng.choice([*files, *(one for one in files if any(one.name.endswith(end) for end in inside))])
    change = next((inside[end] for end in inside if chosen.name.endswith(end)), None)
    structural = change is not None and rng.random() < 0.6
    content = chosen.read_bytes()
    changed = change(content, rng) if structural and change else changes.raw(content, rng)
    chosen.write_bytes(changed)
    unchecked = any(chosen.name.endswith(end) for end in container.unchecked)
    return Mutant(folder / path.relative_to(intact), chosen.name, structural or unchecked)
