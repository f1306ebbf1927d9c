"""Rows of the writers' table: how files travel – Hugging Face's folders, archives, what lies in place of a download."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.converters import networks, official
from tests.converters.writers import Made, Row
from tests.converters.writers_torch import ENCODER, state


def weights() -> dict[str, np.ndarray]:
    return networks.arrays(ENCODER)


def safetensors(name: str = "model.safetensors", *, metadata=None, dtype: str = "float32") -> Callable[[Path], Made]:
    """A maker: `safetensors.torch.save_file`."""

    def make(folder: Path) -> Made:
        import torch
        from safetensors.torch import save_file

        kind = getattr(torch, dtype)
        tensors = {key: tensor.to(kind) if tensor.is_floating_point() else tensor for key, tensor in state().items()}
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name, metadata=metadata)
        return Made(folder / name, {key: array.astype(dtype) for key, array in weights().items()})

    return make


def pickled(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        import torch

        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state(), folder / name)
        return Made(folder / name, weights())

    return make


def together(*makers: Callable[[Path], Made], texts=None) -> Callable[[Path], Made]:
    """Several files in one folder, which is what the user names."""

    def make(folder: Path) -> Made:
        for maker in makers:
            maker(folder)
        for name, text in (texts or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return Made(folder, weights())

    return make


def sharded(ending: str, *, lost: bool = False) -> Callable[[Path], Made]:
    """The layout of `save_pretrained(max_shard_size=…)`."""

    def make(folder: Path) -> Made:
        import torch
        from safetensors.torch import save_file

        stem, keys = {".safetensors": "model", ".bin": "pytorch_model"}[ending], sorted(state())
        thirds = [keys[i::3] for i in range(3)]
        places = {}
        for i, part in enumerate(thirds, 1):
            name = f"{stem}-{i:05d}-of-00003{ending}"
            tensors = {key: state()[key] for key in part}
            (save_file if ending == ".safetensors" else torch.save)(tensors, folder / name)
            places |= dict.fromkeys(part, name)
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / f"{stem}{ending}.index.json").write_text(json.dumps(index))
        if lost:
            (folder / f"{stem}-00002-of-00003{ending}").unlink()
        return Made(folder, weights())

    return make


def packed(make: Callable[[Path], Made], name: str, *, macos: bool = False) -> Callable[[Path], Made]:
    """A folder in an archive, by the system's tar or Python's zip."""

    def pack(folder: Path) -> Made:
        inner, path = folder / "packed", folder / name
        inner.mkdir()
        made = make(inner)
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(inner.rglob("*")):
                    archive.write(file, file.relative_to(folder))
                if macos:
                    archive.writestr("__MACOSX/packed/._model.safetensors", b"\0\5\x16\7Mac OS X        ")
        else:
            compressor = ["-I", "gzip -1"] if name.endswith(".gz") else []
            subprocess.run(["tar", *compressor, "-C", inner, "-cf", path, "."], check=True)
        shutil.rmtree(inner)
        return Made(path, made.weights)

    return pack


def official_saved_model(folder: Path) -> Made:
    name = "r18_1x_sk0_cifar"
    official.write_saved_model(folder, name)
    return Made(folder, networks.arrays(networks.architecture(name)))


def text(name: str, content: str, *, whole: bool = False) -> Callable[[Path], Made]:
    """A text in place of a file; `whole`: the user names the folder."""

    def make(folder: Path) -> Made:
        (folder / name).write_text(content)
        return Made(folder if whole else folder / name)

    return make


def named(path: str) -> Callable[[Path], Made]:
    return lambda folder: Made(Path(path))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 94567890\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title></head></html>"
HUB, TORCH = "huggingface_hub", ("torch", "safetensors")
BOTH = together(safetensors(), pickled("pytorch_model.bin"), pickled("training_args.bin"), texts={"config.json": "{}"})

ROWS = [
    Row("safetensors", "torchvision's names", safetensors(), needs=TORCH),
    Row("safetensors", "half precision", safetensors(dtype="float16"), needs=TORCH),
    Row(
        "safetensors",
        "metadata of others",
        safetensors(metadata={"architecture": "resnet50", "step": "²", "format": "pt", "naming": "x"}),
        needs=TORCH,
    ),
    Row(HUB, "two forms of weights, training_args.bin", BOTH, reason="Took model.safetensors", needs=TORCH),
    Row(HUB, "sharded safetensors", sharded(".safetensors"), needs=TORCH),
    Row(HUB, "sharded pytorch_model.bin", sharded(".bin"), needs=TORCH),
    Row(
        HUB,
        "sharded safetensors, one file lost",
        sharded(".safetensors", lost=True),
        "refused",
        reason="1 of 3 are missing",
        needs=TORCH,
    ),
    Row(
        "Lightning",
        "a folder of a run, one checkpoint in it",
        together(
            pickled("version_0/checkpoints/epoch=99-step=1000.ckpt"),
            texts={"version_0/hparams.yaml": "lr: 1", "x.log": ""},
        ),
        reason="the only checkpoint in",
        needs=TORCH,
    ),
    Row(
        "Lightning",
        "a folder of two runs",
        together(pickled("version_0/checkpoints/last.ckpt"), pickled("version_1/checkpoints/last.ckpt")),
        "refused",
        reason=r"2 checkpoints, version_0/checkpoints/last\.ckpt, version_1/checkpoints/last\.ckpt",
        needs=TORCH,
    ),
    Row("zip", "a Hugging Face folder", packed(together(safetensors()), "model.zip"), needs=TORCH),
    Row("macOS", "a zip with __MACOSX", packed(together(safetensors()), "model.zip", macos=True), needs=TORCH),
    *(
        Row("tar", f"a SavedModel, {ending}", packed(official_saved_model, f"hub{ending}"))
        for ending in (".tar", ".tar.gz")
    ),
    Row("git", "a pointer of Git-LFS", text("resnet50.pth", POINTER), "refused", reason="`git lfs pull`", quick=True),
    Row(
        "git",
        "a folder of pointers",
        text("model.safetensors", POINTER, whole=True),
        "refused",
        reason="model.safetensors is a Git-LFS pointer to 94,567,890 bytes",
        quick=True,
    ),
    Row("a browser", "a page in place of a file", text("w.pth", PAGE), "refused", reason="an HTML page", quick=True),
    Row("a browser", "nothing", text("w.safetensors", ""), "refused", reason="is empty", quick=True),
    Row(
        "nobody",
        "an address",
        named("https://storage.googleapis.com/simclr-gcs/checkpoints/ResNet50_1x.zip"),
        "refused",
        reason="checkpoints get gs://",
        quick=True,
    ),
    Row(
        "nobody",
        "a name that is near one of the catalogue",  # one of the catalogue is downloaded
        named("simclrv2/pretraned/r50_1x_sk0"),
        "refused",
        reason="did you mean simclrv2/pretrained/r50_1x_sk0",
        quick=True,
    ),
]
