"""The walk against the variables that the reference creates."""

import pytest

from converters.names import walk as layers
from tests import golden
from tests.converters.networks import SMALL, TF1_MANIFESTS, architecture


@pytest.mark.parametrize("name", TF1_MANIFESTS)
def test_walk_has_every_shape_in_the_references_order(name):
    manifest = golden.data(f"manifests/tf1/{name}.json")
    expected = [tuple(shape) for key, (shape, _) in manifest.items() if key != "global_step"]
    assert list(layers.weights(architecture(name)).values()) == expected


def test_layer_names_are_unique_and_tell_their_part():
    walked = list(layers.walk(SMALL))
    assert len({layer.name for layer in walked}) == len(walked)
    assert all(layers.part_of(f"{layer.name}/kernel") == layer.part for layer in walked)


def test_keras_network_has_the_walks_names_and_shapes():
    from tf_simclr.models.network import build, weights_by_name

    found = {name: tuple(variable.shape) for name, variable in weights_by_name(build(SMALL)).items()}
    assert found == layers.weights(SMALL)
