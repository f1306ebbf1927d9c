"""`tf-simclr sweep`: a search over the knobs of another command.

A trial is a combination of values: it has one folder, is finished once, and goes on there when the search was stopped
within it (`search.trials`).  Which combination comes next depends on the seed and on the results so far, not on where
the search was stopped (`search.proposals`).  What the numbers may be taken for: `search.plan`.
"""

from typing import Any

from tf_simclr import plots
from tf_simclr.commands.search.plan import Trial, check_plan, metric_of, note_plan, on_test, splits_of
from tf_simclr.commands.search.proposals import best_of
from tf_simclr.commands.search.trials import describe, final_folder, last, search
from tf_simclr.config import Sweep, plain
from tf_simclr.files import write_json
from tf_simclr.terminal import say, show


def run(config: Sweep) -> None:
    """Searches as configured, then runs the best trial once on the test images, and prints one table."""
    # 1. What is asked for: a plan that can be run, and what its trials would look at.
    check_plan(config)
    splits = splits_of(config)
    if splits.tests or splits.learned:
        say(splits.note(looks=0, folder=""))

    # 2. The folder: begun now, or begun with the same plan earlier.
    config.model_dir.mkdir(parents=True, exist_ok=True)
    note_plan(config)

    # 3. The trials, those that lie there counted; the best one is trained and tested last, once.
    trials = search(config)
    best = best_of(config, trials)
    final, looks = last(config, best.params) if config.final else (None, 0)

    # 4. What is left: the numbers, the figure, and last the screen.
    note = splits.note(looks=looks, folder=final_folder(looks))
    write_json(
        config.model_dir / "result.json",
        {
            "command": plain(config),
            "best": best.params,
            "trial": best.number,
            metric_of(config): best.value,
            "failed": [trial.params for trial in trials if trial.value is None],
            "chosen_on": splits.compared,
            "looks_at_test_images": looks + sum(on_test(config, trial) for trial in trials),
            "note": note,
            "final": final,
        },
    )
    picture = plots.save(_figure(config, trials), config.model_dir / "sweep.png")
    show(table(config, trials) + f"\n{note}")
    show(f"figure  {picture}\ntable   {config.model_dir / 'trials.csv'}")


def table(config: Sweep, trials: list[Trial]) -> str:
    """The trials, the best first, equal ones in the order of the grid."""
    left = [trial for trial in trials if trial.value is not None]
    ordered = []
    while left:
        ordered.append(best_of(config, left))
        left.remove(ordered[-1])
    lines = [f"{metric_of(config):>16}  knobs"]
    lines += [f"{trial.value:>16.4f}  {describe(trial.params)}" for trial in ordered[:20]]
    lines += [f"… and {len(ordered) - 20} more"] if len(ordered) > 20 else []
    failed = [trial for trial in trials if trial.value is None]
    lines += [f"{'failed':>16}  {describe(trial.params)}" for trial in failed[:5]]
    lines += [f"… and {len(failed) - 5} more have failed"] if len(failed) > 5 else []
    return "\n".join(lines)


def _figure(config: Sweep, trials: list[Trial]) -> Any:
    """The metric against each knob."""
    # Failed ones have no place in the figure.
    finished = [trial for trial in trials if trial.value is not None]
    values = {name: [trial.params[name] for trial in finished] for name in config.search}
    return plots.search(values, [float(trial.value or 0) for trial in finished], metric=metric_of(config))
