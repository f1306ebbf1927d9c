"""`tf-simclr distill` on small pictures: what the student sees, of whom it learns, and what is cached."""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.data import made
from tests.models import grouped
from tf_simclr import prepare_shards
from tf_simclr.commands import distill, finetune
from tf_simclr.commands.finetune import Given
from tf_simclr.commands.parts import runs
from tf_simclr.commands.parts.images import open_source
from tf_simclr.commands.parts.networks import check_classifier_of
from tf_simclr.config import Distill, Finetune
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.models.architecture import Architecture
from tf_simclr.official import command as official
from tf_simclr.run_folder import RunFolder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    pictures.write(folder / "train", per_class=10, size=16)
    pictures.write(folder / "test", per_class=8, size=16)
    return folder


@pytest.fixture(scope="module")
def teacher():
    """Knows the colours: blue, green and red are the classes."""
    pixels = keras.Input((None, None, 3))
    colours = keras.layers.GlobalAveragePooling2D()(pixels)
    layer = keras.layers.Dense(3, use_bias=False, name="logits_sup")
    network = keras.Model(pixels, {"final_avg_pool": colours, "logits_sup": layer(colours)})
    layer.set_weights([8 * np.eye(3)[:, ::-1]])
    return network


@pytest.fixture(autouse=True)
def small(monkeypatch, teacher):
    """The smallest encoder in place of a ResNet, and the teacher in place of a checkpoint."""
    monkeypatch.setattr(distill, "build_encoder", lambda *_: grouped.encoder())
    monkeypatch.setattr(distill, "load_model", lambda path, **selection: teacher)
    monkeypatch.setattr(runs, "content_of_option", lambda name, value, **_: str(value))


def config(folder, images, **changes) -> Distill:
    values = {
        "teacher": images / "teacher",
        "model_dir": folder,
        "image_dir": images,
        "image_size": 16,
        "resnet_depth": 18,
        "train_batch_size": 6,
        "train_steps": 30,
        "warmup_epochs": 0,
        "optimizer": "momentum",
        "learning_rate": 2.0,
    }
    return Distill(**values | changes)


def test_a_student_learns_the_classes_without_seeing_a_label(images, tmp_path, capsys):
    distill.run(config(tmp_path, images))
    result = json.loads(RunFolder(tmp_path).result.read_text())
    assert result["top1"]["accuracy"] >= 0.9
    assert result["agreement"] >= 0.9
    assert "supervised_acc" not in result
    assert "top1:" in capsys.readouterr().out


@pytest.mark.slow
def test_cached_answers_are_computed_once_and_shared_by_students(images, tmp_path, capsys, teacher):
    shared = tmp_path / "answers.npz"
    options = {
        "teacher_views": "cached",
        "teacher_logits": shared,
        "alpha": 0.5,
        "labels_fraction": 0.2,
        "train_steps": 2,
    }
    distill.run(config(tmp_path / "first", images, **options))
    stored, when = tiny_runs.arrays(shared), shared.stat().st_mtime_ns
    capsys.readouterr()
    distill.run(config(tmp_path / "second", images, seed=1, **options))
    assert shared.stat().st_mtime_ns == when
    assert "the teacher answers" not in capsys.readouterr().err
    assert len(stored["names"]) == 30
    seen = np.stack([keras.utils.img_to_array(keras.utils.load_img(name.decode())) / 255 for name in stored["names"]])
    np.testing.assert_allclose(stored["logits"], teacher(seen)["logits_sup"], rtol=2e-3)  # kept in float16


CACHED = {"teacher_views": "cached", "alpha": 1.0}


def learned_from(images, tmp_path, teacher, **options) -> dict[str, np.ndarray]:
    """Name of a picture → the answer that the student is to learn."""
    source = from_folder(images / "train")
    options = config(tmp_path, images, **CACHED | options)
    changed = distill.with_answers(options, source, teacher=teacher, folder=RunFolder(tmp_path))
    return {
        record["image"].decode(): record["label"]["teacher_logits"] for record in changed.ordered().as_numpy_iterator()
    }


def asked(teacher, path: str) -> np.ndarray:
    return teacher(keras.utils.img_to_array(keras.utils.load_img(path))[None] / 255)["logits_sup"][0]


def head(teacher) -> keras.Model:
    return keras.Model(teacher.input, teacher.output["logits_sup"])


def test_an_answer_that_is_missing_is_computed(images, tmp_path, teacher, capsys):
    first = learned_from(images, tmp_path, head(teacher))
    path = tmp_path / "cache" / "teacher_logits.npz"
    stored = tiny_runs.arrays(path)
    np.savez(path, **stored | {name: stored[name][5:] for name in ("names", "logits")})
    capsys.readouterr()
    again = learned_from(images, tmp_path, head(teacher))
    assert "the teacher answers for 5 images" in capsys.readouterr().err
    assert first.keys() == again.keys()
    for name, answer in again.items():
        np.testing.assert_array_equal(answer, first[name])
        np.testing.assert_allclose(answer, asked(teacher, name), rtol=2e-3)  # kept in float16
    assert len(tiny_runs.arrays(path)["names"]) == 30


def test_an_image_that_could_not_be_read_is_never_learned_from(tmp_path, teacher, capsys):
    pictures.write(tmp_path / "train", per_class=2, size=16)
    path = tmp_path / "train" / "red" / "broken.png"
    path.write_bytes(b"no image")
    found = learned_from(tmp_path, tmp_path / "run", head(teacher))
    assert str(path) not in found
    assert len(found) == 7  # six pictures, and one place without a path
    assert "1 images cannot be read and have no answer" in capsys.readouterr().err


def test_answers_are_those_of_the_images_that_lie_there(tmp_path, teacher, capsys):
    """Also after one was written over by another picture of as many bytes, and in another folder."""
    for place in ("here", "there"):
        (tmp_path / place / "train" / "one").mkdir(parents=True)
        for number, colour in enumerate(((255, 0, 0), (0, 255, 0))):
            pixels = np.broadcast_to(np.array(colour, np.uint8), (16, 16, 3))
            (tmp_path / place / "train" / "one" / f"{number}.bmp").write_bytes(made.bmp(pixels))
    run = tmp_path / "run"
    learned_from(tmp_path / "here", run, head(teacher))
    capsys.readouterr()
    moved = learned_from(tmp_path / "there", run, head(teacher))
    assert "the teacher answers" not in capsys.readouterr().err
    path = tmp_path / "there" / "train" / "one" / "0.bmp"
    assert str(path) in moved
    path.write_bytes(made.bmp(np.broadcast_to(np.array((0, 0, 255), np.uint8), (16, 16, 3))))
    found = learned_from(tmp_path / "there", run, head(teacher))
    assert "of another teacher, other images or another size" in capsys.readouterr().err
    np.testing.assert_allclose(found[str(path)], asked(teacher, path), atol=1e-3)
    with pytest.raises(InputError, match="must hold this teacher's answers to these images"):
        learned_from(tmp_path / "here", run, head(teacher), teacher_logits=run / "cache" / "teacher_logits.npz")


def test_the_cached_answers_of_another_teacher_are_refused(images, tmp_path, teacher):
    path = tmp_path / "answers.npz"
    np.savez(path, key=np.array("another"), names=np.array([b"a"]), logits=np.zeros((1, 3)))
    options = config(tmp_path / "run", images, teacher_views="cached", teacher_logits=path)
    with pytest.raises(InputError, match="must hold this teacher's answers to these images"):
        distill.run(options)


def test_shards_of_which_a_picture_has_no_answer_are_refused(images, tmp_path, teacher):
    """What stands for a picture there is a number: it was a traceback."""
    folder = tmp_path / "pictures"
    shutil.copytree(images / "train", folder)
    broken = next(folder.rglob("*.png"))
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno picture at all")
    source = from_shards(prepare_shards(folder, tmp_path / "shards"))
    options = config(tmp_path, tmp_path / "shards", **CACHED)
    with pytest.raises(InputError, match=r"must be readable for teacher_views cached.* Received: unreadable=1"):
        distill.with_answers(options, source, teacher=head(teacher), folder=RunFolder(tmp_path))


def test_labels_that_are_held_back_are_unknown(images, tmp_path):
    source = from_folder(images / "train")
    options = config(tmp_path, images, alpha=0.5, labels_fraction=0.2)
    changed = distill.with_answers(options, source, teacher=None, folder=RunFolder(tmp_path))
    labels = np.array([record["label"] for record in changed.ordered().as_numpy_iterator()])
    truth = np.repeat([0, 1, 2], 10)
    assert [int(np.sum(labels[truth == c] == c)) for c in range(3)] == [2, 2, 2]
    assert np.sum(labels == -1) == 24


def test_the_student_is_the_teachers_kind_or_a_checkpoints_or_what_the_knobs_say(images, tmp_path, monkeypatch):
    kind = Architecture(50, 2, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=3, ft_proj_selector=1)
    monkeypatch.setattr(Given, "read", classmethod(lambda cls, path, **_: cls(path, kind, {})))
    wanted = Architecture(50, 2, num_classes=3)
    assert distill.describe(config(tmp_path, images, self_distillation=True), 3, given=None) == wanted
    assert distill.describe(config(tmp_path, images), 3, given=Given(tmp_path, kind, {})) == wanted
    assert distill.describe(config(tmp_path, images), 3, given=None) == Architecture(18, cifar_stem=True, num_classes=3)


def test_a_teacher_without_a_classifier_or_of_other_classes_is_refused(images, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"must tell as many classes apart as test has\. .*teacher=3, classes=4"):
        distill.load_teacher(config(tmp_path, images), 4)
    monkeypatch.setattr(distill, "load_model", lambda path, **_: encoder_alone())
    with pytest.raises(InputError, match="must have a classifier to teach; fine-tune it first"):
        distill.load_teacher(config(tmp_path, images), 3)


@pytest.mark.parametrize("views", ["same", "cached"])
def test_labels_that_mean_other_classes_in_the_test_are_refused(images, tmp_path, views):
    """Sorted by name, red would have been learned as what is tested as crimson's neighbour."""
    for split, red in (("train", "red"), ("test", "azure")):
        pictures.write(tmp_path / split, per_class=2, size=16)
        (tmp_path / split / "red").rename(tmp_path / split / red)
    with pytest.raises(InputError, match=r"must have the same classes.*differing=\['azure', 'red'\]"):
        distill.run(config(tmp_path / "run", tmp_path, alpha=0.5, teacher_views=views))
    assert not (tmp_path / "run").exists()


def encoder_alone() -> keras.Model:
    features = keras.Input((2,))
    return keras.Model(features, {"final_avg_pool": features})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"distillation_temperature": 0.0}, "distillation_temperature must be above 0"),
        ({"alpha": 1.5}, "alpha must lie in"),
        ({"self_distillation": True, "checkpoint": "x"}, "give one of them"),
        ({"checkpoint_epochs": 0}, "checkpoint_epochs must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Distill(teacher="t", **options)


@pytest.mark.parametrize("command", ["distill", "finetune", "official"])
def test_a_classifier_of_other_classes_is_refused(command, images, tmp_path, monkeypatch):
    """As many classes of other names, or in another order, were taken for those of the images."""
    source = open_source(config(tmp_path, images), "test", labelled=True)
    asked = {
        "distill": lambda: distill.distill(config(tmp_path / "run", images, teacher=place), source, test=source),
        "finetune": lambda: finetune.finetune(tuned, source, test=source),
        "official": lambda: official._logits_of(called, keras.Model),
    }[command]
    place = tmp_path / "fine-tuned"
    tuned = Finetune(checkpoint=place, restore_logits_layer=True, image_dir=images, model_dir=tmp_path / "tuned")
    called = SimpleNamespace(config=SimpleNamespace(model_dir=place), flags={"eval_split": "test"})
    monkeypatch.setattr(official, "open_source", lambda *_, **__: source)
    write_json(place / "data.json", {"classes": list(source.class_names[::-1])})
    with pytest.raises(InputError, match=r"must tell the classes of .* apart, in this order. Received: there="):
        asked()
    assert not (tmp_path / "run").exists()
    for known in (source.class_names, [str(i) for i in range(source.num_classes)], (), ("a", "b")):
        write_json(place / "data.json", {"classes": list(known)})
        check_classifier_of(place, source)
