"""`tf-simclr chest app`: a page that answers for one radiograph at a time.

For research, not for diagnosis.
"""

import contextlib

from tf_simclr.chest.model.card import NOTE
from tf_simclr.chest.model.opened import opened
from tf_simclr.chest.page.app import Limits, Page
from tf_simclr.chest.page.gate import LOCAL, Gate, listen
from tf_simclr.chest.page.server import serve
from tf_simclr.config import ChestApp
from tf_simclr.frameworks import imported
from tf_simclr.terminal import say


def run(config: ChestApp) -> None:
    """Serves the page until it is interrupted.

    Raises:
        InputError: the model cannot be read, uvicorn is missing, or the port is taken.
    """
    models = opened(config.model, code=config.encoder)
    say(NOTE)
    title = models[0].about["card"].get("title", "a model without a title")
    say(f"{config.model}: {title}; tells {', '.join(model.positive for model in models)}")
    imported("uvicorn", "the page")
    if config.host not in LOCAL:
        say(f"listening on {config.host}: others can reach this page, unencrypted and without a password")
    limits = Limits(places=config.places, all_bytes=config.all_megabytes << 20, decoders=config.decoders)
    # The socket is opened here, so that a taken port is one sentence and port 0 is known.
    with contextlib.closing(listen(config.host, config.port)) as listening:
        port, most = listening.getsockname()[1], config.max_megabytes << 20
        gate = Gate(host=config.host, port=port, max_bytes=most, origin=config.origin)
        serve(Page(models, gate=gate, neighbours=config.neighbours, limits=limits, say=say), listening)
