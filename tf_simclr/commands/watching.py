"""What a training is watched by, as its knobs say."""

from collections.abc import Callable

import tensorflow as tf

from tf_simclr.commands.inputs import open_source, say
from tf_simclr.config import Pretrain
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError, check
from tf_simclr.run_folder import RunFolder, read_json
from tf_simclr.training import Plan
from tf_simclr.training.pairs import PAIRS, draw_pairs
from tf_simclr.training.watching import Collapse, Neighbours, Watch, parts
from tf_simclr.training.weights_and_biases import Report

FEWEST = 10
"""Images that a test by nearest neighbours takes at least."""
VIEWS_AT_ONCE = 32
"""Images a batch of those that show a collapse."""


Views = Callable[[int], tf.data.Dataset]
"""Batch size → endless batches of the training's views, from its first image on."""


def watching(
    config: Pretrain, source: Source, *, plan: Plan, run: RunFolder, views: Views
) -> tuple[list[Watch], list[Report]]:
    """Draws the sheet of pairs, and makes the callbacks that measure and those that report."""
    show_pairs(run, views, available=source.num_examples)
    reports = []
    if config.wandb is not None:
        reports = [Report(run, project=config.wandb, config=read_json(run.config))]
    return watchers(config, source, plan=plan, views=views), reports


def watchers(config: Pretrain, source: Source, *, plan: Plan, views: Views) -> list[Watch]:
    """The callbacks that measure besides the loss.

    Args:
        config: the knobs.
        source: the training images.
        plan: how long the training is.
        views: the training's images as the network sees them.
    """
    found: list[Watch] = []
    if config.collapse_images:
        size = min(VIEWS_AT_ONCE, config.collapse_images, source.num_examples)
        # More images than there are would be other views of the same ones, which are as good.
        found.append(Collapse(views(size).take(config.collapse_images // size)))
    if config.knn_epochs and source.labelled and source.num_examples >= FEWEST:
        try:
            found.append(neighbours(config, source, plan=plan))
        except InputError as error:  # labels that all say "unknown"; where a split was named for it, that is an error
            if config.eval_split is not None:
                raise
            say(f"knn_acc is not measured: {error}")
    return found


def neighbours(config: Pretrain, source: Source, *, plan: Plan) -> Neighbours:
    """The test by nearest neighbours, on `eval_split` if there is one other than that to train on.

    Raises:
        InputError: `eval_split` has no labels, or all images that could vote are in it.
    """
    other = None
    if config.eval_split not in (None, config.train_split):
        other = open_source(config, config.eval_split, labelled=True)
        check(
            other.labelled, f"eval_split must have labels, but {other.origin} has none; leave it out, or name another"
        )
        rule = f"{source.origin} and {other.origin} must have the same classes, in the same order"
        check(source.class_names == other.class_names, rule, differing=set(source.class_names) ^ set(other.class_names))
    sizes = {"batch_size": min(config.train_batch_size, 256), "image_size": config.image_size}
    known, asked = (
        evaluation_batches(part, **sizes, unreadable=Unreadable())
        for part in parts(source, other, count=config.knn_images, seed=config.seed)
    )
    epochs = -(-plan.total_steps // plan.steps_per_epoch)
    return Neighbours(known, asked, every=config.knn_epochs, epochs=epochs)


def show_pairs(run: RunFolder, views: Views, *, available: int) -> None:
    """Draws the first images' views once a run."""
    if not (run.path / "pairs.png").exists():
        batch, *_ = next(iter(views(min(PAIRS, available)).as_numpy_iterator()))
        draw_pairs(batch, run)
