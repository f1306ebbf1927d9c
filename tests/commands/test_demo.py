"""`tf-simclr demo`, shortened to one epoch: every stage and what it leaves."""

import json

import numpy as np
import pytest

import converters
from tf_simclr.commands import demo
from tf_simclr.config import Demo, plain
from tf_simclr.weights import load_encoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The options, and what was written to standard output."""
    options = Demo(model_dir=tmp_path_factory.mktemp("demo"), train_epochs=1, label_draws=2)
    texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "show", texts.append)
        demo.run(options)
    return options, "\n".join(texts)


def test_the_table_compares_three_representations(shown):
    options, text = shown
    result = json.loads((options.model_dir / "result.json").read_text())
    assert list(result["accuracy"]) == ["pretrained", "untrained", "raw pixels"]
    for name, accuracy in result["accuracy"].items():
        assert 0.1 < accuracy["mean"] <= 1  # ten classes
        assert f"{name}" in text
        assert f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}" in text
    assert json.loads((options.model_dir / "config.json").read_text()) == plain(options)


def test_keras_and_pytorch_features_are_equal(shown):
    import torch

    options, text = shown
    images = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")
    ours = np.asarray(load_encoder(options.model_dir)(images, training=False))
    twin = converters.load_torch(options.model_dir / "encoder.pth")
    with torch.no_grad():
        theirs = twin(torch.from_numpy(images.transpose(0, 3, 1, 2)))["final_avg_pool"].numpy()
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()
    difference = json.loads((options.model_dir / "result.json").read_text())["torch_relative_difference"]
    assert difference <= 1e-5
    assert f"largest difference {difference:.1e}" in text


def test_everything_that_is_named_at_the_end_is_there(shown):
    options, text = shown
    for name in ("network.keras", "encoder.pth", "demo.png", "result.json", "logs"):
        assert (options.model_dir / name).exists()
        assert f"{options.model_dir}/{name}" in text
    assert (options.model_dir / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_trains_nothing_and_says_the_same(shown, capsys, monkeypatch):
    options, text = shown
    texts: list[str] = []
    monkeypatch.setattr(demo, "show", texts.append)
    demo.run(options)
    assert "is finished" in capsys.readouterr().err
    assert texts == [text]
