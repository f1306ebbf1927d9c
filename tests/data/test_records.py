"""One record of many is read where it lies: equal to what was written, at the cost of itself."""

from pathlib import Path

import pytest
import tensorflow as tf

from tf_simclr.data.kept.records import reader

COUNT, SIZE = 40, 100_000


@pytest.fixture
def folder(tmp_path):
    for shard in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f"records-{shard:05}.tfrecord")) as writer:
            for i in range(COUNT // 2):
                number = shard * COUNT // 2 + i
                writer.write(bytes([number]) * (SIZE + number))
    return tmp_path


def test_each_record_is_the_one_that_was_written(folder):
    encoded = reader(folder)
    for number in (0, 1, 19, 20, 39, 7):
        assert encoded(tf.constant(number, tf.int64)).numpy() == bytes([number]) * (SIZE + number)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's count of what a process has read")
def test_the_last_record_of_a_file_costs_no_more_than_the_first(folder):
    encoded = tf.function(reader(folder))

    def read(number: int) -> int:
        def count() -> int:
            return int(Path("/proc/self/io").read_text().split()[1])  # rchar: bytes that were asked for

        encoded(tf.constant(number, tf.int64))
        before = count()
        encoded(tf.constant(number, tf.int64))
        return count() - before

    assert SIZE <= read(0) < 3 * SIZE
    assert SIZE <= read(19) < 3 * SIZE
