"""The COVID-19 study on made-up radiographs: its head and rows, what lies beyond them, its leak, and what it prints."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from converters.published import catalogue
from tf_simclr.chest.collections import command as chest_prepare
from tf_simclr.chest.covid import (
    arms as covid_arms,
)
from tf_simclr.chest.covid import (
    command as chest_covid,
)
from tf_simclr.chest.covid import learner
from tf_simclr.chest.covid import rows as covid
from tf_simclr.chest.covid import (
    tables as covid_tables,
)
from tf_simclr.chest.model import deployed
from tf_simclr.config import ChestCovid, ChestPrepare
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.data.radiographs.splits import shared
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build

ROWS = (covid.Row(8, True, 2), covid.Row(8, False, 1))


TABLE_3_2 = """
hidden  dropout  epochs  training  test
500     N        30      98.8      71.0
500     Y        25      79.0      73.6
500     Y        20      78.3      70.9
100     N        30      97.3      71.1
100     Y        25      79.4      72.5
100     Y        20      77.6      70.1
"""


def test_the_rows_are_the_studys_table():
    """T. Skluzacek, University of Minnesota, May 2022, Table 3.2."""
    found = [[r.hidden, "NY"[r.dropout], r.epochs, r.train, r.test] for r in covid.ROWS]
    printed = [line.split() for line in TABLE_3_2.strip().splitlines()[1:]]
    assert [[str(cell) for cell in row] for row in found] == printed
    assert max(covid.ROWS, key=lambda row: row.test) is covid.CHOICE
    assert covid.ENCODER == "simclrv2/finetuned_100pct/r50_1x_sk0"
    assert covid.IMAGES == {"train": 5400, "test": 934}
    config = ChestCovid()
    assert (config.pixels, config.image_size, config.positive) == (64, 224, "Typical Appearance")
    parts = covid.split(["p"] * 6334, np.arange(6334) % 2, kind="image", test_share=config.test_share, seed=0)
    assert {name: len(rows) for name, rows in parts.items()} == covid.IMAGES


def test_the_encoder_is_in_the_catalogue_and_has_the_parameters_that_the_study_says():
    known = catalogue.find(covid.ENCODER)
    assert known.tf2 == "gs://simclr-checkpoints-tf2/simclrv2/finetuned_100pct/r50_1x_sk0/saved_model"
    with_heads = build(Architecture(depth=50, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=1000))
    assert round(sum(int(np.prod(weight.shape)) for weight in with_heads.trainable_weights) / 1e6, 1) == 34.2


def test_the_head_is_the_studys():
    layers = covid.head(2048, covid.CHOICE).layers
    kinds = [(type(layer).__name__, getattr(layer, "rate", None) or getattr(layer, "units", None)) for layer in layers]
    assert kinds == [("Dropout", 0.2), ("Dense", 500), ("Dropout", 0.2), ("Dense", 1)]
    assert layers[1].activation is keras.activations.relu
    assert layers[3].activation is keras.activations.sigmoid
    assert [type(layer).__name__ for layer in covid.head(8, covid.ROWS[0]).layers] == ["Dense", "Dense"]
    several = covid.head(8, covid.ROWS[0], classes=4).layers[-1]
    assert (several.units, several.activation) == (4, keras.activations.softmax)


@pytest.fixture(scope="module")
def told():
    """Features of 300 images of 150 patients, the first of which tells the label, and a split by patient."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    values = (rng.normal(0, 1, (300, 6)) + 3 * labels[:, None] * np.eye(6)[0]).astype(np.float32)
    patients = np.array([f"p{i // 2}" for i in range(300)])
    parts = covid.split(list(patients), labels, kind="patient", test_share=0.3, seed=0)
    return values, labels, {"parts": parts, "patients": patients}


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.3), ("lars", 3.0)])
def test_a_head_learns_what_is_in_the_features_and_starts_anew_each_time(told, optimizer, rate):
    values, labels, options = told
    own = learner.Learner(6, covid.Row(16, True, 8), optimizer=optimizer, learning_rate=rate)
    first, other, again = (own.on_features(values, labels, epochs=8, seed=s, **options) for s in (0, 1, 0))
    found = covid.summary([first, other], draws=50)
    assert found["auc"]["mean"] > 0.9
    assert found["accuracy"]["low"] <= found["accuracy"]["mean"] <= found["accuracy"]["high"]
    assert len(first.history["val_accuracy"]) == 8
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert not np.allclose(first.probabilities, other.probabilities)
    rows = options["parts"]["test"]
    np.testing.assert_allclose(own.trained_head()(values[rows])[:, 0], again.probabilities, atol=1e-6)


def test_metrics_of_several_classes_are_those_of_each_against_the_rest():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    probabilities = rng.dirichlet(np.ones(4), 90)  # the fourth class has no image
    fit = covid.Fit({}, probabilities, labels, np.array([f"p{i // 3}" for i in range(90)]), [])
    found = covid.summary([fit], draws=100)
    areas = [roc_auc_score(labels == c, probabilities[:, c]) for c in range(3)]
    assert found["macro_auc"]["mean"] == pytest.approx(np.mean(areas))
    assert found["accuracy"]["mean"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert found["macro_auc"]["low"] < np.mean(areas) < found["macro_auc"]["high"]
    assert covid.summary([covid.one_class(fit, 2)], draws=5)["auc"]["mean"] == pytest.approx(areas[2])


def test_a_split_with_one_class_only_is_refused():
    with pytest.raises(InputError, match="images must have both classes"):
        covid.split(list("abcd"), np.zeros(4, int), kind="image", test_share=0.5, seed=0)


def encoder(*_, **__):
    """A stem and the last two block groups of a network, of one convolution each."""
    x = images = keras.Input((None, None, 3))
    for name in ("stem_conv1", "group3_block1_conv1", "group4_block1_conv1"):
        x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name=name)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Radiographs of 40 made-up patients, prepared at 48 pixels."""
    folder = tmp_path_factory.mktemp("made")
    options = {"source": "synthetic", "patients": 40, "size": 48, "workers": 2}
    chest_prepare.run(ChestPrepare(raw=folder / "raw", out=folder / "ready", **options))
    return folder / "ready"


@pytest.fixture
def tiny(monkeypatch):
    """A small encoder, and two short rows."""
    for module in (covid_arms, covid_tables):
        monkeypatch.setattr(module, "ROWS", ROWS)
    for module in (covid_arms, covid_tables, chest_covid):
        monkeypatch.setattr(module, "CHOICE", ROWS[0])
    for name in ("resnet", "load_encoder", "encoder_from"):
        monkeypatch.setattr(covid_arms, name, encoder)


def options(made, folder, **more):
    sizes = {"pixels": 32, "image_size": 40, "direct": (40, 48, 224), "unfreeze": (3, -1), "tuning_epochs": 2}
    small = {"seeds": 2, "test_share": 0.3, "checkpoint": folder / "given", "cache_dir": folder / "cache"}
    return ChestCovid(data=str(made), model_dir=folder / "run", **sizes | small | more)


class Recorder:
    """Stands for a learner: notes what it is asked for, and answers at once."""

    def __init__(self, asked, *_, encoder=None, after_block=None, classes=1, optimizer="sgd", **__):
        self.asked, self.form = asked, {"encoder": encoder, "after": after_block, "classes": classes, "by": optimizer}

    def on_features(self, values, labels, *, parts, patients, seed, **_):
        self.asked.append(self.form | {"values": values, "labels": labels, "seed": seed, "parts": parts})
        rows = parts["test"]
        return covid.Fit({}, np.zeros(len(rows)), labels[rows], patients[rows], [1.0])

    def on_images(self, data, labels, *, sizes, **options):
        return self.on_features(sizes, labels, patients=data.patients, **options)


def test_each_row_beyond_the_study_changes_one_thing(made, tmp_path, monkeypatch):
    asked, seen, given = [], [], {"given": encoder(), "more": encoder()}
    monkeypatch.setattr(covid_arms, "load_encoder", lambda path, **_: given[path.name])
    monkeypatch.setattr(covid_arms, "encoder_from", lambda config: given[config.checkpoint.name])
    monkeypatch.setattr(covid_arms, "Learner", lambda *args, **form: Recorder(asked, *args, **form))

    def features(self, network, *, name, sizes):
        seen.append((name, network, sizes))
        return np.full((len(self.data), 2), len(seen))

    monkeypatch.setattr(covid_arms.Study, "features", features)
    small = {"pixels": 32, "image_size": 64, "direct": (40, 48, 512), "seeds": 1, "unfreeze": (3, 2, -1), "seed": 3}
    config = options(made, tmp_path, study="beyond", adapted=tmp_path / "more", **small)
    study = covid_arms.Study(config, load(made))
    found = covid_arms.beyond(study)
    assert list(found) == [
        "SimCLR, frozen, 32 px enlarged to 64",
        "SimCLR, frozen, LARS for the head",
        "SimCLR, frozen, 40 px directly",
        "SimCLR, frozen, 48 px directly",  # and not 512: so many were not prepared
        "adapted to radiographs, frozen",
        "random, frozen",
        "SimCLR, group 4 trains",
        "SimCLR, groups 3–4 train",
        "SimCLR, all of it trains",
        "supervised from scratch",
    ]
    ours, other, untrained = given["given"], given["more"], study.random
    assert [(name, network is ours, sizes) for name, network, sizes in seen] == [
        ("SimCLR", True, (32, 64)),
        ("SimCLR", True, (40, 40)),
        ("SimCLR", True, (48, 48)),
        ("adapted", False, (32, 64)),
        ("random", False, (32, 64)),
    ]
    assert [seen[3][1], seen[4][1]] == [other, untrained]
    by_row = [asked[i : i + 2] for i in range(0, len(asked), 2)]  # a split each
    assert [row[0]["by"] for row in by_row] == ["sgd", "lars"] + ["sgd"] * 8
    assert [row[0]["after"] for row in by_row] == [None] * 6 + [3, 2, -1, -1]
    assert [row[0]["encoder"] for row in by_row[6:]] == [ours, ours, ours, untrained]
    for first, second in by_row:
        np.testing.assert_array_equal(first["labels"], study.labels)
        for asked_for, kind in ((first, "image"), (second, "patient")):
            parts = study.parts(study.labels, kind=kind, seed=config.seed)
            np.testing.assert_array_equal(asked_for["parts"]["test"], parts["test"])


def test_the_four_classes_are_asked_of_the_encoder_and_of_a_random_one(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(covid_arms, "encoder_from", lambda config: encoder())
    monkeypatch.setattr(covid_arms, "Learner", lambda *args, **form: Recorder(asked, *args, **form))
    monkeypatch.setattr(
        covid_arms.Study, "features", lambda self, *_, name, **__: np.full((len(self.data), 2), hash(name))
    )
    data = load(made)
    found, names = covid_arms.several_classes(covid_arms.Study(options(made, tmp_path), data))
    assert names == data.classes
    assert list(found) == ["SimCLR, frozen", "random, frozen"]
    assert {one["classes"] for one in asked} == {4}
    np.testing.assert_array_equal(asked[0]["labels"], data.labels.argmax(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize(("after_block", "same"), [(3, ("stem", "group3")), (-1, ())])
def test_unfrozen_groups_train_and_the_others_stay(made, after_block, same):
    data, network = load(made), encoder()
    labels = data.column("Typical Appearance")
    parts = covid.split(list(data.patients), labels, kind="patient", test_share=0.3, seed=0)
    own = learner.Learner(8, ROWS[0], encoder=network, after_block=after_block)
    fit = own.on_images(data, labels, parts=parts, sizes=(32, 40), epochs=2, seed=0, batch_size=8)
    for layer in (layer for layer in network.layers if layer.weights):
        for before, after in zip(layer.get_weights(), own.model.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(before, after) == layer.name.startswith(same)
    np.testing.assert_array_equal(fit.labels, labels[parts["test"]])
    np.testing.assert_array_equal(fit.patients, data.patients[parts["test"]])
    again = own.on_images(data, labels, parts=parts, sizes=(32, 40), epochs=2, seed=0, batch_size=8)
    np.testing.assert_allclose(fit.probabilities, again.probabilities, atol=1e-6)


@pytest.mark.slow
def test_the_whole_path_on_made_up_radiographs(tiny, made, tmp_path, capsys):
    config = options(made, tmp_path, study="all", adapted=tmp_path / "more", seeds=1, seed=3)
    chest_covid.run(config)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["note"] == "For research use, not a diagnosis."
    table = ["SimCLR, hidden 8, dropout, 2 epochs", "SimCLR, hidden 8, no dropout, 1 epochs"]
    table += ["random, hidden 8, dropout, 2 epochs"]
    beyond = ["SimCLR, frozen, 32 px enlarged to 40", "SimCLR, frozen, LARS for the head"]
    beyond += ["SimCLR, frozen, 40 px directly", "SimCLR, frozen, 48 px directly"]
    beyond += ["adapted to radiographs, frozen", "random, frozen"]
    beyond += ["SimCLR, group 4 trains", "SimCLR, all of it trains", "supervised from scratch"]
    assert list(result["results"]) == table + beyond
    assert result["results"][beyond[0]] != result["results"][beyond[5]]
    for kinds in result["results"].values():
        assert list(kinds) == ["image", "patient"]
        areas = [metrics["auc"] for metrics in kinds.values()]
        assert all(area["low"] <= area["mean"] <= area["high"] for area in areas)
    data = load(made)
    parts = covid.split(list(data.patients), data.column(config.positive), kind="image", test_share=0.3, seed=3)
    assert result["leak"]["patients_in_both"] == shared(list(data.patients), parts)["train", "test"]
    out = capsys.readouterr().out
    assert all(f"  {name}\n" in out for name in table + beyond)
    assert "4 classes" in out
    assert "These radiographs are made up" in out
    assert "the study, by image" not in out  # made-up ones stand beside nobody's numbers
    assert "73.6" not in out
    assert (result["made_up"], result["study"]) == (True, None)
    first = result["results"][table[0]]["image"]
    assert first["train_accuracy"]["low"] <= first["train_accuracy"]["mean"] <= first["train_accuracy"]["high"]
    assert "An epoch end to end took" in out
    assert "× as much." in out
    drawn = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert drawn == {"curves_image", "curves_patient", "roc", "calibration", "auc", "confusion"}
    model = deployed.load(tmp_path / "run")
    assert "It has learned from made-up radiographs" in " ".join(model.about["card"]["limits"])
    assert (model.positive, len(model.heads)) == ("Typical Appearance", 1)
    assert [model.about[name] for name in ("kept_size", "side", "image_size")] == [48, 32, 40]
    assert model.measured["patients"] == len({data.patients[i] for i in study_parts(config, data)["test"]})


def study_parts(config, data):
    """The split that the model left behind was tested on."""
    study = covid_arms.Study(config, data)
    return study.parts(study.labels, kind="patient", seed=config.seed)


def results_of(study):
    """Numbers for each of the study's rows."""
    metrics = {"train_accuracy": 0.9, **dict.fromkeys(covid_tables.COLUMNS, 0.7)} | {"train_accuracy": 0.9}
    numbers = {key: {"mean": value, "low": value, "high": value} for key, value in metrics.items()}
    return {f"{study.base}, {row}": {"image": numbers, "patient": numbers} for row in covid.ROWS}


@pytest.mark.parametrize("made_up", [False, True])
def test_the_studys_numbers_stand_beside_ours_row_by_row_but_not_beside_made_up_ones(made, tmp_path, made_up):
    data = dataclasses.replace(load(made), made_up=made_up, name="made-up" if made_up else "SIIM-FISABIO-RSNA COVID-19")
    study = covid_arms.Study(options(made, tmp_path), data)
    lines = covid_tables.table_text(study, results_of(study)).splitlines()
    printed = [line.split() for line in TABLE_3_2.strip().splitlines()[1:]]
    theirs = [line.split()[-2:] for line in lines if "the study, by image" in line]
    assert theirs == ([] if made_up else [row[-2:] for row in printed])
    for row, cells in zip(covid.ROWS, printed, strict=True):
        at = lines.index(f"  {study.base}, {row}")
        assert str(row) == f"hidden {cells[0]}, {'dropout' if cells[1] == 'Y' else 'no dropout'}, {cells[2]} epochs"
        assert "by image" in lines[at + 1 + (not made_up)]
    assert (covid_tables.of_the_study(study) is None) == made_up
    notes = covid_tables.footnotes(study, {"patients_in_both": 1, "share_of_test_images": 0.5} | ALIKE)
    assert ("Skluzacek" in notes) != made_up
    assert ("made up" in notes) == made_up
    assert "not known here" not in notes


ALIKE = {"alike_by_image": 0, "alike_by_patient": 0}


def test_a_split_that_the_collection_comes_with_is_the_one_by_patient(made, tmp_path):
    data = load(made)
    _, patient = np.unique(data.patients, return_inverse=True)
    words = np.array(["Test", "train", "VAL", "train"])[patient % 4]
    study = covid_arms.Study(options(made, tmp_path), dataclasses.replace(data, splits=words))
    parts = study.parts(study.labels, kind="patient", seed=5)
    np.testing.assert_array_equal(parts["test"], np.flatnonzero(patient % 4 == 0))
    np.testing.assert_array_equal(parts["train"], np.flatnonzero(patient % 4))
    assert set(shared(list(data.patients), parts).values()) == {0}


def test_look_alikes_across_the_split_are_counted(tiny, made, tmp_path):
    data = load(made)
    hashes = data.hashes.copy()
    study = covid_arms.Study(options(made, tmp_path), data)
    parts = study_parts(study.config, data)
    hashes[parts["test"][0]] = hashes[parts["train"][0]]
    object.__setattr__(data, "hashes", hashes)
    assert chest_covid.leaked(study)["alike_by_patient"] == 1


def test_preparing_says_what_is_there(tmp_path, capsys):
    raw, made = tmp_path / "raw", tmp_path / "made"
    chest_prepare.run(ChestPrepare(raw=raw, out=made, source="synthetic", patients=8, size=32, workers=1))
    report = json.loads((made / "report.json").read_text())
    assert report["patients"] == 8
    assert report["images"] == sum(report["labels"].values()) >= 8
    assert (made / "seen.png").stat().st_size > 10000
    assert f"{report['images']} images of {report['studies']} studies of 8 patients" in capsys.readouterr().out


def test_another_class_or_collection_is_named(tiny, tmp_path):
    with pytest.raises(InputError, match="must be a whole prepared folder"):
        chest_covid.run(ChestCovid(data=str(tmp_path)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"unfreeze": (4,)}, r"unfreeze must lie in -1\.\.3"),
        ({"direct": (4,)}, "direct must be at least 8"),
        ({"tuning_epochs": 0}, "tuning_epochs must be at least 1"),
        ({"test_share": 1.0}, "test_share must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_knobs_out_of_range_are_refused(wrong, reason):
    with pytest.raises(InputError, match=reason):
        ChestCovid(**wrong)
