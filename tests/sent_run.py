"""What a training writes, without the training, into a folder that is sent: `python -m tests.sent_run ADDRESS STEPS`.

Says each step that it has saved.  Quick to start, so that it can be killed often.
"""

import sys
import time

from tf_simclr.buckets import check_sent, sending
from tf_simclr.buckets.sending import Sending
from tf_simclr.errors import exit_on_input_error
from tf_simclr.files import replacing
from tf_simclr.terminal import say, show

KEPT = 3


def content(step: int) -> bytes:
    """Of a checkpoint."""
    return f"state after step {step}\n".encode() * 2000


def steps(folder) -> list[int]:
    """Of the checkpoints of a folder, ascending."""
    return sorted(int(path.stem.split("-")[1]) for path in (folder / "checkpoints").glob("step-*.npz"))


def write(folder, step: int) -> None:
    """A line of the history, then the checkpoint, as a training does; then those that are too many go."""
    with replacing(folder / "history.csv") as [file]:
        file.write(b"".join(b"%d\n" % number for number in range(1, step + 1)))
    with replacing(folder / "checkpoints" / f"step-{step:08d}.npz") as [file]:
        file.write(content(step))
    for old in steps(folder)[:-KEPT]:
        (folder / "checkpoints" / f"step-{old:08d}.npz").unlink()


def main(address: str, last: int) -> None:
    """Goes on from the newest checkpoint to the last step."""
    sending.LOOKS = 0.05
    one = Sending(address, say=say)
    one.begin()
    try:
        for step in range(max(steps(one.path), default=0) + 1, last + 1):
            check_sent(one.path)
            write(one.path, step)
            show(str(step))
            time.sleep(0.02)
    finally:
        one.close()


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1], int(sys.argv[2]))
