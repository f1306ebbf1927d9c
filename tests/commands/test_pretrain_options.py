"""What knobs of `pretrain` come to: the loss, the weights to start from, presets, what is watched."""

import dataclasses
import inspect
import json
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import tiny_runs
from tests.commands import pictures
from tf_simclr import cli, losses
from tf_simclr.commands import pretrain
from tf_simclr.commands.parts import plans
from tf_simclr.commands.pretrain import objective, watchers
from tf_simclr.config import Distill, Embed, Finetune, LinearEval, Pretrain, presets
from tf_simclr.config.presets import PRESETS, Presets, settings
from tf_simclr.config.training import LOSSES as CHOICES
from tf_simclr.data.recipe import RADIOGRAPH, Recipe
from tf_simclr.data.sources import from_arrays
from tf_simclr.errors import InputError
from tf_simclr.models.network import weights_by_name
from tf_simclr.replicas import ONE_DEVICE
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import Plan, read_history, viewing
from tf_simclr.weights import load_model

LOSSES = {
    "nt_xent": (losses.NTXent(0.2), {}),
    "nt_logistic": (losses.NTLogistic(0.2, semi_hard=True), {"loss_semi_hard": True}),
    "margin_triplet": (losses.MarginTriplet(0.8, semi_hard=True), {"loss_margin": 0.8, "loss_semi_hard": True}),
    "dcl": (losses.DCL(0.2, sigma=0.5), {"loss_sigma": 0.5}),
    "supcon": (losses.SupCon(0.2), {}),
    "generalized": (
        losses.GeneralizedContrastive(0.2, weight=3.0, prior="normal", seed=7),
        {"loss_weight": 3.0, "loss_prior": "normal"},
    ),
    "hadsell": (losses.Hadsell(2.0), {"loss_margin": 2.0}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_each_loss_gets_its_options(name):
    expected, options = LOSSES[name]
    found = objective(Pretrain(loss=name, temperature=0.2, **options), seed=7)
    assert type(found) is type(expected)
    assert found.get_config() == expected.get_config()
    plain = objective(Pretrain(loss=name, hidden_norm=False), seed=7)
    default = type(expected)(hidden_norm=False)  # those not given are the loss's own
    ours = {"temperature": 0.1, "seed": 7} | {"hidden_norm": False}
    assert plain.options == default.options | {k: v for k, v in ours.items() if k in default.options}


def test_every_loss_of_the_package_can_be_chosen_with_all_its_options():
    kinds = {name for name in losses.__all__ if isinstance(getattr(losses, name), type)}
    assert {kind for kind, _ in CHOICES.values()} == kinds - {"ContrastiveLoss", "InfoNCE"}  # the latter is MoCo's
    elsewhere = {"hidden_norm", "block_size", "seed", "name", "kwargs"}  # of every loss, of the memory, and of the run
    for kind, options in CHOICES.values():
        assert set(inspect.signature(getattr(losses, kind)).parameters) - elsewhere == set(options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss_margin": 0.4}, r"loss_margin must be left out with --loss nt_xent: .* margin_triplet and hadsell\."),
        ({"loss": "hadsell", "loss_semi_hard": False}, "it belongs to nt_logistic and margin_triplet"),
        ({"loss": "dcl", "loss_weight": 1.0}, "it belongs to generalized"),
    ],
)
def test_an_option_of_another_loss_is_refused_instead_of_ignored(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Pretrain(**options)


def test_losses_are_chosen_on_the_command_line():
    config = cli.parse(["pretrain", "--loss", "margin_triplet", "--loss_margin", "0.8", "--loss_semi_hard", "True"])
    assert config == Pretrain(loss="margin_triplet", loss_margin=0.8, loss_semi_hard=True)


def given_network(*, width: int = 6, projection: bool = True) -> keras.Model:
    """A network with the names of `tiny_runs`' model, and other weights."""
    kept = tiny_runs.model()
    images = keras.Input((4, 4, 3))
    hidden = keras.layers.Dense(width, name="dense")(keras.layers.Flatten()(images))
    features = keras.layers.BatchNormalization(name="bn")(hidden)
    outputs = {"final_avg_pool": features}
    if projection and width == 6:
        outputs["proj_head_output"] = keras.models.clone_model(kept.projection)(features)[-1]
    network = keras.Model(images, outputs)
    for number, weight in enumerate(network.weights):
        weight.assign(np.full(weight.shape, 0.5 + number))
    return network


def test_a_training_starts_from_the_parts_of_a_checkpoint_that_fit(monkeypatch):
    network, model, said = given_network(), tiny_runs.model(), []
    monkeypatch.setattr(pretrain, "load_model", lambda path: network)
    probe = model.probe.kernel.numpy()
    pretrain.start_from("a", model, say=said.append)
    given = weights_by_name(network)
    for part in (model.encoder, model.projection):
        for name, weight in weights_by_name(part).items():
            np.testing.assert_array_equal(weight, given[name], err_msg=name)
    np.testing.assert_array_equal(model.probe.kernel, probe)
    assert said == ["projection head: from a", "linear probe: not from a"]
    monkeypatch.setattr(pretrain, "load_model", lambda path: given_network(projection=False))
    pretrain.start_from("b", model, say=said.append)
    assert said[2] == "projection head: not from b"


def test_a_checkpoint_with_another_encoder_is_refused(monkeypatch):
    model = tiny_runs.model()
    before = [weight.numpy() for weight in model.weights]
    monkeypatch.setattr(pretrain, "load_model", lambda path: given_network(width=7))
    with pytest.raises(
        InputError, match=r"a must hold an encoder like the one to train.*6 weights differ: dense/kernel"
    ):
        pretrain.start_from("a", model, say=[].append)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_defaults_that_other_options_override(name):
    values = settings(name)
    assert cli.parse(["pretrain", "--preset", name]) == Pretrain(**values)
    for words in (["--preset", name, "--temperature", "0.7"], ["--temperature", "0.7", f"--preset={name}"]):
        assert cli.parse(["pretrain", *words]) == Pretrain(**values | {"temperature": 0.7})


def test_presets_have_the_numbers_of_their_sources():
    """Written down again, from the papers, the official READMEs and the author's advice."""
    peaks = {"cifar10": 2.0, "imagenet": 4.8, "imagenet_small_batch": 1.2, "imagenet_v2": 6.4}
    for name, peak in peaks.items():
        config = Pretrain(**settings(name))
        schedule = plans.schedule_of(config, steps=100, num_examples=1000)
        assert schedule.get_config()["peak"] == pytest.approx(peak)
    small = Pretrain(**settings("imagenet_small_batch"))
    assert (small.train_batch_size, small.learning_rate_scaling, small.temperature) == (256, "sqrt", 0.2)
    large = Pretrain(**settings("imagenet"))
    assert (large.train_batch_size, large.weight_decay, large.num_proj_layers) == (4096, 1e-6, 2)
    assert large.additive_brightness
    assert Recipe.of(Pretrain(**settings("radiographs"))) == RADIOGRAPH


KNOWN = ("arXiv", "google-research", "official code", presets.CHOICE)


def test_each_number_of_a_preset_has_a_source_that_the_listing_prints(capsys):
    for name, recipe in PRESETS.items():
        presets.run(cli.parse(["presets", "--name", name]))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"--preset {name}"
        for line, (option, (value, source)) in zip(lines[1:], recipe.items(), strict=True):
            assert line.split()[:2] == [f"--{option}", str(value)]
            assert line.endswith(source)
            assert any(known in source for known in ("arXiv", "google-research", "official code", presets.CHOICE)), (
                source
            )
    presets.run(cli.parse(["presets"]))
    out = capsys.readouterr().out
    assert all(f"--preset {name}\n" in out for name in PRESETS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pretrain --preset cifar", r"preset must be one of cifar10, imagenet.*Received: preset='cifar'"),
        ("pretrain --preset", "--preset must be followed by one of cifar10"),
    ],
)
def test_a_preset_that_does_not_exist_is_refused(words, sentence):
    with pytest.raises(InputError, match=sentence):
        cli.parse(words.split())
    with pytest.raises(InputError, match=r"name must be all or one of cifar10.*Received: name='x'"):
        Presets(name="x")


def test_what_is_watched_follows_the_knobs():
    plan = Plan(total_steps=5, steps_per_epoch=2, batch_size=4, checkpoint_steps=1)
    labelled = from_arrays(np.zeros((12, 8, 8), np.uint8), np.arange(12) % 2)
    sizes = []

    def views(size):
        sizes.append(size)
        return tiny_runs.stream(0)

    def kinds(source, **options):
        found = watchers(Pretrain(image_size=8, **options), source, plan=plan, views=views)
        return [type(watch).__name__ for watch in found]

    assert kinds(labelled) == ["Collapse", "Neighbours"]
    assert kinds(labelled, knn_epochs=0) == ["Collapse"]
    assert kinds(labelled, collapse_images=0) == ["Neighbours"]
    assert kinds(from_arrays(np.zeros((12, 8, 8), np.uint8))) == ["Collapse"]
    assert sizes == [12, 12, 12]


def test_weights_and_biases_is_asked_for_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    source = from_arrays(np.zeros((12, 8, 8), np.uint8))
    with pytest.raises(InputError, match="--wandb needs wandb"):
        pretrain.pretrain(Pretrain(model_dir=tmp_path / "run", wandb="ours"), source)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_watched_and_another_one_starts_from_it(tmp_path):
    images = pictures.write(tmp_path / "images" / "train", per_class=6).parent
    pictures.write(images / "test", per_class=3)
    first = Pretrain(
        image_dir=images,
        image_size=40,
        resnet_depth=18,
        num_proj_layers=2,
        train_batch_size=4,
        train_steps=6,
        warmup_epochs=0,
        model_dir=tmp_path / "first",
        eval_split="test",
        knn_epochs=1,
        loss="dcl",
        seed=3,
    )
    pretrain.run(first)
    run = RunFolder(first.model_dir)
    rows = read_history(run)
    assert [0 <= row["knn_acc"] <= 1 for row in rows] == [True, True]
    assert all(row["projection_rank"] >= 1 for row in rows)
    assert json.loads(run.result.read_text())["knn_acc"] == rows[-1]["knn_acc"]
    assert (run.path / "pairs.png").stat().st_size > 1000

    second = dataclasses.replace(
        first, checkpoint=run.path, model_dir=tmp_path / "second", learning_rate=0.0, weight_decay=0.0, seed=4
    )
    pretrain.run(second)
    trained, begun = (weights_by_name(load_model(path)) for path in (first.model_dir, second.model_dir))
    moving = {name for name in begun if "moving" in name}
    for name in begun.keys() - moving:  # at a rate of 0 all stays as it began
        np.testing.assert_array_equal(begun[name], trained[name], err_msg=name)
    assert any(not np.array_equal(begun[name], trained[name]) for name in moving)


RUN = Path("run")
IGNORED = {
    "a cache's size without a cache": (lambda: Pretrain(cache_size=512), "cache_size must be left out"),
    "a cache's format without one": (lambda: Embed(checkpoint=RUN, cache_format="raw"), "cache_format must be left"),
    "both": (lambda: Finetune(cache_size=512, cache_format="raw"), "cache_size and cache_format must be left out"),
    "radiographs are upright": (lambda: Pretrain(radiographs=RUN, exif_orientation=True), "exif_orientation must be"),
    "a data set has splits": (lambda: Finetune(validation_fraction=0.1), "validation_fraction must be left out"),
    "patients divide": (lambda: Finetune(radiographs=RUN, validation_fraction=0.1), "divided by patients"),
    "nothing is blurred": (lambda: Pretrain(use_blur=False, blur_probability=0.9), "blur_probability must be left"),
    "transfer does not augment": (lambda: LinearEval(checkpoint=RUN, augment_on="device"), "--protocol sgd"),
    "neighbours do not": (lambda: LinearEval(checkpoint=RUN, protocol="knn", augment_on="host"), "--protocol sgd"),
    "no label counts": (lambda: Distill(teacher=RUN, labels_fraction=0.1), "labels_fraction must be left out"),
    "no answers are kept": (lambda: Distill(teacher=RUN, teacher_logits=RUN), "teacher_logits must be left out"),
}


@pytest.mark.parametrize("case", IGNORED)
def test_an_option_that_would_count_for_nothing_is_refused(case):
    make, rule = IGNORED[case]
    with pytest.raises(InputError, match=rule):
        make()


def test_no_option_of_images_or_views_is_refused_where_it_counts():
    Pretrain(cache="resized", cache_size=512, cache_format="raw", use_blur=True, blur_probability=0.9)
    LinearEval(checkpoint=RUN, protocol="sgd", augment_on="device")
    Distill(teacher=RUN, alpha=0.5, labels_fraction=0.1, teacher_views="cached", teacher_logits=RUN)
    Finetune(image_dir=RUN, validation_fraction=0.1, exif_orientation=True)


@pytest.mark.parametrize(
    "kind", [Pretrain, Finetune, partial(Distill, teacher=RUN), partial(LinearEval, checkpoint=RUN)]
)
def test_without_tensorflow_there_are_no_views_of_the_host(kind, monkeypatch):
    monkeypatch.setattr(viewing, "has_tensorflow", lambda: False)
    protocol = {"protocol": "sgd"} if "checkpoint" in getattr(kind, "keywords", {}) else {}
    given = {"recipe": Recipe(), "devices": ONE_DEVICE}
    source = from_arrays(np.zeros((4, 8, 8, 3), np.uint8))
    for place in ("auto", "device"):
        assert viewing.views_on_device(kind(augment_on=place, **protocol), source, **given) is None
    with pytest.raises(InputError, match=r"must be auto or device without TensorFlow.*leave it out, or pip install"):
        viewing.views_on_device(kind(augment_on="host", **protocol), source, **given)


def test_where_views_are_made_is_said_whatever_auto_takes(monkeypatch, capsys):
    source = from_arrays(np.zeros((4, 8, 8, 3), np.uint8))
    given = {"recipe": Recipe(), "devices": ONE_DEVICE}
    for trains in (False, True):
        monkeypatch.setattr(viewing, "accelerated", lambda trains=trains: trains)
        made = viewing.views_on_device(Pretrain(), source, **given)
        assert (made is not None) == trains
        where = "on the device" if trains else "on the host: no accelerator trains"
        assert f"views are made {where}" in capsys.readouterr().err
    assert viewing.views_on_device(Pretrain(), source, **given, against=["the workers make them"]) is None
    assert "views are made on the host: the workers make them" in capsys.readouterr().err
    assert viewing.views_on_device(Pretrain(augment_on="host"), source, **given) is None
    assert not capsys.readouterr().err
