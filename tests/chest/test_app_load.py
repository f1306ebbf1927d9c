"""Fifty people at the page for two minutes: nobody loses an answer, nobody gets another one's, memory stays bounded."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.chest import tiny_deployed as tiny
from tests.chest.page import PLAIN
from tf_simclr.chest.collections import synthetic
from tf_simclr.chest.model import deployed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("uvicorn") is None, reason="not installed: the extra app"),
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux' /proc"),
]
PEOPLE = 50
SECONDS = 120.0
GROWTH = 300
"""Megabytes by which the server may be larger afterwards; one answer kept of each would be several times as many."""


def shown(probability):
    """As the page writes it."""
    return f"{100 * probability:.0f}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Radiographs of two million pixels, DICOM and PNG."""
    folder, found = tmp_path_factory.mktemp("load"), []
    for number in range(len(tiny.NAMES)):
        pixels = np.kron(tiny.picture(number).astype(np.uint16) * 16, np.ones((32, 32), np.uint16))  # 1536 × 1280
        path = folder / f"{number}"
        if number % 3:
            synthetic.save(path, pixels, patient=f"Doe^{number}", numbers=(number, 2, 3))
        else:
            Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, "PNG")
        found.append(path)
    return found


def memory(process):
    """Megabytes of a process and of what it started, shared pages in equal parts."""
    numbers = [process.pid]
    for number in numbers:
        for task in Path(f"/proc/{number}/task").glob("*/children"):
            numbers += [int(child) for child in task.read_text().split()]
    total = 0
    for number in numbers:
        try:
            total += int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{number}/smaps_rollup").read_text())[1])
        except (OSError, TypeError):
            continue  # it ended meanwhile
    return total // 1024


def test_fifty_people_for_two_minutes(tiny_run, files, tmp_path, capsys):
    model = deployed.load(tiny_run)
    expected = [shown(tiny.ask(model, path).verdict.probability) for path in files]
    contents = [path.read_bytes() for path in files]
    words = ["chest", "app", "--model", str(tiny_run), "--port", "0"]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_simclr", *words],
            stderr=said,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    try:
        while not (found := re.search(r"open (http://127\.0\.0\.1:\d+) in a browser", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        counts, times, most = under_load(process, found[1], contents=contents, expected=expected)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()
    before, largest, after = most
    waits = np.percentile(times, [50, 95, 100])
    table = (
        f"\n{PEOPLE} people, {SECONDS:.0f} s: answered {counts['answered']}, lost {counts['lost']}, "
        f"mixed {counts['mixed']}, told to come again {counts['again']}; seconds to the first answer "
        f"{waits[0]:.1f} (median), {waits[1]:.1f} (95 %), {waits[2]:.1f} (longest); "
        f"memory {before} MB before, {largest} MB at most, {after} MB after\n"
    )
    with capsys.disabled():
        sys.stdout.write(table)
    assert counts["lost"] == counts["mixed"] == counts["again"] == 0
    assert counts["answered"] >= PEOPLE
    assert after < before + GROWTH
    assert log.read_text().count("\n") <= 3


def under_load(process, url, *, contents, expected):
    """What became of each file, seconds to its first answer, and memory before, at most and after."""
    counts, times = Counter(), []
    until = [time.monotonic() + 10]

    def person(number):
        with httpx.Client(timeout=600) as client:
            turn = number
            while time.monotonic() < until[0]:
                which = turn % len(contents)
                counts[ask(client, url, content=contents[which], expected=expected[which], times=times)] += 1
                turn += 7

    def all_at_once(people):
        threads = [threading.Thread(target=person, args=(number,)) for number in range(people)]
        for thread in threads:
            thread.start()
        return threads

    for thread in all_at_once(4):  # the network is compiled and the decoders have started
        thread.join()
    assert counts["answered"] >= 4
    counts.clear()
    times.clear()
    before = largest = memory(process)
    until[0] = time.monotonic() + SECONDS
    threads = all_at_once(PEOPLE)
    while any(thread.is_alive() for thread in threads):
        largest = max(largest, memory(process))
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    time.sleep(2)
    return counts, times, (before, largest, memory(process))


def ask(client, url, *, content, expected, times):
    """What became of one file."""
    began, answers = time.monotonic(), []
    try:
        with client.stream("POST", url + "/read", content=content, headers=PLAIN) as response:
            if response.status_code == 429:
                return "again"
            for line in response.iter_lines():
                if "html" in (found := json.loads(line)):
                    if not answers:
                        times.append(time.monotonic() - began)
                    answers.append(re.search(r"([\w ]+)&nbsp;%</span> probability", found["html"])[1])
    except httpx.HTTPError:
        return "lost"
    if len(answers) != 2:
        return "lost"
    return "answered" if set(answers) == {expected} else "mixed"
