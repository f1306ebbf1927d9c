"""`chest explain`: a figure and the numbers of each image, and what a wrong one costs."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from tf_simclr.config import ChestApp, ChestExplain
from tf_simclr.errors import InputError

pytestmark = pytest.mark.skipif(find_spec("pydicom") is None, reason="not installed: the extra chest")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    from tests.chest import tiny_deployed as tiny

    folder = tmp_path_factory.mktemp("explained")
    data = tiny.prepared_folder(folder / "data")
    tiny.save(folder / "run" / "deployed", data)
    return folder


@pytest.mark.slow
def test_each_image_gets_a_figure_and_numbers_and_a_wrong_one_is_named_at_the_end(run_folder, tmp_path, capsys):
    from tests.chest import tiny_deployed as tiny
    from tf_simclr.chest.model import command as chest_explain
    from tf_simclr.chest.model import deployed

    raw = run_folder / "data" / "raw"
    images = tuple(raw / f"{name}.png" for name in tiny.NAMES[20:22])
    (tmp_path / "wrong.png").write_bytes(b"no picture")
    config = ChestExplain(images=(*images, tmp_path / "wrong.png"), model=run_folder / "run", out=tmp_path / "out")
    with pytest.raises(InputError, match=r"1 were not explained: wrong\.png"):
        chest_explain.run(config)
    said = capsys.readouterr()
    assert "must be a DICOM, PNG or JPEG" in said.err
    assert said.out.count("rank correlation") == 2
    assert "For research use, not a diagnosis." in said.out
    model = deployed.load(run_folder / "run")
    for path in images:
        found = json.loads((tmp_path / "out" / f"{path.stem}.json").read_text())
        verdict = tiny.judged(model, model.see(model.open(path)))
        assert found["probability"] == pytest.approx(verdict.probability)
        assert found["interval"] == pytest.approx([verdict.low, verdict.high])
        assert found["note"] == "For research use, not a diagnosis."
        assert np.shape(found["grad_cam"]) == (6, 6)
        assert np.shape(found["occlusion"]) == (7, 7)
        assert list(found["after_shuffling"]) == ["heads", "group1"]
        assert len(found["nearest"]) == 5
        with Image.open(tmp_path / "out" / f"{path.stem}.png") as figure:
            assert figure.size[0] > 1000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda run: ChestExplain(images=(), model=run), "at least one file"),
        (lambda run: ChestExplain(images=(run / "a" / "x.png", run / "b" / "x.png"), model=run), "different names"),
        (lambda run: ChestExplain(images=(run,), model=run, neighbours=0), "neighbours must be"),
        (lambda run: ChestApp(model=run, port=70000), "port must lie in"),
        (lambda run: ChestApp(model=run, max_megabytes=257), "max_megabytes must lie in"),
        (lambda run: ChestApp(model=run, max_megabytes=64, all_megabytes=63), "all_megabytes must be"),
        (lambda run: ChestApp(model=run, places=0), "places must lie in"),
        (lambda run: ChestApp(model=run, decoders=0), "decoders must lie in"),
    ],
)
def test_knobs_out_of_range_are_refused(make, words, tmp_path):
    with pytest.raises(InputError, match=words):
        make(tmp_path)


def test_the_page_needs_a_model(tmp_path):
    from tf_simclr.chest.page import command as chest_app

    with pytest.raises(InputError, match="must hold a model for radiographs"):
        chest_app.run(ChestApp(model=tmp_path))
