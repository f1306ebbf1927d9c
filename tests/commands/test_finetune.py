"""`tf-simclr finetune` on small pictures: from scratch and from a checkpoint, stopped and resumed, tested and left."""

import csv
import json

import keras
import numpy as np
import pytest

import converters
from tests import tiny_runs
from tests.commands import pictures
from tests.converters import official
from tests.models import grouped
from tf_simclr.commands import finetune, supervised
from tf_simclr.config import Finetune, plain
from tf_simclr.errors import InputError
from tf_simclr.evaluation.reports import read_answers
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import weights_by_name
from tf_simclr.run_folder import RunFolder
from tf_simclr.weights import load_model, read_network


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Thirty training pictures in three classes; of 24 for testing a quarter lies in the wrong class folder."""
    folder = tmp_path_factory.mktemp("images")
    pictures.write(folder / "train", per_class=10, size=16)
    pictures.write(folder / "test", per_class=8, size=16, wrong=2)
    return folder


@pytest.fixture
def tiny(monkeypatch):
    """The smallest encoder in place of a ResNet."""
    monkeypatch.setattr(finetune, "build_encoder", lambda *_: grouped.encoder())


def config(folder, images, **changes) -> Finetune:
    values = {
        "model_dir": folder,
        "image_dir": images,
        "image_size": 16,
        "resnet_depth": 18,
        "train_batch_size": 5,
        "train_steps": 6,
        "warmup_epochs": 0,
        "optimizer": "momentum",
        "learning_rate": 2.0,
        "labels_fraction": 0.5,
        "eval_epochs": 1,
    }
    return Finetune(**values | changes)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A whole run: two epochs of three steps on half of the labels, tested after each."""
    options = config(tmp_path_factory.mktemp("run"), images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "build_encoder", lambda *_: grouped.encoder())
        finetune.run(options)
    return options


def test_a_run_folder_tells_what_was_trained_and_tested(finished):
    run = RunFolder(finished.model_dir)
    result = json.loads(run.result.read_text())
    assert result["step"] == 6
    assert result["labels"] == {"blue": 5, "green": 5, "red": 5}
    assert (result["eval_split"], result["eval_images"]) == ("test", 24)
    assert result["top1"]["low"] <= result["top1"]["accuracy"] <= result["top1"]["high"]
    assert result["top3"]["accuracy"] == 1  # of three classes
    assert result["results"]["classifier"]["top1"] == result["top1"]
    assert json.loads(run.config.read_text()) == plain(finished)
    with open(run.history, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], float(row["top1"])) for row in rows][-1] == ("6", result["top1"]["accuracy"])


def test_the_stored_predictions_are_those_that_were_counted(finished):
    run = RunFolder(finished.model_dir)
    found = read_answers(run.result)
    result = json.loads(run.result.read_text())
    assert found.hits("classifier").mean() == result["top1"]["accuracy"]
    assert [name.split("/")[-2] for name in found.names[[0, -1]]] == ["blue", "red"]
    exported = keras.saving.load_model(run.network, compile=False)
    test = np.stack([keras.utils.img_to_array(keras.utils.load_img(name)) / 255 for name in found.names])
    np.testing.assert_allclose(exported(test)["logits_sup"], found.scores["classifier"], rtol=1e-4, atol=1e-5)
    assert all(layer.trainable for layer in exported.layers)


def test_the_same_command_on_a_finished_run_trains_nothing(finished, capsys):
    before = RunFolder(finished.model_dir).result.read_bytes()
    finetune.run(finished)
    out, err = capsys.readouterr()
    assert f"{finished.model_dir} is finished" in err
    assert "top1:" in out
    assert RunFolder(finished.model_dir).result.read_bytes() == before


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(finished, images, tmp_path, tiny, monkeypatch):
    class Stopped(supervised.Result):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 0:
                raise KeyboardInterrupt

    options = config(tmp_path, images)
    with monkeypatch.context() as patch:
        patch.setattr(supervised, "Result", Stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(options)
    finetune.run(options)
    ours, theirs = RunFolder(tmp_path), RunFolder(finished.model_dir)
    tiny_runs.assert_same_bits(ours.checkpoint(6), theirs.checkpoint(6))
    assert ours.history.read_bytes() == theirs.history.read_bytes()


GIVEN = Architecture(18, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=10, ft_proj_selector=1)


def test_the_network_is_the_checkpoints_or_else_what_the_knobs_say(images, tmp_path):
    given = finetune.Given(tmp_path, GIVEN, {})
    for selector, layer in ((0, 0), (2, 2), (-1, 3)):
        options = config(tmp_path, images, ft_proj_selector=selector)
        wanted = Architecture(18, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=4, ft_proj_selector=layer)
        assert finetune.describe(options, 4, given=given) == wanted
    options = config(tmp_path, images, resnet_depth=50, sk_ratio=0.0625, image_size=32)
    assert finetune.describe(options, 4, given=None) == Architecture(
        50, sk_ratio=0.0625, cifar_stem=True, num_classes=4
    )
    with pytest.raises(InputError, match=r"ft_proj_selector must lie in -1\.\.0: there are 0 projection layers"):
        finetune.describe(config(tmp_path, images, ft_proj_selector=1), 4, given=None)


def test_a_classifier_is_only_taken_over_where_it_fits(images, tmp_path, tiny):
    model = finetune.classifier(config(tmp_path, images), Architecture(18, num_classes=3))
    weights = {name: np.full(weight.shape, 7.0) for name, weight in weights_by_name(model).items()}
    given = finetune.Given(tmp_path, Architecture(18, num_classes=3), weights)
    given.fill(model)
    assert not np.array(model.head.kernel).max() >= 7
    with pytest.raises(InputError, match="must have a classifier of this form to restore_logits_layer from"):
        given.fill(model, head=True)  # the small encoder's six features are not a ResNet-18's 512


def test_other_classes_in_the_test_split_are_refused(tmp_path):
    pictures.write(tmp_path / "train", per_class=2, size=16)
    pictures.write(tmp_path / "test", per_class=2, size=16)
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "pink")
    with pytest.raises(InputError, match=r"must have the same classes\. Received: differing=\['pink', 'red'\]"):
        finetune.run(config(tmp_path / "run", tmp_path))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fine_tune_after_block": 5}, "fine_tune_after_block must lie in"),
        ({"labels_fraction": 0.0}, "labels_fraction must lie in"),
        ({"layer_decay": 0.0}, "layer_decay must lie in"),
        ({"restore_logits_layer": True}, "restore_logits_layer needs a checkpoint"),
        ({"restore_logits_layer": True, "zero_init_logits_layer": True}, "exclude each other"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Finetune(**options)


@pytest.mark.slow
def test_an_official_checkpoint_is_fine_tuned_in_one_command_and_converts_with_its_selector(images, tmp_path):
    official.write_tf1(tmp_path / "given", "r18_1x_sk0_cifar")
    options = config(
        tmp_path / "run", images, checkpoint=tmp_path / "given", image_size=32, train_batch_size=4, train_steps=3,
        fine_tune_after_block=3, ft_proj_selector=1, layer_decay=0.5, optimizer="momentum", learning_rate=0.1,
        eval_epochs=0,
    )  # fmt: skip
    finetune.run(options)
    _, before = read_network(options.checkpoint)
    after = weights_by_name(load_model(options.model_dir))
    kept = {name: value for name, value in before.items() if not name.startswith("logits_sup")}
    changed = {name for name, value in kept.items() if (np.array(after[name]) != value).any()}
    assert changed <= {name for name in after if name.startswith(("group4_", "proj1_"))}
    assert {"group4_block1_conv1/kernel", "group4_block2_bn2/moving_mean", "proj1_dense/kernel"} <= changed
    converters.convert(options.model_dir, tmp_path / "out.pth")
    assert converters.load(tmp_path / "out.pth").architecture.ft_proj_selector == 1
    views = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype("float32")
    exported = keras.saving.load_model(RunFolder(options.model_dir).network, compile=False)(views)
    np.testing.assert_allclose(load_model(options.model_dir)(views)["logits_sup"], exported["logits_sup"], rtol=1e-4)
