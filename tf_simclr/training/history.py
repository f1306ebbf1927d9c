"""A line an epoch: what a training has measured."""

import csv
import io
from collections.abc import Callable

import keras

from tf_simclr.errors import InputError
from tf_simclr.files import replacing
from tf_simclr.foreign import reading
from tf_simclr.run_folder import RunFolder
from tf_simclr.training.plan import Plan


class History(keras.callbacks.Callback):
    """One line an epoch in `history.csv`; lines after the step that a run resumes from are dropped."""

    def __init__(self, run: RunFolder, plan: Plan, *, step: int, say: Callable[[str], None] = lambda line: None):
        super().__init__()
        self.run, self.path, self.plan = run, run.history, plan
        try:
            self.rows = [row for row in read_history(run) if row["step"] <= step]
        except InputError as error:
            aside = run.history.with_name("history.damaged.csv")
            run.history.replace(aside)
            say(f"{error}; it is {aside} now, and the history begins anew: the checkpoint suffices to go on")
            self.rows = []

    def on_epoch_end(self, epoch, logs=None):
        self.run.check_there()
        step = min((epoch + 1) * self.plan.steps_per_epoch, self.plan.total_steps)
        rate = self.model.optimizer.learning_rate
        row = {"step": step, "epoch": epoch + 1, **logs, "learning_rate": float(keras.ops.convert_to_numpy(rate))}
        self.rows.append(row)
        text = io.StringIO(newline="")
        # Some numbers are not taken each epoch, and a resumed run may take others: their places stay empty.
        columns = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path, durable=True) as [file]:
            file.write(text.getvalue().encode())


def read_history(run: RunFolder) -> list[dict[str, float]]:
    """The lines of a run's history, numbers all; a line has no entry for what was not measured."""
    if not run.history.exists():
        return []
    with reading(run.history, "the lines of a training", advice="remove it"):
        with open(run.history, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            named = {*(table.fieldnames or ("step", "epoch"))}
            rows = [
                {name: (int if name in ("step", "epoch") else float)(value) for name, value in row.items() if value}
                for row in table
            ]
        if not all(row >= {"step", "epoch"} for row in (named, *(row.keys() for row in rows))):
            raise ValueError("a line has no step or no epoch")
        return rows
