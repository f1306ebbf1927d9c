"""What physicians read: one explanation as HTML that holds its pictures in itself and asks nobody for anything.

Every text is escaped: file names, class names and cards are other people's.
"""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from tf_simclr.chest.model.card import NOTE
from tf_simclr.chest.model.cases import Case
from tf_simclr.chest.model.deployed import Deployed
from tf_simclr.chest.model.explain import Explanation, in_words, map_alone
from tf_simclr.chest.model.overlay import data_uri

STYLE = files("tf_simclr.chest.page").joinpath("page.css").read_text()
SCRIPT = files("tf_simclr.chest.page").joinpath("page.js").read_text()
VIEWER = files("tf_simclr.chest.page").joinpath("viewer.js").read_text()
_PRIVACY = "Your file is read in the memory of the machine that runs this page, and is gone with its answer. "
_PRIVACY += "Nothing is stored or sent on."
_FEW = 0.1
"""Half-width of an interval of AUC above which few patients were tested."""


def document(models: Sequence[Deployed], *, max_bytes: int) -> str:
    """The whole page, without an answer; `page.js` fills it.

    Args:
        models: the model, a part for each finding.
        max_bytes: of a file; larger ones are not sent.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(NOTE)}</title>"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="page.css">'
        '<script src="viewer.js" defer></script><script src="page.js" defer></script></head><body>'
        f'<div class="note" role="note"><strong>{escape(NOTE)}</strong></div>'
        f'<main class="page">{_banner(models)}{drop(max_bytes)}'
        '<p id="said" role="status" class="unseen"></p>'
        f'<section id="result" aria-label="Answer"></section>{_LOOK}{FILES}{card(models)}'
        '<p id="printed"></p></main></body></html>'
    )


def _banner(models: Sequence[Deployed]) -> str:
    """What the page is, and what it tells."""
    names = [model.positive for model in models]
    title = str(models[0].about["card"].get("title", ", ".join(names)))
    intro = f"It tells {_listed(names)}. Drop frontal chest radiographs below. {_PRIVACY}"
    made_up = [warning for warning in models[0].warnings if "made-up" in warning]
    warned = "".join(f'<p class="warn">{escape(warning)}</p>' for warning in made_up)
    return f'<h1>{escape(title)}</h1>{warned}<p class="intro">{escape(intro)}</p>'


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
        >>> _listed(["a"]), _listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def drop(max_bytes: int) -> str:
    """Where a file is dropped, or chosen by a click or the keyboard."""
    return (
        f'<label id="drop" data-bytes="{max_bytes}"><input type="file" id="file" multiple>'
        f"<span><strong>Choose radiographs</strong> or drop them here: DICOM, PNG or JPEG files of at most "
        f"{max_bytes >> 20} MB each</span></label>"
        "<noscript><p>This page needs JavaScript, which is its own and asks no other machine.</p></noscript>"
    )


_LOOK = (
    '<div id="viewer" hidden><div class="stage" tabindex="0" role="img" aria-label="The radiograph">'
    "<canvas></canvas>"
    + "".join(f'<span class="side {place}" aria-hidden="true"></span>' for place in ("left", "right", "top", "bottom"))
    + '<span class="view" aria-hidden="true"></span></div><p class="header small"></p><div class="controls">'
    '<label>Map <input type="range" name="opacity" min="0" max="100" value="60"></label>'
    '<label>Zoom <input type="range" name="zoom" min="0" max="5" step="0.05" value="0"></label>'
    '<label>Window <input type="range" name="width" min="0.5" max="200" step="0.5"></label>'
    '<label>Level <input type="range" name="level" min="0" max="100" step="0.5"></label>'
    '<label><input type="checkbox" name="invert"> Invert</label>'
    '<button type="button" class="reset">Reset</button></div>'
    '<details class="small"><summary>Mouse, fingers and keys</summary><p>Drag to move, with Shift or the right button '
    "to set window (across) and level (down); turn the wheel or spread two fingers to zoom. Keys, when the picture has "
    "the focus: arrows move, + and − zoom, [ and ] narrow and widen the window, comma and full stop lower and raise "
    "the level, i inverts, m hides and shows the map, 0 resets.</p></details></div>"
)
"""The viewer, which `viewer.js` moves into each answer."""
FILES = (
    '<section id="files" class="box" hidden><h2>Files of this visit</h2><table><thead><tr><th scope="col">File</th>'
    '<th scope="col">Probability</th><th scope="col">Interval</th><th scope="col">Remarks</th></tr></thead>'
    '<tbody></tbody></table><p class="actions"><button type="button" id="save">Save the table</button> '
    '<button type="button" id="print">Print a report</button></p></section>'
)
"""What was read so far; it is in the browser alone, and gone when the page is closed."""
_OPPOSITE = {"A": "P", "P": "A", "R": "L", "L": "R", "H": "F", "F": "H"}


def sides(orientation: tuple[str, ...]) -> dict[str, str]:
    """The patient's sides at the picture's edges, as its header has them; empty where it names none.

    Example:
        >>> sides(("L", "F"))
        {'left': 'R', 'right': 'L', 'top': 'H', 'bottom': 'F'}
    """
    # Two directions: rows run towards the right edge, columns to the lower one; the opposite edges are the opposites.
    right, bottom = orientation or ("", "")
    left, top = ("".join(_OPPOSITE[letter] for letter in side) for side in (right, bottom))
    return {"left": left, "right": right, "top": top, "bottom": bottom}


def header_says(view: str, named: dict[str, str]) -> str:
    """View and sides in words."""
    first = f"View {view}, as the file's header has it. " if view else "The file's header names no view. "
    second = "The letters at the edges are the header's." if named["left"] else "It names no sides of the patient."
    return first + (second if view or named["left"] else "It names no sides of the patient either.")


def sentence(text: str) -> str:
    """With a capital and a full stop.

    Example:
        >>> sentence("the file must be whole")
        'The file must be whole.'
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def result(models: Sequence[Deployed], found: Sequence[Explanation]) -> str:
    """Probabilities, pictures and cases of one radiograph; what its file is called never came here.

    Of several findings one is looked at, which `page.js` lets one choose.
    """
    pairs = list(zip(models, found, strict=True))
    if len(pairs) == 1:
        parts = [answer(*pairs[0]), pictures(*pairs[0])]
    else:
        shared = [doubt for doubt in found[0].doubts if all(doubt in one.doubts for one in found)]
        parts = [_chooser(pairs, doubts=shared)]
        for number, (model, one) in enumerate(pairs):
            inside = answer(model, one, number=number, told=shared) + pictures(model, one, number=number)
            parts.append(f'<section class="finding" aria-label="{escape(model.positive)}" hidden>{inside}</section>')
    return "".join([*parts, neighbours(models[0], found[0].cases)]).replace(" %", "&nbsp;%")


def _chooser(pairs: Sequence[tuple[Deployed, Explanation]], *, doubts: Sequence[str]) -> str:
    """Every finding with its probability, its interval and how well it was told; one of them is chosen."""
    rows = []
    for number, (model, found) in enumerate(pairs):
        verdict, auc = found.verdict, model.measured["auc"]
        raw = "; raw score" if model.calibration.missing else ""
        rows.append(
            f'<tr><th scope="row"><label><input type="radio" name="finding" value="{number}"> '
            f"{escape(model.positive)}</label></th><td>{percent(verdict.probability)} %{raw}</td>"
            f"<td>{percent(verdict.low)} to {percent(verdict.high)} %</td>"
            f"<td>{auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})</td></tr>"
        )
    warned = "".join(f'<p class="warn">{escape(doubt)}</p>' for doubt in doubts)
    return (
        f'<div class="box" id="answer"><p class="file"></p>{warned}<h2>Findings</h2><table id="findings"><thead><tr>'
        '<th scope="col">Finding</th><th scope="col">Probability</th><th scope="col">Interval</th>'
        '<th scope="col">AUC on its test</th></tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="small">The chosen one is explained below.</p></div>'
    )


def in_sentences(models: Sequence[Deployed], found: Sequence[Explanation]) -> str:
    """The answer for who hears it."""
    if len(models) == 1:
        return in_a_sentence(models[0], found[0])
    said = [f"{model.positive} {percent(one.verdict.probability)} %" for model, one in zip(models, found, strict=True)]
    doubts = list(dict.fromkeys(doubt for one in found for doubt in one.doubts))
    return " ".join([f"Probabilities: {', '.join(said)}.", *doubts, NOTE])


def in_a_sentence(deployed: Deployed, found: Explanation) -> str:
    """The answer for who hears it."""
    verdict = found.verdict
    said = f"{percent(verdict.probability)} % probability of {deployed.positive}, interval "
    said += f"{percent(verdict.low)} to {percent(verdict.high)} %."
    return " ".join([said, *found.doubts, NOTE])


_ANSWER = ' id="answer"'


def answer(deployed: Deployed, found: Explanation, *, number: int | None = None, told: Sequence[str] = ()) -> str:
    """The probability with its interval, and how far it may be believed.

    Args:
        deployed: the model of the finding.
        found: of the radiograph.
        number: of one of several findings.
        told: doubts that stand above already.
    """
    verdict, positive = found.verdict, escape(deployed.positive)
    low, high = percent(verdict.low), percent(verdict.high)
    doubts = "".join(f'<p class="warn">{escape(doubt)}</p>' for doubt in found.doubts if doubt not in told)
    file = '<p class="file"></p>' if number is None else ""
    return (
        f'<div class="box"{_ANSWER if number is None else ""}>{file}{doubts}'
        f'<h2><span class="number">{percent(verdict.probability)} %</span> probability of {positive}</h2>'
        f"<p>Interval: {low} to {high} %</p>{_bar(deployed, found)}"
        f"<ul>{''.join(f'<li>{line}</li>' for line in meaning(deployed, found))}</ul>"
        f"<details><summary>What the interval means</summary><p>{escape(deployed.interval_means)}</p></details></div>"
    )


def percent(probability: float) -> str:
    """Whole per cent, without claiming certainty.

    Example:
        >>> percent(0.4321), percent(0.0001), percent(0.9999)
        ('43', 'under 1', 'over 99')
    """
    # No answer is certain: neither 0 nor 100.
    if probability < 0.01:
        return "under 1"
    return "over 99" if probability > 0.99 else f"{100 * probability:.0f}"


def _bar(deployed: Deployed, found: Explanation) -> str:
    """From 0 to 100 %: the interval, the probability, and the share of positives in the calibration."""
    verdict, base = found.verdict, _base_rate(deployed)
    place, width = 100 * verdict.low, max(100 * (verdict.high - verdict.low), 0.5)
    point, dashed = 100 * verdict.probability, 100 * base
    label = f"{percent(verdict.probability)} %, interval {percent(verdict.low)} to {percent(verdict.high)} %"
    return (  # drawn by attributes: the browser is told to take no style from within a page
        f'<svg class="bar" role="img" aria-label="{label}" viewBox="0 0 100 10" preserveAspectRatio="none">'
        f'<rect class="interval" x="{place:.1f}" width="{width:.1f}" height="10"/>'
        f'<line class="base" x1="{dashed:.1f}" x2="{dashed:.1f}" y2="10"/>'
        f'<line class="point" x1="{point:.1f}" x2="{point:.1f}" y2="10"/></svg>'
        '<div class="scale"><span>0 %</span><span>100 %</span></div>'
        f'<p class="small">Dashed: {100 * base:.0f} % of the test radiographs had this label.</p>'
    )


def _base_rate(deployed: Deployed) -> float:
    """Share of positives among the held-out images."""
    return deployed.measured["positives"] / deployed.measured["images"]


def meaning(deployed: Deployed, found: Explanation) -> list[str]:
    """How often such a probability was right, and how well the model tells images apart, as escaped sentences."""
    # Of the held-out images that were told nearly the same probability.
    count, positives, low, high = deployed.calibration.alike(found.verdict.probability)
    measured, name = deployed.measured, escape(deployed.positive)
    auc = measured["auc"]
    patients = f" of {measured['patients']:,} patients" if measured.get("patients") else ""
    lines = [
        f"Among the {count} test radiographs with the nearest probabilities ({percent(low)} to {percent(high)} %), "
        f"{positives} ({100 * positives / count:.0f} %) had the label {name}.",
        f"Tested on {measured['images']:,} radiographs{patients} that it had not seen: AUC {auc['value']:.2f} "
        f"(95 % interval {auc['low']:.2f} to {auc['high']:.2f}; 0.5 is guessing, 1 is faultless).",
        "It is a raw score and no probability of being ill."
        if deployed.calibration.missing
        else f"The probability holds where {name} is as frequent as in that test, {100 * _base_rate(deployed):.0f} %. "
        "Where it is rarer, the true probability is lower.",
    ]
    # What makes the answer worth least comes first.
    if auc["low"] <= 0.5:
        lines.insert(0, "<strong>On its test this model was not shown to be better than guessing.</strong>")
    elif auc["high"] - auc["low"] > 2 * _FEW:
        lines.append("Few patients were tested: all these numbers are rough.")
    return lines


def pictures(deployed: Deployed, found: Explanation, *, number: int | None = None) -> str:
    """Where the viewer goes, and the heat map for it; `number` of one of several findings."""
    heat = data_uri(map_alone(deployed, found))
    # The answer is shown at once, the check of its map follows.
    if found.correlation is None:
        check = "Checking it by occlusion …"
    else:
        measured = f" (rank correlation {found.correlation:.2f})" if found.places else ""
        check = sentence(in_words(found) + measured)
    positive, busy = escape(deployed.positive), "true" if found.correlation is None else "false"
    rim = "; the network does not see the rim" if deployed.about["crop_proportion"] < 1 else ""
    legend = f'<span class="ramp"></span> speaks a little … most for {positive}{rim}'
    legend = legend if found.heat.max() > 0 else f"Nothing speaks for {positive}"
    legend = legend if found.mapped else "There is none"
    whole = np.allclose(found.picture.window, (0, 1), atol=0.001)
    first = "as it is read" if whole else "in the window of the file"
    heard = f"The radiograph with the heat map. {in_a_sentence(deployed, found)} {check}"
    return (
        '<div class="box"><h2>Where the network looks</h2><div class="place"></div>'
        f'<img class="map" hidden src="{heat}" alt="{escape(heard)}">'
        f'<p class="small">{found.picture.width} × {found.picture.height} pixels, first {first}. '
        f"Map: {legend}</p>"
        f'<p id="check{number or ""}" aria-busy="{busy}">{escape(check)}</p><p class="small">{_HEAT}</p></div>'
    )


_HEAT = (
    "The map (Grad-CAM) is coarse, shows what speaks for the finding even where its probability is low, and does not "
    "outline disease. It tells what the network used, which may be a tube, a marker or the border of the picture."
)


def neighbours(deployed: Deployed, cases: list[Case]) -> str:
    """The nearest training cases."""
    figures = "".join(
        f'<figure><img src="{data_uri(_enlarged(case.picture))}" alt="Training case {case.number}: '
        f'{escape(", ".join(case.findings) or "no finding")}, similarity {case.similarity:.2f}">'
        f"<figcaption><strong>{escape(', '.join(case.findings) or 'No finding')}</strong><br>"
        f"similarity {case.similarity:.2f}</figcaption></figure>"
        for case in cases
    )
    usual = deployed.cases.usual
    return (
        '<div class="box"><h2>Most similar training cases</h2>'
        f'<div class="cases">{figures}</div><p class="small">Similar to the network, with their label in the '
        "collection; at most one of each patient. 1 is the same, 0 unrelated; "
        f"95 % of training cases have a case of another patient at {usual:.2f} or above.</p></div>"
    )


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """A case's small picture at twice its side, smooth."""
    size = (2 * picture.shape[1], 2 * picture.shape[0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BICUBIC))


def card(models: Sequence[Deployed]) -> str:
    """The model's card; its limits first and always open."""
    deployed = models[0]
    about = deployed.about
    own = dict(about["card"])
    # A card without limits is no reason to trust.
    limits = own.pop("limits", "No limits were stated: do not use the model.")
    lines = limits if isinstance(limits, list) else [limits]
    rows = {name: own[name] for name in own if name != "title"}
    for model in models:
        of = f" of {model.positive}" if len(models) > 1 else ""
        learned = "{images:,} radiographs of {patients:,} patients, {positives:,} of them positive"
        rows[f"learned from{of}"] = learned.format(**model.about["learned_from"])
        platt = f"Platt's scaling on {model.measured['images']:,} radiographs of other patients"
        rows[f"calibration{of}"] = f"none: {model.calibration.missing}" if model.calibration.missing else platt
        rows[f"Brier score{of}"] = f"{model.measured['brier']:.3f} (0 is best)"
    if len(models) == 1:
        rows["heads"] = f"{about['heads']} trainings, averaged"
    table = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(written(v))}</td></tr>" for k, v in rows.items())
    items = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
    return (
        f'<div class="box" id="card"><h2>Limits of this model</h2><ul>{items}</ul>'
        f"<details><summary>The model's card</summary><table>{table}</table></details></div>"
    )


def written(value: Any) -> str:
    """A card's entry as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
