"""What benchmarks compute on paper, and that `make bench` runs all of them."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_simclr import cli

ROOT = Path(__file__).parents[2]


def module(name: str):
    """A file of `benchmarks/`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def without_its_environment(name: str):
    """A file that sets the environment for itself and its own processes."""
    kept = dict(os.environ)
    try:
        return module(name)
    finally:
        os.environ.clear()
        os.environ.update(kept)


scaling, run_all, accelerator = module("scaling"), module("run_all"), without_its_environment("accelerator")
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


def test_the_runs_of_the_paper_have_commands_that_parse_and_costs_that_were_given():
    options = scaling.Options(price_per_hour=("v5e=1.20", "A100=2"))
    runs = scaling.runs_of_paper(options, NETWORK)
    assert [(run.name, run.epochs) for run in runs] == [
        (name, epochs) for name in ("v5e-16", "v5e-64", "8 × A100", "32 × A100") for epochs in (100, 800)
    ]
    for run in runs:
        words = shlex.split(run.command)
        assert words[0] == "KERAS_BACKEND=jax"
        config = cli.parse(words[words.index("tf_simclr") + 1 :])
        assert (config.train_epochs, config.train_batch_size, config.image_size) == (run.epochs, 4096, 224)
        # In pieces of what fits, which must divide the batch, and each piece the devices.
        piece, devices = config.microbatch_size or 4096, scaling.PAPER[run.name].replicas
        assert (4096 % piece, piece % devices) == (0, 0)
        assert run.cost == pytest.approx((1.2 if "v5e" in run.name else 2) * devices * run.hours)
    steps = 100 * 1_281_167 / 4096
    assert runs[0].hours == pytest.approx(steps * 4096 / runs[0].images / 3600, rel=1e-4)
    assert runs[1].hours == pytest.approx(8 * runs[0].hours, rel=1e-4)
    assert {run.cost for run in scaling.runs_of_paper(scaling.Options(), NETWORK)} == {None}
    # A network between hosts costs time.
    slow, fast = scaling.PAPER["32 × A100"], scaling.Device(32, 312, 40, 300, 384, hosts=4)
    slow, fast = (scaling.step(one, NETWORK, batch=4096, views_per_core=400) for one in (slow, fast))
    assert slow.gradients > fast.gradients


OF_PAPER = scaling.Network(gflops=8.174272511999996, weights=32.228672, norms=56, kept=33.26668800000004)
"""ResNet-50 at 224 px with its projection head, as the command prints it."""


def test_the_guide_has_what_the_command_prints():
    guide = (ROOT / "docs" / "scaling.md").read_text()
    given = guide.partition("--price_per_hour ")[2].partition("`")[0].split()
    found = scaling.runs_of_paper(scaling.Options(price_per_hour=tuple(given)), OF_PAPER)
    assert given
    assert scaling.table_of(found) in guide
    assert scaling.machines(scaling.Options(), OF_PAPER) in guide
    joined = guide.replace(" \\\n   ", "")  # lines that go on
    assert [run.command for run in found if run.epochs == 100 and run.command not in joined] == []


@pytest.mark.slow
def test_the_network_of_the_table_is_the_one_that_is_built():
    found = scaling.network(50, 1, image_size=224)
    assert (found.gflops, found.weights, found.norms, found.kept) == pytest.approx(
        (OF_PAPER.gflops, OF_PAPER.weights, OF_PAPER.norms, OF_PAPER.kept)
    )


@pytest.mark.parametrize("wrong", ["v5e", "v5e=", "v5e=x", "H100=2", "=1", "v5e=-1", "v5e=nan"])
def test_a_price_that_cannot_be_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        scaling.prices((wrong,))
    assert ended.value.code == 2
    assert f"Received: {wrong}" in capsys.readouterr().err


def test_the_rates_of_the_model_are_those_that_were_measured():
    """Milliseconds a view in docs/input.md: what a processor does is not said to be more."""
    lines = [line.split("|")[1:] for line in (ROOT / "docs" / "input.md").read_text().splitlines() if line[:1] == "|"]
    found = {cells[0].strip(): cells[1].strip() for cells in lines if len(cells) > 4}  # the last is with blur
    rates = (("device views", scaling.DEVICE_VIEWS), ("the same, JPEG cache", scaling.CACHED_VIEWS))
    for name, rate in (*rates, ("host views", scaling.HOST_VIEWS)):
        assert 0.8 * 1000 / float(found[name]) <= rate <= 1.1 * 1000 / float(found[name]), name


@pytest.mark.slow
def test_the_accelerators_benchmark_runs_on_a_cpu(tmp_path):
    pytest.importorskip("jax", reason="needs jax")
    out = tmp_path / "found.json"
    words = ["--quick", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "accelerator.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert [part["missing"] for part in found.values() if isinstance(part, dict)] == [{}] * 5
    assert found["equality"]["holds"]
    assert found["equality"]["tensors"] > 10
    for part in ("jax", "pytorch"):
        [(name, numbers)] = [(k, v) for k, v in found[part].items() if k.startswith("ResNet")]
        assert all(value > 0 for value in numbers.values()), name
    assert found["cifar10"]["epochs"] == 2
    assert 0 <= found["cifar10"]["knn"] <= 1


def ran(monkeypatch, capfd, out: Path, *words: str, device: dict | None = None) -> tuple[int, str, dict]:
    """Exit code, what is said and what is written, of a run whose sections do nothing; `device` is what they say."""
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--out", str(out), *words])
    found = {"missing": {}, "seconds": 0, **(device or {})}
    monkeypatch.setattr(accelerator, "apart", lambda name, options, *, seconds: dict(found))
    code = accelerator.main()
    return code, "".join(capfd.readouterr()), json.loads(out.read_text()) if out.exists() else {}


def test_what_does_not_fit_into_the_time_is_said(monkeypatch, capfd, tmp_path):
    code, said, written = ran(monkeypatch, capfd, tmp_path / "found.json", "--seconds", "0.01")
    assert code == 3
    assert said.count("not measured: all of it, because: the time was over") == 3
    assert "because: there is no --cifar10" in said
    assert written["jax"]["missing"] == {"all of it": "the time was over"}


def test_without_an_accelerator_only_a_quick_run_measures(monkeypatch, capfd, tmp_path):
    device = {"platform": "cpu"}
    code, said, _ = ran(monkeypatch, capfd, tmp_path / "found.json", device=device)
    assert code == 3
    assert said.count("because: JAX sees no accelerator: --quick is for a CPU") == 4
    assert ran(monkeypatch, capfd, tmp_path / "found.json", "--quick", device=device)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cifar10", "{}/nothing"), "--cifar10 must be the folder in which tfds has prepared cifar10"),
        (("--seconds", "0"), "--seconds must be above 0"),
        (("--out", "{}/none/found.json"), "--out must lie in a folder that is there"),
    ],
)
def test_what_an_accelerator_cannot_use_is_refused_before_anything_runs(words, said, monkeypatch, capfd, tmp_path):
    words = [word.format(tmp_path) for word in words]
    code, found, written = ran(monkeypatch, capfd, tmp_path / "found.json", *words)
    assert (code, written) == (2, {})
    assert said in found


def section_of(text: str, tmp_path, monkeypatch, *, seconds: float) -> dict:
    """What is known of a section that does what a text says."""
    script = tmp_path / "section.py"
    script.write_text(
        "import json, os, sys, time\nfrom pathlib import Path\n"
        "name, words, path, seconds, began = json.loads(sys.argv[2])\n"
        "missing = {'second': 'it was not reached', 'third': 'RuntimeError: out of memory'}\n"
        f"Path(path).write_text(json.dumps({{'first': 1.5, 'missing': missing}}))\n{text}"
    )
    monkeypatch.setattr(accelerator, "__file__", str(script))
    return accelerator.apart("jax", accelerator.Options(), seconds=seconds)


def test_a_section_that_takes_too_long_is_ended_and_keeps_what_it_had(tmp_path, monkeypatch):
    # As a compiler's worker, which keeps what it inherits.
    hangs = "import subprocess\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n"
    found = section_of(hangs, tmp_path, monkeypatch, seconds=2)
    assert found["first"] == 1.5
    assert found["missing"] == {"second": "not all of it fitted into 2 s", "third": "RuntimeError: out of memory"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ValueError('x is wrong')", "ValueError: x is wrong"),
        ("os.kill(os.getpid(), 9)", "it ended by signal 9"),
        ("print('noise'); sys.exit(4)", "noise"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_section_that_fails_says_why_of_what_it_did_not_measure(text, why, tmp_path, monkeypatch):
    found = section_of(text, tmp_path, monkeypatch, seconds=60)
    assert found["first"] == 1.5
    assert found["missing"] == {"second": why, "third": "RuntimeError: out of memory"}


def test_a_machine_without_pytorch_says_so(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = accelerator.apart("pytorch", accelerator.Options(quick=True), seconds=60)
    assert found["missing"] == {"all of it": "ModuleNotFoundError: No module named 'torch'"}


def test_memory_that_is_not_there_and_a_missing_compiler_are_a_line_each(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("jax", reason="needs jax")

    def fails(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 81604378624 bytes.\nDetails")

    monkeypatch.setattr(accelerator, "packed", fails)
    notes = accelerator.Notes(tmp_path / "jax.json")
    accelerator.on_jax(accelerator.Options(), notes)
    assert len(notes.found["missing"]) == 2 * len(accelerator.KINDS)
    assert {why[:35] for why in notes.found["missing"].values()} == {"RuntimeError: RESOURCE_EXHAUSTED: O"}
    assert not [why for why in notes.found["missing"].values() if "\n" in why]

    monkeypatch.setattr(accelerator, "MODES", ("compile contiguous",))
    monkeypatch.setattr(torch, "compile", lambda model: (_ for _ in ()).throw(OSError("no C compiler")))
    notes = accelerator.Notes(tmp_path / "pytorch.json")
    accelerator.on_pytorch(accelerator.Options(quick=True), notes)
    assert list(notes.found["missing"].values()) == ["OSError: no C compiler"]


def test_a_full_run_does_not_measure_pytorch_on_a_cpu(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes = accelerator.Notes(tmp_path / "pytorch.json")
    accelerator.on_pytorch(accelerator.Options(), notes)
    assert len(notes.found["missing"]) == 2 * len(accelerator.MODES)
    assert all("PyTorch sees no accelerator" in why for why in notes.found["missing"].values())


def test_power_that_nobody_tells_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    power = accelerator.Power()
    power.thread.join(30)
    assert power.stop() is None
    assert "nvidia-smi tells no power" in power.said


def test_what_is_no_number_holds_nothing_and_is_json():
    assert np.isnan(np.max([1e-9, accelerator.relative(np.array([np.nan]), np.ones(1))]))
    assert json.loads(accelerator.as_json({"a": [float("nan")], "b": (1.5, {"c": float("-inf")})})) == {
        "a": ["nan"],
        "b": [1.5, {"c": "-inf"}],
    }


def test_aims_are_of_what_was_measured_on_one_device():
    case, other = accelerator.Options().cases
    ours = {"platform": "gpu", case: {"views": 1.0, "augmented": 1.05}, other: {"views": 1.0, "augmentation": 0.25}}
    theirs = {"platform": "gpu", case: {"eager channels_last": 1.2, "compile channels_last": 0.9, "x: peak_bytes": 1}}
    lines, holds = accelerator.report({"jax": ours, "pytorch": theirs})
    said = "\n".join(lines)
    assert not holds
    assert f"{case}: beside PyTorch's best of 2, compile channels_last: 0.90 (aim: at least 1.0): does not hold" in said
    assert f"{case}: the augmentation's share of a step: 0.05 (aim: at most 0.1): holds" in said
    assert f"{other}: the augmentation's share of a step, made alone: 0.20 (aim: at most 0.1): does not hold" in said
    lines, _ = accelerator.report({"jax": ours, "pytorch": theirs | {"platform": "cpu"}})
    assert "beside PyTorch" not in "\n".join(lines)
    assert accelerator.report({"jax": ours, "pytorch": theirs}, quick=True)[1]


def test_steps_are_timed_in_a_row_and_slow_ones_seldom(monkeypatch):
    now, waited = [0.0], []

    class Loss:
        def __float__(self):
            waited.append(now[0])
            return 0.0

    def step(takes: float):
        now[0] += takes
        return Loss()

    monkeypatch.setattr(accelerator.time, "perf_counter", lambda: now[0])
    assert accelerator.timed(lambda: step(0.01)) == pytest.approx(0.01)
    assert len(waited) == 2 + accelerator.STEPS + accelerator.ROUNDS
    waited.clear()
    assert accelerator.timed(lambda: step(30.0)) == 30
    assert len(waited) == 3


def test_the_records_of_a_set_that_tfds_prepared_are_read_without_it(tmp_path):
    """TensorFlow's own writers are the oracle."""
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "cifar10-train.tfrecord-00000-of-00001")) as writer:
        for image, label in zip(pixels, (7, 0, 9), strict=True):
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    images, labels = accelerator.read_cifar10(tmp_path, "train", most=None)
    np.testing.assert_array_equal(images, pixels)
    assert labels.tolist() == [7, 0, 9]
