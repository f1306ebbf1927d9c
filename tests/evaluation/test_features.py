import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.errors import InputError
from tf_simclr.evaluation.features import extract

IMAGES = np.random.default_rng(0).random((10, 4, 4, 3)).astype(np.float32)


@pytest.fixture
def model():
    images = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(5, 3)(images))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, x)


def dataset(*columns, size=4):
    return tf.data.Dataset.from_tensor_slices(columns).batch(size)


def test_features_labels_and_names_keep_the_order_of_the_batches(model):
    labels, names = np.arange(10) * 3, np.array([f"{'long' * i}{i}.png" for i in range(10)])
    features = extract(model, dataset(IMAGES, labels, names))
    np.testing.assert_allclose(features.values, model.predict(IMAGES, verbose=0), atol=1e-6)
    assert features.values.dtype == np.float32
    assert features.labels.tolist() == labels.tolist()
    assert features.names.tolist() == names.tolist()


def test_inference_mode_is_used_and_leaves_the_model_as_it_was(model):
    before = [v.numpy() for v in model.variables]
    first, again = (extract(model, dataset(IMAGES)).values for _ in range(2))
    assert np.array_equal(first, again)
    assert all(np.array_equal(v.numpy(), b) for v, b in zip(model.variables, before, strict=True))


@pytest.mark.parametrize("batches", [[IMAGES[:7], IMAGES[7:]], [(IMAGES[:7],), (IMAGES[7:],)]])
def test_batches_without_labels_give_none(model, batches):
    features = extract(model, batches)
    assert features.values.shape == (10, 5)
    assert features.labels is None
    assert features.names is None


def test_names_in_batches_of_different_lengths_are_not_cut(model):
    batches = [(IMAGES[:1], [0], np.array(["a"])), (IMAGES[1:2], [1], np.array(["a longer name"]))]
    assert extract(model, batches).names.tolist() == ["a", "a longer name"]


def test_an_endpoint_is_chosen_by_name_and_the_pooled_features_are_the_default(model):
    images = keras.Input((4, 4, 3))
    pooled = model(images)
    both = keras.Model(images, {"final_avg_pool": pooled, "proj_1": 2 * pooled, "initial_conv": images})
    default, other = extract(both, dataset(IMAGES)), extract(both, dataset(IMAGES), endpoint="proj_1")
    np.testing.assert_allclose(other.values, 2 * default.values, rtol=1e-6)
    with pytest.raises(InputError, match=r"one of final_avg_pool, .*Received: endpoint='proj_9'"):
        extract(both, dataset(IMAGES), endpoint="proj_9")
    with pytest.raises(InputError, match="one vector an image"):
        extract(both, dataset(IMAGES), endpoint="initial_conv")


def test_images_are_streamed_and_progress_counts_them(model):
    seen, taken = [], []

    def batches():
        for i in range(0, 10, 4):
            taken.append(len(seen))
            yield IMAGES[i : i + 4]

    extract(model, batches(), progress=seen.append)
    assert seen == [4, 8, 10]
    assert taken == [0, 1, 2]  # a batch is asked for when the one before is done


def test_no_batches_and_features_that_are_not_finite_are_refused(model):
    with pytest.raises(InputError, match="at least one batch"):
        extract(model, [])
    broken = IMAGES.copy()
    broken[9] = np.nan
    with pytest.raises(InputError, match=r"finite.*first_image=8"):
        extract(model, dataset(broken))
