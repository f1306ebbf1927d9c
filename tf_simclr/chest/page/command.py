"""`tf-simclr chest app`: a page that answers for one radiograph at a time.

For research, not for diagnosis.
"""

from tf_simclr.chest.model.card import NOTE
from tf_simclr.chest.model.opened import opened
from tf_simclr.chest.page import server as app_server
from tf_simclr.chest.page.app import Limits
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
    if config.host not in app_server.LOCAL:
        say(f"listening on {config.host}: others can reach this page, unencrypted and without a password")
    app_server.serve(
        models,
        host=config.host,
        port=config.port,
        max_bytes=config.max_megabytes << 20,
        neighbours=config.neighbours,
        origin=config.origin,
        limits=Limits(places=config.places, all_bytes=config.all_megabytes << 20, decoders=config.decoders),
        say=say,
    )
