"""A folder with a model: it answers as it was trained, tells nobody's name, and is checked before it is believed."""

import hashlib
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
from scipy.special import expit, logit

from tests.chest import tiny_deployed as tiny
from tf_simclr.chest.model import cases as case_files
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model.card import digest
from tf_simclr.chest.model.cases import gather
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.errors import InputError


@pytest.fixture(scope="module")
def data(tiny_data):
    return tiny_data


@pytest.fixture(scope="module")
def folder(tiny_run):
    return tiny_run / deployed.FOLDER


@pytest.fixture(scope="module")
def parts(data):
    return tiny.parts(data)


@pytest.fixture(scope="module")
def model(tiny_run):
    return deployed.load(tiny_run)  # finds the folder in it


@pytest.fixture
def copied(folder, tmp_path):
    """A copy to damage, in a folder where nothing else is."""
    place = tmp_path / "copied"
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def file_of(data, number):
    return data.folder.parent / "raw" / f"{data.images[number]}.png"


@pytest.mark.parametrize("side", [None, 16])
def test_the_network_is_shown_what_it_was_shown_in_training(data, parts, side, tmp_path):
    deployed.save(tmp_path / "model", **parts | {"side": side})
    model = deployed.load(tmp_path / "model")
    source = data.source(np.arange(len(data)), side=side)
    batches = evaluation_batches(source, batch_size=30, image_size=24, crop_proportion=1.0, unreadable=Unreadable())
    trained_on = next(iter(batches))[0].numpy()
    picture = model.open(file_of(data, 7))
    np.testing.assert_array_equal(model.see(picture), trained_on[7])
    np.testing.assert_array_equal(picture.shown, tiny.picture(7))


def test_the_probability_is_the_mean_log_odds_of_the_heads_calibrated(data, parts, folder, model):
    seen = model.see(model.open(file_of(data, 4)))
    verdict = tiny.judged(model, seen)
    features = parts["encoder"].predict_on_batch(seen[None])
    said = np.array([float(head.predict_on_batch(features)[0, 0]) for head in parts["heads"]])
    np.testing.assert_allclose(verdict.heads, said, rtol=1e-5)
    stored = json.loads((folder / "card.json").read_text())["calibration"]
    mean = np.log(said / (1 - said)).mean()
    expected = 1 / (1 + np.exp(-(stored["slope"] * mean + stored["intercept"])))
    assert verdict.probability == pytest.approx(expected, rel=1e-4)
    assert verdict.low < verdict.probability < verdict.high
    np.testing.assert_allclose(verdict.features, features[0], rtol=1e-5)


def test_a_certain_head_still_has_finite_log_odds(parts):
    head = tiny.head(0)
    kernel, bias = head.layers[-1].get_weights()
    head.layers[-1].set_weights([kernel * 0, bias * 0 + 200])
    assert head.predict_on_batch(np.ones((1, 5)))[0, 0] == 1
    assert deployed.log_odds(head, np.ones((1, 5), np.float32))[0, 0] == 200


def test_a_model_that_cannot_be_calibrated_is_left_with_raw_scores_and_says_so(tiny_data, tmp_path):
    said, parts = [], tiny.parts(tiny_data)
    probabilities, labels, patients = parts["held_out"]
    few = parts | {"held_out": (probabilities[:, :9], labels[:9], patients[:9])}
    wrong = parts | {"held_out": (np.clip(0.9 - 0.8 * labels + 0.01 * np.arange(30) / 30, 0, 1), labels, patients)}
    for name, given, why in (("few", few, "9 held-out patients"), ("wrong", wrong, "less often positive")):
        assert deployed.leave(tmp_path / name, say=said.append, **given) == tmp_path / name / "deployed"
        assert "raw scores, without a calibration" in said[-1]
        assert why in said[-1]
        model = deployed.load(tmp_path / name)
        assert why in model.warnings[0]
        assert any(why in line for line in model.about["card"]["limits"])
        seen = np.full((tiny.SIZE, tiny.SIZE, 3), 0.5, np.float32)
        verdict = tiny.judged(model, seen)
        assert verdict.probability == pytest.approx(expit(np.mean(logit(verdict.heads))), abs=1e-6)
    said.clear()
    ten = parts | {"held_out": (probabilities[:, :10], labels[:10], patients[:10])}
    deployed.leave(tmp_path / "ten", say=said.append, **ten)
    one_class = parts | {"held_out": (probabilities, np.zeros_like(labels), patients)}
    with pytest.raises(InputError, match="class"):
        deployed.leave(tmp_path, say=said.append, **one_class)


def test_the_head_of_two_classes_gives_the_softmaxs_second_probability():
    rng = np.random.default_rng(0)
    kernel, bias, features = rng.normal(size=(5, 2)), rng.normal(size=2), rng.normal(size=(3, 5))
    exponents = np.exp(features @ kernel + bias)
    found = deployed.linear_head(kernel, bias).predict_on_batch(features.astype(np.float32))[:, 0]
    np.testing.assert_allclose(found, exponents[:, 1] / exponents.sum(1), rtol=1e-5)


def test_the_nearest_cases_are_those_that_a_loop_finds_one_a_patient(data, parts, model):
    _, rows, values = parts["cases"]
    query, centre = values[3], values.mean(0)
    cosine = [
        (a - centre) @ (query - centre) / np.linalg.norm(a - centre) / np.linalg.norm(query - centre) for a in values
    ]
    expected, people = [], set()
    for row in sorted(rows, key=lambda row: -cosine[row]):
        if data.patients[row] not in people:
            people.add(data.patients[row])
            expected.append(row)
    found = model.cases.nearest(query, 4)
    np.testing.assert_allclose([case.similarity for case in found], np.array(cosine)[expected[:4]], atol=2e-3)
    assert [case.number for case in found] == expected[:4]
    assert [case.findings for case in found] == [("Square",) if tiny.LABELS[i] else ("Nothing",) for i in expected[:4]]
    assert found[0].picture.shape == (96, 96)
    assert abs(float(found[0].picture.mean()) - tiny.picture(3).mean()) < 3


def test_what_similarity_is_usual_leaves_a_cases_own_patient_out(data, parts):
    found = gather(*parts["cases"][:2], features=parts["cases"][2])
    unit = np.asarray(found.features, float)
    nearest = []
    for i in range(20):
        others = [float(unit[i] @ unit[j]) for j in range(20) if data.patients[i] != data.patients[j]]
        nearest.append(max(others))
    assert found.usual == pytest.approx(np.quantile(nearest, 0.05), abs=1e-3)


def test_no_patient_and_no_file_is_named_anywhere_in_the_folder(data, folder):
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for name in {*data.patients, *data.images, *(f"patient-{i}" for i in range(15))}:
        assert str(name).encode() not in content
        assert str(name).encode("utf-32-le") not in content


def test_what_was_measured_is_in_the_card(folder, model):
    assert model.measured["images"] == 30
    assert model.measured["positives"] == 15
    assert 0 <= model.measured["auc"]["low"] <= model.measured["auc"]["value"] <= model.measured["auc"]["high"] <= 1
    assert model.about["learned_from"] == {"images": 20, "patients": 10, "positives": 10}


def test_a_save_that_fails_leaves_what_was_there(copied, parts, monkeypatch):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    monkeypatch.setattr(case_files, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(InputError, match="must be writable"):
        deployed.save(copied, **parts)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert [path.name for path in copied.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"held_out": (np.full(30, 0.5), np.zeros(30, int))}, "both classes"),
        ({"positive": "Circle"}, "the class must be one of"),
        ({"heads": []}, "1 to 100 heads"),
        ({"heads": [keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, "softmax")])]}, "ends in Dense"),
        ({"heads": [keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])]}, "encoder's features"),
    ],
)
def test_what_does_not_fit_together_is_not_saved(parts, change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        deployed.save(tmp_path / "model", **parts | change)
    assert list(tmp_path.iterdir()) == []


def test_any_file_that_is_damaged_or_missing_is_named(copied):
    for path in sorted(copied.iterdir()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        damages = [whole[:middle], whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :]]
        for damaged in damages if path.name != "card.json" else damages[:1]:
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=path.name.replace(".", r"\.") if path.name != "card.json" else "must"):
                deployed.load(copied)
        path.unlink()
        with pytest.raises(InputError):
            deployed.load(copied)
        path.write_bytes(whole)
    assert deployed.load(copied).positive == "Square"


def reseal(folder, **changes):
    """The card with other entries, and digests that fit whatever files are there."""
    card = json.loads((folder / "card.json").read_text()) | changes
    card["digests"] = {name: digest(folder / name) for name in card["digests"]}
    (folder / "card.json").write_text(json.dumps(card))


def reconfigured(path, change):
    """Rewrites the configuration in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"class_name": "GlobalAveragePooling2D"', '"class_name": "Lambda"'),
        ('"class_name": "GlobalAveragePooling2D"', '"class_name": "TFSMLayer"'),
        ('"module": "keras.layers", "class_name": "GlobalAveragePooling2D"', '"module": "os", "class_name": "system"'),
        ('"registered_name": "Functional"', '"registered_name": "evil>Functional"'),
    ],
)
def test_a_network_that_names_anything_but_plain_layers_is_refused_whoever_sealed_it(copied, old, new):
    reconfigured(copied / "encoder.keras", lambda text: text.replace(old, new))
    reseal(copied)
    with pytest.raises(InputError, match="made of plain layers"):
        deployed.load(copied)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickles_and_arrays_of_other_kinds_are_refused_whoever_sealed_them(copied):
    labels = np.load(copied / "case_labels.npy")
    hostile = [np.array([Evil()], object), labels.astype(float), labels[:5], labels[:, 0]]
    for array in hostile:
        np.save(copied / "case_labels.npy", array, allow_pickle=True)
        reseal(copied)
        with pytest.raises(InputError, match="cases"):
            deployed.load(copied)
    (copied / "case_labels.npy").write_bytes(pickle.dumps(Evil()))
    reseal(copied)
    with pytest.raises(InputError, match=r"case_labels\.npy must be a whole array"):
        deployed.load(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 10**9},
        {"image_size": "24"},
        {"heads": -1},
        {"heads": 10**9},
        {"fit": "../.."},
        {"calibration": {"kind": "Platt", "slope": float("nan"), "intercept": 0}},
        {"calibration": {"kind": "Platt"}},
        {"classes": ["Square"]},
        {"classes": []},
        {"measured": {}},
        {"card": "text"},
        {"format": 2},
    ],
    ids=str,
)
def test_a_card_with_an_impossible_entry_is_refused(copied, change):
    reseal(copied, **change)
    with pytest.raises(InputError):
        deployed.load(copied)


def test_files_of_any_size_have_their_digest_on_every_python(tmp_path, monkeypatch):
    monkeypatch.delattr(hashlib, "file_digest", raising=False)  # which came with Python 3.11
    content = bytes(range(256)) * 5000  # more than a piece
    (tmp_path / "x").write_bytes(content)
    assert digest(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_folder_that_holds_no_model_says_who_writes_one(tmp_path):
    with pytest.raises(InputError, match="chest covid"):
        deployed.load(tmp_path)
