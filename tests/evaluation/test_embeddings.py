"""Features into one file: what it holds, both formats, and a stop in between."""

import keras
import numpy as np
import pytest
from pyarrow import parquet

from tests.commands import pictures
from tf_simclr.data.pipeline import Unreadable
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError
from tf_simclr.evaluation import embeddings


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 images and a corrupt one."""
    folder = pictures.write(tmp_path_factory.mktemp("images"), per_class=8, size=8)
    pictures.corrupt(folder / "green" / "broken.png")
    return from_folder(folder)


@pytest.fixture(scope="module")
def model():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, {"pool": keras.layers.GlobalAveragePooling2D()(images)})


def embed(model, source, out, **changed):
    options = {"image_size": 8, "identity": {"of": "a"}, "endpoint": "pool", "batch_size": 5} | changed
    skipped = Unreadable()
    count = embeddings.embed(model, source, out=out, unreadable=skipped, **options)
    return count, skipped.names


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_every_readable_image_has_its_mean_colour_under_its_name(model, source, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(embeddings, "PART", 7)
    out = tmp_path / f"features{ending}"
    count, unreadable = embed(model, source, out)
    assert (count, len(unreadable)) == (24, 1)
    if ending == ".npz":
        with np.load(out) as stored:
            values, names, labels = stored["values"], stored["names"], stored["labels"]
    else:
        table = parquet.read_table(out)
        values = np.stack(table["features"].to_numpy())
        names, labels = table["name"].to_numpy(), table["label"].to_numpy()
    for value, name, label in zip(values, names, labels, strict=True):
        expected = keras.utils.img_to_array(keras.utils.load_img(name)).mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(value, expected, atol=1e-6)
        assert source.class_names[label] in name
    assert list(tmp_path.iterdir()) == [out]


def test_a_stopped_run_goes_on_and_ends_the_same(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 7)
    embed(model, source, tmp_path / "whole.npz")
    done = []

    def stop(images):
        done.append(images)
        if images == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, source, tmp_path / "stopped.npz", progress=stop)
    assert len(list((tmp_path / "stopped.npz.parts").glob("part-*"))) == 2
    computed = []
    monkeypatch.setattr(
        embeddings, "save_part", lambda *args, keep=embeddings.save_part: (computed.append(1), keep(*args))
    )
    embed(model, source, tmp_path / "stopped.npz")
    assert len(computed) == 2
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "stopped.npz") as stopped:
        for name in whole:
            np.testing.assert_array_equal(whole[name], stopped[name])


def test_parts_of_other_features_are_refused(model, source, tmp_path):
    embeddings.begin(tmp_path / "x.npz.parts", {"of": "a", "layer": "b"})
    with pytest.raises(InputError, match=r"parts of the same features.*differing=\['layer'\]"):
        embed(model, source, tmp_path / "x.npz")
