"""What a process says before it ends a training that others share, for those that lose it by that.

Both backends keep short texts by name for all processes, at the first one (their coordination service).
"""

import contextlib
import threading

import keras

_PLACE = "last words of /"
_LONGEST = 2000
"""Characters that are passed on."""
_PATIENCE = 300
"""Milliseconds that TensorFlow waits for words that may not be there."""
_MOMENT = 2.0
"""Seconds in which words are left, where anybody keeps them."""
_MOST = 16
"""Processes that are asked, with TensorFlow, which asks one after the other."""


def leave(number: int, text: str) -> None:
    """Leaves why this process ends, as far as that can still be done: the first one may be gone, and never answer."""
    leaving = threading.Thread(target=_leave, args=(number, text), daemon=True)
    leaving.start()
    leaving.join(_MOMENT)


def _leave(number: int, text: str) -> None:
    with contextlib.suppress(Exception):  # it ends by another error, which its user should see
        if keras.backend.backend() == "jax":
            from jax._src.distributed import global_state  # JAX gives its texts no public name

            if global_state.client is not None:
                global_state.client.key_value_set(f"{_PLACE}{number}", text[:_LONGEST], allow_overwrite=True)
        elif keras.backend.backend() == "tensorflow":
            from tensorflow.python.eager import context  # nor does TensorFlow

            context.context().set_config_key_value(f"{_PLACE}{number}", text[:_LONGEST])


def heard(count: int, *, here: int) -> dict[int, str]:
    """Process → why it ended, of those other than this one that said it; nothing where the first one is gone itself."""
    found: dict[int, str] = {}
    with contextlib.suppress(Exception):
        if keras.backend.backend() == "jax":
            from jax._src.distributed import global_state

            said = [] if global_state.client is None else global_state.client.key_value_dir_get(_PLACE)
            found = {int(name.rpartition("/")[2]): text for name, text in said}
        elif keras.backend.backend() == "tensorflow":
            from tensorflow.python.eager import context

            for number in range(min(count, _MOST)):
                with contextlib.suppress(Exception):
                    text = context.context().get_config_key_value(f"{_PLACE}{number}", timeout_in_ms=_PATIENCE)
                    found[number] = text
    return {number: text for number, text in sorted(found.items()) if number != here}
