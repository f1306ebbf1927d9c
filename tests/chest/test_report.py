"""The page that clinicians read: whole in itself, nobody's name in it, no claim that its intervals do not hold up."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from tf_simclr.chest.ards import page as report
from tf_simclr.chest.ards.numbers import Asked, Way, estimates
from tf_simclr.chest.html import NOTICE
from tf_simclr.errors import InputError
from tf_simclr.evaluation.binary import threshold
from tf_simclr.evaluation.intervals import auc_interval

PART = {"patients": 60, "images": 80, "positive images": 40, "positive patients": 31}


def asked(count: int, *, seed: int) -> Asked:
    """Images of about two thirds as many patients."""
    rng = np.random.default_rng(seed)
    patients = np.array([f"patient-{i}" for i in rng.integers(0, 2 * count // 3, count)])
    return Asked(np.array([f"{seed}-{i}.png" for i in range(count)]), np.arange(count) % 2, patients)


def way(title: str, strength: float, *, parts: dict[str, Asked], seeds: int = 2) -> Way:
    """Says what the labels are, in noise."""
    rng = np.random.default_rng(len(title))
    noisy = {
        name: 1 / (1 + np.exp(-(strength * (2 * of.labels - 1) + rng.normal(0, 1.5, (seeds, len(of.labels))))))
        for name, of in parts.items()
    }
    return Way(title, **noisy)


@pytest.fixture(scope="module")
def parts():
    return {"validation": asked(40, seed=1), "test": asked(80, seed=2)}


@pytest.fixture(scope="module")
def ways(parts):
    titles = {"SimCLR <b>on</b> radiographs, fine-tuned": 2.0, "From scratch, labels alone": 0.2, "MoCo v2": 1.9}
    return [way(title, strength, parts=parts) for title, strength in titles.items()]


@pytest.fixture(scope="module")
def found(parts, ways):
    trial = {"learning_rate": 0.05, "weight_decay": 1e-4, "train_epochs": 10, "auc.value": 0.71}
    trials = [trial, {**trial, "learning_rate": 0.2, "auc.value": 0.76}]
    knobs = ("learning_rate", "weight_decay", "train_epochs")
    grid = {"trials": trials, "best": {name: trials[1][name] for name in knobs}, "metric": "auc.value"}
    return report.Report(
        positive="ARDS",
        collection="a <collection> & more",
        synthetic=True,
        counts=dict.fromkeys(("train", "validation", "test"), PART),
        alike="Two <radiographs> look the same.",
        pretraining={
            "images": 80, "patients": 60, "patients with several images": 12, "left out": 3, "own": False,
            "collection": "NIH ChestX-ray14",
        },
        steps=["Begin with a network.", "Pretrain it."],
        ways=ways,
        estimates=estimates(ways, **parts, draws=200),
        test=parts["test"],
        grids={way.title: grid for way in ways},
        frozen=[("SimCLR, frozen features", 0.7, 0.65)],
        pairs=b"\x89PNG\r\n\x1a\n",
        made={"image size": "64"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(found):
    return report.written(found)


class Elements(HTMLParser):
    """Names of open elements, and every address that a browser would follow."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, name, attributes):
        self.found.append(name)
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action", "srcset")]
        self.open += [] if name in ("meta", "img") else [name]

    def handle_endtag(self, name):
        assert self.open.pop() == name


def test_the_page_is_whole_in_itself(page):
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    assert not {"script", "link", "iframe", "object"} & set(elements.found)
    assert elements.addresses
    assert all(address.startswith("data:image/") for address in elements.addresses)
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_the_page_names_no_patient_and_no_image_and_escapes_what_others_wrote(page, parts):
    assert "patient-" not in page
    assert not any(name in page for of in parts.values() for name in of.names)
    assert "a &lt;collection&gt; &amp; more" in page
    assert "<b>on</b>" not in page


def test_the_page_says_whether_radiographs_of_different_parts_look_the_same(page):
    assert "No patient is in two parts." in page
    assert "Two &lt;radiographs&gt; look the same." in page


def test_the_page_claims_a_difference_only_where_its_interval_leaves_out_zero(page, found):
    _, scratch, moco = found.estimates
    assert scratch["auc_gain"]["low"] > 0
    assert moco["auc_gain"]["low"] < 0 < moco["auc_gain"]["high"]
    assert page.count("fine-tuned is better.") == 1
    assert page.count("do not tell which of the two is better") == 1
    assert page.count(NOTICE) >= 2
    assert "made up" in page


def test_estimates_are_scikit_learns_and_the_bootstraps(ways, parts, found):
    first, of = ways[1], found.estimates[1]
    labels, patients = parts["test"].labels, parts["test"].patients
    assert of["auc"]["value"] == pytest.approx(np.mean([roc_auc_score(labels, said) for said in first.test]))
    cuts = [threshold(said, parts["validation"].labels) for said in first.validation]
    tables = [confusion_matrix(labels, said >= cut) for said, cut in zip(first.test, cuts, strict=True)]
    assert of["sensitivity"]["value"] == pytest.approx(np.mean([t[1, 1] / t[1].sum() for t in tables]))
    assert of["specificity"]["value"] == pytest.approx(np.mean([t[0, 0] / t[0].sum() for t in tables]))
    gain = roc_auc_score(labels, ways[0].test[0]) - roc_auc_score(labels, first.test[0])
    single = [Way(one.title, one.validation[:1], one.test[:1]) for one in ways[:2]]
    paired = estimates(single, **parts)[1]
    assert paired["auc_gain"]["value"] == pytest.approx(gain)
    assert (paired["auc"]["low"], paired["auc"]["high"]) == auc_interval(first.test[0], labels, patients=patients)
    assert paired["auc_gain"]["low"] < gain < paired["auc_gain"]["high"]
    assert of["auc_gain"]["p_adjusted"] == pytest.approx(2 * of["auc_gain"]["p"])  # the smaller of two


def test_the_threshold_has_youdens_largest_sum():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.uniform(0, 1, 60) + 0.3 * labels, 2)
    false, true, _ = roc_curve(labels, scores)
    best = (true - false).max()
    said = scores >= threshold(scores, labels)
    assert said[labels == 1].mean() - said[labels == 0].mean() == pytest.approx(best)
    with pytest.raises(InputError, match="both classes"):
        threshold(scores, np.zeros(60, int))
