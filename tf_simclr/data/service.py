"""Views made by other machines: tf.data's service, for input that outgrows one host."""

import socket

import tensorflow as tf

from tf_simclr.data.sources import Indexed, Records, Source, in_graph
from tf_simclr.errors import InputError, check

_ENDLESS = 2**62
_PATIENCE = 10.0
"""Seconds for a dispatcher to answer; TensorFlow itself would try for an hour."""


def shared_out(source: Source, seed: int, *, batch_size: int, start_step: int, buffer: int) -> Records:
    """The stream of numbered records `(position, record)` in pieces, each of which one worker takes as a whole.

    A piece is a batch where a source can be read anywhere, so that every batch is that of a run without the service; it
    is an epoch where a source is read front to back, and then a resumed run begins with the epoch it was in.
    """
    size = batch_size if isinstance(source, Indexed) else source.num_examples

    @in_graph
    def piece(number: tf.Tensor) -> Records:
        start = number * size
        records = source.shuffled(seed, start=start, buffer=buffer).take(size)
        return tf.data.Dataset.zip((tf.data.Dataset.range(start, start + size), records))

    return tf.data.Dataset.range(start_step * batch_size // size, _ENDLESS).flat_map(piece)


def distributed(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The batches, made by the workers of the dispatcher at `host:port`, in the order in which they come.

    Raises:
        InputError: nobody answers there.
    """
    address = address.removeprefix("grpc://")
    _check_answers(address)
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    return batches.apply(tf.data.experimental.service.distribute(policy, f"grpc://{address}"))


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    check(host and port.isdecimal(), "data_service must be the dispatcher's host:port", data_service=address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(
            f"a dispatcher of tf.data's service must listen at data_service. Received: {address} ({error})"
        ) from error
