"""Each command, and each option that says how, runs where there is no TensorFlow, or is refused in a sentence.

The commands are those of `tf_simclr.config.COMMANDS`: a new one has to have its row.
"""

import importlib.util
import json

import pytest

from tests.backends import every_command
from tests.backends.test_methods import OTHERS, run
from tests.chest import tiny_deployed
from tf_simclr.config import COMMANDS


def test_every_command_has_a_row():
    assert set(every_command.ROWS) == set(COMMANDS)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """A prepared collection and a model for radiographs, which TensorFlow has made."""
    place = tmp_path_factory.mktemp("radiographs")
    tiny_deployed.save(place / "deployed", tiny_deployed.prepared_folder(place / "tiny"))
    (place / "chest").symlink_to(place / "tiny" / "ready")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_every_command_runs_without_tensorflow_or_says_why_not(backend, radiographs, tmp_path):
    for name in ("chest", "deployed"):
        (tmp_path / name).symlink_to(radiographs / name)
    blocked = "tensorflow,tensorflow_datasets" + (",jax" if backend == "torch" else "")
    # `tests.backends.methods` has JAX compute with 64 bits.
    done = run("tests.backends.every_command", tmp_path, backend=backend, blocked=blocked, JAX_ENABLE_X64="0")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    expected = {name: why for name, (_, why) in every_command.ROWS.items()}
    expected |= {option: own.get(backend, why) for option, (why, own) in every_command.OPTIONS.items()}
    assert found.keys() == expected.keys()
    wrong = {name: said for name, said in found.items() if (expected[name] or "ran") not in said}
    assert not wrong
    assert not [said for said in found.values() if "\n" in said]
    assert importlib.util.find_spec("tensorflow") is not None  # it was there, and not seen
