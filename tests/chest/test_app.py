"""What the page says; what it does on a port is in `test_app_http`, in a browser in `test_app_browser`."""

import dataclasses
import re
import socket

import numpy as np
import pytest
from PIL import Image

from tests.chest import tiny_deployed as tiny
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model import explain as explain_image
from tf_simclr.chest.model.opened import opened
from tf_simclr.chest.page import html as app_page
from tf_simclr.chest.page import server as app_server
from tf_simclr.chest.page.gate import listen
from tf_simclr.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_run):
    return deployed.load(tiny_run)


@pytest.fixture(scope="module")
def image(tiny_data):
    return tiny_data.folder.parent / "raw" / f"{tiny.NAMES[25]}.png"


@pytest.fixture(scope="module")
def found(model, image):
    return tiny.checked(model, tiny.ask(model, image))


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html).replace("&nbsp;", " "))


def test_the_answer_states_probability_interval_calibration_and_what_it_was_tested_on(model, found):
    text = text_of(app_page.result([model], [found]))
    verdict = found.verdict
    assert f"{100 * verdict.probability:.0f} % probability of Square" in text
    assert f"Interval: {app_page.percent(verdict.low)} to {app_page.percent(verdict.high)} %" in text
    count, positives, *_ = model.calibration.alike(verdict.probability)
    assert f"Among the {count} test radiographs" in text
    assert f"{positives} ({100 * positives / count:.0f} %) had the label Square" in text
    assert "Tested on 30 radiographs of 30 patients" in text
    assert f"rank correlation {found.correlation:.2f}" in text or "no place speaks" in text.lower()
    assert text.count("similarity") == 5


def test_a_model_that_was_not_shown_to_be_better_than_guessing_says_so_first(model, found):
    auc = {"value": 0.6, "low": 0.45, "high": 0.75}
    poor = dataclasses.replace(model, about=model.about | {"measured": model.measured | {"auc": auc}})
    assert "not shown to be better than guessing" in app_page.meaning(poor, found)[0]
    good = dataclasses.replace(
        model, about=model.about | {"measured": model.measured | {"auc": auc | {"low": 0.55, "high": 0.65}}}
    )
    assert "guessing.</strong>" not in "".join(app_page.meaning(good, found))


def test_an_image_unlike_the_training_cases_is_warned_of(model, found):
    unlike = dataclasses.replace(found, similar=False)
    assert "unlike the radiographs that the model learned from" in app_page.answer(model, unlike)
    assert "unlike" not in app_page.answer(model, dataclasses.replace(found, similar=True))


def test_a_radiograph_that_was_learned_from_is_recognised_as_it_is_and_brighter(model, image, tmp_path):
    learned = image.with_name(f"{tiny.NAMES[4]}.png")
    with Image.open(learned) as picture:
        Image.fromarray((0.8 * np.asarray(picture) + 20).astype(np.uint8)).save(tmp_path / "brighter.png")
    known = [tiny.ask(model, path) for path in (learned, tmp_path / "brighter.png")]
    assert all(one.known for one in known)
    assert "has learned from a radiograph that looks the same" in app_page.answer(model, known[0])
    assert not tiny.ask(model, image).known


def test_a_picture_in_colour_is_warned_of(model, image, tmp_path):
    with Image.open(image) as picture:
        red = Image.merge("RGB", [picture, picture.point(lambda level: level // 2), picture.point(lambda level: 0)])
    red.save(tmp_path / "red.png")
    found = tiny.ask(model, tmp_path / "red.png")
    assert "This picture is in colour" in app_page.answer(model, found)
    assert explain_image.numbers(model, found)["in_colour"]
    assert not tiny.ask(model, image).picture.coloured


def test_a_map_of_four_places_is_not_said_to_be_confirmed(model, found):
    coarse = dataclasses.replace(found, heat=np.arange(1.0, 5).reshape(2, 2), correlation=1.0)
    text = app_page.pictures(model, coarse)
    assert "map has 2 × 2 places, too few to say where; do not rely on it" in text
    assert "rank correlation" not in text


def test_where_the_network_does_not_see_the_rim_the_page_says_so(model, found):
    assert "rim" not in app_page.pictures(model, found)
    cropped = dataclasses.replace(model, about=model.about | {"crop_proportion": 0.875})
    assert "the network does not see the rim" in app_page.pictures(cropped, found)


def test_a_map_without_a_place_that_speaks_for_the_finding_says_so(model, found):
    empty = dataclasses.replace(found, heat=-np.abs(found.heat) - 1)
    assert "No place speaks for the finding" in app_page.pictures(model, empty)
    doubtful = dataclasses.replace(found, heat=np.abs(found.heat) + 1, correlation=-0.3)
    assert "does not confirm these places: do not rely on the map" in app_page.pictures(model, doubtful)


def test_the_page_escapes_what_others_wrote_and_names_no_other_machine(model, found):
    whole = app_page.document([model], max_bytes=2**20)
    assert "Squares &lt;b&gt;" in whole
    assert "Only squares &amp; nothing." in whole
    for page in [whole, app_page.result([model], [found]), app_page.STYLE, app_page.SCRIPT, app_page.VIEWER]:
        assert not re.search(r"https?:|[\"'(]//|@import|url\(|(src|href)=\"(?!data:|page\.|viewer\.)", page)
    for page in [
        whole,
        app_page.result([model], [found]),
    ]:  # the browser is told to run and style nothing that stands in it
        assert not re.search(r"<script(?! src=\"(page|viewer)\.js\")|<style|\sstyle=|\son\w+=|javascript:", page)


def test_the_page_says_at_every_time_that_it_is_no_diagnosis_and_what_becomes_of_the_file(model):
    assert "For research use, not a diagnosis." in app_page.document([model], max_bytes=1)
    assert "gone with its answer. Nothing is stored or sent on." in app_page.document([model], max_bytes=1)
    assert re.search(r"\.note \{ position: fixed", app_page.STYLE)
    assert "Limits of this model" in app_page.card([model])


def test_what_is_heard_says_the_answer_its_doubts_and_that_it_is_no_diagnosis(model, found):
    said = app_page.in_a_sentence(model, dataclasses.replace(found, similar=False))
    assert said.startswith(f"{app_page.percent(found.verdict.probability)} % probability of Square, interval ")
    assert "unlike the radiographs that the model learned from" in said
    assert said.endswith("For research use, not a diagnosis.")


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 must be free"):
            listen("127.0.0.1", port)


def test_without_a_server_the_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'tf-simclr\[app\]'"):
        app_server.server_of(None)


@pytest.fixture(scope="module")
def several(tiny_data, tmp_path_factory):
    """A model of two findings, as `chest findings` leaves one."""
    folder = tmp_path_factory.mktemp("several")
    tiny.save_findings(folder / "model", tiny_data)
    return opened(folder)


def test_a_model_of_several_findings_answers_for_each(several, image):
    from sklearn.metrics import roc_auc_score

    assert [model.positive for model in several] == ["Square", "Nothing"]
    found = explain_image.checked_all(several, explain_image.ask_all(several, image))
    for model, one in zip(several, found, strict=True):
        alone = tiny.checked(model, tiny.ask(model, image))
        assert one.verdict.probability == pytest.approx(alone.verdict.probability, rel=1e-4)
        np.testing.assert_allclose(one.heat, alone.heat, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.covered, alone.covered, rtol=1e-3, atol=1e-5)
    text = text_of(app_page.result(several, found))
    for model, one in zip(several, found, strict=True):
        assert f"{app_page.percent(one.verdict.probability)} % probability of {model.positive}" in text
        auc = model.measured["auc"]
        assert f"{auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})" in text
    held = tiny.held_of_findings()
    assert several[0].measured["auc"]["value"] == pytest.approx(roc_auc_score(held[1][:, 0], held[0][:, 0]))
    assert several[0].measured["patients"] == 15
    html = app_page.result(several, found)
    assert html.count('id="check"') == html.count('id="answer"') == 1
    assert html.count('<section class="finding"') == 2
    whole = app_page.document(several, max_bytes=1)
    assert "It tells Square and Nothing." in whole
    assert "learned from of Nothing" in text_of(whole)
    heard = app_page.in_sentences(several, found)
    assert heard.startswith("Probabilities: Square ")
    assert heard.endswith("For research use, not a diagnosis.")


def test_a_network_without_places_is_served_without_a_map(tiny_data, image, tmp_path):
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Flatten(), keras.layers.Dense(5, "relu")]
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    flat = keras.Model(inputs, layers[1](layers[0](inputs)), name="encoder")
    tiny.save(tmp_path / "run" / "deployed", tiny_data, **tiny.with_encoder(flat, tiny_data))
    (model,) = opened(tmp_path / "run")
    found = tiny.checked(model, tiny.ask(model, image))
    text = text_of(app_page.result([model], [found]))
    assert "This network has no layer of places: there is no map" in text
    assert "Nothing speaks for Square" not in text
    assert explain_image.after_shuffling(model, found) == {}
