"""Every command and every line of Python in the README and in `docs/` runs, and every link leads somewhere.

A page's blocks run in their order in one scratch folder, its Python blocks in one namespace and this process; shell
blocks start processes of their own and count as slow.  Fenced blocks of `bash`, `console` and `python` are run; those
of `SHOWN` are shown only; other kinds are an error.  In `console` blocks lines after `$ ` are commands, and the others,
numbers aside, must be among what they print.

A comment right above a block says more, its words separated by commas: `<!-- test: setup checkpoint, slow -->`.
`setup NAME` makes one of `SETUPS` first, `slow` keeps a Python block for `-m slow` (it must, where it needs what a
shell block made), `free output` leaves what a `console` block prints unchecked.  `INSTEAD` has all that is run
otherwise than it is written.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import golden
from tests.commands import pictures, small_cifar10
from tests.converters import official
from tf_simclr import cli
from tf_simclr.config import COMMANDS, options
from tf_simclr.errors import InputError
from tools import rooms

PAGES = {
    path.relative_to(golden.ROOT).as_posix(): path
    for path in (*sorted(golden.ROOT.glob("*.md")), *sorted((golden.ROOT / "docs").glob("*.md")))
}
SHOWN = {"text", "json", "nginx"}
MOST_LINES, MOST_BYTES = 150, 10_000
"""Of the README: what it is, how to install it, three ways in, limits, links; the rest is in `docs/`."""
INSTEAD = {
    "make demo": "python -m tf_simclr demo --train_epochs 1 --label_draws 2",  # tests have an environment; minutes
    "make .venv": "make --dry-run .venv",  # an installation of 1 GB
    "source .venv/bin/activate": "true",  # the environment that runs this test
    "--train_batch_size 256": "--train_batch_size 4 --train_steps 2",  # 24 images in place of the user's
    "--train_batch_size 128": "--train_batch_size 4",  # 20 images in place of CIFAR-10
    "simclr-convert": "python -m converters",  # the script that installing the package makes
    "--train_epochs 100": "--train_steps 2",  # hours
    "chest ards --model_dir": "chest ards --image_size 32 --pretrain_steps 2 --finetune_epochs 1 --grid_epochs 1 "
    "--grid_learning_rates 0.1 --seeds 1 --moco False --model_dir",  # an hour
    "--train_batch_size=512 --train_epochs=1000": "--train_batch_size=4 --train_steps=2",  # days
    "--datasets cifar10 --image_size 32": "--datasets cifar10 --image_size 32 --l2_strengths 3",  # 20 images
}
"""Text in a shell block → what is run in its place, and why."""


def checkpoint(folder: Path) -> None:
    """A checkpoint with the official names and shapes, as `ckpt_dir`."""
    official.write_tf1(folder / "ckpt_dir", "r18_1x_sk0_cifar")


def images(folder: Path) -> None:
    """Pictures in class folders, as `images`."""
    pictures.write(folder / "images", per_class=8)


def run(folder: Path) -> None:
    """A pretrained run of that CIFAR-10, as `runs/cifar10`."""
    words = "pretrain --dataset cifar10 --image_size 32 --resnet_depth 18 --train_batch_size 4 --train_steps 2"
    shell(f"python -m tf_simclr {words} --model_dir runs/cifar10", folder)


def cifar10(folder: Path) -> None:
    """A very small CIFAR-10 where tfds looks for the whole one."""
    small_cifar10.write(folder / "tensorflow_datasets", train=20, test=10)


SETUPS = {"checkpoint": checkpoint, "images": images, "cifar10": cifar10, "run": run}


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    kind: str
    words: tuple[str, ...]
    content: str

    @property
    def setups(self) -> list[str]:
        return [word.removeprefix("setup ") for word in self.words if word.startswith("setup ")]


FENCE = re.compile(r"^(?:<!-- test: (?P<words>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<content>.*?)^```$", re.M | re.S)


def blocks(page: str) -> list[Block]:
    text = PAGES[page].read_text()
    return [
        Block(
            page,
            text[: found.start("kind")].count("\n") + 1,
            found["kind"],
            tuple(word.strip() for word in (found["words"] or "").split(",") if word.strip()),
            found["content"],
        )
        for found in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.kind in ("bash", "console")]


def test_the_readme_fits_on_two_screens():
    text = PAGES["README.md"].read_text()
    assert text.count("\n") <= MOST_LINES
    assert len(text.encode()) <= MOST_BYTES


def test_every_block_is_of_a_kind_that_is_run_or_says_that_it_is_not():
    for page, path in PAGES.items():
        assert 2 * len(blocks(page)) == path.read_text().count("```"), page
    assert {block.kind for block in BLOCKS} <= {"bash", "console", "python"} | SHOWN


def test_what_is_shown_as_json_is_json():
    shown = [block for block in BLOCKS if block.kind == "json"]
    assert shown
    assert all(json.loads(block.content) for block in shown)


def test_every_marker_means_something():
    known = {"slow", "free output"} | {f"setup {name}" for name in SETUPS}
    assert {word for block in BLOCKS for word in block.words} <= known
    for page, path in PAGES.items():
        assert path.read_text().count("<!-- test:") == sum(bool(block.words) for block in blocks(page)), page


@pytest.mark.parametrize("text", INSTEAD)
def test_nothing_is_replaced_that_is_not_there(text):
    assert any(text in block.content for block in SHELL)


FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors(path: Path) -> set[str]:
    """What a link can name within a page: its headings as GitHub and the site spell them."""
    titles = re.findall(r"^#+ +(.+?)$", FENCED.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[*_`]", "", title)).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_of_the_repository_and_a_heading_in_it(page):
    wrong = []
    for target in re.findall(r"\]\((?!\w+:)([^)\s]*)\)", FENCED.sub("", PAGES[page].read_text())):
        place, _, anchor = target.partition("#")
        path = (PAGES[page].parent / place).resolve() if place else PAGES[page]
        if not (path.is_file() and path.is_relative_to(golden.ROOT.resolve())) or (
            anchor and anchor not in anchors(path)
        ):
            wrong.append(target)
    assert not wrong


def test_the_picture_of_the_rooms_shows_those_that_there_are():
    texts = set(re.findall(r">([^<>]+)</text>", (golden.ROOT / "docs" / "pictures" / "rooms.svg").read_text()))
    missing = {name for name in rooms.house()[0] if name.split("/")[-1] not in texts}
    assert not missing, "python -m tools.rooms"


def test_every_page_is_in_the_sites_contents():
    contents = PAGES["docs/index.md"].read_text().splitlines()
    pages = [page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")]
    assert not {*pages} - {"index", *contents}


COMMAND = re.compile(r"(?:^|\s)(?:python -m tf_simclr|tf-simclr) (?P<words>(?!COMMAND)[a-z-][^#;|`]*)")


def shown_commands(page: str) -> list[str]:
    """What a page shows of commands and does not run: in blocks of `text`, and between backticks."""
    pieces = [
        line
        for block in blocks(page)
        if block.kind == "text"
        for line in block.content.replace("\\\n", " ").splitlines()
    ]
    pieces += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCED.sub("", PAGES[page].read_text()))]
    return [found["words"].rstrip("\"' ") for piece in pieces for found in COMMAND.finditer(piece)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_shown_is_one_that_there_is(page, tmp_path, monkeypatch):
    """Words, options and values; a checkpoint that is not a path that the pages make is an official name."""
    monkeypatch.chdir(tmp_path)
    wrong = []
    for words in shown_commands(page):
        words = re.sub(r"\b(s3|gs)://", "", words)  # as paths: no store is asked
        given = shlex.split(words.replace("…", " "))
        if "--config" in given or "--help" in given or not given:
            continue
        if not (cli.named(given) or cli.group(given[0])):
            wrong.append(words)
            continue
        if "…" in words or cli.named(given) is None or len(given) <= len(cli.named(given).split()):
            command = cli.named(given)
            names = [word.split("=")[0] for word in given if word.startswith("--")]
            known = {f"--{name}" for name in options.options(COMMANDS[command])} if command else set()
            wrong += [f"{words}: {name}" for name in names if name not in known and name not in ("--preset",)]
            continue
        try:
            cli.parse(given)
        except InputError as error:
            wrong.append(f"{words}: {error}")
        wrong += [
            f"{words}: {name}"
            for option, name in itertools.pairwise(given)
            if option in ("--checkpoint", "--teacher") and "/" not in name and name not in ("made.keras", "ckpt_dir")
        ]
    assert not wrong


@pytest.fixture(scope="module")
def workplaces(tmp_path_factory):
    """Page → its workplace, made when its first block asks for it."""
    made: dict[str, Workplace] = {}

    def of(page: str) -> Workplace:
        if page not in made:
            made[page] = Workplace.at(tmp_path_factory.mktemp("page"))
        return made[page]

    return of


@dataclass
class Workplace:
    """Where a page's blocks run.

    Attributes:
        folder: with what `make` needs, and a `python` that is the one of this test.
        namespace: of the Python blocks.
        made: setups that there are.
    """

    folder: Path
    namespace: dict
    made: set[str]

    @classmethod
    def at(cls, folder: Path) -> "Workplace":
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(golden.ROOT / name, folder)
        (folder / "bin").mkdir()
        for name, call in {"python": "", "tf-simclr": "-m tf_simclr ", "simclr-convert": "-m converters "}.items():
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call}"$@"\n')
            (folder / "bin" / name).chmod(0o755)
        return cls(folder, {"__name__": "page"}, set())


def parameter(block: Block):
    marks = [pytest.mark.slow] if block in SHELL or "slow" in block.words else []
    return pytest.param(block, id=f"{block.page}, line {block.line}, {block.kind}", marks=marks)


@pytest.mark.parametrize("block", [parameter(block) for block in BLOCKS if block.kind not in SHOWN])
def test_a_block_runs(block, workplaces, monkeypatch):
    place = workplaces(block.page)
    for name in block.setups:
        if name not in place.made:
            SETUPS[name](place.folder)
            place.made.add(name)
    monkeypatch.chdir(place.folder)
    if block.kind == "python":
        lines = "\n" * block.line + block.content  # for a traceback that names the page's line
        exec(compile(lines, PAGES[block.page], "exec"), place.namespace)
    elif block.kind == "bash":
        shell(block.content, place.folder)
    else:
        console(block, place.folder)


def shell(commands: str, folder: Path) -> str:
    """Runs commands, the first failure ending them, and returns what they print on both streams."""
    for text in sorted(INSTEAD, key=len, reverse=True):
        commands = commands.replace(text, INSTEAD[text])
    paths = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(golden.ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=os.environ | paths | {"TFDS_DATA_DIR": str(folder / "tensorflow_datasets")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def console(block: Block, folder: Path) -> None:
    """Runs the commands after `$ ` and looks for the lines between them in what they print."""
    first, *parts = re.split(r"^\$ ", block.content, flags=re.M)
    assert not first
    for part in parts:
        command = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n?", part)[0]
        printed = {without_numbers(line) for line in shell(command, folder).splitlines()}
        expected = [line for line in part[len(command) :].splitlines() if line.strip() not in ("", "…")]
        if "free output" not in block.words:
            assert not [line for line in expected if without_numbers(line) not in printed]


def without_numbers(line: str) -> str:
    """The line with one `#` for each number and one space for each gap."""
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d,.:]*(e[-+]?\d+)?", "#", line)).strip()


def test_output_is_compared_without_its_numbers():
    assert without_numbers("loss  4.53 at 1,234 (3.1e-07)") == without_numbers("loss 0.1 at  7 (1e-8)")
    assert without_numbers("loss 4 nats") != without_numbers("accuracy 4 nats")


def test_a_console_block_whose_output_has_changed_fails(tmp_path):
    right = Block("README.md", 1, "console", (), "$ echo took 3 s \\\n    today\ntook 5 s today\n…\n$ true\n")
    console(right, tmp_path)
    with pytest.raises(AssertionError):
        console(Block("README.md", 1, "console", (), "$ echo took 3 s\nneeded 3 s\n"), tmp_path)
    with pytest.raises(AssertionError):
        console(Block("README.md", 1, "console", (), "$ false\n"), tmp_path)
