"""One walk over everything that commands leave of made-up radiographs: each file says so, and no study is beside it."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")
pytest.importorskip("optuna", reason="Optuna is not installed (extra `sweep`)")

from matplotlib.figure import Figure
from matplotlib.text import Text

from tf_simclr import cli
from tf_simclr.chest.model.opened import opened
from tf_simclr.chest.page import html as app_page
from tf_simclr.training.about import known_of

SAYS = re.compile(r"made[ _-]up", re.IGNORECASE)
STUDIES = ("Skluzacek", "Xiao", "82.2,", "CheXNet", "98.8", "71.0 %")
"""Of published studies: names, and numbers that would stand beside ours."""
FIRST = {
    "ready": "chest prepare raw ready --source synthetic --patients 60 --size 32 --workers 1",
    "pre": "pretrain --radiographs ready --model_dir pre --train_steps 2 --resnet_depth 18 --image_size 32 "
    "--train_batch_size 8",
}
NEXT = {
    "tuned": "finetune --radiographs ready --positive Typical_ --checkpoint pre --model_dir tuned --train_steps 2 "
    "--image_size 32 --train_batch_size 8",
    "probed": "linear-eval --radiographs ready --positive Typical_ --checkpoint pre --image_size 32 --cache_dir cache "
    "--result probed/result.json",
    "findings": "chest findings --radiographs ready --checkpoint pre --no-untrained --image_size 32 --l2_strengths 2 "
    "--model_dir findings --cache_dir cache",
    "covid": "chest covid --radiographs ready --checkpoint pre --pixels 32 --image_size 32 --seeds 1 "
    "--no-random_baseline --model_dir covid --cache_dir cache",
    "ards": "chest ards --model_dir ards --image_size 32 --pretrain_steps 2 --pretrain_batch_size 4 --seeds 1 "
    "--finetune_epochs 1 --grid_epochs 1 --grid_learning_rates 0.05 --no-moco --radiographs ready --positive Typical_",
    "exported": "export --checkpoint tuned --to keras --out exported/network.keras",
}
LAST = {
    "evaluated": "chest evaluate --model covid --radiographs ready --out evaluated --permutations 10",
    "of_findings": "chest evaluate --model findings --radiographs ready --out of_findings --permutations 10",
    "explained": "chest explain {image} --model covid --out explained --no-shuffle",
    "of_several": "chest explain {image} --model findings --out of_several --no-shuffle",
}
"""Place → the command that fills it; an underscore at a word's end stands for the class of SIIM's."""
ALONE = ("pre", "covid", "explained", "of_several")
"""Places whose figures are files of their own; the others stand in a page that says it, or show a training."""
SILENT = {
    "config.json": "the command's own words",
    "stage.json": "which stage is whole",
    "data.json": "classes for serving",
    "architecture.json": "layers and widths",
    "history.csv": "a training's curves, of which result.json beside it says it",
    "seen.png": "drawn by Pillow, see test_patients.py",
    "checkpoint.json": "names of files",
}
"""Files that tell no result, and what they tell."""


def words(line: str, **places: str) -> list[str]:
    return [word.replace("Typical_", "Typical Appearance") for word in line.format(**places).split()]


@pytest.mark.slow
def test_everything_that_is_left_of_made_up_radiographs_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn: list[tuple[str, str]] = []
    doing = [""]
    real = Figure.savefig

    def savefig(figure, where, *arguments, **options):
        drawn.append((doing[0], " ".join(one.get_text() for one in figure.findobj(Text))))
        return real(figure, where, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    said = {}
    for place, line in (FIRST | NEXT).items():
        doing[0] = place
        cli.execute(words(line))
        said[place] = "".join(capsys.readouterr())
    image = str(next(Path("raw/train").rglob("*.dcm")))
    for place, line in LAST.items():
        doing[0] = place
        cli.execute(words(line, image=image))
        said[place] = "".join(capsys.readouterr())
    for run in ("covid", "findings"):
        models = opened(tmp_path / run)
        said[f"page of {run}"] = app_page.document(models, max_bytes=1)
    for run in ("pre", "tuned"):
        said[f"card of {run}"] = json.dumps(known_of(tmp_path / run))
    texts = dict(said)
    for path in sorted(tmp_path.rglob("*")):
        inside = path.relative_to(tmp_path)
        # Pixels, features, fits, trials of a search and a stage's answers: what the results beside them are made of.
        kept = inside.parts[0] in ("raw", "cache") or {"fits", "search"} & set(inside.parts)
        kept = kept or (inside.parts[0] == "ards" and path.name in ("test.json", "validation.json"))
        if kept or path.name in SILENT or not path.is_file():
            continue
        if path.suffix in (".json", ".csv", ".html", ".md", ".txt", ".jsonl"):
            texts[inside.as_posix()] = path.read_text()
    quiet = sorted(name for name, text in texts.items() if not SAYS.search(text))
    figures = sorted(text for place, text in drawn if place in ALONE and not SAYS.search(text))
    assert {place for place, _ in drawn} >= set(ALONE)
    beside = sorted((name, study) for name, text in texts.items() for study in STUDIES if study in text)
    assert (quiet, figures, beside) == ([], [], [])
