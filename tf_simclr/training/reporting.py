"""Where a training's numbers go besides the disk, as its options ask."""

from typing import Any

from tf_simclr.files import read_json
from tf_simclr.frameworks import imported
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import mlflow_runs, weights_and_biases


def check_reports(config: Any) -> None:
    """Refuses to report by a package that is not installed, before anything is written.

    Args:
        config: with `wandb` and `mlflow`.

    Raises:
        InputError: so it is.
    """
    for package in ("wandb", "mlflow"):
        if getattr(config, package) is not None:
            imported(package, f"--{package}")


def reports(config: Any, run: RunFolder) -> list[Any]:
    """The callbacks that report, to be told of the end by `finish()`; of several processes the chief has them."""
    kinds: dict[str, Any] = {"wandb": weights_and_biases.Report, "mlflow": mlflow_runs.MlflowReport}
    asked = {name: place for name in kinds if (place := getattr(config, name)) is not None}
    return [kinds[name](run, place, config=read_json(run.config)) for name, place in asked.items()]
