"""The one exception for wrong input, and what is checked by it."""

import numpy as np
import pytest

from tf_simclr.errors import InputError, whole_number


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
