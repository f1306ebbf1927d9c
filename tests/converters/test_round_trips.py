"""From every format to every other and back to the same bits, generated from the tables."""

import itertools

import numpy as np
import pytest

import converters
from converters import writing as targets
from converters.conversion import fitted
from converters.names.recognise import NAMINGS
from tests.converters import networks
from tests.converters.networks import SMALL, architecture

QUICK = ("pth", "safetensors", "tf1", "tf2")
PAIRS = list(itertools.product(targets.CONTAINERS, repeat=2))


def path_of(folder, to):
    return folder / f"small_{to}{targets.CONTAINERS[to].ending}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes the small network into a container once: container → path."""
    folder, made = tmp_path_factory.mktemp("formats"), {}

    def write(to: str):
        if to not in made:
            made[to] = path_of(folder, to)
            targets.write(networks.network(SMALL), made[to], to=to, naming=targets.CONTAINERS[to].namings[0])
        return made[to]

    return write


def same_bits(path, network, **selection):
    read = converters.load(path, **selection)
    assert read.architecture == network.architecture
    assert list(read.weights) == list(network.weights)
    for name in network.weights:
        a, b = network[name], read[name]
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32), err_msg=name)


@pytest.mark.parametrize(
    ("source", "target"),
    [pytest.param(*p, marks=() if set(p) <= set(QUICK) else pytest.mark.slow) for p in PAIRS],
)
def test_every_format_from_every_format_is_bit_equal(written, tmp_path, source, target):
    path = path_of(tmp_path, target)
    converters.convert(written(source), path, to=target, naming=targets.CONTAINERS[target].namings[0], verify=False)
    same_bits(path, networks.network(SMALL), selector=0)


TORCH = [name for name in NAMINGS if NAMINGS[name].torch]


@pytest.mark.slow
@pytest.mark.parametrize("naming", TORCH)
@pytest.mark.parametrize("name", ["r50_1x_v1", "r50_1x_sk0", "r50_1x_sk1"])
def test_every_torch_naming_from_tf1_and_back_to_tf2_is_bit_equal(tmp_path, name, naming):
    network = networks.network(architecture(name))
    if NAMINGS[naming].refuses(network.architecture) is None:
        network = fitted(network, naming)
        targets.write(network, tmp_path / "a.tf1", to="tf1", naming="tf1")
        converters.convert(tmp_path / "a.tf1", tmp_path / "b.pth", naming=naming, verify=False)
        converters.convert(tmp_path / "b.pth", tmp_path / "c.tf2", to="tf2", verify=False)
        converters.convert(tmp_path / "c.tf2", tmp_path / "d.pth", naming=naming, verify=False)
        same_bits(tmp_path / "c.tf2", network)
        same_bits(tmp_path / "d.pth", network, naming=naming)
