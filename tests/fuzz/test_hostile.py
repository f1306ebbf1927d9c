"""Each hostile file is refused with one sentence that names it, within 5 seconds and 500 MB."""

import pytest

from tests.fuzz import hostile
from tests.fuzz.reader import Reader


@pytest.fixture(scope="module")
def reader():
    with Reader() as found:
        yield found


@pytest.mark.parametrize("name", hostile.CASES)
def test_it_is_refused_in_a_sentence_soon_and_with_little_memory(tmp_path, reader, name):
    found = reader.read("network", hostile.CASES[name](tmp_path))
    assert found.kind == "refused", found
    assert not found.slow, found
    assert not found.large, found
