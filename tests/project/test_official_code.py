"""`docs/official-code.md`: what the code cites is there, and every section names a test that is there."""

import re

from tests.golden import ROOT

PAGE = (ROOT / "docs/official-code.md").read_text()
SECTIONS = {m[1]: m[2] for m in re.finditer(r"^### (\S+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)}
CITED = re.compile(r"official-code\.md#([\w-]+)")


def test_every_section_has_an_anchor_says_what_holds_it_and_where_it_stands_upstream():
    assert len(SECTIONS) == PAGE.count("\n### ") > 30
    for name, text in SECTIONS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name  # a heading that is its own anchor, wherever it is rendered
        assert "Held by `" in text, name
        assert re.search(r"Upstream:\s+\S", text), name


def test_the_tests_that_hold_what_it_says_exist():
    missing = []
    for name, text in SECTIONS.items():
        for path, function in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
            file = ROOT / path
            if not file.is_file() or f"\ndef {function}(" not in file.read_text():
                missing.append((name, f"{path}::{function}"))
    assert not missing


def test_what_the_code_cites_is_there():
    files = [path for folder in ("converters", "tf_simclr", "tests", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = {path: path.read_text() for path in files if path.suffix in (".py", ".md")}
    cited = {(path.relative_to(ROOT).as_posix(), name) for path, text in texts.items() for name in CITED.findall(text)}
    assert len(cited) > 20
    assert not {(path, name) for path, name in cited if name not in SECTIONS}
