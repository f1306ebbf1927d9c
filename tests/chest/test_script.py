"""A script without a main guard, as people write them: the processes that decode never start it again."""

import os
import re
import subprocess
import sys

import pytest

from tests import golden
from tests.chest.dicoms import content, dataset, stored
from tests.converters import official
from tf_simclr.chest.collections import synthetic

PLAIN = """
print("the script runs")
from tf_simclr.chest.files.worker import each
for answer in each("tf_simclr.chest.files.squares:shrunk", [{"path": "chest.dcm", "size": 16}] * 3, workers=2):
    print(answer[:1])
"""


def run(command, folder, **more):
    environment = os.environ | {"PYTHONPATH": str(golden.ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("way", ["file", "command", "stdin"])
def test_workers_never_run_the_callers_script_nor_import_what_lies_beside_it(way, tmp_path):
    (tmp_path / "chest.dcm").write_bytes(content(dataset(stored(12), bits=12)))
    (tmp_path / "dl.py").write_text("flags = None\n")  # a library asks for a module of this name
    (tmp_path / "script.py").write_text(PLAIN)
    said = {
        "file": lambda: run([sys.executable, "script.py"], tmp_path),
        "command": lambda: run([sys.executable, "-c", PLAIN], tmp_path),
        "stdin": lambda: run([sys.executable], tmp_path, input=PLAIN),
    }[way]()
    assert said.splitlines() == ["the script runs", *["b'{'"] * 3]


def script() -> str:
    page = (golden.ROOT / "docs" / "covid-script.md").read_text()
    return re.search(r"^```python\n(.*?)^```$", page, re.M | re.S)[1]


def test_the_script_of_the_documentation_is_short_and_has_no_guard():
    lines = [line for line in script().splitlines() if line.strip()]
    assert len(lines) <= 25
    assert "__main__" not in script()
    for part in ("load_encoder", "siim_covid19", "model.compile", "model.fit"):
        assert part in script()


def test_the_script_of_the_documentation_runs_as_a_file(tmp_path):
    synthetic.write(tmp_path / "siim", 20, size=32)
    official.write_tf1(tmp_path / "ckpt_dir", "r18_1x_sk0_cifar")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "siim_covid19.salt").write_text("grain\n")  # so that the same patients are tested on each time
    (tmp_path / "study.py").write_text(script())
    said = run([sys.executable, "study.py"], tmp_path)
    assert said.count("Epoch 1/2") == said.count("Epoch 2/2") == 1
    assert "val_accuracy" in said
