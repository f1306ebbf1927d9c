"""The one exception for wrong input, and what is checked by it."""

import errno
import os

import numpy as np
import pytest

from tf_simclr.errors import InputError, exit_on_input_error, whole_number


@pytest.mark.parametrize("value", [0, 3, -1, np.int64(3), np.uint8(3), np.array(3), 1 << 70])
def test_whole_numbers_are_plain_integers(value):
    assert type(whole_number(value, "step")) is int
    assert whole_number(value, "step") == value


@pytest.mark.parametrize("value", [1.9, 1.0, np.float32(1), True, np.True_, np.array(True), "1", None, [1], np.ones(2)])
def test_what_is_none_is_refused(value):
    with pytest.raises(InputError, match=r"^the step must be a whole number\. Received: step="):
        whole_number(value, "the step")


def test_bounds_belong_to_the_range():
    assert whole_number(2, "step", least=2, most=2) == 2
    for value in (1, 3):
        with pytest.raises(InputError, match="must be a whole number of at least 2 and at most 2"):
            whole_number(value, "step", least=2, most=2)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/mine"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_a_full_disk_is_a_sentence_whoever_meets_it(error, capsys):
    with pytest.raises(SystemExit) as end, exit_on_input_error():
        raise error
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("there must be room on the disk: ")


def test_other_errors_of_the_system_are_errors_of_the_program():
    with pytest.raises(FileNotFoundError), exit_on_input_error():
        raise FileNotFoundError(errno.ENOENT, "No such file")
