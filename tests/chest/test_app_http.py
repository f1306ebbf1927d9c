"""The page on a real port, asked by browsers' requests, scripts and attackers."""

import base64
import concurrent.futures
import io
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from importlib.util import find_spec

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.chest import tiny_deployed as tiny
from tests.chest.page import PLAIN, SECONDS, everything, serving
from tests.chest.test_headers import deflated
from tf_simclr.chest.files import worker as bounded
from tf_simclr.chest.model import deployed
from tf_simclr.chest.page import server as app_server
from tf_simclr.chest.page.gate import Gate, check_origin
from tf_simclr.errors import InputError

pytestmark = pytest.mark.skipif(find_spec("uvicorn") is None, reason="not installed: the extra app")
KINDS = "tests.chest.crew:pictured"


@pytest.fixture(scope="module")
def model(tiny_run):
    return deployed.load(tiny_run)


@pytest.fixture(scope="module")
def served(model):
    with serving(model) as served:
        yield served


@pytest.fixture(scope="module")
def image(tiny_data):
    return tiny_data.folder.parent / "raw" / f"{tiny.NAMES[25]}.png"


def probability(html):
    return re.search(r"([\w ]+)&nbsp;%</span> probability of Square", html)[1]


def test_a_file_is_answered_step_by_step_with_what_the_model_says_of_it(served, model, image):
    *steps, first, second = served.lines(image.read_bytes())
    assert [line["step"] for line in steps if "step" in line] == ["reading the file", "asking the network"]
    assert not first["checked"]
    assert second["checked"]
    found = tiny.ask(model, image)
    assert probability(first["html"]) == f"{100 * found.verdict.probability:.0f}"
    assert second["said"].startswith(f"{100 * found.verdict.probability:.0f} % probability of Square, interval")
    assert second["said"].endswith("For research use, not a diagnosis.")
    served.idle()


def test_every_pixel_of_a_file_is_sent_with_the_window_of_its_header_and_its_sides(served, tmp_path):
    from tests.chest.dicoms import content, dataset

    pixels = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) % 4096
    header = {"WindowCenter": 1500, "WindowWidth": 1000, "ViewPosition": "PA", "PatientOrientation": ["L", "F"]}
    found = served.lines(content(dataset(pixels, bits=12, **header)))
    (about,) = (line["picture"] for line in found if "picture" in line)
    assert about["sides"] == {"left": "R", "right": "L", "top": "H", "bottom": "F"}
    assert about["view"] == "PA"
    assert about["window"] == pytest.approx([1000 / 4095, 1999 / 4095], abs=2e-4)
    with Image.open(io.BytesIO(b"".join(base64.b64decode(line["part"]) for line in found if "part" in line))) as png:
        high, low, none = np.asarray(png.convert("RGB"), np.int64).transpose(2, 0, 1)
    np.testing.assert_allclose(256 * high + low, np.rint(pixels / 4095 * 65535), atol=1)  # of float32
    assert not none.any()
    (numbers,) = found[-1]["numbers"]
    assert numbers["low"] <= numbers["probability"] <= numbers["high"]


HEADERS = [
    ({"PatientOrientation": ["L", "F"]}, ["R", "H", "L", "F"]),
    ({"PatientOrientation": ["RA", "F"]}, ["LP", "H", "RA", "F"]),
    ({"PatientOrientation": "L"}, [""] * 4),
    ({"PatientOrientation": ["DOE", "JANE"]}, [""] * 4),
    ({}, [""] * 4),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS, ids=str)
def test_only_sides_and_views_of_the_standard_are_shown(served, header, expected):
    from tests.chest.dicoms import content, dataset, stored

    found = served.lines(content(dataset(stored(8), bits=8, ViewPosition="JANE DOE", **header)))
    (about,) = (line["picture"] for line in found if "picture" in line)
    assert [about["sides"][place] for place in ("left", "top", "right", "bottom")] == expected
    assert about["view"] == ""
    assert "DOE" not in json.dumps(found)


GRADIO = ["upload", "queue/join", "queue/data", "run/predict", "run/0", "api/predict", "call/read", "stream/x", "login"]
GRADIO += [
    "component_server",
    "mcp/sse",
    "mcp",
    "file=/etc/passwd",
    "proxy=http://example.org/x",
    "reset",
    "heartbeat/x",
]
GRADIO += ["deep_link", "vibe-edit", "process_recording", "startup-events", "app_id", "token", "user", "info"]
PLACES = [
    "config",
    "monitoring",
    "login",
    "dev/reload",
    "static/../../etc/passwd",
    "file/etc/passwd",
    "read/",
    "read/x",
]
PLACES += ["..%2f..%2fetc/passwd", "%72ead", "read?path=/etc/passwd", "page.css/..", "/read", "openapi.json", "docs"]


@pytest.mark.parametrize("path", [f"gradio_api/{name}" for name in GRADIO] + GRADIO[:6] + PLACES)
def test_there_is_nothing_else_to_ask_and_no_way_to_name_a_file(served, path, tmp_path):
    Image.new("L", (64, 64), 99).save(tmp_path / "secret.png")
    named = {"path": str(tmp_path / "secret.png"), "url": None, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [named], "fn_index": 0, "session_hash": "abc", "event_data": None, "trigger_id": 1}
    for headers in ({"Content-Type": "application/json"}, PLAIN):
        request = httpx.Request("POST", f"{served.url}/{path}", content=json.dumps(body), headers=headers)
        request.extensions["target"] = f"/{path}".encode()
        with httpx.Client() as client:
            assert client.send(request).status_code == 404
    head = f"GET /{path} HTTP/1.1\r\nHost: {served.host}\r\nConnection: close\r\n\r\n".encode()
    answer = served.raw(head)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer


NAMES = [
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "/tmp",
    "x\0y",
    "../../etc/passwd",
    "http://127.0.0.1:1/x.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_upload_that_names_a_file_is_no_picture_whatever_it_names(served, name):
    for content in (
        name,
        json.dumps({"path": name, "meta": {"_type": "gradio.FileData"}}),
        json.dumps([[{"path": name}]]),
    ):
        *_, last = served.lines(content.encode())
        assert last["refused"].startswith("The file must be a DICOM, PNG or JPEG file")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert served.post(b"--x--", headers=form).status_code == 415


def test_gradios_own_client_finds_no_interface(served):
    client = pytest.importorskip("gradio_client", reason="not installed: gradio_client")
    with pytest.raises(Exception, match="Could not get Gradio config"):
        client.Client(served.url, verbose=False)


def test_equal_files_of_many_people_are_each_answered_whole(served, image):
    content = image.read_bytes()
    with concurrent.futures.ThreadPoolExecutor(12) as people:
        answers = list(people.map(served.lines, [content] * 12))
    assert len({answer[-1]["html"] for answer in answers}) == 1
    assert all(answer[-1]["checked"] for answer in answers)
    served.idle()


def test_what_others_send_at_the_same_time_is_not_mixed_up(served, model, tiny_data):
    paths = [tiny_data.folder.parent / "raw" / f"{name}.png" for name in tiny.NAMES]
    expected = [tiny.ask(model, path).verdict for path in paths]
    with concurrent.futures.ThreadPoolExecutor(30) as people:
        answers = list(people.map(served.lines, [path.read_bytes() for path in paths]))
    shown = [f"{100 * verdict.probability:.0f}" for verdict in expected]
    assert [probability(answer[-1]["html"]) for answer in answers] == shown
    alone = [served.lines(path.read_bytes())[-1]["html"] for path in paths]
    assert [answer[-1]["html"] for answer in answers] == alone  # the map, too, of which no two are equal
    assert len(set(alone)) == len({path.read_bytes() for path in paths}) > 5
    served.idle()


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:{other}"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "http://127.0.0.1:{port}/"},
    {"Origin": "HTTP://127.0.0.1:{port}"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "Same-Origin"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:{port}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_another_page_sends_is_refused_and_no_other_page_may_read_an_answer(served, image, headers):
    headers = {name: value.format(port=served.port, other=served.port + 1) for name, value in headers.items()}
    response = served.post(image.read_bytes(), headers=headers)
    assert response.status_code == 403
    assert response.json() == {"refused": "Only this page itself may send files here."}
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert served.said[-1] == "an upload was refused: another page's upload"


def test_the_pages_own_requests_and_a_scripts_are_answered(served, image):
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert served.lines(image.read_bytes(), headers=own)[-1]["checked"]
    assert served.lines(image.read_bytes())[-1]["checked"]


def test_a_preflight_gets_no_permission_and_a_form_cannot_send(served):
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    response = httpx.options(served.url + "/read", headers=asks | {"Access-Control-Request-Headers": "content-type"})
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert served.post(b"x", headers={"Content-Type": kind}).status_code == 415


def test_pages_elsewhere_cannot_embed_it(served):
    for mode, status in (("no-cors", 403), ("cors", 403), ("navigate", 200)):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        response = httpx.get(served.url + "/", headers=headers)
        assert response.status_code == status
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_every_answer_carries_the_headers_that_keep_a_browser_here(served):
    for response in (httpx.get(served.url), httpx.get(served.url + "/none"), served.post(b"x"), served.post(b"")):
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers


HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:{other}",
    "127.0.0.1:{port}0",
    "127.0.0.1:0{port}",
]
HOSTS += ["localhost.:{port}", "LOCALHOST:{port}", "127.0.0.1.:{port}", "127.0.0.1.evil.example:{port}", "127.1:{port}"]
HOSTS += [
    "user@127.0.0.1:{port}",
    "evil.example@127.0.0.1:{port}",
    "127.0.0.1:{port}@evil.example",
    "2130706433:{port}",
]
HOSTS += [
    "[::ffff:127.0.0.1]:{port}",
    "[0:0:0:0:0:0:0:1]:{port}",
    "::1:{port}",
    "[::1]",
    "0.0.0.0:{port}",
    "",
    ":{port}",
]
HOSTS += [
    "127.0.0.1:{port}, evil.example",
    "127.0.0.1:{port}/x",
    "127.0.0.1:{port}#",
    "127.0.0.1%00:{port}",
    "xn--n3h:{port}",
]


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_is_refused(served, host):
    host = host.format(port=served.port, other=served.port + 1)
    answer = served.raw(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert re.match(rb"HTTP/1\.1 40[03] ", answer)
    assert b"Squares" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_its_own_names_are_let_in(served, host):
    assert httpx.get(served.url, headers={"Host": f"{host}:{served.port}"}).status_code == 200


ODD = {
    "two hosts": "GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n",
    "two equal hosts": "GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
    "no host": "GET / HTTP/1.0\r\n\r\n",
    "an address of another": "GET http://evil.example/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    "an address and another host": "GET http://{host}/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "a proxy's method": "CONNECT evil.example:443 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    "two origins": "POST /read HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nOrigin: http://evil.example\r\n"
    "Content-Type: application/octet-stream\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
    "two sites": "POST /read HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n"
    "Content-Type: application/octet-stream\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
    "two lengths": "POST /read HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
    "Content-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nxx",
    "a length and chunks": "POST /read HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
    "Content-Length: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "a negative length": "POST /read HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
    "Content-Length: -1\r\nConnection: close\r\n\r\nx",
    "another method": "PUT /read HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "no HTTP": "\x16\x03\x01\x02\r\n\r\n",
    "a folded header": "GET / HTTP/1.1\r\nHost: {host}\r\n evil.example\r\nConnection: close\r\n\r\n",
    "a web socket": "GET /gradio_api/queue/join HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, close\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_requests_are_refused(served, kind):
    answer = served.raw(ODD[kind].format(host=served.host).encode())
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:100]
    assert b"Squares" not in answer
    assert b"Traceback" not in answer


def test_behind_a_proxy_its_address_and_no_other_one_is_let_in(model, image):
    with serving(model, origin="https://page.hospital.example") as served:
        headers = {"Host": "page.hospital.example"}
        assert httpx.get(served.url, headers=headers).status_code == 200
        assert httpx.get(served.url, headers={"Host": "page.hospital.example:443"}).status_code == 403
        own = headers | {"Origin": "https://page.hospital.example", "Sec-Fetch-Site": "same-origin"}
        assert served.lines(image.read_bytes(), headers=own)[-1]["checked"]
        assert served.lines(image.read_bytes(), headers=own | {"Host": served.host})[-1]["checked"]
        for origin in ("http://evil.example", "https://page.hospital.example.evil.example", "https://hospital.example"):
            assert served.post(b"x", headers=own | {"Origin": origin}).status_code == 403


def test_on_every_address_only_numbers_and_the_named_one_are_let_in():
    gate = Gate(host="0.0.0.0", port=80, max_bytes=1, origin="")
    names = gate.names({"server": ("192.168.1.5", 80)})
    assert {"192.168.1.5:80", "192.168.1.5", "localhost", "127.0.0.1:80", "[::1]:80"} <= names
    assert "hospital.example" not in names
    assert Gate(host="::1", port=7860, max_bytes=1).names({}) == {
        f"{h}:7860" for h in ("127.0.0.1", "localhost", "[::1]")
    }


BAD_ORIGINS = [
    "page.example",
    "ftp://x",
    "https://x/",
    "https://u@x",
    "https://X",
    "https://x:y",
    "https://x:443",
    "https://",
    "https://[x",
]


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_an_origin_that_no_browser_writes_is_refused(origin):
    with pytest.raises(InputError, match="origin must be"):
        check_origin(origin)


def test_a_file_must_have_a_length_that_is_not_too_large(served):
    large = bytes(2**20 + 1)
    assert served.post(large).status_code == 413
    assert served.post(large).json() == {"refused": "A file must have at most 1 MB."}
    assert served.post(b"").status_code == 400
    assert served.post(iter([b"x"])).status_code == 411  # in chunks
    for length in ("9" * 40, str(2**64), "1" * 5000):
        head = f"POST /read HTTP/1.1\r\nHost: {served.host}\r\nContent-Type: application/octet-stream\r\n"
        answer = served.raw(f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode(), wait=3)
        assert re.match(rb"HTTP/1\.1 4\d\d ", answer)
    served.idle()


def test_all_uploads_together_take_no_more_than_they_may_and_who_waits_is_answered(model, image):
    small = image.read_bytes()
    with serving(model, all_bytes=2**20) as served:
        held = threading.Event()
        most = []

        def watch():
            while not held.wait(0.005):
                most.append(served.page.bytes.size - served.page.bytes.free)

        watcher = threading.Thread(target=watch)
        watcher.start()
        padded = small + bytes(400_000)  # two of them at a time
        with concurrent.futures.ThreadPoolExecutor(8) as people:
            answers = list(people.map(served.lines, [padded] * 8))
        held.set()
        watcher.join()
        assert all(answer[-1]["checked"] for answer in answers)
        assert 0 < max(most) <= 2**20
        served.idle()


def test_beyond_the_places_in_line_a_sentence_says_so_and_the_line_is_answered(model, image):
    with serving(model, function=KINDS, places=3, decoders=1, seconds=SECONDS) as served:
        with concurrent.futures.ThreadPoolExecutor(3) as people:
            waiting = [people.submit(served.lines, b"sleep 3") for _ in range(3)]
            while len(served.page.line) < 3:
                time.sleep(0.01)
            refused = served.post(b"sleep 0")
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "60"
            assert refused.json()["refused"].startswith("Too many files are waiting.")
            assert served.said == ["an upload was refused: too many in line"]
            answers = [one.result() for one in waiting]
        assert all(answer[-1]["checked"] for answer in answers)
        assert any(line.get("before") for answer in answers for line in answer)  # they were told so meanwhile
        served.idle()
        assert served.lines(b"sleep 0")[-1]["checked"]


def test_files_that_hang_crash_or_eat_memory_keep_nobody_else_waiting(model):
    with serving(model, function=KINDS, decoders=2, seconds=6) as served:
        assert served.lines(b"sleep 0")[-1]["checked"]  # the decoders have started
        with concurrent.futures.ThreadPoolExecutor(3) as people:
            began = time.monotonic()
            hanging = people.submit(served.lines, b"sleep 1000")
            bad = [served.lines(word)[-1]["refused"] for word in (b"crash", b"eat", b"fail")]
            good = [served.lines(b"sleep 0")[-1]["checked"] for _ in range(3)]
            assert not hanging.done()
            assert time.monotonic() - began < 6
            late = hanging.result()[-1]["refused"]
        assert good == [True] * 3
        assert late == "The file must be decodable within 6 seconds."
        assert "crashed" in bad[0]
        assert "in the memory that a decoder may have" in bad[1]
        assert served.lines(b"sleep 0")[-1]["checked"]  # both decoders are back
        served.idle()


def bombs():
    """Small files of large pictures."""
    flat = io.BytesIO()
    Image.fromarray(np.zeros((7900, 7900), np.uint8)).save(flat, "PNG", compress_level=9)  # under the limit
    wide = bytearray(flat.getvalue())
    wide[16:24] = b"\x00\x00\xff\xff\x00\x00\xff\xff"
    crc = __import__("zlib").crc32(wide[12:29]).to_bytes(4, "big")
    wide[29:33] = crc
    frames = io.BytesIO()
    Image.new("L", (64, 64)).save(frames, "PNG", save_all=True, append_images=[Image.new("L", (64, 64), 9)] * 50)
    tiff = io.BytesIO()
    Image.new("L", (64, 64)).save(tiff, "TIFF")
    return {
        "a PNG that says 65535 × 65535": (bytes(wide), "at most 64,000,000 pixels"),
        "an animation": (frames.getvalue(), "not an animation"),
        "a TIFF": (tiff.getvalue(), "DICOM, PNG or JPEG"),
        "a deflated DICOM of 300 MB": (deflated(300), "must have at most 256 MB"),
    }


def test_bombs_are_refused_by_their_headers(served):
    for kind, (content, words) in bombs().items():
        began = time.monotonic()
        *_, last = served.lines(content)
        assert words in last["refused"], kind
        assert time.monotonic() - began < 20, kind
    served.idle()


BAD = {
    "a text": (lambda whole: b"hello", "must be a DICOM, PNG or JPEG file"),
    "a cut picture": (lambda whole: whole[:300], "must be a whole picture"),
    "a broken DICOM": (lambda whole: bytes(128) + b"DICM" + b"\xff" * 400, "must"),
    "a small picture": (lambda whole: small_picture(), "at least 32 pixels a side"),
}


def small_picture():
    file = io.BytesIO()
    Image.new("L", (8, 64)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_file_is_answered_with_a_sentence(served, image, kind):
    make, words = BAD[kind]
    *_, last = served.lines(make(image.read_bytes()))
    assert words in last["refused"]
    assert re.fullmatch(r"[A-Z].*[.!?]", last["refused"])


class Quick(app_server.Times):
    head = 1.0
    taking = 1.0


@pytest.fixture(scope="module")
def impatient(model):
    with serving(model, times=Quick, silence=1.0, rate=2.0**20, max_bytes=2**23, news=0.2) as served:
        yield served


HALF = [b"", b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"POST /read HTTP/1.1\r\n"]


@pytest.mark.parametrize("sent", HALF)
def test_a_connection_on_which_no_request_comes_is_closed(impatient, sent):
    began = time.monotonic()
    assert impatient.raw(sent, wait=SECONDS) == b""
    assert time.monotonic() - began < 10


CUT = r"(?i)reset|broken|aborted"
"""What the system says of a connection that the other side has ended."""


def drip(connection):
    for _ in range(600):
        connection.sendall(b"x")
        time.sleep(0.05)


def test_headers_that_drip_are_cut_off_and_so_is_the_second_request_of_a_connection(impatient):
    for first in (b"", f"GET /page.css HTTP/1.1\r\nHost: {impatient.host}\r\n\r\n".encode()):
        with socket.create_connection(("127.0.0.1", impatient.port), timeout=SECONDS) as connection:
            connection.sendall(first)
            began = time.monotonic()
            with pytest.raises(OSError, match=CUT):
                drip(connection)
            assert time.monotonic() - began < 10


def post_head(served, length):
    head = f"POST /read HTTP/1.1\r\nHost: {served.host}\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


def test_an_upload_that_stops_or_drips_is_given_up_with_a_sentence(impatient):
    answer = impatient.raw(post_head(impatient, 1000) + b"x" * 10, wait=SECONDS)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"The file came too slowly" in answer
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=SECONDS) as connection:
        connection.sendall(post_head(impatient, 2**23))
        began = time.monotonic()
        with pytest.raises(OSError, match=CUT):
            drip(connection)
        assert time.monotonic() - began < 10
    assert impatient.said[-2:] == ["an upload was refused: too slow"] * 2
    impatient.idle()


def test_an_answer_that_nobody_takes_is_dropped(impatient):
    asks = f"GET / HTTP/1.1\r\nHost: {impatient.host}\r\n\r\n".encode() * 20000
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", impatient.port))
        began = time.monotonic()
        with pytest.raises(OSError, match=CUT):
            connection.sendall(asks * 100)
        assert time.monotonic() - began < 30


def test_a_picture_that_nobody_takes_is_dropped_and_others_are_answered_meanwhile(impatient, image):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8)).save(file, "PNG")
    content = file.getvalue()
    asleep = []
    try:
        for _ in range(4):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", impatient.port))
            connection.sendall(post_head(impatient, len(content)) + content)
            asleep.append(connection)
        assert impatient.lines(image.read_bytes())[-1]["checked"]
        impatient.idle(60)
    finally:
        for connection in asleep:
            connection.close()


def test_an_upload_whose_sender_leaves_holds_nothing_any_more(model):
    with serving(model, function=KINDS, decoders=1, news=0.2, places=4) as served:
        for sent in (
            post_head(served, 1000) + b"x",
            post_head(served, 7) + b"sleep 2",
            post_head(served, 7) + b"sleep 2",
        ):
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(sent)
                while not served.page.line:
                    time.sleep(0.01)
        served.idle()
        assert served.lines(b"sleep 0")[-1]["checked"]


def test_the_log_has_one_line_for_a_refused_upload_and_nothing_of_what_was_in_it(model, tmp_path, capfd):
    from tests.chest.dicoms import content, dataset, stored

    with serving(model) as served:
        odd = content(dataset(stored(8), bits=8, PatientID="Doe^Jane", Modality="DOE JANE"))
        files = [odd, odd[:-3000], b"Doe^Jane", odd[:140] + b"Doe^Jane" * 30, bytes(128) + b"DICM" + b"Doe^Jane" * 9]
        for number, file in enumerate(files, 1):
            assert "refused" in served.lines(file, headers={"X-Name": "Doe.dcm"})[-1]
            assert len(served.said) == number
        assert set(served.said) == {"an upload was refused: not a radiograph that can be read"}
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_the_program_is_answered_and_told_by_its_place_alone(model, image, monkeypatch):
    from tf_simclr.chest.page import app

    def fail(*_, **__):
        raise ValueError("Doe^Jane")

    monkeypatch.setattr(app, "ask_all", fail)
    with serving(model) as served:
        *_, last = served.lines(image.read_bytes())
        assert last == {"refused": "The program failed on this file; whoever runs it can see why."}
        (said,) = served.said
        assert re.fullmatch(r"an upload could not be answered: ValueError in test_app_http\.py, line \d+", said)
        served.idle()


def mutated(served, picture, rng):
    """A request for an answer with something of it changed, and whether only its content was."""
    lines = ["POST /read HTTP/1.1", f"Host: {served.host}", "Content-Type: application/octet-stream"]
    lines += [f"Origin: {served.url}", "Sec-Fetch-Site: same-origin", "Connection: close"]
    content = bytearray(picture)
    kind = rng.integers(8)
    words = ["", "*", "/", "//", "..", "%00", "\x7f", "a" * 70000, "0", "-1", "1e9", "null", "chunked", "é", ","]
    if kind == 0:
        for at in rng.integers(0, len(content), rng.integers(1, 20)):
            content[at] = rng.integers(256)
    elif kind == 1:
        del content[rng.integers(1, len(content)) :]
    length = len(content) if kind != 2 else int(rng.choice([0, 1, len(content) - 1, len(content) + 1, 2**31, 2**63]))
    lines.append(f"Content-Length: {length}")
    at = int(rng.integers(len(lines)))
    if kind == 3:
        lines.append(lines[at])
    elif kind == 4:
        del lines[at]
    elif kind == 5:
        name, _, value = lines[at].partition(": " if at else " ")
        lines[at] = f"{name}{': ' if at else ' '}{rng.choice(words)}{value if rng.integers(2) else ''}"
    elif kind == 6:
        name = rng.choice(["X", "Transfer-Encoding", "Expect", "Upgrade"])
        lines.insert(int(rng.integers(1, len(lines))), f"{name}: {rng.choice(words)}")
    elif kind == 7:
        broken = bytearray("\r\n".join(lines).encode("latin-1"))
        for place in rng.integers(0, len(broken), rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        return bytes(broken) + b"\r\n\r\n" + content, False
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content, kind <= 1


@pytest.mark.parametrize(("count", "seed"), [(60, 1), pytest.param(600, 2, marks=pytest.mark.slow)])
def test_a_request_with_anything_changed_is_answered_refused_or_dropped_and_the_next_one_is_answered(
    model, image, count, seed
):
    rng, found = np.random.default_rng(seed), Counter()
    with serving(model, times=Quick, silence=0.5) as served:
        whole = served.lines(image.read_bytes())[-1]["html"]
        for _ in range(count):
            request, only_content = mutated(served, image.read_bytes(), rng)
            answer = served.raw(request, wait=SECONDS)
            status = re.match(rb"HTTP/1\.1 (\d+)", answer)
            kind = int(status[1]) if status else 0
            assert kind in {0, 200, 400, 403, 404, 405, 408, 411, 413, 415, 431}, answer[:200]
            if only_content:
                assert kind == 200
                assert b'"checked": true' in answer or b'"refused"' in answer
            assert b"Traceback" not in answer
            found[kind] += 1
        served.idle()
        assert served.lines(image.read_bytes())[-1]["html"] == whole
        assert not [line for line in served.said if "could not be answered" in line]
    assert found[200] > count / 10
    assert len(found) > 3


def test_no_decoder_outlives_its_page(model):
    with serving(model) as served:
        numbers = [worker.process.pid for worker in served.page.crew.workers]
        assert all(os.path.exists(f"/proc/{number}") for number in numbers) or not bounded.FORKS
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_everything_of_a_connection_is_read(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {served.host}\r\nConnection: close\r\n\r\n".encode())
        assert everything(connection).startswith(b"HTTP/1.1 200")
