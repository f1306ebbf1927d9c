import pytest
import tensorflow_datasets as tfds

from tf_simclr.errors import InputError
from tf_simclr.evaluation.metrics import METRICS
from tf_simclr.evaluation.transfer_sets import TRANSFER_SETS, chosen_sets, how_to_get

KORNBLITH = {
    "food101": (75750, 25250, "accuracy"),
    "cifar10": (50000, 10000, "accuracy"),
    "cifar100": (50000, 10000, "accuracy"),
    "birdsnap": (47386, 2443, "accuracy"),
    "sun397": (19850, 19850, "accuracy"),
    "cars196": (8144, 8041, "accuracy"),
    "aircraft": (6667, 3333, "mean_per_class_accuracy"),
    "voc2007": (5011, 4952, "mean_average_precision"),
    "dtd": (3760, 1880, "accuracy"),
    "pets": (3680, 3669, "mean_per_class_accuracy"),
    "caltech101": (3060, 6084, "mean_per_class_accuracy"),
    "flowers102": (2040, 6149, "mean_per_class_accuracy"),
}
"""Training (with validation) and test images and metric: arXiv:1805.08974, Table 1 (its 3,369 Pets are the 3,669 of the
data set's own list); metrics again in SimCLR, Appendix B.8.1."""


def test_the_twelve_sets_have_the_papers_sizes_and_metrics():
    found = {name: (sum(one.sizes[:2]), one.sizes[2], one.metric) for name, one in TRANSFER_SETS.items()}
    assert found == KORNBLITH
    assert {one.metric for one in TRANSFER_SETS.values()} == set(METRICS)


def test_validation_is_the_creators_where_they_have_one():
    own = {name for name, one in TRANSFER_SETS.items() if one.validation}
    assert own == {"aircraft", "voc2007", "dtd", "flowers102"}  # SimCLR, Appendix B.8.1


@pytest.mark.parametrize("name", [name for name, one in TRANSFER_SETS.items() if one.tfds])
def test_tfds_knows_every_set_that_is_said_to_be_there(name, tmp_path):
    builder = tfds.builder(TRANSFER_SETS[name].tfds, data_dir=tmp_path)
    features = builder.info.features
    assert "image" in features
    assert (TRANSFER_SETS[name].label_key or "label") in features


def test_what_tfds_does_not_have_is_named_with_what_to_do():
    for name in (name for name, one in TRANSFER_SETS.items() if one.tfds is None):
        text = how_to_get(name, data_dir="data")
        assert "is not in TensorFlow Datasets (its creators" in text
        assert f"IMAGE_DIR/{name}/" in text
    assert "tfds build dtd --data_dir data" in how_to_get("dtd", data_dir="data")


def test_a_list_of_names_and_all():
    assert list(chosen_sets("dtd, pets")) == ["dtd", "pets"]
    assert set(TRANSFER_SETS) - set(chosen_sets("all")) == {"birdsnap", "aircraft"}
    with pytest.raises(InputError, match=r"datasets must be all, or some of food101,.*unknown=\['mnist'\]"):
        chosen_sets("cifar10,mnist")
    with pytest.raises(InputError, match="datasets must be all"):
        chosen_sets(",")
