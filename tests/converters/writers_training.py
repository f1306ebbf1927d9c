"""Rows of the writers' table: training files of PyTorch with objects in them, several networks, wrapped names, tensors
that do not matter, and near misses."""

import argparse
import collections
import datetime
import enum
import functools
import io
import json
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters import networks
from tests.converters.writers import Made, Row
from tests.converters.writers_torch import ENCODER, state


def saved(name: str, content: Callable[[dict], Any], **options: Any) -> Callable[[Path], Made]:
    """A maker: `torch.save(content(state))`."""

    def make(folder: Path) -> Made:
        import torch

        torch.save(content(dict(state())), folder / name, **options)
        return Made(folder / name, networks.arrays(ENCODER))

    return make


def other(state: dict) -> dict:
    """The same network after some more steps: what an average or a teacher holds."""
    return state | {"conv1.weight": state["conv1.weight"] + 1}


def others_weights() -> Mapping[str, np.ndarray]:
    arrays = networks.arrays(ENCODER)
    return {**arrays, "stem_conv1/kernel": arrays["stem_conv1/kernel"] + 1}


def two(first: str, second: str, *, taken: str = "first", name: str = "two.pth", more: Any = None) -> Callable:
    """A maker of two networks below two prefixes: nested dictionaries where there are slashes."""

    def make(folder: Path) -> Made:
        import torch

        content: dict = dict(more or {})
        for prefix, tensors in ((first, dict(state())), (second, other(dict(state())))):
            *outer, last = prefix.split("/")
            place = content
            for key in outer:
                place = place.setdefault(key, {})
            place.update({last + key: tensor for key, tensor in tensors.items()})
        torch.save(content, folder / name)
        return Made(folder / name, networks.arrays(ENCODER) if taken == "first" else others_weights())

    return make


class AttributeDict(dict):
    """As Lightning's hyper-parameters."""


class DictConfig:
    """As omegaconf's: a dictionary that knows its parent."""

    def __init__(self, content: dict):
        self._content, self._parent = content, None
        self._metadata = {"ref_type": dict, "object_type": dict}

    def __getstate__(self) -> dict:
        return dict(self.__dict__)


class HistoryBuffer:
    """As mmengine's: arrays of what was logged."""

    def __init__(self):
        self._log_history, self._count_history = np.arange(20.0), np.ones(20)


class Phase(enum.Enum):
    TRAIN = "train"


def module() -> Any:
    """torchvision's modules under torchvision's names, with the weights in them; no forward is needed."""
    import torch

    root = torch.nn.Module()
    for key, tensor in state().items():
        place = root
        *path, leaf = key.split(".")
        for part in path:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place._modules[part]
        if leaf in ("weight", "bias"):
            place.register_parameter(leaf, torch.nn.Parameter(tensor.clone()))
        else:
            place.register_buffer(leaf, tensor.clone())
    return root


def optimizer() -> Any:
    import torch

    weight = torch.nn.Parameter(torch.ones(3))
    made = torch.optim.Adam([weight])
    weight.grad = torch.ones(3)
    made.step()
    return made


def lightning(state: dict) -> dict:
    """What `Trainer.save_checkpoint` of Lightning writes, with what its users put into it."""
    return {
        "epoch": 9,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"backbone.{k}": v for k, v in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": pathlib.PurePosixPath("/x/last.ckpt")}},
        "optimizer_states": [optimizer().state_dict()],
        "lr_schedulers": [{"last_epoch": 10, "_last_lr": [np.float64(0.1)]}],
        "hparams_name": "cfg",
        "hyper_parameters": AttributeDict({"lr": 0.1, "when": datetime.datetime(2026, 1, 1), "size": (1, 2)}),
    }


def solo_learn(state: dict) -> dict:
    return lightning(state) | {"hyper_parameters": {"cfg": DictConfig({"backbone": {"name": "resnet18"}})}}


def mmengine(state: dict) -> dict:
    return {
        "meta": {"epoch": 3, "iter": 30, "cfg": "model = …", "mmengine_version": "0.10.7", "time": "20260101"},
        "state_dict": {f"backbone.{k}": v for k, v in state.items()},
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}, "runtime_info": {"iter": np.int64(30)}},
        "optimizer": optimizer().state_dict(),
        "param_schedulers": [{"last_step": 3}],
    }


def vissl(state: dict) -> dict:
    trunk = {f"_feature_blocks.{k}": v for k, v in state.items()}
    model = {"trunk": trunk, "heads": {}}
    return {
        "phase_idx": 3,
        "iteration": 30,
        "type": "checkpoint",
        "classy_state_dict": {
            "base_model": {"model": model},
            "optimizer": optimizer().state_dict(),
            "phase": Phase.TRAIN,
        },
    }


def everything(state: dict) -> dict:
    """Plain tensors, and one object of every kind that training scripts leave behind."""
    import torch

    return {
        "model": state,
        "optimizer": optimizer(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer(), 1),
        "scaler": {"scale": 65536.0, "growth": np.float32(2)},
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/x")),
        "meters": collections.defaultdict(list, {"loss": [1.0, 2.0]}),
        "best": np.float64(0.7),
        "curve": np.arange(6.0).reshape(2, 3).T,
        "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "phase": Phase.TRAIN,
        "seen": {1, 2, 3},
        "make": functools.partial(max, 3),
        "rng": (torch.get_rng_state(), np.random.RandomState(0).get_state()),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "shape": torch.Size([1, 2]),
        "ordered": collections.OrderedDict(a=1),
    }


def quietly(make: Callable[[], Any]) -> Any:
    """Without PyTorch's announcements of what it means to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def strange(kind: str) -> Any:
    """A tensor that no weight can be."""
    import torch

    ones = torch.ones(3)
    makers: dict[str, Callable[[], Any]] = {
        "quantised": lambda: torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
        "sparse": lambda: torch.eye(3).to_sparse(),
        "CSR": lambda: torch.eye(3).to_sparse_csr(),
        "float8": lambda: ones.to(torch.float8_e4m3fn),
        "uint16": lambda: ones.to(torch.uint16),
        "complex64": lambda: ones.to(torch.complex64),
        "bool": lambda: ones.bool(),
        "meta": lambda: torch.ones(3, device="meta"),
    }
    return quietly(makers[kind])


def beside(key: str, kind: str) -> Callable[[Path], Made]:
    return lambda folder: quietly(lambda: saved("x.pth", lambda state: state | {key: strange(kind)})(folder))


def scripted(folder: Path) -> Made:
    """TorchScript keeps the names of attributes."""
    import torch

    class Nothing(torch.nn.Module):
        def __init__(self, inner: Any):
            super().__init__()
            self.model = inner

        def forward(self, x):
            return x

    quietly(lambda: torch.jit.save(torch.jit.script(Nothing(module())), folder / "script.pt"))
    return Made(folder / "script.pt", networks.arrays(ENCODER))


def pickled(folder: Path) -> Made:
    """`pickle.dump` of arrays, as Detectron2's and MoCo's conversion scripts write them."""
    content = {"model": {key: tensor.numpy() for key, tensor in state().items()}, "matching_heuristics": True}
    (folder / "r18.pkl").write_bytes(pickle.dumps(content))
    return Made(folder / "r18.pkl", networks.arrays(ENCODER))


def repacked(folder: Path) -> Made:
    """A file that was unpacked and zipped again, with compression."""
    import torch

    inner = io.BytesIO()
    torch.save(dict(state()), inner)
    with zipfile.ZipFile(inner) as old, zipfile.ZipFile(folder / "r.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return Made(folder / "r.pth", networks.arrays(ENCODER))


def hostile(folder: Path) -> Made:
    (folder / "x.pth").write_bytes(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    return Made(folder / "x.pth")


def refused(content: Callable[[dict], Any]) -> Callable[[Path], Made]:
    return lambda folder: Made(quietly(lambda: saved("x.pth", content)(folder)).path)


def compiled(state: dict, wrap: Callable[[str], str]) -> dict:
    return {wrap(key): tensor for key, tensor in state.items()}


def safetensors(
    changes: Callable[[dict[str, np.ndarray]], dict], metadata: Mapping[str, str] | None = None
) -> Callable:
    """A maker with the package `safetensors`, which Hugging Face's libraries write with."""

    def make(folder: Path) -> Made:
        from safetensors.numpy import save_file

        arrays = {key: np.ascontiguousarray(tensor.numpy()) for key, tensor in state().items()}
        save_file(changes(arrays), folder / "model.safetensors", metadata=dict(metadata) if metadata else None)
        return Made(folder / "model.safetensors", networks.arrays(ENCODER))

    return make


SKIPPED = r"Skipped \d+ objects? that (is|are) no tensors?, of which nothing was imported or called: "


def heads(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[dict], dict]:
    def add(state: dict) -> dict:
        import torch

        return state | {key: torch.ones(shape) for key, shape in shapes.items()}

    return add


def _number(value: int) -> Any:
    import torch

    return torch.tensor(value)


ROWS = [
    *(
        Row(
            f"torch.save, pickle protocol {protocol}{'' if zipped else ', format before 1.6'}",
            "tensors and an object of every kind",
            saved("run.pth", everything, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped),
            reason=SKIPPED + "torch.optim",
            needs=("torch",),
        )
        for protocol in (2, 3, 4, 5)
        for zipped in (True, False)
    ),
    Row("Lightning", "Trainer.save_checkpoint", saved("last.ckpt", lightning), reason=SKIPPED, needs=("torch",)),
    Row("solo-learn", "checkpoint with omegaconf", saved("e.ckpt", solo_learn), reason="DictConfig", needs=("torch",)),
    Row("mmengine", "epoch_3.pth", saved("epoch_3.pth", mmengine), reason="HistoryBuffer", needs=("torch",)),
    Row("VISSL", "classy_state_dict", saved("model.torch", vissl), reason="Phase", needs=("torch",)),
    Row(
        "torch.save",
        "a whole module",
        lambda folder: saved("whole.pth", lambda state: module())(folder),
        reason=SKIPPED + "torch.nn.modules.module.Module",
        needs=("torch",),
    ),
    Row(
        "torch.save",
        "a dictionary with a whole module, before 1.6",
        saved("w.pth", lambda state: {"net": module(), "epoch": 1}, _use_new_zipfile_serialization=False),
        reason=SKIPPED,
        needs=("torch",),
    ),
    Row("torch.jit.save", "a scripted module", scripted, reason="program was not read", needs=("torch",)),
    Row("pickle.dump", "arrays below model, as Detectron2's", pickled, needs=("torch",)),
    Row(
        "pickle.dump",
        "tensors",
        lambda folder: (
            quietly(lambda: (folder / "x.pkl").write_bytes(pickle.dumps({"state_dict": dict(state())}))),
            Made(folder / "x.pkl", networks.arrays(ENCODER)),
        )[1],
        needs=("torch",),
    ),
    Row("zip", "a .pth packed again with compression", repacked, needs=("torch",)),
    Row("pickle", "a call of posix.system alone", hostile, "refused", reason=r"not run \(posix\.system at the top\)"),
    Row(
        "torch.save",
        "no tensor, an optimizer object",
        refused(lambda state: {"optimizer": optimizer()}),
        "refused",
        reason="has no tensor: its pickle asks for other code, which was not run",
        needs=("torch",),
    ),
    # Several networks.
    Row(
        "timm",
        "state_dict, state_dict_ema: --ema",
        two("state_dict/", "state_dict_ema/", taken="second"),
        options={"ema": True},
        needs=("torch",),
    ),
    Row("own script", "ema before model", two("model/", "ema/"), needs=("torch",), reason="2 networks"),
    Row("own script", "model_state_dict and ema", two("model_state_dict/", "ema/"), needs=("torch",), reason="--ema"),
    Row("own script", "weights and ema. in one dictionary", two("", "ema."), needs=("torch",), reason="no prefix"),
    Row("DINO", "student and teacher", two("student/module.backbone.", "teacher/backbone."), needs=("torch",)),
    Row(
        "DINO",
        "student and teacher: --source_part teacher",
        two("student/module.backbone.", "teacher/backbone.", taken="second"),
        options={"source_part": "teacher"},
        needs=("torch",),
    ),
    Row("BYOL", "online and target encoder", two("online_encoder.net.", "target_encoder.net."), needs=("torch",)),
    Row(
        "MoCo v3",
        "base and momentum encoder",
        two("state_dict/module.base_encoder.", "state_dict/module.momentum_encoder."),
    ),
    Row(
        "solo-learn BYOL",
        "backbone and momentum_backbone",
        two("state_dict/backbone.", "state_dict/momentum_backbone."),
    ),
    Row("lightly BYOL", "backbone and backbone_momentum", two("state_dict/backbone.", "state_dict/backbone_momentum.")),
    Row(
        "torch.optim.swa_utils",
        "model and AveragedModel",
        two("model/", "swa/module.", more={"swa": {"n_averaged": 3}}),
        needs=("torch",),
        reason="moving averages",
    ),
    Row(
        "mmengine EMAHook",
        "state_dict and ema_state_dict, which it swaps",
        lambda folder: two(
            "ema_state_dict/module.backbone.",
            "state_dict/backbone.",
            more={"meta": {"mmengine_version": "0.10.7"}, "ema_state_dict": {"steps": _number(3)}},
        )(folder),
        needs=("torch",),
        reason=r"ema_state_dict\.module\.backbone\. was taken; .* state_dict\.backbone\. \(moving averages",
    ),
    Row(
        "Lightning WeightAveraging",
        "current_model_state and the average at state_dict",
        lambda folder: two(
            "current_model_state/model.",
            "state_dict/model.",
            more={"averaging_state": {"n_averaged": _number(3)}},
        )(folder),
        needs=("torch",),
        reason=r"current_model_state\.model\. was taken",
    ),
    Row(
        "own script",
        "two encoders without a usual name",
        lambda folder: Made(two("rgb/", "depth/")(folder).path),
        "refused",
        reason=r"holds depth\., rgb\. .* --source_part depth",
        needs=("torch",),
    ),
    Row(
        "own script",
        "two encoders without a usual name: --source_part depth",
        two("rgb/", "depth/", taken="second"),
        options={"source_part": "depth"},
        needs=("torch",),
    ),
    Row(
        "own script",
        "--source_part of nobody",
        lambda folder: Made(two("student/", "teacher/")(folder).path),
        "refused",
        options={"source_part": "nobody"},
        reason=r"must be one of student\., teacher\.",
        needs=("torch",),
    ),
    # Wrappers within names.
    *(
        Row(writer, "names with wrappers", saved("x.pth", functools.partial(compiled, wrap=wrap)), needs=("torch",))
        for writer, wrap in {
            "torch.compile": lambda key: f"_orig_mod.{key}",
            "DataParallel of torch.compile": lambda key: f"module._orig_mod.{key}",
            "torch.compile of blocks": lambda key: key.replace(".0.conv", ".0._orig_mod.conv"),
            "FSDP": lambda key: "_fsdp_wrapped_module." + key.replace(".0.", ".0._fsdp_wrapped_module."),
            "activation checkpointing": lambda key: key.replace("layer2.", "layer2._checkpoint_wrapped_module."),
            "DataParallel of a part": lambda key: f"state_dict.backbone.module.{key}",
        }.items()
    ),
    # Tensors that do not matter, and some that do.
    *(
        Row("torch.save", f"an extra {kind} tensor", beside("extra", kind), reason="no part", needs=("torch",))
        for kind in ("sparse", "CSR", "complex64", "bool", "meta")
    ),
    *(
        Row(
            "torch.save",
            f"a needed kernel that is {kind}",
            refused(lambda state, kind=kind: state | {"layer1.0.conv1.weight": strange(kind)}),
            "refused",
            reason=r"layer1\.0\.conv1\.weight",
            needs=("torch",),
        )
        for kind in ("quantised", "sparse", "float8", "complex64")
    ),
    Row(
        "torch.save",
        "a kernel of complex numbers",
        refused(lambda state: state | {"conv1.weight": state["conv1.weight"] + 0j}),
        "refused",
        reason="complex64 numbers, whose imaginary parts would be lost",
        needs=("torch",),
    ),
    Row(
        "torchvision",
        "fc without bias: --part encoder",
        saved("x.pth", heads({"fc.weight": (10, 512)})),
        options={"part": "encoder"},
        reason="heads, by --part encoder",
        needs=("torch",),
    ),
    Row("torchvision", "fc without bias", saved("x.pth", heads({"fc.weight": (10, 512)})), reason="built otherwise"),
    Row(
        "timm",
        "a classifier that is a 1×1 convolution",
        saved("x.pth", heads({"fc.weight": (10, 512, 1, 1), "fc.bias": (10,)})),
        reason="built otherwise",
        needs=("torch",),
    ),
    Row(
        "timm",
        "a classifier that is a 1×1 convolution: --part encoder",
        saved("x.pth", heads({"fc.weight": (10, 512, 1, 1), "fc.bias": (10,)})),
        options={"part": "encoder"},
        needs=("torch",),
    ),
    # Near misses.
    Row(
        "torchvision",
        "ResNet without its first convolution",
        refused(lambda state: {key: value for key, value in state.items() if key != "conv1.weight"}),
        "refused",
        reason=r"nearest network: ResNet-18 .*; missing 1: conv1\.weight; unexpected 0",
        needs=("torch",),
    ),
    Row(
        "own script",
        "one layer renamed",
        refused(lambda state: {key.replace("layer2.0.conv1", "layer2.0.c1"): value for key, value in state.items()}),
        "refused",
        reason=r"nearest network: ResNet-18 .*missing 1: layer2\.0\.conv1\.weight; unexpected 1: layer2\.0\.c1",
        needs=("torch",),
    ),
    Row(
        "own script",
        "names with underscores for dots",
        refused(lambda state: {key.replace(".", "_"): value for key, value in state.items()}),
        "refused",
        reason=r"nearest network: ResNet-18 .*spelled otherwise; missing",
        needs=("torch",),
    ),
    Row(
        "timm",
        "a vision transformer alone",
        refused(lambda state: {"blocks.0.attn.qkv.weight": state["fc" if "fc" in state else "conv1.weight"]}),
        "refused",
        reason="must hold a ResNet of SimCLR",
        needs=("torch",),
    ),
    # safetensors, by its own package.
    Row("safetensors", "state_dict", safetensors(lambda arrays: arrays), needs=("safetensors",)),
    Row(
        "safetensors",
        "model. and ema., and metadata of others",
        safetensors(
            lambda arrays: {f"{p}.{k}": v for p in ("ema", "model") for k, v in arrays.items()},
            {"architecture": json.dumps("resnet50"), "step": "²"},
        ),
        needs=("safetensors",),
        reason="2 networks",
    ),
    Row(
        "safetensors",
        "an extra tensor of bools and one of uint16",
        safetensors(lambda arrays: arrays | {"a": np.ones(2, bool), "b": np.ones(2, np.uint16)}),
        needs=("safetensors",),
        reason="uint16 numbers, no part",
    ),
]
