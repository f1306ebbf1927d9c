"""What must hold for every source: docs/properties.md, as a matrix of sources and properties.

Statistics are seeded, so they pass or fail for good; their limits are errors of a uniform shuffle, computed by NumPy's.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.data import made
from tf_simclr.data import sources, subsets
from tf_simclr.data.pipeline import Unreadable, training_batches
from tf_simclr.data.sources import Indexed, Sequential, Source
from tf_simclr.evaluation.features import source_digest
from tf_simclr.training.watching import parts

SEEDS = (0, 12345, 2**40)
BATCH = 10


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Kind → a source of it; what lies on disk is made once."""

    @functools.cache
    def made_once(kind: str, changed: bool = False) -> Source:
        return made.SOURCES[kind](tmp_path_factory.mktemp("source"), changed)

    return made_once


every_source = pytest.mark.parametrize("kind", made.SOURCES)


def names(records) -> list[bytes]:
    return [record["name"] for record in records.as_numpy_iterator()]


def orders(source: Source, epochs: int, *, seed: int = 0, buffer: int = 10**6) -> np.ndarray:
    """Numbers of the examples `(epochs, n)`, in the order in which they come."""
    n = source.num_examples
    number = {name: i for i, name in enumerate(sorted(names(source.ordered())))}
    stream = source.shuffled(seed, buffer=buffer).take(epochs * n).map(lambda record: record["name"])
    return np.array([number[name] for name in stream.as_numpy_iterator()]).reshape(epochs, n)


def grey(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """A view `(1,)` that tells which image it is of."""
    return tf.reshape(tf.reduce_mean(image), [1])


def greys_of(source: Source) -> dict[bytes, float]:
    decoded = source.ordered().map(lambda record: (record["name"], tf.reduce_mean(source.decoded(record)["image"])))
    return {name: float(mean) for name, mean in decoded.as_numpy_iterator()}


@every_source
def test_in_order_each_example_comes_once_and_always_at_the_same_place(make, kind):
    source = make(kind)
    found = names(source.ordered())
    assert len(set(found)) == len(found) == source.num_examples
    assert names(source.ordered()) == found


@every_source
def test_an_epoch_has_each_example_once_and_another_order_than_any_other(make, kind):
    found = orders(make(kind), 4)
    assert all(sorted(epoch) == list(range(found.shape[1])) for epoch in found)
    assert len({tuple(epoch) for epoch in found}) == 4


@every_source
def test_another_seed_gives_another_order(make, kind):
    found = [orders(make(kind), 1, seed=seed, buffer=10) for seed in SEEDS]
    assert len({tuple(epoch) for (epoch,) in found}) == len(SEEDS)


@every_source
def test_the_order_hangs_on_nothing_but_the_seed(make, kind):
    first = orders(make(kind), 2, seed=3)
    tf.random.set_seed(77)
    np.testing.assert_array_equal(orders(make(kind), 2, seed=3), first)


@every_source
def test_a_stream_from_any_position_on_is_the_rest_of_the_stream(make, kind):
    source = make(kind)
    n = source.num_examples
    whole = names(source.shuffled(3, buffer=16).take(3 * n))
    for start in (n - 1, n, 2 * n + 5):
        assert names(source.shuffled(3, start=start, buffer=16).take(3 * n - start)) == whole[start:]


@every_source
def test_a_training_whose_images_are_kept_in_memory_takes_the_images_of_its_stream(make, kind):
    source = make(kind)
    options = {"batch_size": BATCH, "buffer": 10**6, "seed": 7, "unreadable": Unreadable(), "cache": True}
    found = [
        batch[0] if isinstance(batch, tuple) else batch for batch in training_batches(source, grey, **options).take(2)
    ]
    means, stream = greys_of(source), sources.cached(source).shuffled(7, buffer=10**6).take(2 * BATCH)
    expected = [means[record["name"].numpy()] for record in stream]
    np.testing.assert_allclose(np.concatenate(found)[:, 0], expected, atol=1e-6)


@every_source
def test_the_first_example_of_an_epoch_is_any_one_alike_likely(make, kind):
    """Of 150 first ones: the chi-square of their counts is within four standard deviations of its mean."""
    source, epochs = make(kind), 150
    n = source.num_examples
    counts = np.bincount(orders(source, epochs)[:, 0], minlength=n)
    chi_square = ((counts - epochs / n) ** 2).sum() / (epochs / n)
    assert abs(chi_square - (n - 1)) < 4 * np.sqrt(2 * (n - 1))


def again(order: np.ndarray, batch: int = BATCH) -> float:
    """How often two examples share a batch that have shared one before."""
    n = order.shape[1]
    together = np.zeros((n, n), np.int64)
    for epoch in order:
        for row in epoch[: n // batch * batch].reshape(-1, batch):
            together[np.ix_(row, row)] += 1
    count = together[np.triu_indices(n, 1)]
    return float((count * (count - 1) // 2).sum())


@functools.cache
def of_uniform(epochs: int, n: int, batch: int = BATCH) -> tuple[float, float]:
    """Mean and standard deviation of `again` for uniform shuffles."""
    rng = np.random.default_rng(0)
    found = [again(np.stack([rng.permutation(n) for _ in range(epochs)]), batch) for _ in range(100)]
    return float(np.mean(found)), float(np.std(found))


@every_source
def test_two_examples_share_a_batch_again_as_often_as_in_a_uniform_shuffle(make, kind):
    source, epochs = make(kind), 40
    mean, deviation = of_uniform(epochs, source.num_examples)
    assert abs(again(orders(source, epochs)) - mean) < 4 * deviation


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Six hundred images in forty files."""
    place = made.write_tfds(tmp_path_factory.mktemp("large"), count=600, files=40)
    return made.tfds_source.from_tfds("made", data_dir=place)


def reference(n: int, files: int, *, buffer: int, rng: np.random.Generator) -> list[int]:
    """An epoch of the reference's input: files shuffled, 32 read in turn one record each, a buffer to draw from."""
    waiting = [list(part) for part in np.array_split(np.arange(n), files)]
    waiting = [waiting[i] for i in rng.permutation(files)]
    open_, stream = [waiting.pop(0) for _ in range(min(32, files))], []
    while open_:
        for file in list(open_):
            stream.append(file.pop(0))
            if not file:
                place = open_.index(file)
                open_[place : place + 1] = [waiting.pop(0)] if waiting else []
    held, found = stream[:buffer], []
    for record in stream[buffer:]:
        i = rng.integers(buffer)
        found.append(held[i])
        held[i] = record
    return found + [held[i] for i in rng.permutation(len(held))]


def test_where_a_buffer_is_too_small_pairs_return_no_more_often_than_in_the_reference(large, monkeypatch):
    monkeypatch.setattr(sources, "HELD_BYTES", 0)
    rng = np.random.default_rng(0)
    expected = [again(np.array([reference(600, 40, buffer=75, rng=rng) for _ in range(20)])) for _ in range(5)]
    found = again(orders(large, 20, buffer=75))
    assert found < np.mean(expected) + 4 * np.std(expected)
    assert found < 1.6 * of_uniform(20, 600)[0]


def test_files_are_opened_in_another_order_in_each_epoch_and_with_each_seed(large, monkeypatch):
    monkeypatch.setattr(sources, "HELD_BYTES", 0)
    found = set()
    for seed in SEEDS:
        stream = names(large.shuffled(seed, buffer=1).take(2 * 600))
        for epoch in (stream[:600], stream[600:]):
            files = [name.split(b"__")[0] for name in epoch]
            assert len(set(files[:32])) == 32  # one record of each
            found.add(tuple(files[:32]))
    assert len(found) == 2 * len(SEEDS)


def test_a_small_set_is_shuffled_as_a_whole_however_small_the_batch(large):
    mean, deviation = of_uniform(20, 600)
    assert abs(again(orders(large, 20, buffer=1)) - mean) < 4 * deviation


def test_of_many_examples_neighbours_are_as_far_apart_as_in_a_uniform_shuffle(monkeypatch):
    """Their mean distance is a third of all, with a standard deviation of 0.14 / √n or less."""
    monkeypatch.setattr(sources, "PERMUTED", 2**15)  # where TensorFlow's four rounds err most, by 24 deviations
    n = sources.PERMUTED + 3000
    source = Indexed(origin="numbers", num_examples=n, class_names=(), record=lambda index: {"name": index})
    stream = source.shuffled(12345, buffer=1).batch(n).take(2)
    epochs = [batch["name"].numpy() for batch in stream]
    assert all((np.bincount(epoch, minlength=n) == 1).all() for epoch in epochs)
    for before, order in ((np.arange(n), epochs[0]), (epochs[0], epochs[1])):
        place = np.argsort(order)[before]
        distance = np.abs(np.diff(place))
        assert abs(distance.mean() / n - 1 / 3) < 4 * 0.3 / np.sqrt(n)
        near = (distance < 300).mean()
        assert abs(near - 2 * 300 / n) < 4 * np.sqrt(2 * 300 / n / n)


@every_source
def test_no_example_both_votes_and_is_classified(make, kind):
    source, count = make(kind), 20
    if not source.labelled:
        return
    other = make(kind)
    for known, asked in (parts(source, None, count=count, seed=1), parts(source, held_out(other), count=count, seed=1)):
        voters, tested = names(known.ordered()), names(asked.ordered())
        assert not set(voters) & set(tested)
        assert (len(voters), len(tested)) == (known.num_examples, asked.num_examples)
        assert min(known.num_examples, asked.num_examples) > 0


KNOWN = [kind for kind in made.SOURCES if kind != "folder, other targets"]  # whose targets nobody can tell


@pytest.mark.parametrize("kind", KNOWN)
def test_a_source_is_known_again_by_its_content_alone(make, kind, tmp_path_factory):
    """The same images elsewhere are the same; one other pixel, with all names and sizes as they were, is not."""
    elsewhere = made.SOURCES[kind](tmp_path_factory.mktemp("elsewhere"), False)
    assert source_digest(make(kind)) == source_digest(elsewhere)
    assert source_digest(make(kind)) != source_digest(make(kind, True))


def test_no_two_sources_are_taken_for_each_other(make):
    """But for those that hold the same images in another place."""
    kinds = [kind for kind in KNOWN if not kind.endswith(("cached", "on disk"))]
    assert len({source_digest(make(kind)) for kind in kinds}) == len(kinds)


def test_parts_of_one_folder_are_told_apart_by_their_rows(make):
    source = make("folder")
    listed = np.array(names(source.ordered()))
    rows = [np.arange(0, 60, 2), np.arange(1, 60, 2), np.arange(30)]
    found = [source_digest(subsets.of_rows(source, one, names=listed[one])) for one in rows]
    assert len(set(found)) == 3


def test_a_file_written_over_with_its_size_makes_another_source(tmp_path):
    made.write_folder(tmp_path)
    before = source_digest(sources.from_folder(tmp_path))
    path = tmp_path / "class0" / "000.bmp"
    path.write_bytes(made.bmp(made.picture(77)))
    assert source_digest(sources.from_folder(tmp_path)) != before


def held_out(source: Source) -> Source:
    """A third of the same examples, as an overlapping part of a data set is."""
    return Sequential(
        origin="a third",
        num_examples=-(-source.num_examples // 3),
        class_names=source.class_names,
        read=source.read,
        epoch=lambda seed: source.ordered().shard(3, 0),
    )
