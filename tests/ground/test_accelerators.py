"""What a machine computes with, told from what Linux shows of it."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tf_simclr import cli
from tf_simclr.errors import InputError
from tf_simclr.machine.accelerators import (
    GOOGLE,
    MACHINE,
    NVIDIA,
    Accelerator,
    accelerators,
    choose_backend,
    complaint,
    cure,
    find_accelerator,
    quietly,
    reasons,
    seen,
    unused,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this a machine with these PCI devices (vendor, device) and device files."""

    def make(*devices: tuple[str, str], files: tuple[str, ...] = ()) -> None:
        for i, (vendor, device) in enumerate(devices):
            place = tmp_path / "sys/bus/pci/devices" / f"0000:00:0{i}.0"
            place.mkdir(parents=True)
            (place / "vendor").write_text(vendor + "\n")
            (place / "device").write_text(device + "\n")
        (tmp_path / "dev").mkdir()
        for name in files:
            (tmp_path / "dev" / name).touch()
        monkeypatch.setenv(MACHINE, str(tmp_path))

    return make


def test_a_tpu_is_known_by_its_number_and_goes_before_a_gpu(machine):
    machine(("0x8086", "0x1237"), ("0x1ae0", "0x0042"), ("0x1ae0", "0x0063"), files=("nvidia0",))
    assert find_accelerator() == "TPU v5e"


def test_googles_network_card_is_no_tpu(machine):
    machine(("0x1ae0", "0x0042"))
    assert find_accelerator() == "CPU"


def test_a_gpu_is_known_by_its_file_and_a_bare_machine_is_a_cpu(machine, tmp_path, monkeypatch):
    machine(files=("nvidia0", "nvidiactl"))
    assert find_accelerator() == "GPU"
    monkeypatch.setenv(MACHINE, str(tmp_path / "none"))
    assert find_accelerator() == "CPU"


@pytest.fixture
def no_choice(monkeypatch):
    """An environment that says nothing of a backend, and Keras not imported; all is put back afterwards."""
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.delitem(sys.modules, "keras", raising=False)


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize(("accelerator", "backend"), [("TPU v6e", "jax"), ("GPU", "tensorflow"), ("CPU", "tensorflow")])
def test_a_tpu_is_reached_through_jax(accelerator, backend):
    assert choose_backend(accelerator) == backend


@pytest.mark.usefixtures("no_choice")
def test_a_backend_that_was_asked_for_stays_and_one_that_is_loaded_cannot_change(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert choose_backend("TPU v4") == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
    loaded = SimpleNamespace(config=SimpleNamespace(backend=lambda: "tensorflow"))
    monkeypatch.setitem(sys.modules, "keras", loaded)
    with pytest.raises(InputError, match=r"before Keras is imported; restart Python\. Received: imported='tensorflow'"):
        choose_backend("TPU v4")


def made_machine(root: Path, *, gpu: str = "", driver: bool = True, tpu: bool = False) -> Path:
    """The files by which Linux shows an accelerator."""
    devices = [(NVIDIA, "0x2330", "0x030200")] * bool(gpu) + [(GOOGLE, "0x0063", "0x120000")] * tpu
    for i, values in enumerate(devices):
        place = root / f"sys/bus/pci/devices/0000:00:0{i}.0"
        place.mkdir(parents=True)
        for name, value in zip(("vendor", "device", "class"), values, strict=True):
            (place / name).write_text(value + "\n")
    (root / "dev").mkdir(parents=True)
    if gpu and driver:
        (root / "dev/nvidia0").touch()
        card = root / "proc/driver/nvidia/gpus/0000:00:00.0/information"
        card.parent.mkdir(parents=True)
        card.write_text(f"Model: \t\t {gpu}\nIRQ:   \t\t 33\n")
    return root


def found(root: Path, **environ: str) -> list[Accelerator]:
    return accelerators({MACHINE: str(root), **environ})


def test_a_gpu_has_its_name_from_the_driver_and_is_seen_without_one(tmp_path):
    driven = made_machine(tmp_path / "a", gpu="NVIDIA H100 80GB HBM3")
    assert found(driven) == [Accelerator("GPU", "NVIDIA H100 80GB HBM3")]
    bare = made_machine(tmp_path / "b", gpu="any", driver=False)
    assert found(bare) == [Accelerator("GPU", "NVIDIA GPU", driven=False)]
    assert found(made_machine(tmp_path / "c")) == []


def test_a_tpu_is_seen_by_its_device_its_file_or_the_environment(tmp_path):
    assert found(made_machine(tmp_path / "a", tpu=True)) == [Accelerator("TPU", "TPU v5e")]
    (made_machine(tmp_path / "b") / "dev/accel0").touch()
    assert found(tmp_path / "b") == [Accelerator("TPU", "TPU")]
    (made_machine(tmp_path / "c") / "dev/accel").mkdir()  # Linux's folder for any accelerators, such as laptops' NPUs
    assert found(tmp_path / "c") == []
    assert found(tmp_path / "c", TPU_ACCELERATOR_TYPE="v3-8") == [Accelerator("TPU", "v3-8")]


@pytest.mark.parametrize(
    ("backend", "devices", "environ", "idle"),
    [
        ("tensorflow", ["CPU"], {}, True),
        ("tensorflow", ["CPU", "GPU"], {}, False),
        ("jax", ["GPU"], {}, False),
        ("jax", ["CPU"], {}, True),
        ("jax", ["CPU"], {"JAX_PLATFORMS": "cpu"}, False),
        ("jax", ["CPU"], {"JAX_PLATFORMS": "cuda,cpu"}, True),
        ("torch", ["CPU"], {"CUDA_VISIBLE_DEVICES": "0"}, True),
        ("torch", ["CPU"], {"CUDA_VISIBLE_DEVICES": ""}, False),
        ("tensorflow", ["CPU"], {"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_a_gpu_is_idle_where_the_framework_sees_none_and_nobody_hid_it(tmp_path, backend, devices, environ, idle):
    machine = made_machine(tmp_path, gpu="NVIDIA A10")
    assert (unused(backend, devices, environ={MACHINE: str(machine), **environ}) is not None) is idle


GPU, TPU = Accelerator("GPU", "NVIDIA A10"), Accelerator("TPU", "TPU v5e")


@pytest.mark.parametrize(
    ("backend", "accelerator", "libraries", "advice"),
    [
        ("tensorflow", GPU, False, "pip install 'tf-simclr[gpu]'"),
        ("jax", GPU, False, "pip install 'tf-simclr[gpu-jax]'"),
        ("torch", GPU, False, "a PyTorch for CUDA"),
        ("tensorflow", GPU, True, "installed but cannot be loaded"),
        ("tensorflow", Accelerator("GPU", "NVIDIA GPU", driven=False), True, "install NVIDIA's driver"),
        ("tensorflow", TPU, False, "pip install 'tf-simclr[tpu]', then set KERAS_BACKEND=jax"),
        ("jax", TPU, False, "pip install 'tf-simclr[tpu]'"),
    ],
)
def test_the_cure_is_what_is_missing(monkeypatch, backend, accelerator, libraries, advice):
    there = {"nvidia-cudnn-cu12": "9.1"} if libraries else {}
    monkeypatch.setattr("tf_simclr.machine.accelerators.version", lambda package: there.get(package, ""))
    assert advice in cure(backend, accelerator)


NOISE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795913492.697477   25710 port.cc:153] oneDNN custom operations are on.
2026-11-29 01:00:00.123456: W tensorflow/core/common_runtime/gpu/gpu_device.cc:2343] Cannot dlopen some GPU libraries.
W0000 00:00:1795913492.697480   25710 gpu_device.cc:2343] Cannot dlopen some GPU libraries.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
E0000 00:00:1795913492.697481   25710 cuda_executor.cc:1228] failed call to cuInit: UNKNOWN ERROR (303)
"""


def test_of_what_a_framework_writes_the_reason_alone_is_said():
    assert reasons(NOISE) == ["Cannot dlopen some GPU libraries.", "failed call to cuInit: UNKNOWN ERROR (303)"]
    said = complaint("tensorflow", Accelerator("GPU", "NVIDIA A10"), noise=NOISE).splitlines()
    assert all(line.startswith("!! ") for line in said)
    assert said[0] == (
        "!! this machine has a GPU (NVIDIA A10), but TensorFlow cannot use it: everything is computed on the CPU"
    )
    assert "!! TensorFlow said: Cannot dlopen some GPU libraries." in said


def test_what_native_code_writes_is_kept_and_comes_back_with_an_error(capfd):
    with quietly() as noise:
        os.write(2, b"cuda: none\n")
    assert noise.text == "cuda: none\n"
    assert capfd.readouterr().err == ""

    def fails():
        with quietly():
            os.write(2, b"the reason\n")
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fails()
    assert capfd.readouterr().err == "the reason\n"


def test_a_command_that_trains_names_the_idle_accelerator_once(monkeypatch, capfd, tmp_path):
    """The framework is the one of this process, which sees no GPU; the machine is made up."""
    import keras

    backend = keras.config.backend()
    if any(device != "CPU" for device in seen(backend)):
        pytest.skip("this machine has an accelerator that is used")
    monkeypatch.setenv(MACHINE, str(made_machine(tmp_path, gpu="NVIDIA A10")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cli, "TOLD", [])
    for name in ("augmentations", "finetune", "pretrain"):
        cli.task(name)
    err = capfd.readouterr().err
    assert err.count("!! this machine has a GPU (NVIDIA A10)") == 1
    assert "!! to use it: " in err
