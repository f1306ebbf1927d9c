"""A run on MLflow, where its package is installed: a server's, or the folder that MLFLOW_TRACKING_URI names."""

import importlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tf_simclr.errors import InputError, check, in_one_line
from tf_simclr.files import read_json, write_json
from tf_simclr.frameworks import imported
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say
from tf_simclr.training.callbacks import read_history

_MOST = 1000
"""Metrics of a request, as much as a server takes."""
_LONGEST = 500
"""Characters of a parameter's value, as much as every version of MLflow takes."""


class MlflowReport(keras.callbacks.Callback):
    """Sends each epoch's line of the history as metrics, the configuration as parameters, and the sheet of pairs.

    MLflow draws the run's id, which is kept in the folder: a resumed run goes on under it, wherever the folder lies.
    What a server does not take in an epoch is said once and sent with the next one that it takes; a training does not
    end for it.

    Args:
        run: whose history is sent; after its line has been written.
        experiment: its name on MLflow; made where it is not there.
        config: what `config.json` holds.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, run: RunFolder, experiment: str, *, config: Mapping):
        super().__init__()
        self.run, self.experiment, self.config = run, experiment, dict(config)
        self.client = imported("mlflow", "--mlflow").MlflowClient()
        self.session: str | None = None
        self.silent = False
        """Whether the server did not take what was sent last."""

    def on_train_begin(self, logs: Any = None) -> None:
        if self.session is not None:  # an epoch that was begun and the whole ones are two calls of `fit`
            return
        try:
            self.session = self._identity()
            self.client.update_run(self.session, status="RUNNING")
        except InputError:
            raise
        except Exception as error:  # of its client, its store and its server
            raise InputError(
                "MLflow must take what is reported (is MLFLOW_TRACKING_URI right?), or leave --mlflow out: "
                f"{in_one_line(error)}"
            ) from error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        try:
            self._send()
        except Exception as error:  # of its client, its store and its server
            if not self.silent:
                why = in_one_line(error)
                say(f"MLflow did not take this epoch's numbers, which are sent with the next ones: {why}")
            self.silent = True
        else:
            self.silent = False

    def finish(self) -> None:
        """Ends the report; what is still to be sent is sent."""
        if self.session is None:
            return
        try:
            self._send()
            self.client.set_terminated(self.session)
        except Exception as error:
            say(f"MLflow did not take the last numbers, which history.csv has: {in_one_line(error)}")

    def _send(self) -> None:
        """Sends the lines of the history behind the last one that was sent, whose step the folder keeps."""
        noted = read_json(self._place)
        rows = [row for row in read_history(self.run) if int(row["step"]) > int(noted.get("sent", -1))]
        metric = importlib.import_module("mlflow.entities").Metric
        now = int(1000 * time.time())
        found = [
            metric(name, float(value), now, int(row["step"]))
            for row in rows
            for name, value in row.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        ]
        for start in range(0, len(found), _MOST):
            self.client.log_batch(self.session, metrics=found[start : start + _MOST])
        if rows:
            write_json(self._place, noted | {"sent": int(rows[-1]["step"])})

    @property
    def _place(self) -> Path:
        """Where the run's id is kept, and how far the history was sent."""
        return self.run.path / "mlflow.json"

    def _identity(self) -> str:
        """The run's id: MLflow's, drawn once, and kept in the folder."""
        path = self._place
        if path.exists():
            name = read_json(path).get("run_id")
            check(isinstance(name, str) and name, f"{path} must hold the run's id", run_id=name)
            return str(name)
        # The experiment by its name, made where it is not there.
        found = self.client.get_experiment_by_name(self.experiment)
        place = self.client.create_experiment(self.experiment) if found is None else found.experiment_id
        name = self.client.create_run(place, run_name=self.run.path.name).info.run_id
        write_json(path, {"run_id": name, "experiment": self.experiment})
        for key, value in self.config.items():
            self.client.log_param(name, key, str(value)[:_LONGEST])
        pairs = self.run.path / "pairs.png"
        if pairs.exists():
            self.client.log_artifact(name, str(pairs))
        return str(name)
