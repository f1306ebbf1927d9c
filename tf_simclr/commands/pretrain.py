"""`tf-simclr pretrain`: SimCLR or MoCo on images without labels, into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tf_simclr import losses
from tf_simclr.commands.parts.images import check_labels, open_source, same_classes, splits_to_test, told_seed
from tf_simclr.commands.parts.networks import code_of, own_encoder, resnet_of
from tf_simclr.commands.parts.plans import compile_on, optimizer_of, plan_of
from tf_simclr.commands.parts.runs import agree, begin_run, check_push, find_devices, in_folder, push
from tf_simclr.config import Pretrain
from tf_simclr.config.parts import WITH_OPACITY
from tf_simclr.config.training import LOSSES, Contrast
from tf_simclr.data import pipeline
from tf_simclr.data.device_views import DeviceViews
from tf_simclr.data.pipeline import Unreadable, View, evaluation_batches
from tf_simclr.data.radiographs import told_made_up
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source
from tf_simclr.data.subsets import in_pixels
from tf_simclr.errors import InputError, check
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.machine.signals import Stopping
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.models.moco import MoCo
from tf_simclr.models.network import Network, build_encoder, build_projection, variables_by_name, weights_by_name
from tf_simclr.models.network import plain as plain_network
from tf_simclr.models.normalization import Normalization, precision
from tf_simclr.models.simclr import SimCLR
from tf_simclr.own import encoders, named
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say, show, typed
from tf_simclr.training import Feed, Plan, train
from tf_simclr.training.callbacks import Served
from tf_simclr.training.closing import Closing
from tf_simclr.training.reporting import check_reports
from tf_simclr.training.reporting import reports as reports_of
from tf_simclr.training.results import Result, finished_result, save_network
from tf_simclr.training.viewing import viewed, views_on_device, with_held
from tf_simclr.training.watching import PAIRS, Collapse, Neighbours, Watch, draw_pairs, parts
from tf_simclr.weights import load_model

_METHODS = {"simclr": "SimCLR", "moco": "MoCo v2"}


def run(config: Pretrain) -> None:
    """Pretrains as configured and says where the network is."""
    devices = find_devices(config)
    with devices.together():  # what one process alone is refused, the others hear
        source = to_pretrain_on(config)
        check_push(config)
    with in_folder(config, devices) as config:
        result = pretrain(config, source, devices=devices)
    show(f"\n{summary(config, result, source=source)}")
    push(config, config.model_dir, devices=devices)


def pretrain(
    config: Pretrain,
    source: Source,
    *,
    view: Callable | None = None,
    architecture: Architecture | None = None,
    notes: dict | None = None,
    devices: Devices = ONE_DEVICE,
) -> dict:
    """Pretrains on a source, from the run folder's last checkpoint on, and returns what `result.json` holds.

    Args:
        config: the knobs.
        source: the images.
        view: image and seed to views, instead of SimCLR's augmentation.
        architecture: instead of the one that the knobs describe.
        notes: what `config.json` holds instead of the knobs.
        devices: to train on; of several processes the chief alone writes.

    Raises:
        InputError: the folder holds another run, the images do not make one batch, the devices cannot share it, or
            processes were started with different options.
    """
    # The order is important: what can be refused is refused before anything is written, what is written before
    # anything is computed, and every random number comes after its seed.

    # 1. What is asked for: the network, and that what reports to the outside is there.  The seed comes first: weights
    #    are drawn from it, in the order in which layers are built.
    agree(config, source, devices=devices)
    keras.utils.set_random_seed(config.seed)
    view = view or _own_view(config)
    encoder = own_encoder(config, devices=devices)
    if encoder is not None:
        check(not config.remat, "remat must be left out with --encoder: it recomputes a ResNet's blocks", remat=True)
    architecture = architecture or describe(config, source)
    known: Architecture | Own = architecture
    if encoder is not None:  # what a run notes of an encoder of another kind, with the heads of the architecture
        heads = {name: getattr(architecture, name) for name in ("num_proj_layers", "num_classes", "ft_proj_selector")}
        known = Own(config.encoder, encoder.output_shape[-1], **heads)
    check_reports(config)
    # What keeps views from being made on the device, whichever that is.
    against = ["views of one's own are made on the host"] if view is not None else []
    against += ["the workers of data_service make the views"] if config.data_service is not None else []
    views_of = views_on_device(config, source, recipe=Recipe.of(config), devices=devices, against=against)

    # 2. The run folder: begun now, or begun with the same options earlier; nothing is left to do in a finished one.
    plan = plan_of(config, source.num_examples)
    made: dict[str, Any] = {"plan": plan, "num_examples": source.num_examples, "devices": devices}
    # With an encoder of another kind the run notes what the network is made of.
    model = None if encoder is None else _compiled(config, architecture, **made, encoder=encoder)
    blueprint = None if model is None else plain_network(model.network()).to_json()
    folder = begin_run(config, source, architecture=known, devices=devices, notes=notes, blueprint=blueprint)
    if (there := finished_result(folder)) is not None:
        say(f"{folder.path} is finished; nothing is left to train")
        return there

    # 3. The model.
    model = model or _compiled(config, architecture, **made)
    say(_introduction(config, source, architecture=known, plan=plan))

    # 4. Weights to start from, unless the run has some of its own by now.
    if config.checkpoint is not None and not folder.checkpoints():
        start_from(config.checkpoint, model, say=say)

    # 5. The images: a function of the step alone, by which a resumed run sees what a straight one would have seen.
    unreadable = Unreadable()
    source = source if config.data_service else in_pixels(source, cache=config.cache_dataset)
    if views_of is not None:
        model.views_of = views_of = with_held(views_of, source, devices=devices)
    batches = _feed(config, source, view=view, unreadable=unreadable, views_of=views_of)

    def views(size: int) -> tf.data.Dataset:
        own = views_of and dataclasses.replace(views_of, held=None)  # a look's batches bring their images
        look = _feed(config, source, view=view, unreadable=Unreadable(), batch_size=size, views_of=own)(0)
        return look if own is None else viewed(look, own)

    # 6. What watches: it measures before an epoch's numbers are written, the result and the reports come after.
    result = Result(folder, unreadable, devices=devices, division=source.division, notes=source.notes)
    watched: list[Watch] = []
    reports: list[Any] = []
    if devices.chief:
        _show_pairs(folder, views, source=source)
        watched, reports = watchers(config, source, plan=plan, views=views), reports_of(config, folder)

    # 7. The training, from the newest whole checkpoint on.
    with Stopping() as stopping:
        served = Served(config.data_service, say=say) if config.data_service else None
        with served or contextlib.nullcontext():
            callbacks = [result, *reports] if served is None else [served, result, *reports]
            options: dict[str, Any] = {"devices": devices, "stopping": stopping}
            train(model, batches, plan=plan, run=folder, say=say, watchers=watched, callbacks=callbacks, **options)
        if unreadable.names:
            say(unreadable.report())

        # 8. What it leaves behind: the network, and last the result, by which the run counts as finished.
        closing = Closing(stopping, devices=devices, run=folder, step=plan.total_steps, say=say)
        closing.by_chief(lambda: save_network(folder, model.network()))
        for report in reports:
            report.finish()
        written = result.write()
        closing.stop()
    return written


# What `pretrain` is made of, under the numbers of its phases.
# 1. What is asked for: the images, the network that the knobs describe, and views of one's own.


def to_pretrain_on(config: Pretrain) -> Source:
    """The images of the training split; with pairs of a patient's images each knows its partners."""
    by_labels = config.method == "simclr" and config.loss == "supcon"
    if config.pairs == "image" or config.radiographs is None:
        source = open_source(config, config.train_split, labelled=True if by_labels else None)
    else:
        from tf_simclr.data.radiographs import bags, partition, prepared

        known = prepared.load(config.radiographs)
        rule = "cache must be none with pairs of a patient's images, which are read as they are prepared"
        check(config.cache == "none", rule, cache=config.cache)
        source = bags.part(known, config.train_split, positive=config.positive, seed=config.split_seed)
        told_seed(source.origin, config.split_seed, drawn=partition.draws(known, config.train_split))
        if by_labels:
            check_labels(source)
    return probed(source)


def probed(source: Source) -> Source:
    """The source, without its labels where they are of one class: a probe of them would be right whatever happens."""
    only = source.class_names[0] if source.num_classes == 1 else source.only
    if not only:
        return source
    say(f"{source.origin} has one class, {only}: it is taken without labels, and there is no probe")
    return dataclasses.replace(source, class_names=(), only="")


def describe(config: Pretrain, source: Source) -> Architecture:
    """The network that the knobs ask for; the probe has the source's classes."""
    layers = {"none": 0, "linear": 1, "nonlinear": config.num_proj_layers}[config.proj_head_mode]
    return resnet_of(
        config,
        proj_head_mode=config.proj_head_mode,
        num_proj_layers=layers,
        proj_out_dim=config.proj_out_dim,
        num_classes=source.num_classes if config.lineareval_while_pretraining else 0,
    )


def _own_view(config: Pretrain) -> Callable | None:
    """The function that --view names; None: the augmentation of the knobs.

    Raises:
        InputError: it cannot be found, or there is no TensorFlow, of whose tensors it is a function.
    """
    if not config.view:
        return None
    one = named.find(config.view, "view")
    rule = "view must be left out without TensorFlow, of whose tensors it is a function"
    check(has_tensorflow(), rule, view=config.view)
    say(f"views are made by {config.view}; the options of the augmentation count for nothing")
    size, channels = config.image_size, 4 if config.channels in WITH_OPACITY else 3

    def views(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Two seeds of one, one a view.
        both = [tf.cast(one(image, draw), tf.float32) for draw in tf.unstack(tf.random.split(seed, 2))]
        for seen in both:
            rule = f"{config.view} must give a view of {size} × {size} pixels, as --image_size says"
            fits = seen.shape.is_compatible_with((size, size, channels)) and seen.shape.rank is not None
            check(fits, rule, shape=tuple(seen.shape) if seen.shape.rank else None)
        return tf.ensure_shape(tf.stack(both), (2, size, size, channels))

    return views


# 3. The model, and the loss that it is compiled with.


def _compiled(
    config: Pretrain,
    architecture: Architecture,
    *,
    plan: Plan,
    num_examples: int,
    devices: Devices,
    encoder: keras.Model | None = None,
) -> SimCLR:
    """The method with its encoder, by default the architecture's, its heads, optimizer and loss, on the devices."""
    normalization = Normalization(batch_norm_decay=config.batch_norm_decay, global_bn=config.global_bn)
    queue: dict[str, Any] = {"queue_length": config.queue_length, "key_momentum": config.key_momentum}
    method: Callable[..., SimCLR] = functools.partial(MoCo, **queue) if config.method == "moco" else SimCLR
    # Variables are made within the scope, in the precision.
    with devices.scope():
        with precision(config.mixed_precision):
            encoder = encoder or build_encoder(architecture, normalization)
            model = method(
                encoder,
                build_projection(architecture, normalization, features=encoder.output_shape[-1]),
                num_classes=architecture.num_classes,
                weight_decay=config.weight_decay,
                microbatch_size=config.microbatch_size,
                remat=config.remat,
            )
        rule = optimizer_of(config, steps=plan.total_steps, num_examples=num_examples)
        compile_on(devices, model, optimizer=rule, config=config, loss=objective(config, seed=config.seed))
    return model


def objective(config: Contrast, *, seed: int) -> losses.ContrastiveLoss | losses.InfoNCE:
    """The loss with its options.

    Args:
        config: which one, and what was set of it; the rest is the loss's own default.
        seed: of what `generalized` draws; with a seed a resumed run equals a straight one, and replicas draw the same.

    Raises:
        InputError: an option is out of its range.
    """
    if config.method == "moco":
        return losses.InfoNCE(config.temperature)
    if named.is_named(config.loss):
        return _own_loss(config)
    # Only what the loss takes: others were refused when the options were read.
    kind, known = LOSSES[config.loss]
    options = config.given_loss_options() | {"hidden_norm": config.hidden_norm}
    if "temperature" in known:
        options["temperature"] = config.temperature
    if config.loss == "generalized":
        # For a loss that draws.
        options["seed"] = seed
    return getattr(losses, kind)(**options)


def _own_loss(config: Contrast) -> losses.ContrastiveLoss:
    """The loss that --loss names, made with the temperature and hidden_norm of the knobs where it takes them.

    Raises:
        InputError: it cannot be found or made, or is no loss of two views.
    """
    kind = named.find(config.loss, "loss")
    knobs = {"temperature": config.temperature, "hidden_norm": config.hidden_norm}
    usual = {name: getattr(Contrast, name) for name in knobs}
    try:
        taken = inspect.signature(kind).parameters
        loss = kind(**{name: value for name, value in knobs.items() if name in taken})
    except Exception as error:
        raise InputError(f"{config.loss} must make a loss; {named.told(error)}") from error
    rule = f"{config.loss} must make a keras.losses.Loss, called as loss(z1, z2); see docs/own-loss.md"
    check(isinstance(loss, keras.losses.Loss), rule, made=type(loss).__name__)
    for name in (name for name, value in knobs.items() if name not in taken and value != usual[name]):
        say(f"without effect: {name}={knobs[name]}; {config.loss} does not take it")
    return loss


def _introduction(config: Pretrain, source: Source, *, architecture: Architecture | Own, plan: Plan) -> str:
    """What is about to happen."""
    changed = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
        if getattr(architecture, field.name) != field.default
        and field.name not in ("depth", "width", "encoder", "feature_dim")
    }
    extras = ", ".join(f"{name}={value}" for name, value in changed.items())
    return (
        f"{_METHODS[config.method]} on {source.num_examples:,} images of {source.origin}: "
        f"{architecture.title.removesuffix(')')}; {extras}) at {config.image_size} px, {plan.total_steps:,} steps of "
        f"{config.train_batch_size} images, into {config.model_dir}"
    )


# 4. Weights to start from.


_HEADS = {"projection": "projection head", "probe": "linear probe"}


def start_from(path: Path, model: SimCLR, *, say: Callable[[str], None]) -> None:
    """Takes the encoder of a checkpoint of any kind, and each head that has the model's form; others stay random.

    Raises:
        InputError: the checkpoint cannot be read, or its encoder is another one.
    """
    # 1. The encoder: all of it, or the command is refused.
    network = load_model(path)
    given = variables_by_name(network)
    there, here = encoders.encoder_of(network), model.encoder
    # An encoder of another kind has its weights in their own order.
    if isinstance(network, Network):
        shapes = [[tuple(weight.shape) for weight in one.weights] for one in (there, here)]
        rule = f"{path} must hold an encoder like the one to train; name the same one by --encoder"
        check(shapes[0] == shapes[1], rule, weights=len(shapes[0]), wanted=len(shapes[1]))
        here.set_weights(there.get_weights())
        unlike = []
    else:
        unlike = differing(weights_by_name(here), given)
    if unlike:
        raise InputError(
            f"{path} must hold an encoder like the one to train; give the options of its ResNet. "
            f"{len(unlike)} weights differ: {', '.join(unlike[:5])}"
        )
    # 2. Each head that fits.
    taken = [] if isinstance(network, Network) else [here]
    for name, what in _HEADS.items():
        head = getattr(model, name)
        fits = head is not None and not differing(_weights_of(head), given)
        taken += [head] if fits else []
        say(f"{what}: {'from' if fits else 'not from'} {path}")
    for part in taken:
        for name, weight in _weights_of(part).items():
            weight.assign(given[name])
    # 3. MoCo's copies.
    if isinstance(model, MoCo):
        model.catch_up()


def _weights_of(part: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of a model or of one layer by `layer/weight`."""
    if isinstance(part, keras.Model):
        return weights_by_name(part)
    return {f"{part.name}/{weight.name}": weight for weight in part.weights}


def differing(wanted: dict, given: dict) -> list[str]:
    """Names of weights that are not given, or in another shape."""
    return [name for name, weight in wanted.items() if name not in given or given[name].shape != weight.shape]


# 5. The images.


def _feed(
    config: Pretrain,
    source: Source,
    *,
    view: View | None,
    unreadable: Unreadable,
    batch_size: int | None = None,
    views_of: DeviceViews | None = None,
) -> Feed:
    """First step to the batches from it on; for a look at a few images of another size than those to train on.

    Where `views_of` makes the views, batches are what it makes them of.
    """
    looks, batch_size = batch_size is not None, batch_size or config.train_batch_size
    stream = pipeline.Stream(
        batch_size=batch_size,
        buffer=pipeline.buffer_size(batch_size, image_size=config.image_size),
        seed=config.seed,
        cache=config.cache_dataset and not looks,  # which would read all
        deterministic=config.deterministic_input or looks,
        data_service=None if looks else config.data_service,
    )

    def batches(step: int, share: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        # A function of the step, and of this process's share.
        here = dataclasses.replace(stream, start_step=step, share=share)
        if view is not None:
            return pipeline.training_batches(source, view, stream=here, unreadable=unreadable)
        make: Callable = pipeline.training_views
        if views_of is not None:
            make = functools.partial(pipeline.packed_views, held=views_of.held is not None)
        size, recipe = config.image_size, Recipe.of(config)
        return make(source, stream=here, image_size=size, unreadable=unreadable, recipe=recipe)

    return batches


# 6. What watches.


_FEWEST = 10
"""Images that a test by nearest neighbours takes at least."""
_VIEWS_AT_ONCE = 32
"""Images a batch of those that show a collapse."""
Views = Callable[[int], Any]
"""Batch size → endless batches of the training's views, from its first image on."""


def watchers(config: Pretrain, source: Source, *, plan: Plan, views: Views) -> list[Watch]:
    """The callbacks that measure besides the loss.

    Args:
        config: the knobs.
        source: the training images.
        plan: how long the training is.
        views: the training's images as the network sees them.
    """
    found: list[Watch] = []
    if config.collapse_images:
        size = min(_VIEWS_AT_ONCE, config.collapse_images, source.num_examples)
        # The first batches of the training's own stream.
        # More images than there are would be other views of the same ones, which are as good.
        found.append(Collapse(views(size).take(config.collapse_images // size)))
    if config.knn_epochs and source.labelled and source.num_examples >= _FEWEST:
        try:
            found.append(_neighbours(config, source, plan=plan))
        except InputError as error:  # labels that all say "unknown"; where a split was named for it, that is an error
            if config.eval_split is not None:
                raise
            say(f"knn_acc is not measured: {error}")
    return found


def _neighbours(config: Pretrain, source: Source, *, plan: Plan) -> Neighbours:
    """The test by nearest neighbours, on `eval_split` if there is one other than that to train on.

    Raises:
        InputError: `eval_split` has no labels or other classes, or all images that could vote are in it.
    """
    other = None
    if config.eval_split not in (None, config.train_split):
        other = open_source(config, config.eval_split, labelled=True)
        same_classes(source, other)
    # At most 256 at once: the look takes place beside a training that fills the memory.
    sizes: dict[str, Any] = {"batch_size": min(config.train_batch_size, 256), "image_size": config.image_size}
    known, asked = (
        evaluation_batches(part, **sizes, unreadable=Unreadable())
        for part in parts(source, other, count=config.knn_images, seed=config.seed)
    )
    epochs = plan.last_epoch
    return Neighbours(known, asked, every=config.knn_epochs, epochs=epochs)


def _show_pairs(run: RunFolder, views: Views, *, source: Source) -> None:
    """Draws the first images' views once a run."""
    if not (run.path / "pairs.png").exists():
        batch, *_ = next(iter(views(min(PAIRS, source.num_examples))))
        draw_pairs(keras.ops.convert_to_numpy(batch), run, made_up=told_made_up(source.notes))


# What a person reads at the end.


def summary(config: Pretrain, result: dict, *, source: Source) -> str:
    """What came of it, and what to do with it: whole commands, which take what they need from the run."""
    model_dir = config.model_dir
    loss = f"; loss {result['loss']:.3f}" if isinstance(result.get("loss"), float) else ""
    lines = [f"{result['step']:,} steps in {result['seconds'] / 60:.1f} minutes{loss}"]
    if result["unreadable"]:
        lines.append(f"{len(result['unreadable'])} unreadable images were skipped; result.json names them")
    # What carries the network elsewhere: to PyTorch, or where it is no ResNet to ONNX.
    onward = f"PyTorch:  {typed(Path(model_dir), program='python -m converters.tf2torch')}"
    if config.encoder:
        onward = f"ONNX:     {typed('export', '--checkpoint', model_dir, '--to', 'onnx', *code_of(config.encoder))}"
    lines += [
        f"network:  {model_dir}/network.keras (Keras), {model_dir} (tf_simclr.load_model, load_encoder)",
        _next_command(config, source),
        onward,
        f"curves:   {typed('--logdir', Path(model_dir) / 'logs', program='tensorboard')}, or {model_dir}/history.csv",
    ]
    return "\n".join(lines)


def _next_command(config: Pretrain, source: Source) -> str:
    """The command that tests the encoder where there are labels to test it with, else the one that takes features."""
    # The weights' code is named again, as a file's word runs nothing.
    known = ["--checkpoint", config.model_dir, *code_of(config.encoder)]
    with contextlib.suppress(LookupError):
        if source.labelled and source.num_classes >= 2:
            return f"test it:  {typed('linear-eval', *known, *splits_to_test(config))}"
    split = ["--split", config.train_split] if config.train_split != "train" else []
    return f"features: {typed('embed', *known, *split, '--out', Path(config.model_dir) / 'features.npz')}"
