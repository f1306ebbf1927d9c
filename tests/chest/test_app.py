"""The page without a browser: what it says, what it lets through, and that nothing of an upload is left."""

import asyncio
import dataclasses
import os
import re
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.chest import tiny_deployed as tiny
from tf_simclr.chest import app, app_page, app_server, deployed, explain_image
from tf_simclr.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_run):
    return deployed.load(tiny_run)


@pytest.fixture(scope="module")
def image(tiny_data):
    return tiny_data.folder.parent / "raw" / f"{tiny.NAMES[25]}.png"


@pytest.fixture(scope="module")
def found(model, image):
    return explain_image.checked(model, explain_image.ask(model, image))


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html).replace("&nbsp;", " "))


def test_the_answer_states_probability_interval_calibration_and_what_it_was_tested_on(model, found):
    text = text_of(app_page.result(model, found, name="chest.dcm"))
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
    assert "unlike the radiographs that the model learned from" in app_page.answer(model, unlike, name="cat.png")
    assert "unlike" not in app_page.answer(model, dataclasses.replace(found, similar=True), name="chest.png")


def test_a_radiograph_that_was_learned_from_is_recognised_as_it_is_and_brighter(model, image, tmp_path):
    learned = image.with_name(f"{tiny.NAMES[4]}.png")
    with Image.open(learned) as picture:
        Image.fromarray((0.8 * np.asarray(picture) + 20).astype(np.uint8)).save(tmp_path / "brighter.png")
    known = [explain_image.ask(model, path) for path in (learned, tmp_path / "brighter.png")]
    assert all(one.known for one in known)
    assert "has learned from a radiograph that looks the same" in app_page.answer(model, known[0], name="chest.png")
    assert not explain_image.ask(model, image).known


def test_a_picture_in_colour_is_warned_of(model, image, tmp_path):
    with Image.open(image) as picture:
        red = Image.merge("RGB", [picture, picture.point(lambda level: level // 2), picture.point(lambda level: 0)])
    red.save(tmp_path / "red.png")
    found = explain_image.ask(model, tmp_path / "red.png")
    assert "This picture is in colour" in app_page.answer(model, found, name="red.png")
    assert explain_image.numbers(model, found)["in_colour"]
    assert not explain_image.ask(model, image).picture.coloured


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
    name = '<script>alert("x")</script>.png'
    pages = [app_page.result(model, found, name=name), app_page.refusal(name, name), app_page.waiting(name, "reading")]
    pages += [app_page.banner(model), app_page.card(model)]
    assert "Squares &lt;b&gt;" in pages[3]
    assert "Only squares &amp; nothing." in pages[4]
    for page in [*pages, app_page.STYLE]:
        assert "<script" not in page
        assert not re.search(r"https?:|@import|url\(|(src|href)=\"(?!data:)", page)


def test_the_page_says_at_every_time_that_it_is_no_diagnosis_and_what_becomes_of_the_file(model):
    assert "For research use, not a diagnosis." in app_page.banner(model)
    assert "deleted at once" in app_page.banner(model)
    assert re.search(r"\.note \{ position: fixed", app_page.STYLE)
    assert "Limits of this model" in app_page.card(model)


BAD = {
    "notes.txt": (b"hello", "must be a DICOM, PNG or JPEG file"),
    "cut.png": (None, "must be a whole picture"),
    "empty.dcm": (b"", "must be a DICOM, PNG or JPEG file"),
    "not.dcm": (b"\0" * 128 + b"DICM" + b"\xff" * 400, "must"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_file_is_answered_with_a_sentence(model, image, tmp_path, name):
    content, words = BAD[name]
    path = tmp_path / name
    path.write_bytes(image.read_bytes()[:300] if content is None else content)
    *_, last = app.answers(model, path, neighbours=3)
    assert 'role="alert"' in last
    assert words in text_of(last)
    assert str(tmp_path) not in last


def test_a_failure_of_the_program_is_answered_too_and_told_without_the_files_name(model, image, monkeypatch):
    told = []
    monkeypatch.setattr(app, "ask", lambda *_, **__: 1 / 0)
    *_, last = app.answers(model, image, neighbours=3, say=told.append)
    assert "the program failed on this file" in last.lower()
    assert "ZeroDivisionError" in told[0]
    assert image.name not in told[0]


def test_the_steps_are_shown_as_they_come(model, image):
    first, second, third = app.answers(model, image, neighbours=3)
    assert 'aria-busy="true"' in first
    assert "Checking it by occlusion" in second
    assert "Checking it by occlusion" not in third


def test_nothing_of_an_upload_is_left_whatever_happens_and_nothing_else_is_touched(tmp_path):
    cache = tmp_path / "cache"
    (cache / "digest").mkdir(parents=True)
    upload = cache / "digest" / "chest.png"
    upload.write_bytes(b"x")

    def failing():
        with app.uploaded(str(upload), cache) as path:
            assert path.read_bytes() == b"x"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert list(cache.iterdir()) == []
    (tmp_path / "other").write_text("y")
    for outside in (str(tmp_path / "other"), str(cache / ".." / "other"), str(cache), "/etc/passwd", None):
        with pytest.raises(InputError, match="must be dropped"), app.uploaded(outside, cache):
            pass
    assert (tmp_path / "other").read_text() == "y"
    assert cache.is_dir()


def test_uploads_that_nobody_asks_about_are_removed_after_a_while(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 1000,) * 2)
    done = threading.Event()
    thread = threading.Thread(target=app_server.sweep, args=(tmp_path, done), kwargs={"every": 0.01})
    thread.start()
    while old.exists():
        time.sleep(0.01)
    done.set()
    thread.join()
    assert new.exists()


def asked(path, *, method="GET", host="127.0.0.1:7860", length=None, hosts=app_server.LOCAL):
    """Status and headers that the gate gives; 200 is the page's own."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode())] + ([] if length is None else [(b"content-length", str(length).encode())])
    gate = app_server.Gate(page, max_bytes=1000, hosts=hosts)
    scope = {"type": "http", "path": path, "method": method, "headers": headers}
    asyncio.run(gate(scope, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"path": "/"}, 200),
        ({"path": "/assets/index.js"}, 200),
        ({"path": "/gradio_api/queue/data"}, 200),
        ({"path": "/gradio_api/upload", "method": "POST", "length": 900}, 200),
        ({"path": "/gradio_api/upload", "method": "POST", "length": 10_000}, 413),
        ({"path": "/gradio_api/upload", "method": "POST"}, 411),  # of unknown length
        ({"path": "/gradio_api/file=/etc/passwd"}, 404),
        ({"path": "/gradio_api/proxy=http://example.org"}, 404),
        ({"path": "/gradio_api/run/predict", "method": "POST", "length": 9}, 404),
        ({"path": "/monitoring"}, 404),
        ({"path": "/", "host": "evil.example"}, 403),  # a page of others that points its name at this machine
        ({"path": "/", "host": "hospital.example", "hosts": ()}, 200),
    ],
    ids=str,
)
def test_the_gate_lets_through_what_the_page_needs_and_nothing_else(request_, status):
    found, headers = asked(**request_)
    assert found == status
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 must be free"):
            app_server.listen("127.0.0.1", port)


def test_without_gradio_the_page_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install 'tf-simclr\[app\]'"):
        app.import_gradio(tmp_path)
