"""What several processes or replicas make otherwise than one device is the rounding of sums in another order.

In float64 nothing is left of it.  In float32 it is as large as what comes of the same batches on one device with their
rows in another order, which changes nothing but the order of sums, either.
"""

import importlib.util
import itertools
import os

import numpy as np
import pytest

from tests import tiny_runs
from tests.replicas import tiny
from tests.replicas.forked import Forks, wait
from tests.replicas.test_workers import free_ports
from tf_simclr import replicas

pytestmark = pytest.mark.slow
EXACT = 1e-12
"""Of the largest magnitude, in float64: loss, metrics, gradients, weights after five steps; there was 3e-13."""
LOSS = 1e-5
"""Likewise of losses and their means, in float32, from those of one device with its rows in one of these orders."""
ORDERS = (1, 2, 3, 4, 5, 6)
"""Seeds of other orders of rows.  Weights of five of them end 1e-5 apart after five steps, their losses 1e-6; of one
2e-3 and 2e-5: where two numbers are nearly alike, as in a ReLU or a maximum, rounding decides, and is multiplied."""


def assert_rounding(found: dict[str, np.ndarray], orders: list[dict[str, np.ndarray]]) -> None:
    """What came of several devices in float32 is as near as rounding leaves it: as one device's orders of rows are."""
    # Which way a near tie goes differs between processors: the losses are those of some order, not always of the first.
    losses = [name for name in found if name.startswith(("1/logs", "5/logs")) and "loss" in name]
    apart = [max(float(np.abs(found[name] / one[name] - 1).max()) for name in losses) for one in orders]
    assert min(apart) <= LOSS, apart
    each = [tiny.differences(one, other) for one, other in itertools.combinations(orders, 2)]
    near = [tiny.differences(found, one) for one in orders]
    for kind in near[0]:
        values, most = [one[kind] for one in near], max(one[kind] for one in each)
        assert min(values) <= most, (kind, values, most)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_processes_of_jax(tmp_path):
    def trained(floatx: str, processes: int, *seeds: int) -> dict:
        flags = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "JAX_NUM_PROCESSES": str(processes)}
        name = f"{floatx}-{processes}"
        words = [floatx, name, *seeds]
        members = [
            forks.start(
                words,
                tmp_path / f"{name}.{index}.log",
                folder=tmp_path,
                module="tests.replicas.five_steps",
                JAX_PROCESS_ID=str(index),
                **flags,
            )
            for index in range(processes)
        ]
        assert wait(members, 600)
        assert [member.code for member in members] == [0] * processes, "\n".join(one.said() for one in members)
        return tiny_runs.arrays(tmp_path / f"{name}.npz")

    with Forks("jax") as forks:
        exact, orders = trained("float64", 1), [trained("float32", 1, *ORDERS)]
        orders += [tiny_runs.arrays(tmp_path / f"float32-1-{seed}.npz") for seed in ORDERS]
        for processes in (2, 4):
            found = tiny.differences(trained("float64", processes), exact)
            assert max(found.values()) <= EXACT, (processes, found)
            assert_rounding(trained("float32", processes), orders)


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_of_tensorflow_in_float32(count, monkeypatch):
    """In float64: `test_equality`.  Variances of several replicas are E(x²) − E(x)², which one device does better."""
    with monkeypatch.context() as patched:
        patched.setattr("tf_simclr.models.normalization.replicas.synchronize", lambda: True)
        orders = [
            tiny.trained(replicas.ONE_DEVICE, optimizer="momentum", stream=stream)
            for stream in (tiny.stream, *map(tiny.permuted, ORDERS))
        ]
    devices = replicas.find("mirrored", num_replicas=count)
    assert_rounding(tiny.trained(devices, optimizer="momentum"), orders)
