"""`tf-simclr linear-eval` on pictures whose classes an encoder separates by construction."""

import io
import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from tests.commands import pictures
from tf_simclr.commands import linear_eval
from tf_simclr.commands.parts import networks
from tf_simclr.config import LinearEval
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError
from tf_simclr.evaluation import features
from tf_simclr.evaluation.features import Features
from tf_simclr.files import write_json
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import Tally


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    """In place of a loaded checkpoint: features are the mean colour, where all weights are as they were set."""
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros", name="mix")(pooled))
    model.get_layer("mix").set_weights([np.eye(3)])
    monkeypatch.setattr(networks, "load_encoder", lambda path, **selection: model)
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Thirty training pictures in three classes; of 24 for testing a quarter lies in the wrong class folder."""
    folder = tmp_path_factory.mktemp("images")
    pictures.write(folder / "train", per_class=10)
    pictures.write(folder / "test", per_class=8, wrong=2)
    return folder


def config(images, **changes) -> LinearEval:
    values = {"checkpoint": images / "none", "image_dir": images, "image_size": 32, "l2_strengths": 5, "knn": 3}
    return LinearEval(**values | {"cache_dir": images / "cache"} | changes)


def test_separable_classes_are_found_but_for_the_misplaced_quarter(images, tmp_path, capsys):
    linear_eval.run(config(images, result=tmp_path / "result.json"))
    content = json.loads((tmp_path / "result.json").read_text())
    found = content["results"]["checkpoint"]
    for kind in ("logistic_regression", "knn"):
        assert found[kind]["accuracy"] == 0.75
        assert 0.5 < found[kind]["low"] < 0.75 < found[kind]["high"] < 1
    assert (found["train_images"], found["test_images"]) == (30, 24)
    assert found["l2"] in np.logspace(-6, 5, 5)
    assert content["command"]["command"] == "linear-eval"
    assert content["command"]["knn"] == 3
    assert content["unreadable"] == []
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:2] == ["checkpoint", "75.0"]
    assert f"{images}/train to {images}/test; numbers and intervals: {tmp_path}/result.json" in out
    assert out[-1].split()[:2] == ["compare", "python"]


def test_the_untrained_row_is_the_same_network_with_its_first_weights(images, tmp_path, encoder):
    linear_eval.run(config(images, result=tmp_path / "result.json"))
    untrained = json.loads((tmp_path / "result.json").read_text())["results"]["untrained"]
    # The first weights are zeros here, so all pictures look alike and get one class, which holds a third of them.
    assert untrained["logistic_regression"]["accuracy"] == pytest.approx(1 / 3)
    np.testing.assert_array_equal(encoder.get_layer("mix").get_weights()[0], np.eye(3))  # the loaded one stays


def test_without_the_untrained_row_there_is_one_network(images, tmp_path):
    linear_eval.run(config(images, result=tmp_path / "result.json", untrained=False))
    assert list(json.loads((tmp_path / "result.json").read_text())["results"]) == ["checkpoint"]


def test_a_corrupt_picture_is_left_out_and_named(tmp_path):
    pictures.write(tmp_path / "train", per_class=4)
    pictures.write(tmp_path / "test", per_class=4)
    bad = pictures.corrupt(tmp_path / "test" / "red" / "bad.png")
    linear_eval.run(config(tmp_path, result=tmp_path / "result.json", untrained=False))
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["unreadable"] == [str(bad)]
    assert content["results"]["checkpoint"]["test_images"] == 12
    assert content["results"]["checkpoint"]["knn"]["accuracy"] == 1


def test_classes_that_differ_between_the_splits_are_refused_before_they_are_mixed_up(images, tmp_path):
    pictures.write(tmp_path / "train", per_class=2)
    (tmp_path / "test").mkdir()
    for name in ("green", "red"):
        (tmp_path / "train" / name).joinpath("x").mkdir()
        pictures.write(tmp_path / "all", per_class=1)
        (tmp_path / "all" / name).rename(tmp_path / "test" / name)
    with pytest.raises(InputError, match=r"must have the same classes\. Received: differing=\['blue'\]"):
        linear_eval.run(config(tmp_path))


def test_numbers_go_into_the_run_folder_and_never_beside_a_foreign_checkpoint(tmp_path):
    of_run = LinearEval(checkpoint=tmp_path)
    assert str(linear_eval.default_result(of_run)) == "linear_eval.json"
    write_json(RunFolder(tmp_path).config, {})
    assert linear_eval.default_result(of_run) == tmp_path / "linear_eval.json"
    assert linear_eval.default_result(replace(of_run, protocol="sgd")) == tmp_path / "linear_eval_sgd.json"


def test_features_are_computed_once_for_a_network_its_images_and_how_they_are_seen(
    images, tmp_path, monkeypatch, encoder
):
    computed = []

    def compute(network, batches, **options):
        computed.append(1)
        return Features(np.ones((30, 3), np.float32), np.zeros(30, int), None)

    monkeypatch.setattr(features, "extract", compute)
    train = from_folder(images / "train")
    changes = [{}, {}, {"endpoint": "x"}, {}, {"cache_features": False}]
    options = {"cache_dir": tmp_path / "cache"}
    extractors = [networks.extractor_of(config(images, **options, **change), encoder) for change in changes]
    for extractor in extractors:
        extractor.features(train, image_size=32)
    assert len(computed) == 3  # once, for the other endpoint, and where nothing is kept
    extractors[0].features(train, image_size=16)
    extractors[0].features(train, image_size=32, crop_proportion=None)
    encoder.get_layer("mix").set_weights([2 * np.eye(3)])
    networks.extractor_of(config(images, **options), encoder).features(train, image_size=32)
    assert len(computed) == 6


def test_nearest_neighbours_alone(images, tmp_path):
    linear_eval.run(config(images, result=tmp_path / "result.json", protocol="knn", untrained=False))
    content = json.loads((tmp_path / "result.json").read_text())["results"]["checkpoint"]
    assert content["knn"]["accuracy"] == 0.75
    assert "logistic_regression" not in content


def test_the_classifier_by_sgd_learns_from_augmented_images_and_leaves_the_encoder(images, tmp_path, encoder, capsys):
    options = {"protocol": "sgd", "train_batch_size": 15, "train_steps": 60, "learning_rate": 50.0}
    linear_eval.run(config(images, result=tmp_path / "result.json", untrained=False, **options))
    content = json.loads((tmp_path / "result.json").read_text())["results"]["checkpoint"]
    assert content["sgd"]["accuracy"] == 0.75
    assert content["steps"] == 60
    np.testing.assert_array_equal(encoder.get_layer("mix").get_weights()[0], np.eye(3))
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].split() == ["features", "SGD", "classifier"]
    assert "step 60/60" in captured.err


def test_the_classifier_by_sgd_sees_the_same_crops_whoever_makes_them(images, tmp_path, capsys):
    options = {"protocol": "sgd", "train_batch_size": 15, "train_steps": 4, "learning_rate": 50.0, "untrained": False}
    losses = {}
    for place in ("host", "device"):
        linear_eval.run(config(images, result=tmp_path / f"{place}.json", augment_on=place, **options))
        said = capsys.readouterr().err
        assert ("views are made on the device" in said) == (place == "device")
        losses[place] = [line for line in said.splitlines() if line.startswith("step ")]
    assert len(losses["host"]) == 4
    assert losses["host"] == losses["device"]


def test_an_endpoint_that_there_is_not_is_refused_with_those_there_are(images, monkeypatch, encoder):
    network = keras.Model(encoder.input, {"map": encoder.input, "proj_1": encoder.output})
    monkeypatch.setattr(networks, "load_model", lambda path, **selection: network)
    assert networks.load_features_network(config(images, endpoint="proj_1")).output_shape == (None, 3)
    with pytest.raises(InputError, match=r"layer must be one of proj_1\. Received: layer='map'"):
        networks.load_features_network(config(images, endpoint="map"))


def test_progress_is_one_line_at_the_end_or_redrawn_on_a_terminal():
    out = io.StringIO()
    counter = Tally("features of x", 8, out=out)
    for done in (4, 8):
        counter(done)
    assert out.getvalue().startswith("features of x: 8 in ")
    assert out.getvalue().count("\n") == 1
    screen = io.StringIO()
    screen.isatty = lambda: True
    counter = Tally("features of x", 8, out=screen)
    counter.drawn -= 1
    counter(4)
    assert screen.getvalue().startswith("\rfeatures of x: 4/8, ")
    assert "s left" in screen.getvalue()


def test_the_images_themselves_are_tested_beside_the_features(images, tmp_path):
    linear_eval.run(config(images, result=tmp_path / "result.json", untrained=False, raw_pixels=True))
    found = json.loads((tmp_path / "result.json").read_text())["results"]["raw pixels"]
    assert found["knn"]["accuracy"] == 0.75  # the colour that tells the classes apart is in the pixels


@pytest.mark.parametrize(("size", "features"), [(32, 768), (8, 192), (40, 507)])
@pytest.mark.parametrize("stated", ["channels_last", "channels_first"])
def test_raw_pixels_are_means_of_squares(size, features, stated):
    image = np.random.default_rng(0).uniform(size=(1, size, size, 3)).astype(np.float32)
    keras.config.set_image_data_format(stated)  # as ~/.keras/keras.json may
    try:
        values = np.asarray(linear_eval.pixels(size)(image)).reshape(1, -1)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert values.shape == (1, features)
    side = -(-size // 16)
    np.testing.assert_allclose(values[0, :3], image[0, :side, :side].mean((0, 1)), rtol=1e-6)


def test_figures_show_the_map_and_the_nearest_images(images, tmp_path, capsys):
    linear_eval.run(config(images, result=tmp_path / "r.json", untrained=False, figures=tmp_path / "seen"))
    out = capsys.readouterr().out
    for name in ("feature_map", "neighbours"):
        assert (tmp_path / "seen" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"figure  {tmp_path}/seen/{name}.png" in out
