"""Each hostile file is refused with one sentence that names it, within 5 seconds and 500 MB."""

import pytest

from tests.fuzz import hostile

COSTLY = {"npz_of_many_members", "zip_of_many_members", "tar_of_many_members", "h5_of_many_groups", "pickle-lists"}
COSTLY |= {"meta_of_empty_nodes", "object_graph_of_empty_nodes", "tensor_of_a_million_axes"}
COSTLY |= {"meta_of_functions_with_a_mark", "safetensors-keys-300000", "safetensors_with_large_metadata"}
"""Seconds to make or to refuse: with the slow tests."""
ALL = [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in hostile.CASES]


@pytest.mark.parametrize("name", ALL)
def test_it_is_refused_in_a_sentence_soon_and_with_little_memory(tmp_path, reader, name):
    found = reader.read("network", hostile.CASES[name](tmp_path))
    assert found.kind == "refused", found
    assert not found.slow, found
    assert not found.large, found
