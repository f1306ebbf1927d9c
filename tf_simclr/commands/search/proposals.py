"""Which combination of values comes next: a function of the plan, the seed and the results so far."""

import math
import random
from collections.abc import Iterator
from typing import Any

from tf_simclr.commands.search.plan import Trial, Values, key
from tf_simclr.config import Sweep


def _size(config: Sweep) -> int:
    """How many combinations there are."""
    return math.prod(map(len, config.search.values()))


def count(config: Sweep) -> int:
    """How many trials are wanted."""
    wanted = config.trials or (_size(config) if config.method == "grid" else 20)
    return min(wanted, _size(config))


def combination(config: Sweep, index: int) -> Values:
    """The combination at a place of the grid, whose last knob changes first."""
    chosen = []
    # The last knob changes first, as digits do.
    for values in reversed(config.search.values()):
        index, at = divmod(index, len(values))
        chosen.append(values[at])
    return dict(zip(config.search, reversed(chosen), strict=True))


def _in_order(config: Sweep) -> Iterator[int]:
    """Places of the grid without repetition: as they come, or shuffled by the seed, however many are taken.

    The shuffle is Fisher and Yates' with the exchanged places alone in memory, since a grid may be huge.
    """
    draw, total = random.Random(config.seed), _size(config)
    moved: dict[int, int] = {}
    for i in range(total):
        j = i if config.method == "grid" else draw.randrange(i, total)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)


def done(trials: dict[str, Trial]) -> set[str]:
    """The combinations that have a result."""
    return {name for name, trial in trials.items() if trial.value is not None}


def proposed(config: Sweep, trials: dict[str, Trial], *, new: set[str]) -> Values:
    """The next combination that has no result, and has not been tried since the command was started."""
    out = new | done(trials)
    if config.method == "tpe":
        # In a fixed order, as the estimators hang on it.
        params = _by_estimators(config, [trials[name] for name in sorted(done(trials))], taken=len(out))
        # One that is there already: the next of a shuffle instead.
        if key(params) not in out:
            return params
    rest = (combination(config, index) for index in _in_order(config))
    return next(params for params in rest if key(params) not in out)


def _by_estimators(config: Sweep, finished: list[Trial], *, taken: int) -> Values:
    """Where Parzen estimators expect most, by Optuna: a function of the seed, the results, and how many are taken."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Values go by their places, since Optuna knows no lists.
    ranges: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(range(len(values))) for name, values in config.search.items()
    }
    # A seed for each trial, whatever ran before it.
    seed = random.Random(f"{config.seed} {taken}").getrandbits(32)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for trial in finished:
        places = dict(zip(config.search, place(config, trial), strict=True))
        study.add_trial(optuna.trial.create_trial(params=places, distributions=ranges, value=trial.value))
    places = study.ask(ranges).params
    return {name: values[places[name]] for name, values in config.search.items()}


def place(config: Sweep, trial: Trial) -> list[int]:
    """Where each of a trial's values stands in the search."""
    return [list(map(key, values)).index(key(trial.params[name])) for name, values in config.search.items()]


def best_of(config: Sweep, trials: list[Trial]) -> Trial:
    """The largest metric; of equal ones the first combination of the grid, in whatever order they were run."""
    finished = [trial for trial in trials if trial.value is not None]
    # Of equal ones by place, so that the order of running decides nothing.
    return min(finished, key=lambda trial: (-float(trial.value or 0), place(config, trial)))
