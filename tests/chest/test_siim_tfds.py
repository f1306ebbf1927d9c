"""SIIM's radiographs as a data set of TensorFlow Datasets, under its name, from a folder that was filled by hand."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tf_simclr.chest.collections import siim, siim_tfds, synthetic
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import pseudonym, resized
from tf_simclr.data.tfds_source import from_tfds


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Nine made-up patients, one of whose files is damaged, and where tfds keeps what it makes of them."""
    raw, kept = tmp_path_factory.mktemp("manual"), tmp_path_factory.mktemp("tfds")
    synthetic.write(raw, 9, size=64, seed=5)
    broken = sorted(raw.glob("train/*/*/*.dcm"))[2]
    broken.write_bytes(broken.read_bytes()[:2000])
    builder = tfds.builder("siim_covid19/64px", data_dir=kept)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw))
    return raw, kept, broken.stem


def test_examples_hold_what_the_files_show_and_the_tables_say(folders):
    raw, kept, broken = folders
    entries = {entry.image: entry for entry in siim.collection(raw).entries}
    found = tfds.load("siim_covid19/64px", split="train", data_dir=kept, download=False)
    rows = {row["name"].decode(): row for row in found.as_numpy_iterator()}
    salt = (kept / "siim_covid19.salt").read_text().strip()
    assert set(rows) == set(entries) - {broken}
    for name, row in rows.items():
        expected = resized(read(entries[name].path).pixels, 64)
        np.testing.assert_allclose(row["image"][..., 0] / 65535, expected, atol=1 / 65535)
        assert row["label"] == entries[name].labels.index(1)
        assert row["study"].decode() == pseudonym(entries[name].study, salt=salt)
        assert row["boxes"] == entries[name].boxes
        assert row["patient"].decode() == pseudonym(f"made-up-{int(name[len('image05') : -1])}", salt=salt)


def test_the_commands_data_set_is_the_same_and_made_up_radiographs_say_so(folders):
    _, kept, _ = folders
    source = from_tfds("siim_covid19/64px", "train", data_dir=kept)
    assert any("made up" in note for note in source.notes)
    assert source.class_names == siim.CLASSES
    assert all(record["label"] < 4 for record in source.ordered().as_numpy_iterator())


def test_it_is_known_by_its_name_and_says_what_to_do_by_hand():
    assert "siim_covid19" in tfds.list_builders(with_community_datasets=False)
    assert tfds.builder_cls("siim_covid19") is siim_tfds.SiimCovid19
    assert "kaggle.com/c/siim-covid19-detection" in siim_tfds.SiimCovid19.MANUAL_DOWNLOAD_INSTRUCTIONS
