"""Heat maps against networks whose answer is known by hand, occlusion against loops, and the checks against both."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.chest import tiny_deployed as tiny
from tf_simclr.chest.collections import synthetic
from tf_simclr.chest.files.squares import resized
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model import explain as asking
from tf_simclr.chest.model import heat_maps as explain
from tf_simclr.chest.model.card import LEARNED_FROM_MADE_UP
from tf_simclr.chest.model.overlay import COLOURS, overlay, put_back
from tf_simclr.files import write_json

IMAGE = np.random.default_rng(0).uniform(0.1, 1, (6, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def linear():
    """Every third channel of a pixel to three maps of 3 × 3 by their mean over 2 × 2; features are the maps' means."""
    images = keras.Input((None, None, 3))
    maps = keras.layers.AveragePooling2D(2, name="maps")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(maps), name="linear")


WEIGHTS = np.array([2.0, -1.0, 0.5], np.float32)


def weighted(features):
    return tf.linalg.matvec(features, WEIGHTS)


def test_answers_of_a_model_that_learned_from_nobody_and_of_a_picture_of_nobody_say_so(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    card = json.loads((run / "deployed/card.json").read_bytes())
    write_json(run / "deployed/card.json", card | {"card": card["card"] | {"limits": [LEARNED_FROM_MADE_UP]}})
    model = deployed.load(run)
    synthetic.write(tmp_path / "raw", 8, size=48)
    path = next((tmp_path / "raw").rglob("*.dcm"))
    found = tiny.ask(model, path)
    assert "made-up radiographs" in found.doubts[0]
    assert any("made up, of no patient" in doubt for doubt in found.doubts)
    assert asking.numbers(model, found)["doubts"] == found.doubts


def test_grad_cam_of_a_linear_network_is_its_maps_weighted_by_hand(linear):
    maps = IMAGE.reshape(3, 2, 3, 2, 3).mean((1, 3))
    by_hand = (maps * WEIGHTS).sum(-1) / 9  # the mean over nine places divides each place's gradient by nine
    found = explain.grad_cam(linear, weighted, image=IMAGE)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    np.testing.assert_allclose(found.sum(), weighted(linear(IMAGE[None]))[0], rtol=1e-5)  # nothing is left unexplained


def test_maps_of_several_threads_are_each_of_its_own_image(linear):
    images = [np.roll(IMAGE, shift, axis=1) for shift in range(6)]
    alone = [explain.grad_cam(linear, weighted, image=image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(linear, image[None]) for image in images for _ in range(20)]  # ask, and explain nothing
        found = list(pool.map(lambda image: explain.grad_cam(linear, weighted, image=image), images * 5))
        assert all(one.result() is not None for one in others)
    np.testing.assert_array_equal(found, alone * 5)


def test_grad_cam_takes_mean_gradients_where_the_score_is_not_linear(linear):
    maps = IMAGE.reshape(3, 2, 3, 2, 3).mean((1, 3))
    features = maps.mean((0, 1))
    by_hand = (maps * (2 * features * WEIGHTS) / 9).sum(-1)
    found = explain.grad_cam(linear, lambda x: tf.linalg.matvec(x**2, WEIGHTS), image=IMAGE)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_the_heat_map_shows_what_speaks_for_the_class_alone():
    np.testing.assert_allclose(explain.shades(np.array([[-3.0, 1.0], [0.0, 4.0]])), [[0, 0.25], [0, 1]])
    np.testing.assert_array_equal(explain.shades(-np.ones((2, 2))), np.zeros((2, 2)))


# --- encoders of somebody's own -----------------------------------------------------------------------------------

SIDE, TALL = 8, 4


def body(images, name="body"):
    """Maps of 4 × 4 with five channels."""
    return keras.layers.Conv2D(5, 2, strides=2, activation="tanh", name=name)(images)


def pool(maps):
    return keras.layers.GlobalAveragePooling2D()(maps)


def nested():
    """Scaled before, and all that has places within a model within it."""
    own = keras.Input((SIDE, SIDE, 3))
    within = keras.Model(own, pool(body(own)))
    images = keras.Input((SIDE, SIDE, 3))
    return keras.Model(images, keras.Sequential([within])(keras.layers.Rescaling(2.0, -1.0)(images)))


def gated():
    """Behind its maps layers of one place, as squeezing and a head of 1 × 1 convolutions are."""
    images = keras.Input((SIDE, SIDE, 3))
    maps = body(images)
    x = keras.layers.Conv2D(6, 1, name="head")(keras.layers.GlobalAveragePooling2D(keepdims=True)(maps))
    return keras.Model(images, keras.layers.Flatten()(x))


def turned():
    """Channels before places in its last layer of four axes."""
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Permute((3, 1, 2))(body(images))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x))


class Own(keras.Model):
    """A graph that nobody can see."""

    def __init__(self):
        super().__init__()
        self.body = keras.layers.Conv2D(5, 2, strides=2, activation="tanh", name="body")

    def call(self, images):
        return keras.ops.mean(self.body(images), axis=(1, 2))


def grey():
    images = keras.Input((SIDE, SIDE, 1))
    return keras.Model(images, pool(body(images)))


def tokens(first=0):
    """Patches that attend to each other; with a token before them it alone is the features."""
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Reshape((16, 5))(body(images))
    x = keras.layers.ZeroPadding1D((first, 0))(x) if first else x
    x = keras.layers.Add(name="block1")([x, keras.layers.MultiHeadAttention(2, 3)(x, x)])
    x = keras.layers.Add(name="block2")([x, keras.layers.MultiHeadAttention(2, 3)(x, x)])
    return keras.Model(images, x[:, 0] if first else keras.layers.GlobalAveragePooling1D()(x))


PICTURE = np.random.default_rng(1).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)


def by_the_chain(layer, images, rest):
    """Grad-CAM where the rest of the network is a function of one layer's maps."""
    with tf.GradientTape() as tape:
        maps = layer(images)
        tape.watch(maps)
        total = tf.reduce_sum(rest(maps))
    gradients = tape.gradient(total, maps).numpy()
    return (gradients.mean(axis=(1, 2), keepdims=True) * maps.numpy()).sum(-1)[0]


def squares(features):
    return tf.reduce_sum(features**2, axis=1)


@pytest.mark.parametrize("make", [nested, gated, turned, Own, grey])
def test_a_map_of_an_encoder_of_ones_own_is_that_of_its_last_layer_with_places(make):
    keras.utils.set_random_seed(4)
    encoder, images = make(), tf.constant(PICTURE[None])
    if make is grey:
        images = tf.constant(PICTURE @ np.array([[0.299], [0.587], [0.114]], np.float32))[None]
    encoder(images)
    images = 2 * images - 1 if make is nested else images
    layer = next(layer for layer in encoder._flatten_layers() if layer.name == "body")
    head = next((one for one in encoder.layers if one.name == "head"), None)
    rest = lambda maps: squares(tf.reduce_mean(maps, (1, 2)))  # noqa: E731
    if head is not None:
        rest = lambda maps: squares(head(tf.reduce_mean(maps, (1, 2), keepdims=True))[:, 0, 0])  # noqa: E731
    found = explain.grad_cam(encoder, squares, image=PICTURE)
    np.testing.assert_allclose(found, by_the_chain(layer, images, rest), rtol=1e-4, atol=1e-7)
    assert "call" not in vars(layer)  # nobody listens any more


@pytest.mark.parametrize(("first", "layer"), [(0, "block2"), (1, "block1")])
def test_tokens_of_a_transformer_are_places_and_the_class_token_is_none(first, layer):
    keras.utils.set_random_seed(4)
    encoder = tokens(first)
    parts = keras.Model(encoder.input, [encoder.get_layer(layer).output, encoder.output])
    with tf.GradientTape() as tape:
        x, features = parts(PICTURE[None])
        total = tf.reduce_sum(squares(features))
    gradients = tape.gradient(total, x).numpy()[0, first:]
    by_hand = (gradients.mean(0) * x.numpy()[0, first:]).sum(-1).reshape(TALL, TALL)
    np.testing.assert_allclose(explain.grad_cam(encoder, squares, image=PICTURE), by_hand, rtol=1e-4, atol=1e-7)


def test_an_encoder_without_places_has_no_map():
    images = keras.Input((SIDE, SIDE, 3))
    scaled = keras.layers.Normalization(mean=0.5, variance=0.1)(keras.layers.Rescaling(2.0)(images))
    encoder = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(scaled)))
    np.testing.assert_array_equal(explain.grad_cam(encoder, squares, image=PICTURE), [[0]])


def test_a_model_of_one_channel_is_asked_about_the_luminance(tiny_data, tmp_path):
    keras.utils.set_random_seed(4)
    images = keras.Input((None, None, 1))
    maps = keras.layers.Conv2D(5, 4, strides=4, activation="relu")(images)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))
    tiny.save(tmp_path / "deployed", tiny_data, **tiny.with_encoder(encoder, tiny_data))
    model = deployed.load(tmp_path)
    found = tiny.checked(model, tiny.ask(model, tiny_data.folder.parent / "raw" / "image-21.png"))
    np.testing.assert_allclose(found.verdict.features, tiny.features(encoder, tiny_data)[21], rtol=1e-4, atol=1e-6)
    assert found.heat.shape == (6, 6)
    assert found.mapped
    assert list(asking.after_shuffling(model, found)) == ["heads", "conv2d"]


@pytest.mark.parametrize("grid", [3, 2, 4])
def test_occlusion_is_what_loops_find(grid):
    weights = np.random.default_rng(1).normal(size=IMAGE.shape).astype(np.float32)

    def score(images):
        return tf.reduce_sum(tf.sin(images) * weights, axis=(1, 2, 3))

    edges = [round(i * 6 / grid) for i in range(grid + 1)]
    expected = np.zeros((grid, grid))
    for i in range(grid):
        for j in range(grid):
            covered = IMAGE.copy()
            for y in range(edges[i], edges[i + 1]):
                for x in range(edges[j], edges[j + 1]):
                    covered[y, x] = IMAGE.reshape(-1, 3).mean(0)
            expected[i, j] = float((np.sin(IMAGE) * weights).sum() - (np.sin(covered) * weights).sum())
    found = explain.occlusion(score, IMAGE, grid=grid, batch_size=4)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_finer_map_is_averaged_to_the_coarser_grid():
    values = np.random.default_rng(2).normal(size=(7, 7))
    fine = np.kron(values, np.ones((4, 4)))  # 28 places, of which each of 4 parts has exactly 7
    expected = np.array([[fine[7 * i : 7 * i + 7, 7 * j : 7 * j + 7].mean() for j in range(4)] for i in range(4)])
    np.testing.assert_allclose(explain.averaged(values, 4), expected)


def test_agreement_is_of_ranks_and_of_what_lies_at_one_place():
    first = np.arange(16.0).reshape(4, 4)
    assert explain.agreement(first, np.exp(first)) == 1
    assert explain.agreement(first, -first) == -1
    assert abs(explain.agreement(first, first.T[::-1])) < 0.5
    assert explain.agreement(first, np.ones((2, 2))) == 0
    assert explain.agreement(np.kron(first, np.ones((2, 2))), first) == 1


@pytest.fixture(scope="module")
def network():
    """A network that has learned nothing but has positive and negative places."""
    keras.utils.set_random_seed(1)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="stem_conv")(images)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="group1_conv")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="encoder")


def test_weights_are_shuffled_from_the_top_down_and_the_network_itself_is_left_alone(network):
    rng = np.random.default_rng(0)
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1, "sigmoid")])
    head.set_weights([rng.normal(size=(16, 1)), rng.normal(size=1)])
    before = [np.array(weight) for weight in (*network.get_weights(), *head.get_weights())]
    steps, untouched = [], {"heads": ["group1_conv", "stem_conv"], "group1": ["stem_conv"], "stem": []}
    for step, encoder, score in explain.shuffled_networks(network, [head]):
        steps.append(step)
        for name in ("group1_conv", "stem_conv"):
            kernel, own = (model.get_layer(name).get_weights()[0] for model in (encoder, network))
            assert np.array_equal(kernel, own) == (name in untouched[step])
            np.testing.assert_array_equal(np.sort(kernel.ravel()), np.sort(own.ravel()))
        assert explain.grad_cam(encoder, score, image=IMAGE).shape == (3, 3)
    assert steps == ["heads", "group1", "stem"]
    for weight, old in zip((*network.get_weights(), *head.get_weights()), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_map_that_reads_the_weights_changes_with_them_and_one_that_does_not_is_found_out(network):
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1, "sigmoid")])
    image = np.random.default_rng(3).uniform(size=(16, 16, 3)).astype(np.float32)

    def edges(encoder, score, *, image):  # looks like an explanation and never asks the network (Adebayo et al., 5)
        return np.abs(np.diff(image.mean(-1), axis=0, append=0))

    def after(method):
        whole = method(network, lambda x: tf.reduce_sum(x[:, :4], -1), image=image)
        networks = explain.shuffled_networks(network, [head], seed=1)
        return [explain.agreement(whole, method(encoder, score, image=image)) for _, encoder, score in networks]

    assert after(edges) == [1, 1, 1]
    assert abs(after(explain.grad_cam)[-1]) < 0.6


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(120, 80), (80, 120)])
def test_a_place_of_the_networks_square_is_put_back_where_it_came_from(fit, shape):
    height, width = shape
    radiograph = np.zeros(shape, np.float32)
    top, left = height // 2 + 12, width // 2 - 22
    radiograph[top : top + 10, left : left + 10] = 1
    back = put_back(resized(radiograph, 60, fit=fit), shape, fit=fit)
    assert back.shape == shape
    weights = back / back.sum()
    centre = [(weights.sum(1 - axis) * np.arange(shape[axis])).sum() for axis in (0, 1)]
    np.testing.assert_allclose(centre, [top + 4.5, left + 4.5], atol=0.75)


def test_a_network_that_saw_the_centre_alone_speaks_of_the_centre_alone():
    back = put_back(np.ones((5, 5)), (40, 20), fit="stretch", crop_proportion=0.5)
    assert back[10:30, 5:15].min() == 1
    assert back.sum() == 20 * 10


def test_the_overlay_colours_the_strongest_place_and_leaves_the_rest_as_it_is():
    shown = np.full((2, 2), 100, np.uint8)
    laid = overlay(shown, np.array([[0.0, 0.1], [0.5, 1.0]]))
    assert laid[0].tolist() == [[100] * 3] * 2
    np.testing.assert_allclose(laid[1, 1], 0.6 * COLOURS[-1] + 0.4 * 100, atol=0.51)


def test_the_tiny_model_looks_at_the_square_that_its_label_comes_from():
    keras.utils.set_random_seed(0)
    images = np.stack([np.repeat(tiny.picture(i)[:40, :, None] / 255, 3, -1) for i in range(30)]).astype(np.float32)
    encoder = tiny.encoder()
    features = keras.layers.Dense(1, "sigmoid")
    model = keras.Sequential([encoder, features])
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", jit_compile=False)
    model.fit(images, np.array(tiny.LABELS)[:, None], epochs=40, batch_size=30, verbose=0)
    kernel = features.kernel

    def score(x):
        return tf.matmul(x, kernel)[:, 0]

    heat = explain.grad_cam(encoder, score, image=images[1])
    covered = explain.occlusion(lambda x: score(encoder(x)), images[1], grid=10)
    inside = np.zeros((10, 10), bool)
    inside[3:6, 2:6] = True  # of rows 10 to 26 and columns 8 to 24 the places that lie within
    assert heat[inside].min() > heat[~inside].mean()
    assert covered[inside].mean() > covered[~inside].mean()
    assert explain.agreement(heat, covered) > 0.5
