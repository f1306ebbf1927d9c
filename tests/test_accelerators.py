"""What a machine computes with, told from what Linux shows of it."""

import sys
from types import SimpleNamespace

import pytest

from tf_simclr.accelerators import choose_backend, find_accelerator
from tf_simclr.errors import InputError


@pytest.fixture
def machine(tmp_path):
    """Makes the folders of a machine with these PCI devices (vendor, device) and device files."""

    def make(*devices: tuple[str, str], files: tuple[str, ...] = ()) -> dict:
        for i, (vendor, device) in enumerate(devices):
            place = tmp_path / "pci" / f"0000:00:0{i}.0"
            place.mkdir(parents=True)
            (place / "vendor").write_text(vendor + "\n")
            (place / "device").write_text(device + "\n")
        (tmp_path / "dev").mkdir()
        for name in files:
            (tmp_path / "dev" / name).touch()
        return {"pci": tmp_path / "pci", "dev": tmp_path / "dev"}

    return make


def test_a_tpu_is_known_by_its_number_and_goes_before_a_gpu(machine):
    found = machine(("0x8086", "0x1237"), ("0x1ae0", "0x0042"), ("0x1ae0", "0x0063"), files=("nvidia0",))
    assert find_accelerator(**found) == "TPU v5e"


def test_googles_network_card_is_no_tpu(machine):
    assert find_accelerator(**machine(("0x1ae0", "0x0042"))) == "CPU"


def test_a_gpu_is_known_by_its_file_and_a_bare_machine_is_a_cpu(machine, tmp_path):
    assert find_accelerator(**machine(files=("nvidia0", "nvidiactl"))) == "GPU"
    assert find_accelerator(pci=tmp_path / "none", dev=tmp_path / "none") == "CPU"


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
