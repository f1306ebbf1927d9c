"""Rows of the writers' table: what PyTorch's users and libraries write.

Keys are built here, from torchvision's names alone; nothing of `converters` lays the tensors out.  Classes of libraries
that are not installed are made up under their names while the file is written.
"""

import argparse
import collections
import contextlib
import datetime
import functools
import itertools
import json
import pathlib
import re
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters import networks
from tests.converters.writers import Made, Row
from tf_simclr.models.architecture import Architecture

ENCODER = Architecture(18, cifar_stem=True)
"""The smallest encoder; its files have 45 MB."""

State = dict[str, Any]


@functools.cache
def state() -> State:
    """torchvision's `state_dict` of the small encoder: key → tensor."""
    import torch

    tensors = {}
    for name, array in networks.arrays(ENCODER).items():
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        tensors[torchvision_key(name)] = torch.from_numpy(np.ascontiguousarray(array))
    counters = [k.replace("running_mean", "num_batches_tracked") for k in tensors if k.endswith("running_mean")]
    return tensors | {key: torch.tensor(1) for key in counters}


def torchvision_key(name: str) -> str:
    """torchvision's key of a weight of a basic-block encoder.

    Example:
        >>> torchvision_key("group2_block1_shortcut_bn/moving_mean"), torchvision_key("stem_conv1/kernel")
        ('layer2.0.downsample.1.running_mean', 'conv1.weight')
    """
    leaves = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    leaves |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    layer, weight = name.split("/")
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}.{leaves[weight]}"
    group, block, role = layer.removeprefix("group").replace("block", "").split("_", 2)
    role = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(role, role)
    return f"layer{group}.{int(block) - 1}.{role}.{leaves[weight]}"


def below(prefix: str, tensors: State | None = None) -> State:
    return {prefix + key: value for key, value in (tensors or state()).items()}


def other() -> State:
    """Another network of the same form: an average, a teacher."""
    return {key: value + 1 if value.is_floating_point() else value for key, value in state().items()}


def sequential() -> State:
    """Keys of `nn.Sequential(*list(resnet.children())[:-1])`."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {places[key.split(".")[0]] + key[key.index(".") :]: value for key, value in state().items()}


def in_blocks(wrapper: str) -> State:
    """Each residual block inside a wrapper."""
    return {re.sub(r"^(layer\d\.\d)\.", rf"\1.{wrapper}.", key): value for key, value in state().items()}


def head(prefix: str, *sizes: int, bias: bool = True) -> State:
    """Linear layers, numbered by twos as with activations between."""
    import torch

    found = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        found[f"{prefix}{2 * i}.weight"] = torch.randn(b, a)
        found |= {f"{prefix}{2 * i}.bias": torch.randn(b)} if bias else {}
    return found


@contextlib.contextmanager
def foreign(**classes: str) -> Iterator[dict[str, type]]:
    """Classes of libraries that are not installed, importable while the block runs: name → module."""
    made, added = {}, []
    for name, module in classes.items():
        bases = (dict,) if name == "AttributeDict" else ()
        made[name] = type(name, bases, {"__module__": module})
        parts = module.split(".")
        for i in range(len(parts)):
            part = ".".join(parts[: i + 1])
            if part not in sys.modules:
                sys.modules[part] = types.ModuleType(part)
                added.append(part)
        setattr(sys.modules[module], name, made[name])
    try:
        yield made
    finally:
        for part in added:
            sys.modules.pop(part, None)


def saved(name: str, content: Callable[[], Any], **options: Any) -> Callable[[Path], Made]:
    """A maker: `torch.save(content())`."""

    def make(folder: Path) -> Made:
        import torch

        torch.save(content(), folder / name, **options)
        return Made(folder / name, networks.arrays(ENCODER))

    return make


def saved_with(name: str, content: Callable[[dict[str, type]], Any], **classes: str) -> Callable[[Path], Made]:
    """A maker: `torch.save(content(classes))` with classes of libraries that are not installed."""

    def make(folder: Path) -> Made:
        import torch

        with foreign(**classes) as made:
            torch.save(content(made), folder / name)
        return Made(folder / name, networks.arrays(ENCODER))

    return make


plain = saved("resnet.pth", state)


def _object(kind: type, **attributes: Any) -> Any:
    made = kind()
    vars(made).update(attributes)
    return made


def lightning(tensors: State, **more: Any) -> dict[str, Any]:
    """What Lightning keeps beside the weights."""
    return {
        "epoch": 99,
        "global_step": 12345,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": tensors,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": collections.defaultdict(int, total=99)}},
        "callbacks": {
            "ModelCheckpoint": {"best_model_path": pathlib.PurePosixPath("/runs/best.ckpt"), "best": np.float32(1)}
        },
        "optimizer_states": [{"state": {0: {"momentum_buffer": tensors[next(iter(tensors))]}}, "param_groups": []}],
        "lr_schedulers": [],
    } | more


def optimizer_object() -> Any:
    import torch

    return torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)


def odd(**tensors: Callable[[], Any]) -> Callable[[], State]:
    return lambda: state() | {name: make() for name, make in tensors.items()}


def quantised() -> Any:
    import torch

    with warnings.catch_warnings():  # PyTorch gives them up
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8)


def typed(dtype: str) -> Callable[[Path], Made]:
    """All weights in another float type."""

    def make(folder: Path) -> Made:
        import ml_dtypes
        import torch

        kind = getattr(torch, dtype)
        numpy = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
        torch.save({k: v.to(kind) if v.is_floating_point() else v for k, v in state().items()}, folder / "low.pth")
        return Made(folder / "low.pth", {name: a.astype(numpy) for name, a in networks.arrays(ENCODER).items()})

    return make


def channels_last() -> State:
    import torch

    return {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state().items()}


def changed(name: str, content: Callable[[], Any], change: Callable[[bytes], bytes]) -> Callable[[Path], Made]:
    """A maker: `torch.save(content())`, then its bytes changed."""

    def make(folder: Path) -> Made:
        made = saved(name, content)(folder)
        made.path.write_bytes(change(made.path.read_bytes()))
        return Made(made.path)

    return make


def flipped(data: bytes, place: float = 0.5) -> bytes:
    i = int(len(data) * place)
    return data[:i] + bytes([data[i] ^ 16]) + data[i + 1 :]


def bytes_as(name: str, data: bytes) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        (folder / name).write_bytes(data)
        return Made(folder / name)

    return make


def safetensors(name: str = "model.safetensors", metadata: dict[str, str] | None = None) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        from safetensors.torch import save_file

        save_file(state(), folder / name, metadata=metadata)
        return Made(folder / name, networks.arrays(ENCODER))

    return make


def hub(*others: str, sharded: bool = False) -> Callable[[Path], Made]:
    """A Hugging Face folder with these files beside `model.safetensors`."""

    def make(folder: Path) -> Made:
        import torch
        from safetensors.torch import save_file

        (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 0}))
        if sharded:
            keys = sorted(state())
            parts = {f"model-0000{i + 1}-of-00002.safetensors": keys[i::2] for i in range(2)}
            for name, part in parts.items():
                save_file({key: state()[key] for key in part}, folder / name)
            places = {key: name for name, part in parts.items() for key in part}
            index = {"metadata": {"total_size": 1}, "weight_map": places}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            save_file(state(), folder / "model.safetensors")
        for name in others:
            torch.save(state() if name == "pytorch_model.bin" else argparse.Namespace(lr=0.1), folder / name)
        return Made(folder, networks.arrays(ENCODER))

    return make


def packed(name: str, *, junk: bool = False) -> Callable[[Path], Made]:
    """A `.pth` in an archive, with what macOS adds."""

    def make(folder: Path) -> Made:
        made = plain(folder)
        inner = "release/weights/resnet.pth"
        if name.endswith(".zip"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.write(made.path, inner)
                if junk:
                    archive.writestr("__MACOSX/release/weights/._resnet.pth", b"\0\5\x16\7Mac OS X")
        else:
            with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
                archive.add(made.path, inner)
        made.path.unlink()
        return Made(folder / name, made.weights)

    return make


def in_version_folder(folder: Path) -> Made:
    """As Lightning's logger nests them."""
    import torch

    place = folder / "lightning_logs" / "version_0" / "checkpoints"
    place.mkdir(parents=True)
    torch.save(lightning(below("backbone.")), place / "epoch=99-step=12345.ckpt")
    (folder / "lightning_logs" / "version_0" / "hparams.yaml").write_text("lr: 0.1\n")
    return Made(folder, networks.arrays(ENCODER))


def several(folder: Path) -> Made:
    plain(folder)
    (folder / "resnet.pth").rename(folder / "a.pth")
    plain(folder)
    return Made(folder)


def hostile(folder: Path) -> Made:
    """A pickle that runs a command where it is unpickled in earnest."""
    import torch

    class Command:
        def __reduce__(self) -> Any:
            return pathlib.Path.touch, (folder / "ran",)

    torch.save({"state_dict": state(), "config": Command()}, folder / "hostile.pth")
    return Made(folder / "hostile.pth", networks.arrays(ENCODER))


def numpy_file(folder: Path) -> Made:
    arrays = networks.arrays(ENCODER)
    np.savez(folder / "weights.npz", **arrays)
    return Made(folder / "weights.npz", arrays)


def big_endian_npz(folder: Path) -> Made:
    arrays = networks.arrays(ENCODER)
    np.savez(folder / "weights.npz", **{name: a.astype(a.dtype.newbyteorder(">")) for name, a in arrays.items()})
    return Made(folder / "weights.npz")


def scripted(folder: Path) -> Made:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch would rather have torch.export
        torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)), folder / "scripted.pt")
    return Made(folder / "scripted.pt")


def torchvision18() -> State:
    """torchvision's own ResNet-18 does not project the first shortcut."""
    return {key: value for key, value in state().items() if not key.startswith("layer1.0.downsample")}


def without(pattern: str) -> Callable[[], State]:
    return lambda: {key: value for key, value in state().items() if not re.search(pattern, key)}


def vit() -> State:
    import torch

    return {f"blocks.{i}.attn.qkv.weight": torch.randn(6, 2) for i in range(12)} | {"cls_token": torch.randn(1, 1, 2)}


def _arange(dtype: str) -> Any:
    import torch

    return torch.arange(4.0).to(getattr(torch, dtype))


def _ones(*shape: int) -> Any:
    import torch

    return torch.ones(*shape)


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _torch(writer: str, what: str, make: Callable[[Path], Made], **options: Any) -> Row:
    return Row(writer, what, make, needs=("torch", *options.pop("needs", ())), **options)


def _refused(writer: str, what: str, make: Callable[[Path], Made], reason: str, **options: Any) -> Row:
    return _torch(writer, what, make, expect="refused", reason=reason, **options)


def _vissl() -> dict[str, Any]:
    trunk = below("_feature_blocks.")
    return {
        "phase_idx": 9,
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": head("0.clf.", 512, 128)}}},
    }


ROWS = [
    _torch("torch.save", "state_dict of torchvision's ResNet", plain, quick=True),
    _torch("torch.save, before 1.6", "state_dict", saved("a.pth", state, _use_new_zipfile_serialization=False)),
    *(
        _torch("torch.save", f"state_dict, pickle protocol {number}", saved("a.pth", state, pickle_protocol=number))
        for number in (3, 4, 5)
    ),
    *(_torch("torch.save", f"{dtype} weights", typed(dtype)) for dtype in ("float16", "bfloat16", "float64")),
    _torch("torch.save", "weights in channels_last", saved("a.pth", channels_last)),
    _torch(
        "torch.save",
        "other objects: Namespace, datetime, path, defaultdict, NumPy scalar",
        saved(
            "a.pth",
            lambda: {
                "model": state(),
                "args": argparse.Namespace(lr=0.1),
                "when": datetime.datetime(2024, 1, 2),
                "where": pathlib.PurePosixPath("/data"),
                "counts": collections.defaultdict(list),
                "best": np.float64(0.7),
            },
        ),
    ),
    _torch(
        "torch.save",
        "an optimizer object beside the weights",
        saved(
            "a.pth",
            lambda: {
                "state_dict": state(),
                "optimizer": optimizer_object(),
            },
        ),
    ),
    _torch("torch.save", "a pickle that would run a command", hostile),
    _torch("torch.save", "an extra quantised tensor", saved("a.pth", odd(extra=quantised))),
    _torch("torch.save", "an extra complex tensor", saved("a.pth", odd(extra=lambda: _arange("complex64")))),
    _torch("torch.save", "an extra uint16 tensor", saved("a.pth", odd(extra=lambda: _arange("uint16")))),
    _torch("torch.save", "an extra float8 tensor", saved("a.pth", odd(extra=lambda: _arange("float8_e4m3fn")))),
    _torch(
        "torch.save",
        "an fc without bias, --part encoder",
        saved("a.pth", lambda: state() | {"fc.weight": _arange("float32").expand(512, 4).T}),
        options={"part": "encoder"},
    ),
    _torch(
        "torch.save",
        "a 1×1 convolution as fc, --part encoder",
        saved("a.pth", lambda: state() | {"fc.weight": _ones(10, 512, 1, 1), "fc.bias": _ones(10)}),
        options={"part": "encoder"},
    ),
    _refused(
        "torch.save",
        "a complex convolution",
        saved("a.pth", lambda: state() | {"conv1.weight": state()["conv1.weight"].to(_dtype("complex64"))}),
        "complex",
    ),
    _refused("torch.save", "torchvision's ResNet-18 itself", saved("a.pth", torchvision18), "ResNet-18"),
    _refused(
        "torch.save",
        "state_dict with a weight missing",
        saved("a.pth", without(r"layer4\.1\.bn2\.weight")),
        "layer4.1.bn2.weight",
    ),
    _refused("torch.save", "a vision transformer", saved("a.pth", vit), "must hold a ResNet"),
    _refused(
        "torch.save",
        "a file cut off",
        changed("a.pth", state, lambda data: data[: len(data) // 2]),
        "whole|damaged|cut",
    ),
    _refused(
        "torch.save",
        "a file with a flipped bit among the weights",
        changed("a.pth", state, flipped),
        "CRC-32|checksum|damaged",
    ),
    _refused("torch.jit.save", "a traced module that is no ResNet", scripted, "."),
    # MoCo, BYOL, DINO, SimSiam: two networks in a file
    _torch(
        "MoCo v2 (DataParallel)",
        "module.encoder_q, module.encoder_k",
        saved(
            "moco.pth.tar",
            lambda: {
                "epoch": 200,
                "arch": "resnet18",
                "state_dict": below("module.encoder_q.")
                | below("module.encoder_k.", other())
                | head("module.encoder_q.fc.", 512, 512, 128),
            },
        ),
    ),
    _torch(
        "BYOL (lucidrains)",
        "online_encoder, target_encoder",
        saved("byol.pt", lambda: below("online_encoder.net.") | below("target_encoder.net.", other())),
    ),
    _torch(
        "BYOL (lucidrains)",
        "the target encoder, asked for",
        saved("byol.pt", lambda: below("online_encoder.net.", other()) | below("target_encoder.net.")),
        options={"source_part": "target_encoder"},
    ),
    _torch(
        "DINO",
        "student, teacher",
        saved(
            "dino.pth",
            lambda: {
                "student": below("module.backbone."),
                "teacher": below("backbone.", other()),
                "args": argparse.Namespace(arch="resnet18"),
            },
        ),
    ),
    _torch(
        "DINO",
        "the teacher, asked for",
        saved(
            "dino.pth",
            lambda: {
                "student": below("module.backbone.", other()),
                "teacher": below("backbone."),
            },
        ),
        options={"source_part": "teacher"},
    ),
    _torch(
        "timm",
        "state_dict, state_dict_ema",
        saved(
            "last.pth.tar",
            lambda: {
                "epoch": 3,
                "arch": "resnet18",
                "state_dict": state(),
                "state_dict_ema": other(),
                "args": argparse.Namespace(lr=0.1),
            },
        ),
    ),
    _torch(
        "timm",
        "the average, by --ema",
        saved("last.pth.tar", lambda: {"state_dict": other(), "state_dict_ema": state()}),
        options={"ema": True},
    ),
    _torch("a training script", "ema before model", saved("a.pt", lambda: {"ema": other(), "model": state()})),
    _refused(
        "a training script",
        "two networks, neither usual",
        saved("a.pt", lambda: {"red": state(), "blue": other()}),
        "red.*blue|blue.*red",
    ),
    _torch(
        "torch.optim.swa_utils",
        "AveragedModel",
        saved("swa.pt", lambda: below("module.") | {"n_averaged": _ones(1)[0]}),
    ),
    # Frameworks
    _torch(
        "Lightning",
        "checkpoint with hyper_parameters as AttributeDict",
        saved_with(
            "l.ckpt",
            lambda c: lightning(below("model."), hyper_parameters=c["AttributeDict"](lr=0.1)),
            AttributeDict="lightning.fabric.utilities.data",
        ),
    ),
    _torch("Lightning", "version_0/checkpoints/… three levels down", in_version_folder),
    _torch(
        "lightning-bolts SimCLR",
        "encoder.*, projection.*",
        saved("b.ckpt", lambda: lightning(below("encoder.") | head("projection.model.", 512, 512, 128))),
    ),
    _torch(
        "solo-learn",
        "backbone.*, projector.*, DictConfig",
        saved_with(
            "solo.ckpt",
            lambda c: lightning(
                below("backbone.") | head("projector.", 512, 2048, 128) | head("classifier.", 512, 10),
                hyper_parameters={"cfg": _object(c["DictConfig"], _content={"lr": 0.1}, _parent=None, _metadata=None)},
            ),
            DictConfig="omegaconf.dictconfig",
        ),
    ),
    _torch(
        "mmengine (mmselfsup)",
        "backbone.*, neck.*, HistoryBuffer",
        saved_with(
            "epoch_200.pth",
            lambda c: {
                "meta": {"epoch": 200, "mmengine_version": "0.10.4", "experiment_name": "simclr"},
                "message_hub": {"log_scalars": {"loss": _object(c["HistoryBuffer"], _log_history=np.arange(3.0))}},
                "state_dict": below("backbone.") | head("neck.fc", 512, 512, 128),
            },
            HistoryBuffer="mmengine.logging.history_buffer",
        ),
    ),
    _torch("VISSL", "classy_state_dict/base_model/model/trunk", saved("vissl.torch", _vissl)),
    _torch(
        "lightly",
        "backbone.*, projection_head.layers.*",
        saved("lightly.ckpt", lambda: lightning(below("backbone.") | head("projection_head.layers.", 512, 512, 128))),
    ),
    _torch(
        "lightly",
        "backbone of nn.Sequential(*children)",
        saved("lightly.ckpt", lambda: lightning(below("backbone.", sequential()))),
    ),
    _torch("torch.compile", "_orig_mod.*", saved("c.pt", lambda: below("_orig_mod."))),
    _torch(
        "torch.compile of DistributedDataParallel",
        "_orig_mod.module.*",
        saved("c.pt", lambda: {"model": below("_orig_mod.module.")}),
    ),
    _torch(
        "FSDP",
        "_fsdp_wrapped_module at two depths",
        saved("f.pt", lambda: below("_fsdp_wrapped_module.", in_blocks("_fsdp_wrapped_module"))),
    ),
    _torch(
        "fairscale FSDP",
        "_fsdp_wrapped_module._fpw_module.*",
        saved("f.pt", lambda: below("_fsdp_wrapped_module._fpw_module.")),
    ),
    _torch(
        "activation checkpointing",
        "_checkpoint_wrapped_module in blocks",
        saved("f.pt", lambda: in_blocks("_checkpoint_wrapped_module")),
    ),
    _torch(
        "DeepSpeed",
        "mp_rank_00_model_states.pt",
        saved(
            "mp_rank_00_model_states.pt",
            lambda: {
                "module": state(),
                "ds_version": "0.14",
                "global_steps": 7,
                "optimizer": None,
            },
        ),
    ),
    # safetensors and folders
    _torch("safetensors", "save_file", safetensors(metadata={"format": "pt"})),
    _torch("safetensors", "metadata architecture=resnet50", safetensors(metadata={"architecture": "resnet50"})),
    _torch("safetensors", "metadata step=²", safetensors(metadata={"step": "²"})),
    _refused(
        "safetensors",
        "a header that is no JSON",
        bytes_as("a.safetensors", (64).to_bytes(8, "little") + b"{" * 64),
        "JSON|damaged|whole",
    ),
    _torch("Hugging Face", "folder with one file", hub()),
    _torch(
        "Hugging Face", "safetensors beside pytorch_model.bin", hub("pytorch_model.bin"), reason="pytorch_model.bin"
    ),
    _torch("Hugging Face Trainer", "with training_args.bin", hub("training_args.bin"), reason="training_args.bin"),
    _torch("Hugging Face", "sharded with an index", hub(sharded=True)),
    _torch("zip", ".pth two folders down, with __MACOSX", packed("a.zip", junk=True)),
    _torch("tar", ".pth in a .tar", packed("a.tar")),
    _torch("tar", ".pth in a .tar.gz", packed("a.tar.gz")),
    _refused("a folder", "two .pth files", several, "a.pth.*resnet.pth"),
    _refused("a download", "an empty file", bytes_as("a.pth", b""), "empty"),
    _refused(
        "a download",
        "a Git-LFS pointer",
        bytes_as("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 94\n"),
        "Git-LFS",
    ),
    _refused("a download", "an HTML page", bytes_as("a.pth", b"<!DOCTYPE html><html></html>"), "HTML"),
    # NumPy
    Row("numpy.savez", "this project's names", numpy_file, quick=True),
    Row("numpy.savez", "big-endian arrays", big_endian_npz, expect="refused", reason="byte|endian"),
]
