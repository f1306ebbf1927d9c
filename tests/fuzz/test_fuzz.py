"""Changed files of every container are read equal, or refused in a sentence; `python -m tests.fuzz` does thousands."""

import pytest

from tests.fuzz import campaign


def test_a_few_mutants_of_every_container_are_read_equal_or_refused(reader):
    result = campaign.run(reader.read, files=250, seed=0)
    assert result.wrong == 0, "\n".join([*result.faults, result.table()])
    assert result.files >= 200
    total = sum(result.counts.values(), campaign.Counter())
    assert min(total["equal"], total["refused"], total["explained"]) > 0  # the changes are neither all deadly nor none


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_mutants_are_read_equal_or_refused(reader, seed):
    result = campaign.run(reader.read, files=2500, seed=seed)
    assert result.wrong == 0, "\n".join([*result.faults, result.table()])


def test_the_count_sees_what_is_wrong(reader):
    """A reader that takes anything for intact, one that crashes and one that dawdles are found out."""
    from tests.fuzz.reader import Outcome

    liar = campaign.run(lambda door, path: Outcome("read", str(path)), files=50, seed=0, only="TF1 bundle")
    assert liar.counts["TF1 bundle"]["otherwise"] > 0
    answers = iter([Outcome("read", "x")] + [Outcome("traceback", "x", seconds=9.0, memory=1 << 30)] * 50)
    crash = campaign.run(lambda door, path: next(answers), files=50, seed=0, only="TF1 bundle")
    assert crash.counts["TF1 bundle"] == dict.fromkeys(("traceback", "slow", "large"), 50)
    assert crash.wrong == 150
