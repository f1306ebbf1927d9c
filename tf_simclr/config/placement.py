"""Knobs of where and in which portions a training is computed; none of them changes what comes out."""

from dataclasses import dataclass
from typing import Literal

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Placement(Checked):
    """The devices and how steps are run on them."""

    strategy: Literal["auto", "one", "mirrored", "multi_worker", "tpu", "data_parallel"] = "auto"
    """Devices that share each step: one; mirrored: all GPUs, else the CPU; multi_worker: the processes of the
    environment variable TF_CONFIG; tpu; data_parallel: all devices of JAX; auto looks and says what it found."""
    num_replicas: int = 0
    """Devices to take; 0: all.  A CPU is divided into as many logical ones."""
    tpu_name: str | None = None
    """Name or grpc address of the TPU, or local, if not what the environment says."""
    tpu_zone: str | None = None
    """Its Google Cloud zone, if not that of this machine."""
    gcp_project: str | None = None
    """Its Google Cloud project, if not that of this machine."""
    steps_per_execution: int = 1
    """Steps between two looks at the metrics; more of them keep accelerators busy."""
    jit_compile: bool | None = None
    """Compile the step with XLA; None: as Keras does, on an accelerator that is alone, and always with JAX."""

    def __post_init__(self):
        super().__post_init__()
        check(self.num_replicas >= 0, "num_replicas must be at least 0", num_replicas=self.num_replicas)
        check(
            self.steps_per_execution >= 1,
            "steps_per_execution must be at least 1",
            steps_per_execution=self.steps_per_execution,
        )
