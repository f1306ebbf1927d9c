"""`embed` and `export` as a user calls them."""

import keras
import numpy as np
import pytest

from tests.commands import pictures
from tf_simclr.commands import embed, export
from tf_simclr.config import Embed, Export


@pytest.fixture
def network(monkeypatch):
    """A small network in place of a checkpoint's."""
    images = keras.Input((None, None, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(images))
    outputs = {"final_avg_pool": features, "logits_sup": keras.layers.Dense(3, name="logits_sup")(features)}
    model = keras.Model(images, outputs)
    for task in (embed, export):
        monkeypatch.setattr(task, "load_model", lambda path, ema: model)
    return model


def test_embed_writes_features_by_name_and_says_what_it_did(network, tmp_path, capsys):
    folder = pictures.write(tmp_path / "images", per_class=3, size=16)
    out = tmp_path / "features.npz"
    config = {"checkpoint": tmp_path, "image_dir": folder, "image_size": 16, "out": out}
    embed.run(Embed(**config, layer="logits_sup"))
    with np.load(out) as stored:
        assert stored["values"].shape == (9, 3)
        assert sorted(set(stored["labels"])) == [0, 1, 2]
    assert "logits_sup of 9 images, 3 numbers each, with names and labels\n" in capsys.readouterr().out


def test_embed_says_that_there_are_no_labels(network, tmp_path, capsys):
    """Before: "with names and labels", which are all -1."""
    folder = pictures.write(tmp_path / "images", per_class=3, size=16) / "red"
    out = tmp_path / "features.npz"
    embed.run(Embed(checkpoint=tmp_path, image_dir=folder, image_size=16, out=out))
    with np.load(out) as stored:
        assert set(stored["labels"]) == {-1}
    assert "with names; the images have no labels, so all of these are -1\n" in capsys.readouterr().out


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("uint8", [False, True])
def test_export_compares_what_it_wrote_on_the_users_images(network, tmp_path, capsys, uint8, resize):
    folder = pictures.write(tmp_path / "images", per_class=3, size=16)
    out = tmp_path / "saved"
    options = {"image_dir": folder, "image_size": 16, "samples": 9, "uint8": uint8, "resize": resize}
    export.run(Export(checkpoint=tmp_path, to="savedmodel", out=out, **options))
    said = capsys.readouterr().out
    assert ("takes the view of evaluation at 16 px" in said) is resize
    assert f"Wrote    {out}: savedmodel" in said
    assert ("bytes of 0 to 255" if uint8 else "numbers in [0, 1]") in said
    assert f"on 9 images of {folder}: the largest logit is the same on 100.0%" in said
