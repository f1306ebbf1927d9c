"""`tf-simclr pretrain`: SimCLR or MoCo on images without labels, into a run folder."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tf_simclr import losses, optimizers
from tf_simclr.commands.inputs import check_labels, find_devices, in_folder, open_source, say, show
from tf_simclr.config import Pretrain, plain, plain_defaults
from tf_simclr.config.training import LOSS_OPTIONS, Contrast
from tf_simclr.data import pipeline
from tf_simclr.data.pipeline import Unreadable, View, evaluation_batches
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError, check
from tf_simclr.files import read_json, replacing_path, write_json
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.moco import MoCo
from tf_simclr.models.network import build_encoder, weights_by_name
from tf_simclr.models.network import plain as plain_network
from tf_simclr.models.normalization import Normalization, precision
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import Plan, Stream, read_history, train
from tf_simclr.training.watching import PAIRS, Collapse, Neighbours, Watch, draw_pairs, parts
from tf_simclr.training.weights_and_biases import Report, package
from tf_simclr.weights import load_model

OWN = ("model_dir", "data_dir", "image_dir", "download", "cache_dataset")
"""Options that may differ between the processes of one training: their machines' paths."""

METHODS = {"simclr": "SimCLR", "moco": "MoCo v2"}


def run(config: Pretrain) -> None:
    """Pretrains as configured and says where the network is."""
    devices = find_devices(config)
    source = to_pretrain_on(config)
    with in_folder(config.model_dir, devices):
        result = pretrain(config, source, devices=devices)
    show(f"\n{summary(config.model_dir, result)}")


def to_pretrain_on(config: Pretrain) -> Source:
    """The images of the training split; with pairs of a patient's images each knows its partners."""
    by_labels = config.method == "simclr" and config.loss == "supcon"
    if config.pairs == "image":
        source = open_source(config, config.train_split, labelled=True if by_labels else None)
    else:
        from tf_simclr.data.radiographs import bags, prepared

        known = prepared.load(config.radiographs)
        source = bags.part(known, config.train_split, positive=config.positive, seed=config.split_seed)
        if by_labels:
            check_labels(source)
    return probed(source)


def probed(source: Source) -> Source:
    """The source, without its labels where they are of one class: a probe of them would be right whatever happens."""
    if source.num_classes != 1:
        return source
    say(f"{source.origin} has one class, {source.class_names[0]}: it is taken without labels, and there is no probe")
    return dataclasses.replace(source, class_names=())


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
    architecture = architecture or describe(config, source)
    if config.wandb is not None:
        package()  # while nothing has begun
    folder = RunFolder(Path(config.model_dir))
    devices.check_batch(config.train_batch_size)
    same = {key: value for key, value in plain(config).items() if key not in OWN} | {"images": source.num_examples}
    devices.agree("the options", same)
    if devices.chief:
        noted = notes or plain(config)
        folder.begin(
            noted,
            architecture,
            defaults=plain_defaults(noted["command"]),
            images=source.num_examples,
            origin=source.origin,
            roster=source.roster,
            say=say,
        )
    if (there := finished_result(folder)) is not None:
        say(f"{folder.path} is finished; nothing is left to train")
        return there
    plan = plan_of(config, source.num_examples)
    keras.utils.set_random_seed(config.seed)
    schedule = schedule_of(config, plan, num_examples=source.num_examples)
    model = compiled(config, architecture, schedule=schedule, devices=devices)
    say(introduction(config, source, architecture=architecture, plan=plan))
    if config.checkpoint is not None and not folder.checkpoints():
        start_from(config.checkpoint, model, say=say)
    unreadable = Unreadable()
    result = Result(folder, unreadable, devices=devices, division=source.division)
    batches = stream(config, source, view=view, unreadable=unreadable)

    def views(size: int) -> tf.data.Dataset:
        return stream(config, source, view=view, unreadable=Unreadable(), batch_size=size)(0)

    watched, reports = watching(config, source, plan=plan, run=folder, views=views) if devices.chief else ([], [])
    callbacks = [result, *reports]
    train(model, batches, plan=plan, run=folder, say=say, watchers=watched, callbacks=callbacks, devices=devices)
    if unreadable.names:
        say(unreadable.report())
    if devices.chief:
        export(model, folder)
    for report in reports:
        report.finish()
    return result.write()


def read_result(folder: RunFolder) -> dict:
    """What a run's `result.json` holds.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    content = read_json(folder.result)
    numbers = [content.get("step"), content.get("seconds")]
    names = content.get("unreadable")
    fits = all(type(number) in (int, float) for number in numbers) and isinstance(names, list)
    fits = fits and all(isinstance(name, str) for name in names or ())
    check(fits, f"{folder.result} must hold a run's step, seconds and unreadable images", has=sorted(content)[:20])
    return content


def finished_result(folder: RunFolder) -> dict | None:
    """What the `result.json` of a finished run holds, none if it is not finished.

    A damaged one is said, and made again from the run's last checkpoint.

    Raises:
        InputError: it is damaged, and there is no checkpoint.
    """
    if not (folder.network.exists() and folder.result.exists()):
        return None
    try:
        return read_result(folder)
    except InputError as error:
        if not folder.checkpoints():
            raise
        say(f"{error}; it is made again from the last checkpoint")
        return None


class Result(keras.callbacks.Callback):
    """Keeps `result.json` up to date, so that a resumed run still knows its seconds and bad images from before.

    Of several processes each knows bad images of its own; the chief writes them all.
    """

    def __init__(
        self,
        folder: RunFolder,
        unreadable: Unreadable,
        *,
        devices: Devices = ONE_DEVICE,
        division: dict[str, object] | None = None,
    ):
        super().__init__()
        self.division = division
        self.folder, self.unreadable, self.devices, self.began = folder, unreadable, devices, time.monotonic()
        resumes = folder.checkpoints() and folder.result.exists()
        self.before: dict = {"seconds": 0, "unreadable": []}
        try:
            self.before = read_result(folder) if resumes else self.before
        except InputError as error:
            say(f"{error}; its seconds and unreadable images are counted anew")

    def on_epoch_end(self, epoch, logs=None):
        self.write()

    def write(self) -> dict:
        """Writes the last line of the history, the seconds spent, and the images that could not be read."""
        content: dict = {}
        if self.devices.chief:
            seconds = round(self.before["seconds"] + time.monotonic() - self.began, 1)
            last = (int(path.stem.removeprefix("step-")) for path in self.folder.checkpoints())
            rows = read_history(self.folder) or [{"step": next(last, 0)}]  # it was lost, and nothing is left to train
            content = {**rows[-1], "seconds": seconds}
        found = self.devices.collect({"content": content, "unreadable": self.unreadable.names})
        names = {*self.before["unreadable"], *(name for one in found for name in one["unreadable"])}
        result = {**found[0]["content"], "unreadable": sorted(names)}
        result |= {} if self.division is None else {"division": self.division}
        if self.devices.chief:
            write_json(self.folder.result, result)
        return result


def describe(config: Pretrain, source: Source) -> Architecture:
    """The network that the knobs ask for; the probe has the source's classes."""
    layers = {"none": 0, "linear": 1, "nonlinear": config.num_proj_layers}[config.proj_head_mode]
    return Architecture(
        depth=config.resnet_depth,
        width=config.width_multiplier,
        sk_ratio=config.sk_ratio,
        se_ratio=config.se_ratio,
        cifar_stem=config.image_size <= 32,
        proj_head_mode=config.proj_head_mode,
        num_proj_layers=layers,
        proj_out_dim=config.proj_out_dim,
        num_classes=source.num_classes if config.lineareval_while_pretraining else 0,
    )


def plan_of(config: Pretrain, num_examples: int) -> Plan:
    """Length and pace, counted as the reference counts them (docs/official-code.md#learning-rate)."""
    epoch = max(1, num_examples // config.train_batch_size)
    return Plan(
        total_steps=config.train_steps
        or optimizers.train_steps(num_examples, config.train_batch_size, epochs=config.train_epochs),
        steps_per_epoch=epoch,
        batch_size=config.train_batch_size,
        checkpoint_steps=config.checkpoint_steps or config.checkpoint_epochs * epoch,
        keep_checkpoint_max=config.keep_checkpoint_max,
    )


def compiled(
    config: Pretrain, architecture: Architecture, *, schedule: optimizers.WarmUpCosine, devices: Devices = ONE_DEVICE
) -> SimCLR:
    """The model with its optimizer, schedule and loss, on the devices."""
    with devices.scope():
        with precision(config.mixed_precision):
            model = assembled(config, architecture)
        decay = {"momentum": config.momentum, "weight_decay": config.weight_decay}
        optimizer = optimizers.build(config.optimizer, schedule, **decay)
        model.compile(
            optimizers.LossScale(optimizer) if config.mixed_precision == "float16" else optimizer,
            objective(config, seed=config.seed),
            steps_per_execution=config.steps_per_execution,
            jit_compile=devices.jit_compile(config.jit_compile),
        )
    return model


def assembled(config: Pretrain, architecture: Architecture) -> SimCLR:
    """The method with its encoder, its heads and what is said of them."""
    normalization = Normalization(batch_norm_decay=config.batch_norm_decay, global_bn=config.global_bn)
    queue = {"queue_length": config.queue_length, "key_momentum": config.key_momentum}
    method = functools.partial(MoCo, **queue) if config.method == "moco" else SimCLR
    return method(
        build_encoder(architecture, normalization),
        projection_head(
            architecture.feature_dim,
            architecture.num_proj_layers,
            proj_out_dim=architecture.proj_out_dim,
            normalization=normalization,
        ),
        num_classes=architecture.num_classes,
        weight_decay=config.weight_decay,
        microbatch_size=config.microbatch_size,
        remat=config.remat,
    )


def schedule_of(config: Pretrain, plan: Plan, *, num_examples: int) -> optimizers.WarmUpCosine:
    """The learning rate of each step."""
    peak = optimizers.scaled_learning_rate(
        config.learning_rate, config.train_batch_size, scaling=config.learning_rate_scaling
    )
    warmup = optimizers.warmup_steps(num_examples, config.train_batch_size, warmup_epochs=config.warmup_epochs)
    return optimizers.WarmUpCosine(peak, plan.total_steps, warmup_steps=warmup)


def stream(
    config: Pretrain, source: Source, *, view: View | None, unreadable: Unreadable, batch_size: int | None = None
) -> Stream:
    """First step to the batches from it on; for a look at a few images of another size than those to train on."""
    looks = batch_size is not None
    common = {
        "batch_size": batch_size or config.train_batch_size,
        "seed": config.seed,
        "unreadable": unreadable,
        "cache": config.cache_dataset and not looks,  # which would read all
        "deterministic": config.deterministic_input or looks,
        "data_service": None if looks else config.data_service,
    }
    if view is not None:
        buffer = pipeline.buffer_size(config.train_batch_size, image_size=config.image_size)
        return lambda step, share=(0, 1): pipeline.training_batches(
            source, view, buffer=buffer, start_step=step, share=share, **common
        )
    return lambda step, share=(0, 1): pipeline.training_views(
        source,
        image_size=config.image_size,
        start_step=step,
        share=share,
        recipe=Recipe.of(config),
        **common,
    )


def introduction(config: Pretrain, source: Source, *, architecture: Architecture, plan: Plan) -> str:
    """What is about to happen."""
    changed = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
        if getattr(architecture, field.name) != field.default and field.name not in ("depth", "width")
    }
    extras = ", ".join(f"{name}={value}" for name, value in changed.items())
    return (
        f"{METHODS[config.method]} on {source.num_examples:,} images of {source.origin}: ResNet-{architecture.depth} "
        f"({architecture.width}x; {extras}) at {config.image_size} px, {plan.total_steps:,} steps of "
        f"{config.train_batch_size} images, into {config.model_dir}"
    )


def export(model: SimCLR, folder: RunFolder) -> None:
    """Writes the finished network, images to named endpoints, as a Keras file."""
    folder.check_there()
    with replacing_path(folder.network) as temporary:
        plain_network(model.network()).save(temporary)


def summary(model_dir: Path, result: dict) -> str:
    """What came of it, and what to do with it."""
    loss = f"; loss {result['loss']:.3f}" if isinstance(result.get("loss"), float) else ""
    lines = [f"{result['step']:,} steps in {result['seconds'] / 60:.1f} minutes{loss}"]
    if result["unreadable"]:
        lines.append(f"{len(result['unreadable'])} unreadable images were skipped; result.json names them")
    lines += [
        f"network:  {model_dir}/network.keras (Keras), {model_dir} (tf_simclr.load_model, load_encoder)",
        f"test it:  python -m tf_simclr linear-eval --checkpoint {model_dir}",
        f"PyTorch:  python -m converters.tf2torch {model_dir}",
        f"curves:   tensorboard --logdir {model_dir}/logs, or {model_dir}/history.csv",
    ]
    return "\n".join(lines)


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
    options = config.given_loss_options() | {"hidden_norm": config.hidden_norm}
    if "temperature" in LOSS_OPTIONS[config.loss]:
        options["temperature"] = config.temperature
    if config.loss == "generalized":
        options["seed"] = seed
    return losses.KINDS[config.loss](**options)


HEADS = {"projection": "projection head", "probe": "linear probe"}


def start_from(path: Path, model: SimCLR, *, say: Callable[[str], None]) -> None:
    """Takes the encoder of a checkpoint of any kind, and each head that has the model's form; others stay random.

    Raises:
        InputError: the checkpoint cannot be read, or its encoder is another one.
    """
    network = load_model(path)
    given = weights_by_name(network)
    unlike = differing(weights_by_name(model.encoder), given)
    if unlike:
        raise InputError(
            f"{path} must hold an encoder like the one to train; give the options of its ResNet. "
            f"{len(unlike)} weights differ: {', '.join(unlike[:5])}"
        )
    taken = [model.encoder]
    for name, what in HEADS.items():
        head = getattr(model, name)
        fits = head is not None and not differing(named(head), given)
        taken += [head] if fits else []
        say(f"{what}: {'from' if fits else 'not from'} {path}")
    for part in taken:
        for name, weight in named(part).items():
            weight.assign(given[name])
    if isinstance(model, MoCo):
        model.catch_up()


def named(part: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of a model or of one layer by `layer/weight`."""
    if isinstance(part, keras.Model):
        return weights_by_name(part)
    return {f"{part.name}/{weight.name}": weight for weight in part.weights}


def differing(wanted: dict, given: dict) -> list[str]:
    """Names of weights that are not given, or in another shape."""
    return [name for name, weight in wanted.items() if name not in given or given[name].shape != weight.shape]


FEWEST = 10
"""Images that a test by nearest neighbours takes at least."""
VIEWS_AT_ONCE = 32
"""Images a batch of those that show a collapse."""


Views = Callable[[int], tf.data.Dataset]
"""Batch size → endless batches of the training's views, from its first image on."""


def watching(
    config: Pretrain, source: Source, *, plan: Plan, run: RunFolder, views: Views
) -> tuple[list[Watch], list[Report]]:
    """Draws the sheet of pairs, and makes the callbacks that measure and those that report."""
    show_pairs(run, views, available=source.num_examples)
    reports = []
    if config.wandb is not None:
        reports = [Report(run, project=config.wandb, config=read_json(run.config))]
    return watchers(config, source, plan=plan, views=views), reports


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
        size = min(VIEWS_AT_ONCE, config.collapse_images, source.num_examples)
        # More images than there are would be other views of the same ones, which are as good.
        found.append(Collapse(views(size).take(config.collapse_images // size)))
    if config.knn_epochs and source.labelled and source.num_examples >= FEWEST:
        try:
            found.append(neighbours(config, source, plan=plan))
        except InputError as error:  # labels that all say "unknown"; where a split was named for it, that is an error
            if config.eval_split is not None:
                raise
            say(f"knn_acc is not measured: {error}")
    return found


def neighbours(config: Pretrain, source: Source, *, plan: Plan) -> Neighbours:
    """The test by nearest neighbours, on `eval_split` if there is one other than that to train on.

    Raises:
        InputError: `eval_split` has no labels, or all images that could vote are in it.
    """
    other = None
    if config.eval_split not in (None, config.train_split):
        other = open_source(config, config.eval_split, labelled=True)
        check(
            other.labelled, f"eval_split must have labels, but {other.origin} has none; leave it out, or name another"
        )
        rule = f"{source.origin} and {other.origin} must have the same classes, in the same order"
        check(source.class_names == other.class_names, rule, differing=set(source.class_names) ^ set(other.class_names))
    sizes = {"batch_size": min(config.train_batch_size, 256), "image_size": config.image_size}
    known, asked = (
        evaluation_batches(part, **sizes, unreadable=Unreadable())
        for part in parts(source, other, count=config.knn_images, seed=config.seed)
    )
    epochs = -(-plan.total_steps // plan.steps_per_epoch)
    return Neighbours(known, asked, every=config.knn_epochs, epochs=epochs)


def show_pairs(run: RunFolder, views: Views, *, available: int) -> None:
    """Draws the first images' views once a run."""
    if not (run.path / "pairs.png").exists():
        batch, *_ = next(iter(views(min(PAIRS, available)).as_numpy_iterator()))
        draw_pairs(batch, run)
