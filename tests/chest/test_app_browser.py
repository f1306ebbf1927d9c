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

    from tf_simclr.chest import synthetic

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
    assert browser.execute_script("return document.querySelectorAll('#result img').length") == 7
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


def test_it_ends_when_it_is_told_to_and_says_nothing_more(server):
    process, _, log = server
    process.send_signal(signal.SIGTERM)
    process.wait(SECONDS)
    assert "Traceback" not in log.read_text()
