"""`tf-simclr transfer` on small sets that tfds prepared, of pictures that an encoder separates by construction."""

import json

import keras
import numpy as np
import pytest

from tests import golden
from tests.commands import pictures
from tf_simclr.commands import transfer
from tf_simclr.commands.parts import networks
from tf_simclr.config import Transfer
from tf_simclr.errors import InputError
from tf_simclr.evaluation.transfer_sets import TRANSFER_SETS


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    """In place of a loaded checkpoint: features are the mean colour."""
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    model = keras.Model(images, keras.layers.Dense(3, use_bias=False, name="mix")(pooled))
    model.get_layer("mix").set_weights([np.eye(3)])
    monkeypatch.setattr(networks, "load_encoder", lambda path, **selection: model)
    return model


def store(folder, name, *, splits, label_of):
    """Lets tfds prepare small pictures of three colours as a set that it knows, with that set's features.

    `label_of` makes the labels of the example of a colour and a number.
    """
    import tensorflow_datasets as tfds

    real = tfds.builder(name, data_dir=folder)
    colours = np.array(list(pictures.COLOURS.values()))
    rest = {key: "x" for key, kind in real.info.features.items() if isinstance(kind, tfds.features.Text)}
    rest |= {"objects": []} if "objects" in real.info.features else {}

    def examples(split, count):
        rng = np.random.default_rng(len(split))
        for i in range(count):
            pixels = np.clip(colours[i % 3] + rng.normal(0, 0.05, (32, 32, 3)), 0, 1)
            yield f"{split}{i}", {"image": (255 * pixels).astype(np.uint8)} | rest | label_of(i % 3, i)

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = real.version
        BUILDER_CONFIGS = (real.builder_config,) if real.builder_config else ()

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=real.info.features)

        def _split_generators(self, manager):
            return {split: examples(split, count) for split, count in splits.items()}

        def _generate_examples(self):
            return iter(())

    Builder.name = real.name
    Builder(data_dir=folder).download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def voc_labels(colour, i):
    """Classes 0 to 2 are the colours, of which the second is difficult in every fourth image; class 3 is in even ones,
    which no colour tells, and the others are in every fifth."""
    present = [colour, *([3] if i % 2 == 0 else []), *(range(4, 20) if i % 5 == 0 else [])]
    return {"labels": present, "labels_no_difficult": [c for c in present if not (c == 1 and i % 4 == 0)]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """CIFAR-10 with eight wrong labels to test on; DTD with its own validation split; VOC 2007."""
    folder = tmp_path_factory.mktemp("tfds")
    store(
        folder,
        "cifar10",
        splits={"train": 40, "test": 120},
        label_of=lambda c, i: {"label": (c + (i >= 96 and c == 0)) % 3},  # of the last 24, eight say what is not so
    )
    store(folder, "dtd", splits=dict.fromkeys(("train", "validation", "test"), 12), label_of=lambda c, i: {"label": c})
    store(folder, "voc/2007", splits={"train": 24, "validation": 24, "test": 36}, label_of=voc_labels)
    return folder


def config(prepared, tmp_path, **changes) -> Transfer:
    values = {"checkpoint": tmp_path / "none", "data_dir": prepared, "image_size": 16, "l2_strengths": 5}
    return Transfer(**values | {"result": tmp_path / "out", "cache_dir": tmp_path / "cache"} | changes)


def result(tmp_path, name="result"):
    return json.loads((tmp_path / "out" / f"{name}.json").read_text())


def test_a_set_is_split_and_scored_as_the_table_says_and_a_missing_one_is_named(prepared, tmp_path, capsys):
    transfer.run(config(prepared, tmp_path, datasets="birdsnap,pets,cifar10"))
    found = result(tmp_path)
    assert list(found["results"]) == ["cifar10"]
    numbers = found["results"]["cifar10"]
    assert numbers["metric"] == "accuracy"
    assert numbers["value"] == pytest.approx(112 / 120)
    assert numbers["low"] < 112 / 120 < numbers["high"]
    assert [numbers[f"{part}_images"] for part in ("train", "validation", "test")] == [36, 4, 120]
    assert set(found["missing"]) == {"pets", "birdsnap"}
    captured = capsys.readouterr()
    assert f"build it with: tfds build oxford_iiit_pet --data_dir {prepared}" in captured.err
    assert "Birdsnap is not in TensorFlow Datasets" in captured.err
    assert captured.out.splitlines()[1].split()[:4] == ["CIFAR-10", "top-1", "accuracy", "93.3"]


@pytest.mark.slow
def test_sets_with_validation_images_of_their_own_and_with_several_classes_an_image(prepared, tmp_path, capsys):
    transfer.run(config(prepared, tmp_path, datasets="dtd,voc2007"))
    numbers = result(tmp_path)["results"]
    assert (numbers["dtd"]["metric"], numbers["dtd"]["value"]) == ("accuracy", 1)
    assert [numbers["dtd"][f"{part}_images"] for part in ("train", "validation", "test")] == [12, 12, 12]
    # Three classes of twenty are ranked without a mistake; of the others no feature knows anything.
    assert 3 / 20 + 0.1 < numbers["voc2007"]["value"] < 3 / 20 + 0.6
    assert "11-point mAP" in capsys.readouterr().out.splitlines()[2]


def test_a_finished_set_is_not_computed_again_unless_something_has_changed(prepared, tmp_path, monkeypatch, encoder):
    computed = []
    numbers = {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "l2": 1.0}
    numbers |= {f"{part}_images": 1 for part in ("train", "validation", "test")}
    monkeypatch.setattr(transfer, "evaluate", lambda config, one, **more: computed.append(one.title) or (numbers, None))
    transfer.run(config(prepared, tmp_path, datasets="dtd"))
    transfer.run(config(prepared, tmp_path, datasets="dtd,cifar10", eval_batch_size=7))
    assert computed == ["DTD", "CIFAR-10"]
    assert list(result(tmp_path)["results"]) == ["dtd", "cifar10"]
    transfer.run(config(prepared, tmp_path, datasets="dtd", seed=1))
    encoder.get_layer("mix").set_weights([np.eye(3)[::-1]])
    transfer.run(config(prepared, tmp_path, datasets="dtd", seed=1))
    assert computed == ["DTD", "CIFAR-10", "DTD", "DTD"]


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"knobs": 3}', b"\xff", b"{"], ids=repr)
def test_a_damaged_result_is_computed_again(prepared, tmp_path, monkeypatch, capsys, damage):
    numbers = {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "l2": 1.0}
    numbers |= {f"{part}_images": 1 for part in ("train", "validation", "test")}
    monkeypatch.setattr(transfer, "evaluate", lambda config, one, **more: (numbers, None))
    transfer.run(config(prepared, tmp_path, datasets="dtd"))
    place = tmp_path / "out" / "dtd.json"
    whole = place.read_bytes()
    place.write_bytes(damage)
    transfer.run(config(prepared, tmp_path, datasets="dtd"))
    assert "computed again" in capsys.readouterr().err
    assert place.read_bytes() == whole
    half = json.loads(whole) | {"results": {}}
    place.write_text(json.dumps(half))
    transfer.run(config(prepared, tmp_path, datasets="dtd"))
    assert place.read_bytes() == whole


@pytest.mark.slow
def test_a_folder_of_ones_own_stands_in_for_a_set_that_tfds_does_not_have(tmp_path):
    for split, count in {"train": 4, "validation": 2, "test": 3}.items():
        pictures.write(tmp_path / "own" / "aircraft" / split, per_class=count, wrong=int(split == "test"))
    transfer.run(config(tmp_path, tmp_path, datasets="aircraft", image_dir=tmp_path / "own"))
    found = result(tmp_path, "aircraft")["results"]["logistic_regression"]
    assert (found["metric"], found["train_images"], found["validation_images"]) == ("mean_per_class_accuracy", 12, 6)
    assert found["value"] == pytest.approx(2 / 3)


def test_where_every_set_is_missing_it_says_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match="at least one of the data sets must be there: DTD is not prepared; build it"):
        transfer.run(config(tmp_path, tmp_path, datasets="dtd"))


def test_splits_of_a_folder_with_different_classes_are_refused(tmp_path):
    for split in ("train", "test"):
        pictures.write(tmp_path / "pets" / split, per_class=1)
    (tmp_path / "pets" / "test" / "red").rename(tmp_path / "pets" / "test" / "pink")
    with pytest.raises(InputError, match=r"the splits of Oxford-IIIT Pets must have the same classes.*'pink', 'red'"):
        transfer.run(config(tmp_path, tmp_path, datasets="pets", image_dir=tmp_path))


class OfALibrary(Exception):
    """As `tfds` has for downloads, and `zipfile` for archives: no subclass of anything but `Exception`."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("Input/output error"), "Input/output error"),
        (OfALibrary("404\nbody"), "OfALibrary: 404"),
        (KeyError(), "KeyError: KeyError"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_error_in_one_set_does_not_end_the_others(tmp_path, monkeypatch, capsys, error, told):
    for name in ("pets", "dtd", "cars196"):
        for split in ("train", "validation", "test") if name == "dtd" else ("train", "test"):
            pictures.write(tmp_path / name / split, per_class=6)
    (tmp_path / "pets" / "test" / "red").rename(tmp_path / "pets" / "test" / "pink")
    features = transfer.Extractor.features

    def broken(self, source, **options):
        if "cars196" in source.origin:
            raise error
        return features(self, source, **options)

    monkeypatch.setattr(transfer.Extractor, "features", broken)
    with pytest.raises(InputError, match=rf"were not; the others are done: .*Pets: .*Cars: {told}"):
        transfer.run(config(tmp_path, tmp_path, datasets="pets,cars196,dtd", image_dir=tmp_path))
    assert "DTD" in capsys.readouterr().out
    found = result(tmp_path)
    assert list(found["results"]) == ["dtd"]
    assert sorted(found["failed"]) == ["cars196", "pets"]


@pytest.mark.slow
def test_mean_colours_of_the_real_cifar10_are_worth_little_but_not_nothing(tmp_path):
    folder = golden.beside("data/tfds")
    transfer.run(config(folder, tmp_path, datasets="cifar10", image_size=32))
    found = result(tmp_path)["results"]["cifar10"]
    assert [found[f"{part}_images"] for part in ("train", "validation", "test")] == [18000, 2000, 5000]
    assert 0.12 < found["value"] < 0.3


def test_every_set_has_a_row_of_its_own():
    row = {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "l2": 1.0}
    row |= {"train_images": 45_000, "validation_images": 5_000, "test_images": 10_000}
    lines = transfer.table(dict.fromkeys(TRANSFER_SETS, row)).splitlines()
    assert len(lines) == 13
    assert len({len(line) for line in lines}) == 1
