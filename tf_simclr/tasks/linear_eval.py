"""`tf-simclr linear-eval`: what frozen features are worth, beside those of an untrained network.

Protocol: SimCLR, Appendix B.8.  Features of the centre crop, no augmentation; multinomial logistic regression with the
L2 strength that does best on a tenth of the training images, refitted on all of them; weighted nearest neighbours
(arXiv:1805.01978) as a second opinion.  The test split is touched once.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.checkpoint import RunFolder, load_encoder
from tf_simclr.config import LinearEval, plain
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.evaluation.metrics import bootstrap_interval
from tf_simclr.evaluation.probes import knn_scores, logistic_regression, select_l2
from tf_simclr.files import write_json
from tf_simclr.tasks.inputs import open_source, say, show


def run(config: LinearEval) -> None:
    """Evaluates as configured, prints one table and writes the numbers."""
    sources = [open_source(config, split, labelled=True) for split in (config.train_split, config.eval_split)]
    for source in sources:
        check(source.labelled, f"{source.origin} must have labels to evaluate on")
    train, test = (source.class_names for source in sources)
    differing = sorted(set(train) ^ set(test))
    check(train == test, f"{sources[0].origin} and {sources[1].origin} must have the same classes", differing=differing)
    encoder, unreadable = load_encoder(config.checkpoint, ema=config.ema), Unreadable()
    networks = {"checkpoint": encoder}
    if config.untrained:
        keras.utils.set_random_seed(config.seed)
        networks["untrained"] = keras.models.clone_model(encoder)
    results = {}
    for name, network in networks.items():
        say(f"features of {sum(s.num_examples for s in sources):,} images, {name} …")
        train, test = (extract(network, stream(config, source, unreadable=unreadable)) for source in sources)
        say(f"probes on {train.values.shape[1]} features, {name} …")
        results[name] = probe(train, test, config=config)
    if unreadable.names:
        say(unreadable.report())
    place = config.result or default_result(config.checkpoint)
    write_json(place, {"command": plain(config), "results": results, "unreadable": unreadable.names})
    show(table(results))
    show(f"\n{sources[0].origin} to {sources[1].origin}; numbers and intervals: {place}")


def stream(config: LinearEval, source: Source, *, unreadable: Unreadable) -> tf.data.Dataset:
    """What the network sees of the images."""
    sizes = {"batch_size": config.eval_batch_size, "image_size": config.image_size}
    return evaluation_batches(source, **sizes, unreadable=unreadable)


def probe(train: Features, test: Features, *, config: LinearEval) -> dict:
    """Test accuracies with their intervals, and the L2 strength chosen on validation."""
    rows = np.random.default_rng(config.seed).permutation(len(train.values))
    held, kept = np.split(rows, [max(1, len(rows) // 10)])
    parts = [(train.values[part], train.labels[part]) for part in (kept, held)]
    l2, _ = select_l2(*parts, grid=np.logspace(-6, 5, config.l2_strengths))
    linear = logistic_regression(train.values, train.labels, l2=l2).predict(test.values)
    neighbours = min(config.knn, len(train.values))
    votes = knn_scores(test.values, (train.values, train.labels), k=neighbours, temperature=config.knn_temperature)
    predictions = {"logistic_regression": linear, "knn": votes.argmax(axis=1)}
    scores = {name: interval(found == test.labels, config.seed) for name, found in predictions.items()}
    return scores | {"l2": l2, "test_images": len(test.values), "train_images": len(train.values)}


def interval(hits: np.ndarray, seed: int) -> dict[str, float]:
    """Share of hits with its 95 % bootstrap interval over the test images."""
    low, high = bootstrap_interval(np.mean, [hits], seed=seed)
    return {"accuracy": float(hits.mean()), "low": low, "high": high}


def default_result(checkpoint: Path) -> Path:
    """In a run folder; beside a checkpoint nothing is written, but in the working directory."""
    folder = checkpoint if RunFolder(checkpoint).config.exists() else Path()
    return folder / "linear_eval.json"


def table(results: dict) -> str:
    """A line a network: accuracies in percent with their 95 % intervals."""
    lines = [f"{'features':<12}{'logistic regression':>24}{'nearest neighbours':>24}"]
    for name, scores in results.items():
        cells = [
            f"{100 * s['accuracy']:.1f} ({100 * s['low']:.1f}–{100 * s['high']:.1f})"
            for s in (scores["logistic_regression"], scores["knn"])
        ]
        lines.append(f"{name:<12}{cells[0]:>24}{cells[1]:>24}")
    return "\n".join([*lines, f"top-1 accuracy in % on {scores['test_images']:,} images (95 % bootstrap interval)"])
