"""What is measured and shown beside a training."""

import json
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_runs
from tests.tiny_runs import PLAN
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import from_arrays
from tf_simclr.data.subsets import of_rows, with_targets
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder, restore_state
from tf_simclr.training import collapse, read_history, train
from tf_simclr.training.reporting import reports
from tf_simclr.training.watching import Collapse, Neighbours, draw_pairs, parts
from tf_simclr.training.weights_and_biases import Report


@pytest.fixture(autouse=True)
def quiet(capsys):
    """Progress lines go to the captured stderr."""


ROWS = np.random.default_rng(0).normal(size=(6, 2, 4))


def test_the_indicators_are_their_definitions_in_loops():
    units = [[row / np.sqrt((row**2).sum()) for row in pair] for pair in ROWS]
    flat = [row for pair in units for row in pair]
    found = collapse.indicators(2 * ROWS, ROWS)
    dimension = [np.sqrt(np.mean([(row[i] - np.mean([r[i] for r in flat])) ** 2 for row in flat])) for i in range(4)]
    assert found["feature_std"] == found["projection_std"] == pytest.approx(2 * np.mean(dimension))
    eigenvalues = np.linalg.eigvalsh(np.transpose(flat) @ np.asarray(flat))
    shares = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    assert found["projection_rank"] == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares)))
    assert found["alignment"] == pytest.approx(np.mean([((a - b) ** 2).sum() for a, b in units]))
    firsts = [pair[0] for pair in units]
    pairs = [np.exp(-2 * ((a - b) ** 2).sum()) for i, a in enumerate(firsts) for b in firsts[:i]]
    assert found["uniformity"] == pytest.approx(np.log(np.mean(pairs)))


def test_a_collapsed_representation_is_seen():
    same = np.ones((8, 2, 16)) + 1e-4 * np.random.default_rng(0).normal(size=(8, 2, 16))
    found = collapse.indicators(same, same)
    assert found["projection_std"] < 1e-3
    assert found["projection_rank"] < 1.01
    spread = np.random.default_rng(0).normal(size=(500, 2, 16))
    found = collapse.indicators(spread, spread)
    assert found["projection_std"] == pytest.approx(1, abs=0.02)
    assert found["projection_rank"] > 15.9


def test_zeros_have_indicators_too():
    assert all(np.isfinite(value) for value in collapse.indicators(np.ones((3, 2, 4)), np.zeros((3, 2, 4))).values())


def images(count: int = 30):
    """Labelled pixels, each image of one grey that its label decides."""
    labels = np.arange(count) % 3
    pixels = np.broadcast_to((40 * labels + np.arange(count)).astype(np.uint8)[:, None, None, None], (count, 4, 4, 3))
    return from_arrays(np.ascontiguousarray(pixels), labels)


def names(source) -> set[str]:
    return {record["name"].numpy().decode() for record in source.ordered()}


def test_those_that_vote_and_those_that_are_asked_are_other_images():
    known, asked = parts(images(), None, count=20, seed=3)
    assert (known.num_examples, asked.num_examples) == (16, 4)
    assert len(names(known)) == 16
    assert len(names(asked)) == 4
    assert not names(known) & names(asked)
    assert names(known) != names(parts(images(), None, count=20, seed=4)[0])
    assert [source.num_examples for source in parts(images(), None, count=99, seed=0)] == [24, 6]
    assert [source.num_examples for source in parts(images(), images(9), count=20, seed=0)] == [20, 9]


def test_a_sample_of_class_folders_has_all_classes():
    labels = np.repeat(np.arange(3), 10)  # one class after the other, as in a folder
    source = from_arrays(np.zeros((30, 4, 4, 3), np.uint8), labels)
    assert {int(record["label"]) for part in parts(source, None, count=15, seed=0) for record in part.ordered()} == {
        0,
        1,
        2,
    }


def test_images_whose_label_is_unknown_neither_vote_nor_are_asked():
    labels = np.where(np.arange(30) % 2, np.arange(30) % 3, -1)
    source = with_targets(images(), lambda record: tf.constant(labels)[tf.strings.to_number(record["name"], tf.int32)])
    known, asked = parts(source, None, count=99, seed=0)
    assert (known.num_examples, asked.num_examples) == (12, 3)
    assert all(int(name) % 2 for name in names(known) | names(asked))
    nobody = with_targets(images(), lambda record: tf.constant(-1, tf.int64))
    with pytest.raises(InputError, match="must have at least two labelled images"):
        parts(nobody, None, count=99, seed=0)


def test_images_that_are_asked_do_not_vote_though_the_splits_overlap():
    source = images()
    half = of_rows(source, np.arange(0, 30, 2), names=np.array([str(i) for i in range(0, 30, 2)]))
    known, asked = parts(source, half, count=99, seed=0)
    assert (known.num_examples, asked.num_examples) == (15, 15)
    assert not names(known) & names(asked)
    with pytest.raises(InputError, match="must have labelled images besides the 30 of arrays"):
        parts(source, images(), count=99, seed=0)


def neighbours(every: int = 2) -> Neighbours:
    known, asked = (
        evaluation_batches(part, batch_size=8, image_size=4, unreadable=Unreadable())
        for part in parts(images(), None, count=30, seed=0)
    )
    return Neighbours(known, asked, every=every, epochs=4)


def collapses() -> Collapse:
    return Collapse(tiny_runs.stream(0).take(2))


def watched(folder, *, watchers, stop=None):
    """The tiny run of `tiny_runs`, watched."""
    callbacks = [] if stop is None else [stop]
    run = RunFolder(folder)
    try:
        train(
            tiny_runs.model(),
            tiny_runs.stream,
            plan=PLAN,
            run=run,
            say=[].append,
            watchers=watchers,
            callbacks=callbacks,
        )
    except KeyboardInterrupt:
        assert stop is not None
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run that nothing watches, and one that all does."""
    folders = [tmp_path_factory.mktemp(name) for name in ("plain", "watched")]
    return [watched(folders[0], watchers=[]), watched(folders[1], watchers=[collapses(), neighbours()])]


def test_watching_changes_no_bit_of_the_run(runs):
    plain, seen = runs
    tiny_runs.assert_same_bits(seen.checkpoint(20), plain.checkpoint(20))
    common = read_history(plain)
    rows = read_history(seen)
    assert [{name: row[name] for name in common[0]} for row in rows] == common


def test_the_history_has_each_number_where_it_was_measured(runs):
    rows = read_history(runs[1])
    assert [row["epoch"] for row in rows if "knn_acc" in row] == [2, 4]  # every second one; 4 is the short last one
    for name in ("feature_std", "projection_std", "feature_rank", "projection_rank", "alignment", "uniformity"):
        assert all(np.isfinite(row[name]) for row in rows), name
    assert runs[1].history.read_text().count("\n") == 5


def test_the_probes_top_5_is_in_the_history(runs):
    rows = read_history(runs[0])
    assert all(row["supervised_top5_acc"] == 1 for row in rows)  # of three classes
    assert any(row["supervised_acc"] < 1 for row in rows)


def test_tensorboard_gets_what_was_measured(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs[1].logs / "train"), size_guidance={"tensors": 0}).Reload()
    found = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_projection_rank")]
    np.testing.assert_allclose(found, [row["projection_rank"] for row in read_history(runs[1])], rtol=1e-6)
    assert len(events.Tensors("epoch_knn_acc")) == 2


def test_the_knn_accuracy_is_that_of_the_features_at_that_moment(runs):
    model = tiny_runs.model()
    restore_state(runs[1].checkpoint(20), model)
    known, asked = parts(images(), None, count=30, seed=0)
    features, labels = {}, {}
    for name, part in (("known", known), ("asked", asked)):
        batches = list(evaluation_batches(part, batch_size=8, image_size=4, unreadable=Unreadable()))
        features[name] = np.concatenate([model.encoder(images, training=False) for images, *_ in batches])
        labels[name] = np.concatenate([label for _, label, _ in batches])
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in features.items()}
    hits = 0
    for row, label in zip(unit["asked"], labels["asked"], strict=True):
        votes = np.zeros(3)
        for other, theirs in zip(unit["known"], labels["known"], strict=True):
            votes[theirs] += np.exp(row @ other / 0.07)
        hits += votes.argmax() == label
    assert read_history(runs[1])[-1]["knn_acc"] == pytest.approx(hits / len(labels["asked"]))


def test_a_resumed_run_has_the_history_of_a_straight_one(tmp_path, runs):
    watched(tmp_path, watchers=[collapses(), neighbours()], stop=tiny_runs.Stop(9))
    run = watched(tmp_path, watchers=[collapses(), neighbours()])
    tiny_runs.assert_same_bits(run.checkpoint(20), runs[1].checkpoint(20))
    assert run.history.read_bytes() == runs[1].history.read_bytes()


def test_a_run_that_resumes_with_more_numbers_leaves_their_places_empty_before(tmp_path):
    watched(tmp_path, watchers=[], stop=tiny_runs.Stop(12, epoch=True))
    rows = read_history(watched(tmp_path, watchers=[neighbours(1)]))
    assert ["knn_acc" in row for row in rows] == [False, False, True, True]


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    arguments = {"plan": PLAN, "run": run, "say": [].append}
    with pytest.raises(InputError, match=rf"nan at step 8; .*\(the last good checkpoint: {run.checkpoint(6)}\)$"):
        train(tiny_runs.model(), lambda step: tiny_runs.stream(step, bad_step=7), **arguments)
    arguments["run"] = RunFolder(tmp_path / "other")
    with pytest.raises(InputError, match=r"nan at step 1; .*\(the last good checkpoint: none yet\)$"):
        train(tiny_runs.model(), lambda step: tiny_runs.stream(step, bad_step=0), **arguments)


def test_the_sheet_of_pairs_is_a_file_and_on_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    views = np.random.default_rng(0).uniform(size=(3, 2, 8, 8, 3)).astype("float32")
    path = draw_pairs(views, RunFolder(tmp_path))
    picture = keras.utils.img_to_array(keras.utils.load_img(path))
    assert path == tmp_path / "pairs.png"
    assert picture.shape[1] > picture.shape[0] > 100
    events = EventAccumulator(str(tmp_path / "logs" / "train"), size_guidance={"tensors": 0}).Reload()
    width, height, png = tf.make_ndarray(events.Tensors("augmented_pairs")[0].tensor_proto)
    assert (int(height), int(width)) == picture.shape[:2]
    np.testing.assert_array_equal(tf.io.decode_png(png), picture)


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package that notes what it is told."""
    told = types.SimpleNamespace(init=[], logs=[], finished=0)

    class Session:
        def log(self, values, *, step):
            told.logs.append((step, values))

        def finish(self):
            told.finished += 1

    module = types.ModuleType("wandb")
    module.init = lambda **options: (told.init.append(options), Session())[1]
    module.Image = lambda path: ("image", path)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_weights_and_biases_gets_the_configuration_the_pairs_and_each_line(tmp_path, wandb):
    run = RunFolder(tmp_path)
    (tmp_path / "pairs.png").write_bytes(b"")
    report = Report(run, project="ours", config={"seed": 0})
    train(tiny_runs.model(), tiny_runs.stream, plan=PLAN, run=run, say=[].append, callbacks=[report])
    report.finish()
    (options,) = wandb.init  # once, though a training is several calls of `fit`
    assert (options["project"], options["config"], options["resume"]) == ("ours", {"seed": 0}, "allow")
    assert wandb.logs[0] == (0, {"augmented_pairs": ("image", str(tmp_path / "pairs.png"))})
    assert wandb.logs[1:] == [(row["step"], row) for row in read_history(run)]
    assert wandb.finished == 1
    assert Report(run, project="ours", config={}).options["id"] == options["id"]  # a resumed run goes on there
    assert Report(RunFolder(tmp_path / "b"), project="ours", config={}).options["id"] != options["id"]
    moved = RunFolder(run.path.rename(tmp_path.parent / f"{tmp_path.name} moved"))
    assert Report(moved, project="ours", config={}).options["id"] == options["id"]
    json.dumps(options["config"])


def test_without_its_package_weights_and_biases_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"^--wandb needs wandb: pip install wandb \("):
        Report(RunFolder(tmp_path), project="ours", config={})


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow's own client on a folder."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (mlflow-skinny)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)
    return mlflow


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of its stores
def test_mlflow_gets_each_epochs_numbers_and_a_resumed_run_goes_on(tmp_path, mlflow):
    """Read by MLflow's own client, which did not write them."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(json.dumps({"command": "finetune", "learning_rate": 0.1}))
    asked = types.SimpleNamespace(wandb=None, mlflow="radiographs")
    for step in (2, 4):  # a process that was stopped, and one that goes on
        lines = [f"{s},{s // 2},{value}" for s, value in ((2, 0.5), (4, 0.25)) if s <= step]
        run.history.write_text("\n".join(["step,epoch,loss", *lines]) + "\n")
        [report] = reports(asked, run)
        report.on_train_begin()
        report.on_train_begin()  # a second call of `fit`
        report.on_epoch_end(step // 2 - 1)
        report.finish()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("radiographs")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == json.loads((run.path / "mlflow.json").read_text())["run_id"]
    assert found.info.status == "FINISHED"
    assert found.data.params == {"command": "finetune", "learning_rate": "0.1"}
    told = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, "loss")]
    assert told == [(2, 0.5), (4, 0.25)]


@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_refuses_is_a_sentence(tmp_path, mlflow):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("{}")
    (run.path / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32}))
    [report] = reports(types.SimpleNamespace(wandb=None, mlflow="x"), run)
    with pytest.raises(InputError, match="MLflow must take what is reported"):
        report.on_train_begin()


@pytest.mark.filterwarnings("ignore")
def test_what_a_server_did_not_take_is_sent_with_the_next_epoch(tmp_path, mlflow, monkeypatch, capsys):
    """A server that is away for an epoch ends no training, and misses no number; nothing is sent twice."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("{}")
    client = mlflow.MlflowClient()
    [report] = reports(types.SimpleNamespace(wandb=None, mlflow="x"), run)
    report.on_train_begin()
    send, away, lines = report.client.log_batch, [False], ["step,epoch,loss"]

    def answering(*words, **options):
        if away[0]:
            raise mlflow.MlflowException("502 Bad Gateway")
        return send(*words, **options)

    monkeypatch.setattr(report.client, "log_batch", answering)
    for step, away[0] in ((1, False), (2, True), (3, True), (4, False), (5, True)):
        run.history.write_text("\n".join([*lines, f"{step},{step},{step / 8}"]) + "\n")
        lines.append(f"{step},{step},{step / 8}")
        report.on_epoch_end(step - 1)
    assert capsys.readouterr().err.count("MLflow did not take this epoch's numbers") == 2
    away[0] = False
    report.finish()
    told = client.get_metric_history(report.session, "loss")
    assert [(one.step, one.value) for one in told] == [(step, step / 8) for step in range(1, 6)]
    assert client.get_run(report.session).info.status == "FINISHED"


def test_weights_and_biases_without_a_login_is_a_sentence(tmp_path, wandb, monkeypatch):
    def refused(**options):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    report = Report(RunFolder(tmp_path), project="ours", config={})
    with pytest.raises(InputError, match=r"WANDB_MODE=offline, or leave --wandb out .No API key configured"):
        report.on_train_begin()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_through_the_commands(tmp_path, mlflow, monkeypatch):
    """Pretrained, fine-tuned and distilled by command lines; asked of MLflow's own client."""
    from tests.commands import pictures
    from tf_simclr import cli

    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        pictures.write(tmp_path / "pets" / split, per_class=4)
    common = "--image_dir pets --image_size 16 --train_batch_size 4 --train_epochs 2 --learning_rate 0.01 --mlflow ours"
    cli.execute(f"pretrain {common} --resnet_depth 18 --knn_epochs 0 --model_dir p")
    cli.execute(f"finetune {common} --checkpoint p --model_dir f")
    cli.execute(f"distill {common} --teacher f --resnet_depth 18 --model_dir d")
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("ours").experiment_id])
    assert sorted(one.data.params["command"] for one in found) == ["distill", "finetune", "pretrain"]
    for one in found:
        run = RunFolder(tmp_path / one.info.run_name)
        assert one.info.status == "FINISHED"
        for name in ("loss", "learning_rate"):
            told = {metric.step: metric.value for metric in client.get_metric_history(one.info.run_id, name)}
            assert told == {row["step"]: pytest.approx(row[name]) for row in read_history(run)}
        assert one.data.params["train_batch_size"] == "4"
    [pretrained] = [one for one in found if one.data.params["command"] == "pretrain"]
    assert [file.path for file in client.list_artifacts(pretrained.info.run_id)] == ["pairs.png"]
