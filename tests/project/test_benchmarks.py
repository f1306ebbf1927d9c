"""What benchmarks compute on paper, and that `make bench` runs all of them."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def module(name: str):
    """A file of `benchmarks/`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


scaling, run_all = module("scaling"), module("run_all")
NETWORK = scaling.Network(gflops=8.2, weights=28.0, norms=55, kept=33.0)


def test_make_bench_runs_every_benchmark():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert files - {"run_all", "formats"} == set(run_all.NAMES)  # formats claims nothing


def test_a_name_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--only", "nothing"])
    assert run_all.main() == 2
    assert "Received: nothing" in capsys.readouterr().err


def test_the_summary_names_what_fails(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--only", "startup", "probes", "--quick"])
    monkeypatch.setattr(run_all, "words", lambda name, options: ["-c", f"raise SystemExit({int(name == 'probes')})"])
    assert run_all.main() == 1
    assert "Claims that do not hold: probes" in capfd.readouterr().out


def test_the_model_has_the_throughput_it_was_made_from():
    # 100 epochs of 1,281,167 images in 1.5 hours on 128 cores (arXiv:2002.05709): 371 views a second and core.
    found = scaling.step(scaling.DEVICES["TPU v3-8"], NETWORK, batch=512, views_per_core=400)
    assert 2 * 512 / 8 / found.compute == pytest.approx(371, rel=0.02)


def test_one_replica_exchanges_nothing():
    alone = scaling.Device(replicas=1, teraflops=61.5, memory=16, links=166, processors=96)
    found = scaling.step(alone, NETWORK, batch=64, views_per_core=400)
    assert found.gather == found.gradients == found.norms == 0
    assert found.seconds == found.compute


def test_more_replicas_compute_less_each_and_gather_more():
    small, large = (
        scaling.step(scaling.Device(r, 61.5, 16, 166, 96), NETWORK, batch=1024, views_per_core=400) for r in (2, 8)
    )
    assert large.compute == pytest.approx(small.compute / 4)
    assert large.gather == pytest.approx(small.gather * (7 / 8) / (1 / 2))  # ring: 2 (R - 1) / R of the bytes
    assert small.pieces >= large.pieces >= 1
