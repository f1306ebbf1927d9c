"""One reading process for all of these tests: it takes seconds to start."""

import pytest

from tests.fuzz.reader import Reader


@pytest.fixture(scope="session")
def reader():
    with Reader() as found:
        yield found
