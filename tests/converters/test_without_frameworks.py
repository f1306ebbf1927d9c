"""Conversion for who has PyTorch alone: no TensorFlow, no tfds, no Keras is imported, and what needs one says so."""

import ast
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from converters import writing
from tests.converters import networks, official
from tests.golden import ROOT

NAME = "r18_1x_sk0_cifar"
ABSENT = ("tensorflow", "tensorflow_datasets", "keras", "jax", "tf2onnx")

FORBID = {
    "a module that is None": f"sys.modules.update(dict.fromkeys({ABSENT}))",
    "a finder that finds nothing": f"""
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())""",
}
ROUND_TRIP = """
import sys
{forbid}
import converters
from converters import verify

source, folder, engine, ending, to = sys.argv[1:]
there = converters.convert(source, folder + "/there" + ending, engine=engine)
back = converters.convert(folder + "/there" + ending, folder + "/" + to, to=to)
equal, lines = verify.run(verify.Options(a=source, b=folder + "/" + to, engine="numpy"))
assert equal, lines
assert converters.load_torch(folder + "/" + to).architecture == there.architecture
for needy in ("keras", "h5", "savedmodel"):
    try:
        converters.convert(folder + "/there" + ending, folder + "/" + needy, to=needy)
    except ValueError as error:
        print(error)
assert not [name for name in sys.modules if name.split(".")[0] in {absent} and sys.modules[name]]
print([(done.engine, done.worst.relative, len(done.differences)) for done in (there, back)])
"""


def write(folder, kind: str):
    """The checkpoint as TensorFlow itself writes it, and its path."""
    if kind == "TF1":
        return official.write_tf1(folder / "source", NAME, selector=1).parent
    if kind == "TF2":
        official.write_tf2(folder / "source", NAME)
    else:
        official.write_saved_model(folder / "source", NAME)
    return folder / "source"


@pytest.mark.parametrize(
    ("kind", "how", "engine", "ending", "to"),
    [
        ("TF1", "a module that is None", "torch", ".pth", "tf2"),
        ("TF2", "a finder that finds nothing", "numpy", ".safetensors", "tf1"),
        ("SavedModel", "a module that is None", "torch", ".pth", "tf1"),
    ],
)
def test_checkpoints_go_to_pytorch_and_back_and_are_proven(tmp_path, kind, how, engine, ending, to):
    code = ROUND_TRIP.format(forbid=FORBID[how], absent=ABSENT)
    command = [sys.executable, "-c", code, str(write(tmp_path, kind)), str(tmp_path), engine, ending, to]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *refusals, proofs = done.stdout.splitlines()
    told = [re.match(r"--to (\w+) needs (.*), which is not installed: pip install ", line) for line in refusals]
    assert [found.groups() for found in told if found] == [
        ("keras", "Keras"),
        ("h5", "Keras"),
        ("savedmodel", "Keras and TensorFlow"),
    ]
    engines, worst, endpoints = zip(*ast.literal_eval(proofs), strict=True)
    assert engines == ({"torch": "PyTorch", "numpy": "NumPy"}[engine], "NumPy")
    assert max(worst) < 1e-10
    assert set(endpoints) == {13}


WITHOUT_TORCH = """
import sys
{forbid}
import converters
from converters import verify

source, folder = sys.argv[1:]
done = converters.convert(source, folder + "/there.pth")
equal, lines = verify.run(verify.Options(a=source, b=folder + "/there.pth"))
assert equal and done.engine == "NumPy", lines
for ask in (
    lambda: converters.load_torch(source),
    lambda: converters.convert(source, folder + "/again.pth", engine="torch"),
    lambda: verify.run(verify.Options(a=source, b=source, engine="torch")),
):
    try:
        ask()
    except ValueError as error:
        print(error)
"""


def test_without_pytorch_numpy_proves_and_what_needs_it_says_so(tmp_path):
    writing.write(networks.network(networks.SMALL), tmp_path / "source", to="tf1", naming="tf1")
    forbid = FORBID["a finder that finds nothing"].replace("('tensorflow'", "('torch', 'tensorflow'")
    code = WITHOUT_TORCH.format(forbid=forbid)
    command = [sys.executable, "-c", code, str(tmp_path / "source"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3
    assert all("needs PyTorch, which is not installed: pip install 'tf-simclr[torch]'" in line for line in said)


def test_what_pytorch_people_install_brings_no_tensorflow():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted, seen = [*project["dependencies"], "tf-simclr[convert]"], set()
    while wanted:
        one = Requirement(wanted.pop())
        seen.add(one.name)
        if one.name == "tf-simclr":
            wanted += [text for extra in one.extras for text in project["optional-dependencies"][extra]]
    assert {"torch", "h5py", "ml-dtypes", "google-crc32c"} <= seen
    assert not {name for name in seen if name.startswith(("tensorflow", "tf-keras", "jax"))}


def called(*line: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "converters", *line]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", [(), ("--help",), ("-h",)])
def test_one_command_lists_what_it_can(line):
    done = called(*line)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in ("tf2torch", "torch2tf", "inspect", "verify"))


def test_a_path_in_place_of_a_command_gets_the_whole_line(tmp_path):
    done = called(str(tmp_path), "out.pth")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"to convert {tmp_path}: simclr-convert tf2torch {tmp_path}" in done.stderr


def test_it_says_its_version():
    assert re.fullmatch(r"tf-simclr \d+\.\d+\.\d+\S*\n", called("--version").stdout)


def test_a_command_that_there_is_not_gets_the_nearest_one():
    done = called("tf2troch", "a", "b")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean tf2torch?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["tf2torch", "torch2tf", "inspect", "verify"])
def test_each_command_goes_by_the_name_that_it_was_called_by(name):
    done = called(name, "--help")
    assert done.returncode == 0
    assert f"usage: simclr-convert {name} " in re.sub(r"\s+", " ", done.stdout)


def test_the_commands_count_numpys_threads_before_numpy_is_loaded():
    """OpenBLAS reads the number when NumPy is loaded, and never again: the proof took several times as long."""
    code = "import sys, converters.command, converters.verify; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
