"""Whether splits share images, against TensorFlow Datasets' own reading of their names."""

import itertools

import pytest

from tf_simclr.config.splits import shared

NAMES = ["train", "test", "train[:90%]", "train[90%:]", "train[10%:20%]", "train[-10%:]", "train[:500]", "train[500:]"]
NAMES += ["train[200:600]", "train[:10%]+test", "train[50%:]+test[:10]", "train[-100:]"]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(NAMES, NAMES)))
def test_shared_is_what_tensorflow_datasets_would_read(one, other):
    from tensorflow_datasets.core import splits as tfds

    def images(name: str) -> set[tuple[str, int]]:
        infos = {
            split: tfds.SplitInfo(name=split, shard_lengths=[1000], num_bytes=0, filename_template=None)
            for split in ("train", "test")
        }
        found = set()
        for part in tfds.ReadInstruction.from_spec(name).to_absolute(infos):
            found |= {(part.splitname, i) for i in range(part.from_ or 0, 1000 if part.to is None else part.to)}
        return found

    answer = shared(one, other)
    assert answer is shared(other, one)
    if answer is not None:
        assert answer is bool(images(one) & images(other))
    else:  # percent beside numbers, or numbers counted from the end
        assert any("%" in name for name in (one, other)) or "-100" in one + other


def test_the_name_of_all_splits_tells_nothing():
    assert shared("all", "test") is None
    assert shared("all", "all") is True
