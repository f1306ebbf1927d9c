"""The COVID-19 study on made-up radiographs: the whole path, its leak, and what it prints."""

import json

import keras
import numpy as np
import pytest

from tf_simclr.chest import covid
from tf_simclr.chest.prepared import load
from tf_simclr.chest.splits import shared
from tf_simclr.config import ChestCovid, ChestPrepare
from tf_simclr.errors import InputError
from tf_simclr.tasks import chest_covid, chest_prepare


def test_the_head_is_the_studys():
    layers = covid.head(2048, covid.ROWS[0]).layers
    kinds = [(type(layer).__name__, getattr(layer, "rate", None) or getattr(layer, "units", None)) for layer in layers]
    assert kinds == [("Dropout", 0.2), ("Dense", 500), ("Dropout", 0.2), ("Dense", 1)]
    assert layers[1].activation is keras.activations.relu
    assert layers[3].activation is keras.activations.sigmoid
    assert [type(layer).__name__ for layer in covid.head(8, covid.ROWS[1]).layers] == ["Dense", "Dense"]


def test_a_head_learns_what_is_in_the_features_and_its_metrics_say_so():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    values = (rng.normal(0, 1, (300, 6)) + 3 * labels[:, None] * np.eye(6)[0]).astype(np.float32)
    patients = np.array([f"p{i // 2}" for i in range(300)])
    parts = covid.split(list(patients), labels, kind="patient", test_share=0.3, seed=0)
    fit = covid.train_head(values, labels, parts=parts, patients=patients, row=covid.Row(16, True, 20), seed=0)
    found = covid.summary([fit], draws=50)
    assert found["auc"]["mean"] > 0.9
    assert found["accuracy"]["low"] <= found["accuracy"]["mean"] <= found["accuracy"]["high"]
    assert len(fit.history["val_accuracy"]) == 20
    again = covid.train_head(values, labels, parts=parts, patients=patients, row=covid.Row(16, True, 20), seed=0)
    np.testing.assert_array_equal(fit.probabilities, again.probabilities)


def test_a_split_with_one_class_only_is_refused():
    with pytest.raises(InputError, match="images must have both classes"):
        covid.split(list("abcd"), np.zeros(4, int), kind="image", test_share=0.5, seed=0)


@pytest.fixture
def tiny(monkeypatch):
    """An encoder of one convolution, and two short rows."""

    def encoder(*_, **__):
        images = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(8, 5, strides=4, activation="relu", name="conv")(images)
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))

    monkeypatch.setattr(chest_covid, "resnet", encoder)
    monkeypatch.setattr(chest_covid, "load_encoder", encoder)
    monkeypatch.setattr(chest_covid, "ROWS", (covid.Row(8, True, 2), covid.Row(8, False, 1)))


@pytest.mark.slow
def test_the_whole_path_on_made_up_radiographs(tiny, tmp_path, capsys):
    raw, made = tmp_path / "raw", tmp_path / "made"
    chest_prepare.run(ChestPrepare(raw=raw, out=made, source="synthetic", patients=40, size=32, workers=2))
    config = ChestCovid(
        data=str(made),
        checkpoint=tmp_path,
        model_dir=tmp_path / "run",
        image_size=32,
        seeds=2,
        test_share=0.3,
        cache_dir=tmp_path / "cache",
    )
    chest_covid.run(config)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["note"] == "For research, not for diagnosis."
    assert len(result["results"]) == 2 * 2 + 2  # two rows on two splits, and the first of the random encoder
    data = load(made)
    parts = covid.split(list(data.patients), data.column(config.positive), kind="image", test_share=0.3, seed=0)
    assert result["leak"]["patients_in_both"] == shared(list(data.patients), parts)["train", "test"]
    out = capsys.readouterr().out
    assert "SimCLR, hidden 8, dropout, 2 epochs" in out
    assert "random, hidden 8, dropout, 2 epochs" in out
    assert "73.6 %" in out
    drawn = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert drawn == {"curves_image.png", "curves_patient.png", "roc.png", "calibration.png"}


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
