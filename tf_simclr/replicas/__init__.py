"""Replicas: the one place that knows how many devices and processes there are, and how they work together.

`find` says which devices there are; a model is made within their `scope()` and trained by their `fit`.
`FitOnReplicas` is what such a model needs, `count`, `index` and `gather` what is computed within a step.  On one device
all of this does nothing.
"""

from tf_simclr.replicas.devices import (
    ALONE,
    NORMALISED_ALONE,
    ONE_DEVICE,
    Devices,
    check_several,
    count,
    even,
    gather,
    in_twos,
    index,
    several,
    synchronize,
    told,
    total,
)
from tf_simclr.replicas.find import accelerated, find
from tf_simclr.replicas.fitting import FitOnReplicas, evenly, given_back, settle, steps_done
from tf_simclr.replicas.processes import alone, rows_here

__all__ = [
    "ALONE",
    "NORMALISED_ALONE",
    "ONE_DEVICE",
    "Devices",
    "FitOnReplicas",
    "accelerated",
    "alone",
    "check_several",
    "count",
    "even",
    "evenly",
    "find",
    "gather",
    "given_back",
    "in_twos",
    "index",
    "rows_here",
    "settle",
    "several",
    "steps_done",
    "synchronize",
    "told",
    "total",
]
