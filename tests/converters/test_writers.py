"""Every row of the writers' table (`tests/converters/writers.py`) is read right, or refused with its reason."""

import re

import pytest

from tests.converters import writers, writers_torch

ROWS = writers.rows()


@pytest.mark.parametrize("row", [pytest.param(r, id=r.name, marks=[] if r.quick else pytest.mark.slow) for r in ROWS])
def test_a_file_is_read_right_or_refused_with_its_reason(tmp_path, row):
    if row.absent:
        pytest.skip(f"needs {', '.join(row.absent)}")
    found = writers.outcome(row, tmp_path)
    assert found.right, found.text


def test_rows_have_names_of_their_own_and_refusals_a_reason():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert all(row.reason for row in ROWS if row.expect == "refused")


@pytest.mark.parametrize(
    ("expect", "reason", "text"),
    [
        ("read", "", "READ WRONG: .*stem_conv1/kernel differs"),
        ("refused", "whole", "READ, but is to be refused"),
    ],
)
def test_a_wrong_row_is_told_so(tmp_path, expect, reason, text):
    def make(folder):
        made = writers_torch.plain(folder)
        weights = {**made.weights, "stem_conv1/kernel": made.weights["stem_conv1/kernel"] + 1}
        return writers.Made(made.path, weights)

    found = writers.outcome(writers.Row("nobody", "a wrong row", make, expect, reason=reason), tmp_path)
    assert not found.right
    assert re.search(text, found.text)
