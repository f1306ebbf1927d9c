"""A model asked about another hospital: numbers against scikit-learn, drift that is there and drift that is not."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from tests.chest import tiny_deployed as tiny
from tf_simclr import cli
from tf_simclr.chest.evaluate import command, models, numbers
from tf_simclr.chest.evaluate.numbers import AT, Told
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP
from tf_simclr.config import ChestEvaluate, plain
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError
from tf_simclr.evaluation import drift
from tf_simclr.evaluation.binary import net_benefit, threshold
from tf_simclr.evaluation.calibration import calibrate, logit, recalibration
from tf_simclr.files import write_json

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 400)
ODDS = 1.5 * (2 * LABELS - 1) + RNG.normal(0, 1.5, 400)
SAID = 1 / (1 + np.exp(-2 * ODDS))
PATIENTS = np.arange(400) // 2


def told(rows=slice(None)) -> Told:
    labels = LABELS[rows]
    return Told(SAID[rows], labels, PATIENTS[rows], np.arange(400)[rows])


def test_slope_and_intercept_are_those_of_a_logistic_regression_without_penalty():
    found = recalibration(logit(SAID), LABELS)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(SAID)[:, None], LABELS)
    np.testing.assert_allclose(found, [model.coef_[0, 0], model.intercept_[0]], rtol=1e-3, atol=1e-3)
    of = numbers.calibration_of(told(), seed=0)
    assert of["slope"]["value"] == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert of["slope"]["low"] < of["slope"]["value"] < of["slope"]["high"] < 1  # twice too sure
    assert of["brier"]["value"] == pytest.approx(brier_score_loss(LABELS, SAID))
    assert of["observed_to_expected"]["value"] == pytest.approx(LABELS.mean() / SAID.mean())
    assert sum(row["images"] for row in of["bins"]) == 400


def test_the_operating_point_is_carried_over_and_counted():
    own = calibrate(ODDS, LABELS)
    found = numbers.of_finding(told(), own=own, rule="sensitivity", at=0.9, seed=0)
    cut = threshold(own.probabilities, own.labels, rule="sensitivity", at=0.9)
    point = found["operating_point"]
    yes = cut <= SAID
    assert point["threshold"] == cut
    assert (point["true_positives"], point["false_positives"]) == (
        (yes & (LABELS == 1)).sum(),
        (yes & (LABELS == 0)).sum(),
    )
    assert point["positive_predictive_value"]["value"] == pytest.approx(LABELS[yes].mean())
    assert point["negative_predictive_value"]["value"] == pytest.approx(1 - LABELS[~yes].mean())
    assert found["home_operating_point"]["sensitivity"]["value"] >= 0.9
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(LABELS, SAID))


@pytest.mark.parametrize(("rule", "kept"), [("sensitivity", 1), ("specificity", 0)])
def test_a_threshold_keeps_its_share_and_is_the_best_that_does(rule, kept):
    cut = threshold(SAID, LABELS, rule=rule, at=0.8)

    def shares(at):
        yes = at <= SAID
        return yes[LABELS == 1].mean(), (~yes)[LABELS == 0].mean()

    found = shares(cut)
    assert found[1 - kept] >= 0.8
    better = [shares(at)[kept] for at in np.unique(SAID) if shares(at)[1 - kept] >= 0.8]
    assert found[kept] == pytest.approx(max(better))


def test_net_benefit_by_hand_and_its_curve_has_a_band():
    for at in (0.2, 0.5):
        yes = at <= SAID
        by_hand = (yes & (LABELS == 1)).sum() / 400 - (yes & (LABELS == 0)).sum() / 400 * at / (1 - at)
        assert net_benefit(SAID, LABELS, at=np.array([at]))[0] == pytest.approx(by_hand)
    middle, low, high = numbers.decision_curve(told(), seed=0)
    assert ((low <= middle + 1e-9) & (middle <= high + 1e-9))[:90].all()
    assert middle[49] == pytest.approx(net_benefit(SAID, LABELS, at=AT[49:50])[0])


def test_small_groups_are_counted_and_not_shown():
    column = np.where(np.arange(400) < 6, "old", np.where(np.arange(400) < 200, "young", ""))
    shown, small = numbers.subgroups(told(), {"age": column}, cut=0.5, fewest=10)
    assert [row["value"] for row in shown] == ["not stated", "young"]
    assert [(row["value"], row["images"]) for row in small] == [("old", 6)]
    rows = column == "young"
    young = shown[1]
    assert young["auc"]["value"] == pytest.approx(roc_auc_score(LABELS[rows], SAID[rows]))
    assert young["sensitivity"]["value"] == pytest.approx((SAID[rows] >= 0.5)[LABELS[rows] == 1].mean())
    # Images whose label is known keep their places among all that were asked about.
    shown, _ = numbers.subgroups(told(np.arange(100, 400)), {"age": column}, cut=0.5, fewest=10)
    assert [row["images"] for row in shown] == [200, 100]


def test_one_score_for_all_and_one_patient_have_no_slope_and_no_curve():
    flat = dataclasses.replace(told(), probabilities=np.full(400, 0.3))
    found = numbers.calibration_of(flat, seed=0)
    assert found["slope"] == found["intercept"] == {"why": "all scores are alike, so that there is no slope"}
    assert calibrate(np.zeros(400), LABELS).missing == "all scores of 400 held-out patients are alike"
    own = calibrate(ODDS, LABELS)
    alone = dataclasses.replace(told(), patients=np.zeros(400))
    assert numbers.of_finding(alone, own=own, rule="youden", at=0.9, seed=0)["why"] == "all images are of one patient"


def test_a_difference_has_delongs_p_by_pairs_of_images():
    others = np.round(ODDS + RNG.normal(0, 2, 400))  # with ties
    single = dataclasses.replace(told(), patients=np.arange(400))
    rows = numbers.compared({"a": single, "b": dataclasses.replace(single, probabilities=others)}, seed=0)
    ill, well = LABELS == 1, LABELS == 0
    pairs = [np.sign(x[ill][:, None] - x[well]) / 2 + 0.5 for x in (SAID, others)]
    parts = [np.cov([pair.mean(axis) for pair in pairs]) / pairs[0].shape[1 - axis] for axis in (1, 0)]
    gain, (a, b, c) = pairs[0].mean() - pairs[1].mean(), np.sum(parts, axis=0)[[0, 1, 0], [0, 1, 1]]
    assert rows[0]["difference"]["value"] == pytest.approx(gain)
    assert rows[0]["p_delong"] == pytest.approx(2 * norm.sf(abs(gain) / np.sqrt(a + b - 2 * c)))


def test_models_are_compared_in_pairs_and_p_values_are_adjusted_for_their_number():
    noisy = {name: ODDS + RNG.normal(0, spread, 400) for name, spread in (("a", 0.1), ("b", 3.0), ("c", 0.2))}
    tolds = {"first": told()} | {name: dataclasses.replace(told(), probabilities=x) for name, x in noisy.items()}
    rows = numbers.compared(tolds, seed=0)
    assert [row["second"] for row in rows] == ["a", "b", "c"]
    assert rows[1]["difference"]["low"] > 0
    assert rows[1]["p_delong_adjusted"] == pytest.approx(3 * rows[1]["p_delong"])
    assert rows[1]["p_bootstrap"] < 0.05
    assert all(row["p_delong_adjusted"] >= row["p_delong"] for row in rows)
    low, high = rows[1]["bootstrap"]["low"], rows[1]["bootstrap"]["high"]
    assert low < rows[1]["difference"]["value"] < high


def test_a_drift_that_is_there_is_found_and_one_that_is_not_has_an_even_chance():
    rng = np.random.default_rng(0)
    same = [drift.mean_discrepancy(*rng.normal(size=(2, 40, 4)), permutations=99, seed=i)[1] for i in range(60)]
    assert 0.3 < np.mean(same) < 0.7
    assert np.mean(np.array(same) <= 0.1) < 0.25
    moved = drift.mean_discrepancy(rng.normal(size=(60, 4)), 1 + rng.normal(size=(60, 4)), permutations=99)
    assert moved[0] > 0.05
    assert moved[1] == pytest.approx(0.01)
    far, chance = drift.distance(rng.normal(size=80), 2 + rng.normal(size=80), permutations=99)
    assert far == pytest.approx(2, abs=0.4)
    assert chance == pytest.approx(0.01)


def test_the_frechet_distance_of_two_normals_is_that_of_theory():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(20000, 2)), rng.normal(size=(20000, 2)) * [2, 1] + [3, 0]
    assert drift.frechet(ours, theirs) == pytest.approx(9 + 1, rel=0.03)
    assert drift.frechet(ours, ours) == pytest.approx(0, abs=1e-6)


def config(run, data, out, **changed) -> ChestEvaluate:
    return ChestEvaluate(model=run, data=data.folder, out=out, fewest=2, permutations=49, subgroups=(), **changed)


def test_a_deployed_model_is_asked_about_a_prepared_folder(tiny_run, tiny_data, tmp_path, capsys):
    table = tmp_path / "more.csv"
    lines = [f"{image},{'upright' if i % 3 else 'supine'}" for i, image in enumerate(tiny_data.images)]
    table.write_text("\n".join(["image,position", *lines]))
    asked = dataclasses.replace(
        config(tiny_run, tiny_data, tmp_path / "out"),
        subgroup_table=table,
        subgroups=("position",),
        others=(tiny_run / "deployed",),
    )
    command.run(asked)
    found = json.loads((tmp_path / "out/evaluation.json").read_bytes())
    of = found["findings"]["Square"]
    model = models.opened(tiny_run)
    scores, features = model.answers(tiny_data, np.arange(len(tiny_data)), batch_size=7)
    np.testing.assert_allclose(features, tiny.features(tiny.parts(tiny_data)["encoder"], tiny_data), atol=1e-5)
    assert of["auc"]["value"] == pytest.approx(roc_auc_score(tiny_data.column("Square"), scores[:, 0]))
    assert found["drift"]["alike"] >= 20  # it learned from twenty of them
    assert "salted" in found["patients_in_both"]
    (row,) = found["comparisons"]["Square"]
    assert row["difference"]["value"] == 0
    assert row["p_delong"] == 1
    assert row["second_learned_from"] == found["drift"]["alike"]
    page = (tmp_path / "out/report.html").read_text()
    assert "Research use, not a diagnosis." in page
    assert not any(re.search(rf"\b{re.escape(str(p))}\b", page) for p in tiny_data.patients)
    with (tmp_path / "out/subgroups.csv").open(newline="") as file:
        assert {row["value"] for row in csv.DictReader(file)} == {"upright", "supine"}
    out = capsys.readouterr().out
    assert "carried over" in out
    assert re.search(r"\d+ look the same as one that .*deployed learned from", out)
    assert "Look the same as one that the other learned from" in page
    assert "patients in both are not known" in out


def test_what_does_not_fit_the_model_is_refused(tiny_run, tiny_data, tmp_path):
    whole = config(tiny_run, tiny_data, tmp_path)
    with pytest.raises(InputError, match="subgroups must be columns"):
        command.run(dataclasses.replace(whole, subgroups=("shoe",)))
    with pytest.raises(InputError, match="classes must begin with findings"):
        command.run(dataclasses.replace(whole, classes=("Circle=Square",)))
    with pytest.raises(InputError, match="must have a class that the model tells"):
        command.run(dataclasses.replace(whole, classes=("Square=Circle",)))
    model = models.opened(tiny_run)
    other = dataclasses.replace(load(tiny_data.folder), fit="pad")
    with pytest.raises(InputError, match="--fit stretch"):
        model.answers(other, np.arange(3), batch_size=2)
    write_json(tmp_path / "config.json", plain(whole))
    assert cli.parse(["--config", str(tmp_path / "config.json")]) == whole


def test_delongs_test_keeps_its_level_for_scores_of_one_worth():
    rng, found = np.random.default_rng(1), []
    for _ in range(150):
        shared, labels = rng.normal(size=60), np.arange(60) % 3 == 0
        pair = [1.2 * labels + shared + rng.normal(size=60) for _ in range(2)]
        tolds = {
            str(i): Told(norm.cdf(scores), labels.astype(int), np.arange(60), np.arange(60))
            for i, scores in enumerate(pair)
        }
        both = np.stack([of.probabilities for of in tolds.values()])
        areas = numbers.areas(both, labels.astype(int))
        found.append(numbers.paired_difference(areas, first=0, second=1).p)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.11


@pytest.mark.parametrize("of", ["data", "model"])
def test_what_is_made_up_is_told_in_every_file_and_on_the_screen(tiny_run, tiny_data, tmp_path, capsys, of):
    """The radiographs that are asked about, or those that were learned from."""
    made = prepared_as(tiny_data.folder, tmp_path / "ready", made_up=of == "data")
    run = shutil.copytree(tiny_run, tmp_path / "run")
    if of == "model":
        card = json.loads((run / "deployed/card.json").read_bytes())
        write_json(run / "deployed/card.json", card | {"card": card["card"] | {"limits": [LEARNED_FROM_MADE_UP]}})
    command.run(dataclasses.replace(config(run, made, tmp_path / "out"), subgroups=("bits",)))
    left = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(left) == {"evaluation.json", "subgroups.csv", "report.html"}
    told = {name: re.search("made.up", text) is not None for name, text in left.items()}
    assert told == dict.fromkeys(left, True)
    assert json.loads(left["evaluation.json"])["made_up"]
    assert "made" in capsys.readouterr().out.partition("drift")[2]


def prepared_as(folder, place, *, made_up: bool):
    """A prepared folder again, made up or not by its settings."""
    shutil.copytree(folder, place)
    settings = json.loads((place / "settings.json").read_bytes())
    write_json(place / "settings.json", settings | {"made_up": made_up})
    return load(place)
