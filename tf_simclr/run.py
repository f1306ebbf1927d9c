"""`python -m tf_simclr.run`: the command line of the official TF2 `run.py`.

`python -m tf_simclr pretrain` and `finetune` are the same with more options.
"""

import sys

import tf_simclr
from tf_simclr import cli
from tf_simclr.config.first_look import look_first
from tf_simclr.errors import exit_on_input_error
from tf_simclr.official import flags as official
from tf_simclr.terminal import write


def main() -> None:
    """Runs what the official flags ask for."""
    with exit_on_input_error():
        words = sys.argv[1:]
        if {"-h", "--help", "-help", "--helpfull"} & set(words):
            write(official.overview())
            return
        if "--version" in words:
            write(f"tf-simclr {tf_simclr.__version__}\n")
            return
        job = official.parse(words)
        if job.mode != "eval":
            look_first(job.config)
        with cli.extras_named("tf_simclr.run"):
            cli.task("official").run(job)


if __name__ == "__main__":
    main()
