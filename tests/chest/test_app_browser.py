"""The page in a real Chromium: a radiograph, a wrong file, a phone; and no request to any other machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.chest import tiny_deployed as tiny

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = [name for name in ("uvicorn", "selenium") if find_spec(name) is None]
MISSING += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

OPTIONS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
OPTIONS += "--disable-component-update --disable-sync --window-size=1280,1000"
SECONDS = 300
"""Longest wait for a step; a quiet machine needs two."""
MEGABYTES = 1


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    """The command as a user starts it: its process, its address, and what it said."""
    words = ["chest", "app", "--model", str(tiny_run), "--port", "0", "--max_megabytes", str(MEGABYTES)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_simclr", *words], stderr=said, cwd=Path(__file__).parents[2], env=environment
        )
    while not (found := re.search(r"open (http://127\.0\.0\.1:\d+) in a browser", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    yield process, found[1], log
    process.kill()
    process.wait()


@pytest.fixture
def browser(server, tmp_path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in [*OPTIONS.split(), f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(word)
    options.page_load_strategy = "none"  # the wait below is ours, and may be longer than the driver's
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(SECONDS)
    driver.set_script_timeout(SECONDS)
    driver.command_executor.client_config.timeout = 2 * SECONDS  # else two minutes for an answer of a busy machine
    try:
        driver.get(server[1])
        WebDriverWait(driver, SECONDS).until(lambda d: d.find_elements(By.CSS_SELECTOR, INPUT))
        yield driver
    finally:
        driver.quit()


INPUT = "#drop input[type=file]"
DONE = "#check[aria-busy=false]"


def dropped(browser, path, *, until):
    """Gives a file to the page and waits until it speaks of this file and a CSS selector finds something."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.find_element(By.CSS_SELECTOR, INPUT).send_keys(str(path))

    def shown(driver):
        named = path.name in driver.execute_script("return document.querySelector('#result').textContent")
        return named and driver.find_elements(By.CSS_SELECTOR, until)

    WebDriverWait(browser, SECONDS).until(shown)
    return browser.find_element(By.TAG_NAME, "body").text.replace("\xa0", " ")


def requests(browser):
    """Every address that the page asked for, and the messages of its console."""
    found = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            parameters = message["params"]
            url = parameters["request"]["url"] if "request" in parameters else parameters["url"]
            own = parameters.get("documentURL", "").startswith("chrome")  # the browser's empty tab
            found += [] if own or url.startswith(("data:", "blob:", "chrome")) else [url]
    return found


def in_view(browser):
    """Whether the disclaimer lies in the window, and nothing over it."""
    script = """
    const note = document.querySelector('.note'), box = note.getBoundingClientRect();
    const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    return box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth + 1
        && note.contains(top) && note.textContent;"""
    return browser.execute_script(script) == "For research use, not a diagnosis."


def dicom(path):
    """A made-up DICOM with a patient's name in it."""
    from pydicom import dcmread

    from tf_simclr.chest.collections import synthetic

    pixels = np.kron(tiny.picture(3).astype(np.uint16) * 16, np.ones((8, 8), np.uint16))
    synthetic.save(path, pixels, patient="Doe^Jane", numbers=(1, 2, 3))
    assert dcmread(path).PatientID == "Doe^Jane"
    return path


def test_a_dicom_is_answered_nothing_is_kept_and_nobody_else_is_asked(browser, server, tmp_path):
    text = dropped(browser, dicom(tmp_path / "IM00001"), until=DONE)
    for words in ("probability of Square", "Interval:", "Where the network looks", "Most similar training cases"):
        assert words in text
    assert "IM00001" in text
    assert "Doe" not in browser.page_source
    assert in_view(browser)
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.querySelectorAll('#result img').length") == 6
    asked = requests(browser)
    assert any(url.endswith("/read") for url in asked)
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(server[1]).netloc}


def test_the_browser_itself_refuses_to_fetch_from_elsewhere(browser):
    script = """
    const done = arguments[0];
    fetch('https://example.org/x').then(() => done('sent')).catch(() => done('refused'));"""
    assert browser.execute_async_script(script) == "refused"
    logged = "".join(entry["message"] for entry in browser.get_log("browser"))
    assert "Content Security Policy" in logged


def test_a_wrong_file_is_answered_with_a_sentence_and_the_old_answer_is_gone(browser, tmp_path):
    dropped(browser, dicom(tmp_path / "IM00001"), until=DONE)
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7 nothing")
    text = dropped(browser, tmp_path / "letter.pdf", until=".bad")
    assert "letter.pdf was not read" in text
    assert "must be a DICOM, PNG or JPEG file" in text
    assert "probability of" not in text
    assert in_view(browser)


def test_a_file_that_is_too_large_takes_the_old_answer_away_and_does_not_hide_the_disclaimer(browser, tmp_path):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    (tmp_path / "large.dcm").write_bytes(bytes((MEGABYTES << 20) + 1))
    text = dropped(browser, dicom(tmp_path / "IM00001"), until=DONE)
    assert "probability of Square" in text
    text = dropped(browser, tmp_path / "large.dcm", until=".bad")
    assert "large.dcm was not read" in text
    assert "A file must have at most 1 MB." in text
    assert "probability of" not in text
    assert in_view(browser)
    assert "probability of Square" in dropped(browser, dicom(tmp_path / "IM00002"), until=DONE)


PHONE = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}


def test_on_a_phone_nothing_is_wider_than_the_window_and_the_disclaimer_stays(browser, tmp_path):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    long = tmp_path / f"{'a-very-long-name-of-a-file-' * 4}.dcm"
    dropped(browser, dicom(long), until=DONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    wide = "return [...document.querySelectorAll('.page *')].filter(e => e.getBoundingClientRect().right > 361).length"
    assert browser.execute_script(wide) == 0
    assert in_view(browser)
    browser.execute_script("window.scrollTo(0, document.documentElement.scrollHeight)")
    assert browser.execute_script("return window.scrollY") > 500
    assert in_view(browser)


def test_where_the_line_is_full_or_the_server_away_the_page_says_so_and_tries_again(browser, tmp_path):
    from selenium.webdriver.common.by import By

    path = dicom(tmp_path / "IM00001")
    script = """
    window.real ??= window.fetch;
    const body = JSON.stringify({refused: 'Too many files are waiting. Try again in a minute.'});
    window.fetch = async () => {
      if (arguments[0]) return new Response(body, {status: 429});
      throw new TypeError('Failed to fetch');
    };"""
    browser.execute_script(script, True)
    assert "Too many files are waiting." in dropped(browser, path, until=".bad")
    browser.execute_script(script, False)
    browser.find_element(By.CSS_SELECTOR, ".bad button").click()
    waits(browser, lambda text: "could not be reached" in text)
    browser.execute_script("window.fetch = window.real")
    browser.find_element(By.CSS_SELECTOR, ".bad button").click()
    waits(browser, lambda text: "probability of Square" in text)


def waits(browser, holds):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, SECONDS).until(lambda d: holds(d.find_element(By.ID, "result").text.replace("\xa0", " ")))


FOREIGN = """
const done = arguments[0], url = arguments[1], body = new Blob([new Uint8Array(1000)]);
const type = 'application/octet-stream';
const ways = {
  plain: () => fetch(url, {method: 'POST', body}),
  typed: () => fetch(url, {method: 'POST', body, headers: {'Content-Type': type}}),
  opaque: () => fetch(url, {method: 'POST', body, mode: 'no-cors'}),
  opaqueTyped: () => fetch(url, {method: 'POST', body, mode: 'no-cors', headers: {'Content-Type': type}}),
  beacon: async () => navigator.sendBeacon(url, body),
  gradio: () => fetch(url.replace('/read', '/gradio_api/upload'), {method: 'POST', body, mode: 'no-cors'}),
};
Promise.all(Object.entries(ways).map(async ([name, way]) => {
  try { const got = await way(); return [name, got.type === 'opaque' ? 'unreadable' : String(got.status ?? got)]; }
  catch (error) { return [name, error.name]; }
})).then(found => done(Object.fromEntries(found)));
"""


def test_a_page_elsewhere_can_post_nothing_and_read_nothing(browser, server, tmp_path):
    (tmp_path / "index.html").write_text(
        "<title>elsewhere</title><form method=post enctype=multipart/form-data></form>"
    )
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    elsewhere = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = re.search(r"port (\d+)", elsewhere.stdout.readline())[1]
        for host in ("127.0.0.1", "localhost"):  # another port; another site
            browser.get(f"http://{host}:{port}/")
            waits_for_title(browser, "elsewhere")
            before = server[2].read_text()
            found = browser.execute_async_script(FOREIGN.replace("arguments[1]", repr(server[1] + "/read")))
            assert set(found) == {"plain", "typed", "opaque", "opaqueTyped", "beacon", "gradio"}
            assert found["plain"] == found["typed"] == "TypeError"  # the browser may not read what came
            refused = server[2].read_text().removeprefix(before).splitlines()
            assert 1 <= len(refused) <= 5  # the one that asks first is never sent
            reasons = {line.removeprefix("an upload was refused: ") for line in refused}
            assert reasons <= {"another page's upload", "not plain bytes"}  # none came as far as a decoder
            browser.execute_script(
                "const form = document.forms[0]; form.action = arguments[0]; form.submit();", server[1] + "/read"
            )
            waits_for_text(browser, "Only this page itself may send files here.")
    finally:
        elsewhere.kill()
        elsewhere.wait()
        elsewhere.stdout.close()


def waits_for_title(browser, title):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, SECONDS).until(
        lambda d: d.title == title and d.execute_script("return document.forms.length")
    )


def waits_for_text(browser, words):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, SECONDS).until(lambda d: words in d.page_source)


def radiograph(path, **elements):
    """A made-up DICOM of 12 bits with a window, a view and sides."""
    from tests.chest.dicoms import content, dataset

    pixels = np.kron(16 * tiny.picture(3).astype(np.uint16), np.ones((8, 8), np.uint16))
    pixels[5, :4096] = np.arange(pixels.shape[1])  # odd values in the low byte, too
    header = {"WindowCenter": 1500, "WindowWidth": 1000, "ViewPosition": "PA", "PatientOrientation": ["L", "F"]}
    path.write_bytes(content(dataset(pixels, bits=12, **header | elements)))
    return pixels


def press(browser, *keys):
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, ".stage").send_keys(*keys)
    browser.execute_script("viewer.draw()")


def grey_in_the_middle(browser):
    script = """
    const canvas = document.querySelector('.stage canvas');
    return [...canvas.getContext('2d').getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data];"""
    return browser.execute_script(script)


def test_the_viewer_has_every_level_of_the_file_and_shows_them_by_window_and_level(browser, tmp_path):
    pixels = radiograph(tmp_path / "a.dcm")
    dropped(browser, tmp_path / "a.dcm", until=DONE)
    script = "const {width, height, values} = viewer.copies[0]; return [width, height, [...values]]"
    width, height, values = browser.execute_script(script)
    assert (height, width) == pixels.shape
    levels = pixels / 4095
    np.testing.assert_allclose(np.reshape(values, pixels.shape), np.rint(levels * 65535), atol=1)  # of float32
    low, high = browser.execute_script("return viewer.about.window")
    assert (low, high) == pytest.approx((1000 / 4095, 1999 / 4095), abs=2e-4)  # the standard's half a level
    browser.execute_script("viewer.controls.opacity.value = 0; viewer.draw()")
    middle = levels[height // 2, width // 2]
    copies = browser.execute_script("return viewer.copies.length")
    assert copies > 1
    for keys in ("", "]]]]", "..", ",,,,", "[["):
        press(browser, "0", keys)
        level, wide = browser.execute_script("return [viewer.level, viewer.width]")
        red, green, blue, opaque = grey_in_the_middle(browser)
        assert red == green == blue
        assert opaque == 255
        assert red == pytest.approx(255 * np.clip((middle - level) / wide + 0.5, 0, 1), abs=6)  # of a smaller copy
    press(browser, "0", "i")
    level, wide = browser.execute_script("return [viewer.level, viewer.width]")
    assert grey_in_the_middle(browser)[0] == pytest.approx(255 * np.clip(0.5 - (middle - level) / wide, 0, 1), abs=6)


def test_it_zooms_and_moves_by_keys_mouse_and_sliders_and_never_out_of_view(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    radiograph(tmp_path / "a.dcm")
    dropped(browser, tmp_path / "a.dcm", until=DONE)
    state = lambda: browser.execute_script("viewer.draw(); return [viewer.zoom, viewer.x, viewer.y]")  # noqa: E731
    assert state() == [1, 0.5, 0.5]
    press(browser, *"++++")
    zoom, x, y = state()
    assert zoom == pytest.approx(1.25**4)
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert state()[1] > x
    assert state()[2] > y
    press(browser, *[Keys.ARROW_RIGHT] * 60)
    assert 0.5 < state()[1] < 1  # its edge at the window's edge
    stage = browser.find_element(By.CSS_SELECTOR, ".stage")
    before = state()[1]
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(50, 0).release().perform()
    assert state()[1] < before
    level, wide = browser.execute_script("return [viewer.level, viewer.width]")
    ActionChains(browser).key_down(Keys.SHIFT).move_to_element(stage).click_and_hold().move_by_offset(
        30, 20
    ).release().key_up(Keys.SHIFT).perform()
    assert browser.execute_script("return viewer.width") > wide
    assert browser.execute_script("return viewer.level") > level
    browser.find_element(By.CSS_SELECTOR, "[name=zoom]").send_keys(Keys.END)
    assert state()[0] == 32
    browser.find_element(By.CSS_SELECTOR, ".reset").click()
    assert state() == [1, 0.5, 0.5]


def test_the_map_is_a_layer_and_sides_and_view_are_the_headers(browser, tmp_path):
    radiograph(tmp_path / "a.dcm")
    text = dropped(browser, tmp_path / "a.dcm", until=DONE)
    assert "View PA, as the file's header has it." in text
    places = """
    const found = [...document.querySelectorAll('.side, .view')];
    return Object.fromEntries(found.map(e => [e.className, e.textContent]));"""
    expected = {"side left": "R", "side right": "L", "side top": "H", "side bottom": "F", "view": "PA"}
    assert browser.execute_script(places) == expected
    colours = """
    const canvas = document.querySelector('.stage canvas');
    viewer.controls.opacity.value = arguments[0]; viewer.draw();
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let most = 0;
    for (let i = 0; i < data.length; i += 4) most = Math.max(most, data[i] - data[i + 2]);
    return most;"""
    none, some, all_ = (browser.execute_script(colours, opacity) for opacity in (0, 40, 100))
    assert none == 0 < some < all_
    press(browser, "m")
    assert browser.execute_script("return viewer.controls.opacity.value") == "0"
    heard = browser.execute_script("return document.querySelector('.stage').getAttribute('aria-label')")
    assert "% probability of Square, interval" in heard
    assert "For research use, not a diagnosis." in heard
    assert "occlusion check" in heard or "no place speaks" in heard.lower()
    radiograph(tmp_path / "b.dcm", ViewPosition="", PatientOrientation="")
    assert "The file's header names no view." in dropped(browser, tmp_path / "b.dcm", until=DONE)
    assert set(browser.execute_script(places).values()) == {""}


def test_several_files_in_a_row_give_a_table_to_save_and_a_report_to_print(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    names = ["one.dcm", "=cmd|' C calc'!A0.dcm", 'not, a "picture".pdf', "two.dcm"]
    for name in names:
        (tmp_path / name).write_bytes(b"%PDF") if name.endswith("pdf") else radiograph(tmp_path / name)
    paths = "\n".join(str(tmp_path / name) for name in names)
    browser.find_element(By.CSS_SELECTOR, INPUT).send_keys(paths)
    rows = lambda d: d.find_elements(By.CSS_SELECTOR, "#files tbody tr")  # noqa: E731
    WebDriverWait(browser, SECONDS).until(lambda d: len(rows(d)) == 4)
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows(browser)] == names
    assert "not read" in rows(browser)[2].text
    script = """
    const done = arguments[0], real = URL.createObjectURL;
    URL.createObjectURL = (blob) => { blob.text().then(done); URL.createObjectURL = real; return real(blob); };
    document.querySelector('#save').click();"""
    import csv

    table = list(csv.DictReader(browser.execute_async_script(script).lstrip("\ufeff").splitlines()))
    assert [row["file"] for row in table] == [names[0], "'" + names[1], names[2], names[3]]
    low, probability, high = (float(table[0][name]) for name in ("interval_low", "probability", "interval_high"))
    assert 0 <= low <= probability <= high <= 1
    assert table[2]["probability"] == ""
    assert "must be a DICOM, PNG or JPEG file" in table[2]["remarks"]
    assert {row["note"] for row in table} == {"For research use, not a diagnosis."}
    rows(browser)[0].find_element(By.TAG_NAME, "button").click()  # one of them again
    waits(browser, lambda text: "one.dcm" in text and "probability of Square" in text)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    seen = "return [...document.querySelectorAll(arguments[0])].map(e => e.getClientRects().length > 0)"
    assert not any(browser.execute_script(seen, "#drop, .controls, #save, #print"))
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert all(browser.execute_script(seen, ".note, #answer, .stage canvas, #check, #files table, #card li, #printed"))
    assert browser.execute_script(seen, "#files tbody tr") == [True, False, False, False]  # of no other patient
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_everything_is_reached_by_the_keyboard_heard_and_in_contrast(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    radiograph(tmp_path / "a.dcm")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")
    dropped(browser, tmp_path / "b.pdf", until=".bad")
    said = browser.find_element(By.CSS_SELECTOR, "#said[role=status]")
    assert said.get_attribute("textContent").startswith("The file was not read. The file must be a DICOM")
    assert browser.execute_script(CONTRAST) == []
    dropped(browser, tmp_path / "a.dcm", until=DONE)
    assert re.match(r"[\w ]+ % probability of Square, interval", said.get_attribute("textContent"))
    assert browser.execute_script(CONTRAST) == []
    assert browser.execute_script("return [...document.images].filter(i => !i.alt).length") == 0
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(24):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.execute_script("const e = document.activeElement; return e.id || e.name || e.className"))
    for name in ("file", "stage", "opacity", "zoom", "width", "level", "invert", "reset", "save", "print"):
        assert name in reached, name


CONTRAST = """
const light = (colour) => {
  const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(element).backgroundColor);
    if (a > 0.5) return [r, g, b];
  }
  return [255, 255, 255];
};
const bad = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.getClientRects().length) continue;
  const [one, two] = [light(parse(getComputedStyle(element).color).slice(0, 3)), light(behind(element))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) bad.push([element.outerHTML.slice(0, 80), ratio]);
}
return bad;
"""
"""Texts of less than 4.5 : 1 (WCAG 2.2, 1.4.3), with their ratio."""


def test_it_ends_when_it_is_told_to_and_says_nothing_more(server):
    process, _, log = server
    process.send_signal(signal.SIGTERM)
    process.wait(SECONDS)
    assert "Traceback" not in log.read_text()
