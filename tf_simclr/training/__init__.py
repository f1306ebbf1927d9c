"""Training that can be stopped at any moment and goes on as if it had not been."""

from tf_simclr.replicas import steps_done
from tf_simclr.training.callbacks import Plan, read_history
from tf_simclr.training.loop import Feed, train

__all__ = ["Feed", "Plan", "read_history", "steps_done", "train"]
