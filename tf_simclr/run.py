"""`python -m tf_simclr.run`: the command line of the official TF2 `run.py`.

`python -m tf_simclr pretrain` and `finetune` are the same with more options.
"""

import dataclasses
import sys

import tf_simclr
from tf_simclr import cli
from tf_simclr.buckets.staging import staged
from tf_simclr.config.first_look import look_first
from tf_simclr.errors import exit_on_input_error
from tf_simclr.official import flags as official
from tf_simclr.terminal import say, write


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
        call = official.parse(words)
        block = staged(call.config, say=say, several=cli.several(call.config))
        with block as config, cli.extras_named("tf_simclr.run"):
            if call.mode != "eval":
                look_first(config)
            cli.task("official").run(dataclasses.replace(call, config=config))


if __name__ == "__main__":
    main()
