"""`tf-simclr chest explain`: what a model says of radiographs, and why.

For research, not for diagnosis.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_simclr import plots
from tf_simclr.chest.model import explain as explain_image
from tf_simclr.chest.model.card import NOTE
from tf_simclr.chest.model.deployed import Deployed
from tf_simclr.chest.model.explain import Explanation, in_words, laid_over
from tf_simclr.chest.model.opened import opened
from tf_simclr.chest.model.overlay import COLOURS
from tf_simclr.config import ChestExplain, plain
from tf_simclr.data.radiographs.settings import check_findings
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.files.places import shown
from tf_simclr.terminal import say, show


def run(config: ChestExplain) -> None:
    """Explains each image; those that cannot be read are named, and make the command fail at its end.

    Raises:
        InputError: the model or an image cannot be read.
    """
    # 1. The model, once. 2. Each image; one that cannot be read does not keep the others from being explained.
    models = opened(config.model, code=config.encoder)
    names = [model.positive for model in models]
    check_findings([config.finding] if config.finding else [], names)
    refused = []
    for path in config.images:
        try:
            show(explained(config, models, path=path))
        except InputError as error:
            say(str(error))
            refused.append(shown(path.name))
    show(NOTE)
    if refused:
        raise InputError(f"every image must be a radiograph; {len(refused)} were not explained: {', '.join(refused)}")


def explained(config: ChestExplain, models: Sequence[Deployed], *, path: Path) -> str:
    """Writes one image's figure and numbers, and says them in a few lines; the figure is of one finding."""
    # The answers with their maps, the occlusion check, and if asked for the check by shuffled weights.
    every = explain_image.checked_all(models, explain_image.ask_all(models, path, neighbours=config.neighbours))
    names = [model.positive for model in models]
    likeliest = max(range(len(every)), key=lambda number: every[number].verdict.probability)
    chosen = names.index(config.finding) if config.finding else likeliest
    model, found = models[chosen], every[chosen]
    shuffled = explain_image.after_shuffling(model, found, seed=config.seed) if config.shuffle else None
    name = shown(path.name)
    figure = plots.save(draw(model, found, name=name), config.out / f"{path.stem}.png")
    content = {"image": name, **explain_image.numbers(model, found), "after_shuffling": shuffled}
    if len(models) > 1:
        others = [explain_image.numbers(*pair) for pair in zip(models, every, strict=True)]
        content["findings"] = {of["class"]: {key: of[key] for key in _OF_A_FINDING} for of in others}
    write_json(config.out / f"{path.stem}.json", content | {"command": plain(config)})
    lines = [summary(model, found, name=name), *(f"  {doubt}" for doubt in found.doubts)]
    lines += [
        f"  {summary(one, of, name='also')}"
        for number, (one, of) in enumerate(zip(models, every, strict=True))
        if number != chosen
    ]
    return "\n".join([*lines, *_checks(found, shuffled), f"  figure  {figure}"])


_OF_A_FINDING = (
    *("probability", "interval", "interval_means", "calibrated", "measured", "doubts"),
    *("grad_cam", "occlusion", "occlusion_rank_correlation"),
)
"""Numbers of a finding, where a model has several; the others are of the image."""


def summary(model: Deployed, found: Explanation, *, name: str) -> str:
    """The probability in one line."""
    verdict = found.verdict
    interval = f"{100 * verdict.low:.0f}–{100 * verdict.high:.0f} %"
    line = f"{name}: {model.positive} {100 * verdict.probability:.0f} % ({interval})"
    return f"{line}; this may mean nothing" if found.doubts else line


def _checks(found: Explanation, shuffled: dict[str, float] | None) -> list[str]:
    """What the checks of the heat map found, a line each."""
    measured = f"rank correlation {found.correlation:.2f}; " if found.places else ""
    lines = [f"  occlusion: {measured}{in_words(found)}"]
    if shuffled:
        lines += ["  weights shuffled down to: " + ", ".join(f"{name} {r:.2f}" for name, r in shuffled.items())]
    return lines


def draw(model: Deployed, found: Explanation, *, name: str) -> Any:
    """The figure of one image."""
    maps = {
        "as a viewer shows it": found.picture.shown,
        "Grad-CAM: speaks for it": laid_over(model, found, values=found.heat),
        "occlusion: speaks for it": laid_over(model, found, values=found.covered),
    }
    cases = [(c.picture, f"{', '.join(c.findings) or 'no finding'}\n{c.similarity:.2f}") for c in found.cases]
    note = "\n".join([NOTE, *(warning for warning in model.warnings if "made-up" in warning)])
    return plots.explanation(maps, cases, title=summary(model, found, name=name), note=note, colours=COLOURS)
