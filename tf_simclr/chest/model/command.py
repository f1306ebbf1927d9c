"""`tf-simclr chest explain`: what a model says of radiographs, and why.

For research, not for diagnosis.
"""

from pathlib import Path
from typing import Any

from tf_simclr import plots
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model import explain as explain_image
from tf_simclr.chest.model.deployed import NOTE, Deployed
from tf_simclr.chest.model.explain import Explanation, in_words, laid_over
from tf_simclr.chest.model.overlay import COLOURS
from tf_simclr.config import ChestExplain, plain
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.terminal import say, show


def run(config: ChestExplain) -> None:
    """Explains each image; those that cannot be read are named, and make the command fail at its end.

    Raises:
        InputError: the model or an image cannot be read.
    """
    # 1. The model, once. 2. Each image; one that cannot be read does not keep the others from being explained.
    model = deployed.load(config.model, code=config.encoder)
    refused = []
    for path in config.images:
        try:
            show(explained(config, model, path=path))
        except InputError as error:
            say(str(error))
            refused.append(path.name)
    show(NOTE)
    if refused:
        raise InputError(f"every image must be a radiograph; {len(refused)} were not explained: {', '.join(refused)}")


def explained(config: ChestExplain, model: Deployed, *, path: Path) -> str:
    """Writes one image's figure and numbers, and says them in a few lines."""
    # The answer with its map, the occlusion check, and if asked for the check by shuffled weights.
    found = explain_image.checked(model, explain_image.ask(model, path, neighbours=config.neighbours))
    shuffled = explain_image.after_shuffling(model, found, seed=config.seed) if config.shuffle else None
    figure = plots.save(draw(model, found, name=path.name), config.out / f"{path.stem}.png")
    content = {"image": path.name, **explain_image.numbers(model, found), "after_shuffling": shuffled}
    write_json(config.out / f"{path.stem}.json", content | {"command": plain(config)})
    lines = [summary(model, found, name=path.name), *(f"  {doubt}" for doubt in found.doubts)]
    return "\n".join([*lines, *_checks(found, shuffled), f"  figure  {figure}"])


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
    return plots.explanation(maps, cases, title=summary(model, found, name=name), note=NOTE, colours=COLOURS)
