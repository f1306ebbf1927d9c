"""`tf-simclr linear-eval`: what frozen features are worth, beside those of an untrained network.

Protocols, chosen by `--protocol`:

- transfer (SimCLR, Appendix B.8): features of the whole centre square, no augmentation; multinomial logistic regression
  on features as they are, its L2 strength that of 45 which does best on a tenth of the training images, refitted on all
  of them; weighted nearest neighbours (arXiv:1805.01978) as a second opinion.
- knn: the nearest neighbours alone.
- sgd (Appendix B.6): a classifier trained on random crops and flips, tested on the reference's centre crop (0.875).

The test split is touched once.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.commands.parts.images import labelled_sources
from tf_simclr.commands.parts.networks import extractor_of, load_features_network
from tf_simclr.commands.parts.plans import optimizer_of, steps_of
from tf_simclr.commands.parts.runs import beside
from tf_simclr.config import LinearEval, plain
from tf_simclr.data import pipeline
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs import told_made_up
from tf_simclr.data.sources import Source
from tf_simclr.data.subsets import in_pixels
from tf_simclr.evaluation.features import WHOLE, Extractor, Features, text
from tf_simclr.evaluation.maps import planar
from tf_simclr.evaluation.metrics import hit_rate
from tf_simclr.evaluation.probes import chosen_regression, hold_out, knn_scores, nearest, train_head
from tf_simclr.evaluation.reports import Answers, write_report
from tf_simclr.frameworks import has_tensorflow
from tf_simclr.replicas import ONE_DEVICE
from tf_simclr.terminal import say, show, typed
from tf_simclr.training.viewing import views_on_device, with_held

_VALIDATION = 0.1
"""Share of the training images that chooses the L2 strength."""
_RAW = 16
"""Pixels a side that are tested as they are."""
_MAPPED = 2000
"""Images at most on a map, drawn by the seed; t-SNE of more takes minutes."""
_QUERIES, _NEIGHBOURS = 6, 7
_TITLES = {"logistic_regression": "logistic regression", "knn": "nearest neighbours", "sgd": "SGD classifier"}


def run(config: LinearEval) -> None:
    """Evaluates as configured, prints one table and writes the numbers."""
    # 1. The images, and the networks whose features are tried: the untrained one is built behind its seed.
    sources = labelled_sources(config)
    encoder = load_features_network(config)
    networks = {"checkpoint": encoder}
    if config.untrained:
        keras.utils.set_random_seed(config.seed)
        networks["untrained"] = keras.models.clone_model(encoder)
    if config.raw_pixels:
        networks["raw pixels"] = pixels(config.image_size)

    # 2. Each network's features and the probes on them; the test split is touched here alone.
    results: dict[str, Any] = {}
    answers: dict[str, np.ndarray] = {}
    skipped = Unreadable()
    for name, network in networks.items():
        extractor = extractor_of(config, network, label=f", {name}")
        evaluate = _by_sgd if config.protocol == "sgd" else _by_features
        results[name], test, scores = evaluate(config, extractor, sources=sources)
        answers |= {f"{name} {probe}": found for probe, found in scores.items()}
        # Each image once, whichever network met it.
        for image in extractor.unreadable:
            skipped.add(image.encode())
    if skipped.names:
        say(skipped.report())

    # 3. What is left: figures, then the numbers and every answer, and last the screen, which may fail without loss.
    drawn = _draw_features(config, encoder, sources=sources) if config.figures else []
    place = config.result or default_result(config)
    answered = Answers(test.names, test.labels, answers, classes=sources[1].class_names)
    divisions = {part: source.division for part, source in zip(("train", "test"), sources, strict=True)}
    more: dict[str, Any] = {"division": divisions} if any(divisions.values()) else {}
    more |= {"notes": notes} if (notes := list(dict.fromkeys(note for s in sources for note in s.notes))) else {}
    write_report(place, command=plain(config), results=results, answers=answered, unreadable=skipped.names, **more)
    show(table(results))
    show(f"\n{sources[0].origin} to {sources[1].origin}; numbers and intervals: {place}")
    for path in drawn:
        show(f"figure  {path}")
    if len(answers):
        show(f"compare {typed('compare', place, '--figures', place.parent / 'figures')}")


def pixels(image_size: int) -> keras.Model:
    """A network without weights, from images to their pixels averaged down to at most `_RAW` a side."""
    side = -(-image_size // _RAW)
    images = keras.Input((image_size, image_size, 3))
    small = keras.layers.AveragePooling2D(side, strides=side, data_format="channels_last")(images)
    flat = keras.layers.Flatten(data_format="channels_last")(small)  # as images are, whatever ~/.keras/keras.json says
    return keras.Model(images, flat, name="raw_pixels")


def _draw_features(config: LinearEval, encoder: keras.Model, *, sources: tuple[Source, Source]) -> list[Path]:
    """Draws `feature_map.png` and `neighbours.png` of the checkpoint's features, which the probes left on the disk."""
    from tf_simclr import plots

    extractor, seed, image_size = extractor_of(config, encoder), config.seed, config.image_size
    train, test = (extractor.features(s, image_size=image_size, crop_proportion=WHOLE) for s in sources)
    # One order for the map and the queries, drawn by the seed.
    order = np.random.default_rng(seed).permutation(len(test.values))
    mapped, asked = order[:_MAPPED], order[:_QUERIES]
    names = sources[1].class_names
    places = planar(test.values[mapped], seed=seed)
    figures: dict[str, Any] = {
        "feature_map": plots.feature_map(places, test.labels[mapped], class_names=names, method="t-SNE")
    }
    close, cosines = nearest(test.values[asked], train.values, k=min(_NEIGHBOURS, len(train.values)))
    queries = pictures(sources[1], test.names[asked], image_size=image_size)
    others = pictures(sources[0], train.names[close.ravel()], image_size=image_size)
    others = others.reshape(*close.shape, *others.shape[1:])  # (asked · k, size, size, 3) → (asked, k, size, size, 3)
    same = train.labels[close] == test.labels[asked][:, None]
    figures["neighbours"] = plots.nearest_neighbours(queries, others, cosines=cosines, same=same)
    made_up, folder = any(told_made_up(source.notes) for source in sources), config.figures or Path()
    return [plots.save(figure, folder / f"{name}.png", made_up=made_up) for name, figure in figures.items()]


_Tested = tuple[dict, Features, dict[str, np.ndarray]]
"""Numbers, the test images' features, and the scores `(n, classes)` that each probe gave them."""


def _by_features(config: LinearEval, extractor: Extractor, *, sources: tuple[Source, Source]) -> _Tested:
    """Test accuracies of the probes on features, and the L2 strength chosen on validation."""
    train, test = (extractor.features(s, image_size=config.image_size, crop_proportion=WHOLE) for s in sources)
    # The strength is chosen on a tenth of the training images; the test images are looked at once.
    say(f"probes on {train.values.shape[1]} features{extractor.label} …")
    counts: dict[str, Any] = {"test_images": len(test.values), "train_images": len(train.values)}
    learned, k = (train.values, train.labels), min(config.knn, len(train.values))
    scores = {"knn": knn_scores(test.values, learned, k=k, temperature=config.knn_temperature)}
    if config.protocol == "transfer":
        held = hold_out(train.labels, _VALIDATION, seed=config.seed)
        choice = chosen_regression(*learned, held=held, grid=np.logspace(-6, 5, config.l2_strengths))
        scores = {"logistic_regression": choice.classifier.scores(test.values)} | scores
        counts |= {"l2": choice.l2}
        if not choice.classifier.converged:
            counts |= {"converged": False}
            say(f"the logistic regression with l2={choice.l2:.3g} stopped before its minimum")
    return _accuracies(scores, test.labels, seed=config.seed) | counts, test, scores


def _by_sgd(config: LinearEval, extractor: Extractor, *, sources: tuple[Source, Source]) -> _Tested:
    """Test accuracy of the classifier trained on augmented images."""
    train, test = sources
    # The official code's protocol: a head trained on random crops, at the rates of a training.
    steps = steps_of(config, train.num_examples)
    unreadable = Unreadable()
    views_of = views_on_device(config, train, recipe=pipeline.flips(True), devices=ONE_DEVICE, single=True)
    train = in_pixels(train) if views_of is not None or not has_tensorflow() else train
    classifier = train_head(
        extractor.network,
        train,
        optimizer=optimizer_of(config, steps=steps, num_examples=train.num_examples),
        steps=steps,
        batch_size=config.train_batch_size,
        image_size=config.image_size,
        weight_decay=config.weight_decay,
        seed=config.seed,
        unreadable=unreadable,
        progress=_steps_said(steps, extractor.label),
        views_of=views_of and with_held(views_of, train, devices=ONE_DEVICE),
    )
    # None: evaluation's own crop.
    features = extractor.features(test, image_size=config.image_size, crop_proportion=None)
    extractor.unreadable += unreadable.names
    scores = {"sgd": classifier.scores(features.values)}
    counts = {"test_images": len(features.values), "train_images": train.num_examples, "steps": steps}
    return _accuracies(scores, features.labels, seed=config.seed) | counts, features, scores


def _steps_said(steps: int, label: str) -> Any:
    """Tells of ten steps of a training."""
    every = max(1, steps // 10)

    def progress(step: int, loss: float) -> None:
        if step % every == 0 or step == steps:
            say(f"step {step:,}/{steps:,}{label}: loss {loss:.3f}")

    return progress


def _accuracies(scores: dict[str, np.ndarray], labels: np.ndarray, *, seed: int) -> dict[str, dict[str, float]]:
    """Top-1 accuracy of each probe's scores with its 95 % bootstrap interval over the test images."""
    return {probe: hit_rate(given.argmax(axis=1) == labels, seed=seed) for probe, given in scores.items()}


def default_result(config: LinearEval) -> Path:
    """By the protocol, so that one does not replace the other."""
    ending = "" if config.protocol == "transfer" else f"_{config.protocol}"
    return beside(config.checkpoint) / f"linear_eval{ending}.json"


def _cell(score: dict[str, float]) -> str:
    """An accuracy and its interval in percent."""
    return "{accuracy:.1f} ({low:.1f}–{high:.1f})".format(**{name: 100 * value for name, value in score.items()})


def table(results: dict) -> str:
    """A line a network: accuracies in percent with their 95 % intervals."""
    shown = [name for name in _TITLES if name in next(iter(results.values()))]
    lines = [f"{'features':<12}" + "".join(f"{_TITLES[name]:>24}" for name in shown)]
    for name, scores in results.items():
        lines.append(f"{name:<12}" + "".join(f"{_cell(scores[probe]):>24}" for probe in shown))
    return "\n".join([*lines, f"top-1 accuracy in % on {scores['test_images']:,} images (95 % bootstrap interval)"])


def pictures(source: Source, names: np.ndarray, *, image_size: int) -> np.ndarray:
    """The images with these names `(n, size, size, 3)` in [0, 1], in their order; read front to back, once."""
    wanted, found = set(names.tolist()), {}
    batches = evaluation_batches(
        source, batch_size=64, image_size=image_size, crop_proportion=1.0, unreadable=Unreadable()
    )
    # Read front to back, once, until all are found.
    for images, _, given in batches:
        # Without TensorFlow batches are NumPy's and names are texts; with it tensors, and bytes.
        for image, name in zip(np.asarray(images), text(np.asarray(given)).tolist(), strict=True):
            if name in wanted:
                found[name] = image
        if len(found) == len(wanted):
            break
    return np.stack([found[name] for name in names.tolist()])
