"""Public names explain themselves: each has a docstring, and those that need no file an example, which pytest runs."""

import doctest
import inspect
import pydoc

import pytest

import converters
import tf_simclr

PUBLIC = {name: getattr(module, name) for module in (tf_simclr, converters) for name in module.__all__}
NEED_A_FILE = {"convert", "Conversion", "load", "load_encoder", "load_model", "load_torch"}
"""What works on a checkpoint: the README's blocks, which are run, show them."""


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_takes_gives_and_refuses(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text.splitlines()[0].endswith((".", ":"))
    assert {part for part in ("Args:", "Attributes:", "Raises:", "Returns:") if part in text}


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - NEED_A_FILE))
def test_a_public_name_has_an_example(name):
    assert doctest.DocTestParser().get_examples(inspect.getdoc(PUBLIC[name]))


@pytest.mark.parametrize("module", [tf_simclr, converters])
def test_pydoc_shows_every_public_name(module):
    text = pydoc.plain(pydoc.render_doc(module))
    assert all(name in text for name in module.__all__)
    assert module.__doc__.splitlines()[0].removesuffix(".") in text
