"""The numbers of the reference implementation are those that were stored, and all lie in the repository."""

import hashlib

import numpy as np
import pytest

from tests import golden


def test_every_golden_has_the_checksum_that_stands_beside_it():
    noted = dict(line.split("  ")[::-1] for line in (golden.GOLDENS / "SHA256SUMS").read_text().splitlines())
    files = {path.relative_to(golden.GOLDENS).as_posix(): path for path in golden.GOLDENS.rglob("*.xz")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == noted
    assert set(golden.GOLDENS.rglob("*.*")) == {*files.values(), golden.GOLDENS / "README.md"}


def test_the_formula_gives_the_weights_that_the_goldens_readme_quotes():
    kernel = golden.fill("base_model/conv2d/kernel", (7, 7, 3, 64))
    np.testing.assert_allclose(kernel[0, 0, 0, :3], [0.04397000, -0.03431898, 0.10372669], rtol=0, atol=5e-9)
    gamma = golden.fill("base_model/batch_normalization/gamma", (64,))
    np.testing.assert_allclose(gamma[:3], [0.53931928, 0.76055193, 0.99150300], rtol=0, atol=5e-9)
    bias = golden.fill("head_supervised/linear_layer/dense/bias", (1000,))
    np.testing.assert_allclose(bias[:3], [0.00065427, 0.07084449, -0.09743169], rtol=0, atol=5e-9)


def test_a_test_cannot_change_what_the_next_one_compares_with():
    stored = golden.arrays("preprocess/photo.npz")
    with pytest.raises(ValueError, match="read-only"):
        stored["photo"][0] = 0
