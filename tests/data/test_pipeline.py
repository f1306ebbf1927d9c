"""Streams: the same batches wherever a run starts, corrupt images or not."""

import numpy as np
import pytest
import tensorflow as tf

from tests.data import oracles
from tests.data.test_sources import store_tiny
from tf_simclr.data import augment, images, pipeline, sources, subsets, tfds_source
from tf_simclr.errors import InputError

COUNT = 20
BAD = {3: "truncated", 8: "empty", 13: "text"}


@pytest.fixture
def folder(tmp_path):
    """Twenty images in four classes, three of which are damaged in different ways."""
    for i in range(COUNT):
        path = tmp_path / f"class{i % 4}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        data = tf.io.encode_png(np.full((40, 36, 3), 10 * i, np.uint8)).numpy()
        path.write_bytes({"truncated": data[:60], "empty": b"", "text": b"no image"}.get(BAD.get(i), data))
    return tmp_path


def bad_names(folder) -> list[str]:
    return sorted(str(folder / f"class{i % 4}" / f"{i:02}.png") for i in BAD)


def batches(source, count: int, unreadable=None, **options):
    options = {"batch_size": 8, "image_size": 32, "seed": 5} | options
    stream = pipeline.training_views(
        source, unreadable=pipeline.Unreadable() if unreadable is None else unreadable, **options
    )
    return [tuple(part.numpy() for part in batch) for batch in stream.take(count)]


def value(image, seed):
    """A tenth of the grey of an image of `folder`: its number."""
    return tf.cast(tf.round(image[0, 0, 0] * 25.5), tf.int32)


def plain_batches(source, count: int, unreadable=None, view=value, **options):
    """Batches without augmentation."""
    unreadable = pipeline.Unreadable() if unreadable is None else unreadable
    options = {"batch_size": 8, "buffer": 16, "seed": 5} | options
    stream = pipeline.training_batches(source, view, unreadable=unreadable, **options)
    return [tuple(part.numpy() for part in batch) for batch in stream.take(count)]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def drawn(image, seed):
    """As small as a view can be that depends on its image and its seed."""
    return image[0, 0] + tf.random.stateless_uniform((3,), seed)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("start", [1, 2, 5])  # 2.5 batches are one epoch
def test_a_run_resumed_at_any_step_sees_bit_equal_batches(folder, start, cache):
    source = sources.from_folder(folder)
    straight = plain_batches(source, 7, view=drawn, cache=cache)
    tf.random.set_seed(99)
    assert_equal(plain_batches(source, 7 - start, view=drawn, start_step=start, cache=cache), straight[start:])


@pytest.mark.parametrize("size", [32, pytest.param(augment.COMPILED_FROM, marks=pytest.mark.slow)])
def test_the_two_views_of_a_resumed_run_are_bit_equal(folder, size):
    source = sources.from_folder(folder)
    straight = batches(source, 4, image_size=size)
    tf.random.set_seed(99)
    assert_equal(batches(source, 2, start_step=2, image_size=size), straight[2:])


def test_resuming_reads_nothing_of_what_came_before():
    read = set()

    def noted(index):
        read.add(int(index))
        return np.zeros((2, 2, 3), np.uint8)

    source = sources.Indexed(
        origin="numbers",
        num_examples=5000,
        class_names=(),
        record=lambda index: {"image": index, "name": tf.strings.as_string(index)},
        read=lambda index: tf.ensure_shape(tf.numpy_function(noted, [index], tf.uint8), (2, 2, 3)),
    )
    order = [int(record["name"]) for record in source.shuffled(5, buffer=1).take(5000).as_numpy_iterator()]
    plain_batches(source, 1, start_step=300)
    assert set(order[2400:2408]) <= read
    assert not set(order[:2400]) & (read - {0})  # the first one is read to see whether any can be


def test_batches_have_static_shapes_and_two_views(folder):
    source = sources.from_folder(folder)
    stream = pipeline.training_views(source, batch_size=8, image_size=48, seed=0, unreadable=pipeline.Unreadable())
    views, labels = stream.element_spec
    assert (views.shape, views.dtype, labels.shape, labels.dtype) == ((8, 2, 48, 48, 3), tf.float32, (8,), tf.int64)


def test_without_labels_batches_hold_views_alone(folder):
    (batch,) = batches(sources.from_folder(folder, labelled=False), 1)
    assert len(batch) == 1


def test_corrupt_images_are_replaced_named_and_leave_every_other_place_as_it_was(folder):
    unreadable = pipeline.Unreadable()
    found = plain_batches(sources.from_folder(folder), 10, unreadable)
    for i in BAD:
        path = folder / f"class{i % 4}" / f"{i:02}.png"
        path.write_bytes(tf.io.encode_png(np.full((40, 36, 3), 10 * i, np.uint8)).numpy())
    whole = plain_batches(sources.from_folder(folder), 10)
    values, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    expected = np.concatenate([batch[0] for batch in whole])
    damaged = np.isin(expected, list(BAD))
    assert damaged.sum() == 10 * 8 // COUNT * len(BAD)
    np.testing.assert_array_equal(values[~damaged], expected[~damaged])
    assert not np.isin(values, list(BAD)).any()
    np.testing.assert_array_equal(labels, values % 4)
    assert len(set(values[damaged])) > 3  # not always the same stand-in
    assert unreadable.names == bad_names(folder)
    assert unreadable.report().startswith("3 unreadable images were skipped:\n")


def test_targets_of_several_parts_follow_their_images_where_some_are_corrupt(folder):
    source = sources.from_folder(folder)
    both = lambda record: {"label": record["label"], "name": tf.strings.substr(record["name"], -6, 2)}  # noqa: E731
    stream = pipeline.training_batches(
        subsets.with_targets(source, both), value, batch_size=8, buffer=16, seed=5, unreadable=pipeline.Unreadable()
    )
    for values, targets in stream.take(5):
        np.testing.assert_array_equal(targets["label"], values.numpy() % 4)
        np.testing.assert_array_equal(targets["name"].numpy().astype(int), values)


def test_a_batch_of_which_no_image_can_be_read_is_replaced(folder):
    found = plain_batches(sources.from_folder(folder), COUNT, batch_size=1)
    assert not set(BAD) & {int(values[0]) for values, _ in found}
    assert len(found) == COUNT


def test_an_image_that_vanishes_during_training_is_skipped_and_named(folder):
    source = sources.from_folder(folder)
    unreadable = pipeline.Unreadable()
    stream = pipeline.training_views(source, batch_size=4, image_size=32, seed=0, unreadable=unreadable)
    gone = folder / "class0" / "00.png"
    gone.unlink()
    for _ in stream.take(2 * COUNT // 4):
        pass
    assert str(gone) in unreadable.names


@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_sees_every_readable_image_and_batches_cross_its_edge(cache):
    source = sources.from_arrays(np.arange(10, dtype=np.uint8).repeat(4).reshape(10, 2, 2) * 10)
    found = np.concatenate([batch[0] for batch in plain_batches(source, 5, batch_size=4, cache=cache)])
    assert sorted(found[:10]) == sorted(found[10:]) == list(range(10))


def test_the_same_image_is_augmented_anew_in_each_epoch():
    source = sources.from_arrays(oracles.synth(40, 40, 0)[None])
    (first,), (second,) = batches(source, 2, batch_size=1)
    assert np.abs(first - second).mean() > 0.01


def test_another_seed_gives_another_order_and_other_draws():
    source = sources.from_arrays(np.zeros((20, 2, 2), np.uint8), np.arange(20))
    (one,), (other,) = (plain_batches(source, 1, view=drawn, seed=seed) for seed in (5, 6))
    assert not np.array_equal(one[1], other[1])
    assert np.abs(one[0] - other[0]).mean() > 0.1


def test_tfds_streams_resume_as_well(tmp_path):
    store_tiny(tmp_path)
    source = tfds_source.from_tfds("tiny", data_dir=tmp_path)
    straight = plain_batches(source, 9, view=drawn)
    for start in (3, 4):  # 3.75 batches are one epoch
        assert_equal(plain_batches(source, 9 - start, view=drawn, start_step=start), straight[start:])


def test_the_buffer_is_the_references():
    assert pipeline.buffer_size(64, image_size=32) == 3200
    assert pipeline.buffer_size(64, image_size=33) == 640


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"batch_size": 21}, r"must hold enough images for one batch.*images=20, batch_size=21"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"start_step": -1}, "start_step must be at least 0"),
        ({"data_service": "somewhere"}, "data_service must be the dispatcher's host:port"),
        ({"data_service": "a..b:80"}, "data_service must be the dispatcher's host:port"),
        ({"data_service": "localhost:1"}, "must listen at data_service. Received: localhost:1"),
        ({"data_service": "localhost:1", "cache": True}, "workers of data_service cannot share a cache"),
    ],
)
def test_streams_that_cannot_be_are_refused(folder, options, rule):
    with pytest.raises(InputError, match=rule):
        batches(sources.from_folder(folder), 1, **options)


def test_a_folder_without_a_readable_image_is_refused(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    source = sources.from_folder(tmp_path)
    for stream in (pipeline.training_views, pipeline.evaluation_batches):
        options = {"seed": 0} if stream is pipeline.training_views else {}
        with pytest.raises(InputError, match="must be readable, but none of 4 is"):
            stream(source, batch_size=2, image_size=32, unreadable=pipeline.Unreadable(), **options)


def test_evaluation_shows_every_readable_image_once_in_order(folder):
    unreadable = pipeline.Unreadable()
    source = sources.from_folder(folder)
    found = list(pipeline.evaluation_batches(source, batch_size=8, image_size=48, unreadable=unreadable))
    assert [len(labels) for _, labels, _ in found] == [8, 8, 1]
    shown = [name.decode() for _, _, names in found for name in names.numpy()]
    everything = [record["name"].numpy().decode() for record in source.ordered()]
    assert shown == [name for name in everything if name not in bad_names(folder)]
    assert unreadable.names == bad_names(folder)
    for name, image, label in zip(
        shown, np.concatenate([b[0] for b in found]), np.concatenate([b[1] for b in found]), strict=True
    ):
        picture = images.decode(tf.io.read_file(name))
        np.testing.assert_array_equal(image, images.evaluation_view(picture, size=48))
        assert f"class{label}" in name


def test_evaluation_without_labels_says_minus_one(folder):
    source = sources.from_folder(folder, labelled=False)
    ((_, labels, _),) = pipeline.evaluation_batches(
        source, batch_size=50, image_size=32, unreadable=pipeline.Unreadable()
    )
    assert set(labels.numpy()) == {-1}


def test_a_long_report_names_some_and_counts_the_rest():
    unreadable = pipeline.Unreadable()
    assert unreadable.report() == ""
    for i in (3, 1, 2, 1):
        unreadable.add(f"{i}.png".encode())
    assert unreadable.report(limit=2) == "3 unreadable images were skipped:\n  1.png\n  2.png\n  … and 1 more"


@pytest.fixture(scope="module")
def dispatcher():
    """Address of tf.data's service with two workers, as they run on other machines."""
    service = tf.data.experimental.service
    head = service.DispatchServer(service.DispatcherConfig(port=0))
    address = head.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
    yield address
    del workers, head


@pytest.mark.slow
def test_two_workers_of_the_data_service_make_the_batches_of_one_process(folder, dispatcher):
    source = sources.from_folder(folder)
    alone = batches(source, 24)
    served = batches(source, 12, data_service=dispatcher)
    places = [[i for i, (views, _) in enumerate(alone) if np.array_equal(views, batch[0])] for batch in served]
    assert all(len(found) == 1 for found in places), places
    numbers = [found[0] for found in places]
    assert len(set(numbers)) == 12
    for place, batch in zip(numbers, served, strict=True):
        np.testing.assert_array_equal(batch[1], alone[place][1])
    resumed = batches(source, 4, data_service=dispatcher, start_step=8)
    for views, _ in resumed:
        assert any(np.array_equal(views, later) for later, _ in alone[8:])


@pytest.mark.slow
def test_workers_read_whole_epochs_of_a_sequential_source(tmp_path, dispatcher):
    store_tiny(tmp_path)
    source = tfds_source.from_tfds("tiny", data_dir=tmp_path)
    epochs = 2
    stream = pipeline.training_batches(
        source,
        lambda image, seed: image[0, 0],
        batch_size=source.num_examples // 2,
        buffer=16,
        seed=5,
        unreadable=pipeline.Unreadable(),
        data_service=dispatcher,
    )
    found = [tuple(label.numpy()) for _, label in stream.take(2 * epochs)]
    assert len(found) == 2 * epochs


def test_without_a_fixed_order_batches_hold_the_same_examples():
    source = sources.from_arrays(np.arange(20, dtype=np.uint8).repeat(4).reshape(20, 2, 2) * 10)
    ordered, found = (
        [tuple(sorted(batch[0])) for batch in plain_batches(source, steps, batch_size=4, deterministic=fixed)]
        for steps, fixed in ((30, True), (5, False))
    )
    assert set(found) <= set(ordered)  # a batch may overtake another, an example none of another batch
    assert len(set(found)) == 5


@pytest.mark.parametrize("start_step", [0, 2])
def test_the_shares_of_processes_are_the_rows_of_the_batches_of_one(folder, start_step):
    source = sources.from_folder(folder)
    unreadable = [pipeline.Unreadable(), pipeline.Unreadable()]
    whole = plain_batches(source, 4, start_step=start_step)
    parts = [
        plain_batches(source, 4, unreadable[number], start_step=start_step, share=(number, 2)) for number in (0, 1)
    ]
    joined = [tuple(np.concatenate(pair) for pair in zip(*both, strict=True)) for both in zip(*parts, strict=True)]
    assert_equal(joined, whole)
    assert {name for one in unreadable for name in one.names} == set(bad_names(folder))


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 3)])
def test_a_share_that_there_is_not_is_refused(folder, share):
    with pytest.raises(InputError, match=r"share must be|multiple of the processes"):
        plain_batches(sources.from_folder(folder), 1, share=share)


def test_no_stream_has_the_thread_that_tunes_it(folder):
    """Whoever drops an iterator waits for that thread, a minute at worst."""
    source = sources.from_folder(folder)
    common = {"image_size": 32, "unreadable": pipeline.Unreadable()}
    stream = pipeline.Stream(batch_size=8, seed=5, buffer=16)
    arrays = sources.from_arrays(np.zeros((20, 32, 32, 3), np.uint8))
    streams = {
        "one image after the other": pipeline.training_views(source, stream=stream, **common),
        "of a cache": pipeline.training_views(source, batch_size=8, seed=5, cache=True, **common),
        "a batch at a time": pipeline.training_views(arrays, stream=stream, **common),
        "packed": pipeline.packed_views(source, stream=stream, **common),
        "one view": pipeline.single_views(source, stream=stream, **common),
        "evaluation": pipeline.evaluation_batches(source, batch_size=8, **common),
    }
    for name, batches in streams.items():
        next(iter(batches))
        assert batches.options().autotune.enabled is False, name
        assert batches.options().threading.max_intra_op_parallelism == 1, name
