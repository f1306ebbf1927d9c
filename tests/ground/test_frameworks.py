"""What Keras computes with, and what it would not start with, told before it is imported."""

import json

import pytest

from tf_simclr import cli, frameworks
from tf_simclr.errors import InputError


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Writes Keras' own file; no test sees the machine's."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)

    def write(text: str) -> None:
        (tmp_path / "keras.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("environment", "content", "wanted"),
    [
        (None, None, "tensorflow"),
        (None, '{"backend": "torch"}', "torch"),
        ("", '{"backend": "torch"}', "torch"),
        ("jax", '{"backend": "torch"}', "jax"),
        (None, "no JSON", "tensorflow"),
        (None, "[]", "tensorflow"),
        (None, "{}", "tensorflow"),
    ],
)
def test_the_environment_goes_over_keras_file(settings, monkeypatch, environment, content, wanted):
    if content is not None:
        settings(content)
    if environment is not None:
        monkeypatch.setenv("KERAS_BACKEND", environment)
    assert frameworks.chosen() == wanted


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"backend": "tensorfow"}, r"the backend in .*keras.json must be one of .* \(did you mean tensorflow\?\)"),
        ({"floatx": "half"}, "floatx in .*keras.json must be one of float16, float32, float64"),
        ({"image_data_format": "NHWC"}, "image_data_format in .* must be one of channels_last, channels_first"),
        ({"epsilon": 1}, "epsilon in .* must be a number such as 1e-7"),
        ([], "must hold a JSON object"),
    ],
)
def test_what_keras_would_not_start_with_is_a_sentence(settings, content, says):
    settings(json.dumps(content))
    with pytest.raises(InputError, match=says):
        frameworks.check_chosen()


def test_a_backend_that_is_none_of_ours_is_refused_by_commands_that_compute(settings, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    monkeypatch.delitem(cli.sys.modules, "keras")
    with pytest.raises(InputError, match="KERAS_BACKEND must be one of tensorflow, jax, torch"):
        cli.task("pretrain")
    with pytest.raises(InputError, match="KERAS_BACKEND must be one of tensorflow, jax, torch"):
        cli.execute("chest covid")  # which looks for other processes first
    assert cli.task("presets")
