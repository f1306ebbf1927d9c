"""Without the extra `chest` (pydicom and its codecs) there is nothing here to test."""

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("pydicom") else ["test_*.py"]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Thirty made-up pictures, prepared."""
    from tests.chest.tiny_deployed import prepared_folder

    return prepared_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_run(tiny_data, tmp_path_factory):
    """A run that left a model of them; not to be changed."""
    from tests.chest.tiny_deployed import save

    folder = tmp_path_factory.mktemp("run")
    save(folder / "deployed", tiny_data)
    return folder
