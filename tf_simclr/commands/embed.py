"""`tf-simclr embed`: the features of every image into one file."""

from tf_simclr.commands.parts.images import open_source
from tf_simclr.commands.parts.networks import NO_IDENTITY, fitting
from tf_simclr.config import Embed, plain
from tf_simclr.data.pipeline import Unreadable
from tf_simclr.evaluation.embeddings import embed
from tf_simclr.evaluation.features import source_digest, weights_digest
from tf_simclr.terminal import Tally, say, show
from tf_simclr.weights import load_model


def run(config: Embed) -> None:
    """Embeds as configured and says what the file holds."""
    # 1. The images and the network.
    source = open_source(config, config.split)
    network, unreadable = fitting(load_model(config.checkpoint, ema=config.ema), config), Unreadable()

    # 2. What the features depend on, by content; places and sizes of batches do not count.  Parts that lie there are of
    #    the same, or are refused.
    identity = {key: value for key, value in plain(config).items() if key not in NO_IDENTITY}
    identity |= {"weights": weights_digest(network), "images": source.num_examples, "data": source_digest(source, say)}

    # 3. The features, part by part, then the file.
    count = embed(
        network,
        source,
        out=config.out,
        image_size=config.image_size,
        identity=identity,
        endpoint=config.layer,
        batch_size=config.eval_batch_size,
        unreadable=unreadable,
        progress=Tally(f"features of {source.origin}", source.num_examples),
    )
    if unreadable.names:
        say(unreadable.report())
    shape = network.output[config.layer].shape[1:] if isinstance(network.output, dict) else network.output.shape[1:]
    labels = "names and labels" if source.labelled else "names; the images have no labels, so all of these are -1"
    show(f"{config.out}: {config.layer} of {count:,} images, {shape[0]} numbers each, with {labels}")
