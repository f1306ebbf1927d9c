"""`tf-simclr pretrain`: SimCLR on images without labels, into a run folder."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras

from tf_simclr import optimizers
from tf_simclr.checkpoint import RunFolder, read_json
from tf_simclr.config import Pretrain, plain
from tf_simclr.data import pipeline
from tf_simclr.data.pipeline import Unreadable, View
from tf_simclr.data.sources import Source
from tf_simclr.files import replacing_path, write_json
from tf_simclr.losses import NTXent
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.heads import projection_head
from tf_simclr.models.network import build_encoder
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.simclr import SimCLR
from tf_simclr.tasks.inputs import open_source, say, show
from tf_simclr.training import Plan, Stream, read_history, train


def run(config: Pretrain) -> None:
    """Pretrains as configured and says where the network is."""
    source = open_source(config, config.train_split)
    result = pretrain(config, source)
    show(f"\n{summary(config.model_dir, result)}")


def pretrain(
    config: Pretrain,
    source: Source,
    *,
    view: Callable | None = None,
    architecture: Architecture | None = None,
    notes: dict | None = None,
) -> dict:
    """Pretrains on a source, from the run folder's last checkpoint on, and returns what `result.json` holds.

    Args:
        config: the knobs.
        source: the images.
        view: image and seed to views, instead of SimCLR's augmentation.
        architecture: instead of the one that the knobs describe.
        notes: what `config.json` holds instead of the knobs.

    Raises:
        InputError: the folder holds another run, or the images do not make one batch.
    """
    architecture = architecture or describe(config, source)
    folder = RunFolder(Path(config.model_dir))
    folder.begin(notes or plain(config), architecture)
    if folder.network.exists() and folder.result.exists():
        say(f"{folder.path} is finished; nothing is left to train")
        return read_json(folder.result)
    plan = plan_of(config, source.num_examples)
    keras.utils.set_random_seed(config.seed)
    model = compiled(config, architecture, schedule=schedule_of(config, plan, num_examples=source.num_examples))
    say(introduction(config, source, architecture=architecture, plan=plan))
    unreadable = Unreadable()
    result = Result(folder, unreadable)
    batches = stream(config, source, view=view, unreadable=unreadable)
    train(model, batches, plan=plan, run=folder, say=say, callbacks=[result])
    if unreadable.names:
        say(unreadable.report())
    export(model, folder)
    return result.write()


class Result(keras.callbacks.Callback):
    """Keeps `result.json` up to date, so that a resumed run still knows its seconds and bad images from before."""

    def __init__(self, folder: RunFolder, unreadable: Unreadable):
        super().__init__()
        self.folder, self.unreadable, self.began = folder, unreadable, time.monotonic()
        resumes = folder.checkpoints() and folder.result.exists()
        self.before = read_json(folder.result) if resumes else {"seconds": 0, "unreadable": []}

    def on_epoch_end(self, epoch, logs=None):
        self.write()

    def write(self) -> dict:
        """Writes the last line of the history, the seconds spent, and the images that could not be read."""
        last = read_history(self.folder)[-1]
        seconds = round(self.before["seconds"] + time.monotonic() - self.began, 1)
        names = sorted({*self.before["unreadable"], *self.unreadable.names})
        result = {**last, "seconds": seconds, "unreadable": names}
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
    """Length and pace, counted as the reference counts them (fact 15 of the goldens)."""
    epoch = max(1, num_examples // config.train_batch_size)
    return Plan(
        total_steps=config.train_steps
        or optimizers.train_steps(num_examples, config.train_batch_size, epochs=config.train_epochs),
        steps_per_epoch=epoch,
        batch_size=config.train_batch_size,
        checkpoint_steps=config.checkpoint_steps or config.checkpoint_epochs * epoch,
        keep_checkpoint_max=config.keep_checkpoint_max,
    )


def compiled(config: Pretrain, architecture: Architecture, *, schedule: optimizers.WarmUpCosine) -> SimCLR:
    """The model with its optimizer, schedule and loss."""
    normalization = Normalization(batch_norm_decay=config.batch_norm_decay, global_bn=config.global_bn)
    model = SimCLR(
        build_encoder(architecture, normalization),
        projection_head(
            architecture.feature_dim,
            architecture.num_proj_layers,
            proj_out_dim=architecture.proj_out_dim,
            normalization=normalization,
        ),
        num_classes=architecture.num_classes,
        weight_decay=config.weight_decay,
    )
    decay = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    optimizer = optimizers.build(config.optimizer, schedule, **decay)
    model.compile(optimizer, NTXent(config.temperature, hidden_norm=config.hidden_norm))
    return model


def schedule_of(config: Pretrain, plan: Plan, *, num_examples: int) -> optimizers.WarmUpCosine:
    """The learning rate of each step."""
    peak = optimizers.scaled_learning_rate(
        config.learning_rate, config.train_batch_size, scaling=config.learning_rate_scaling
    )
    warmup = optimizers.warmup_steps(num_examples, config.train_batch_size, warmup_epochs=config.warmup_epochs)
    return optimizers.WarmUpCosine(peak, plan.total_steps, warmup_steps=warmup)


def stream(config: Pretrain, source: Source, *, view: View | None, unreadable: Unreadable) -> Stream:
    """First step to the batches from it on."""
    common = {
        "batch_size": config.train_batch_size,
        "seed": config.seed,
        "unreadable": unreadable,
        "cache": config.cache_dataset,
    }
    if view is not None:
        buffer = pipeline.buffer_size(config.train_batch_size, image_size=config.image_size)
        return lambda step: pipeline.training_batches(source, view, buffer=buffer, start_step=step, **common)
    return lambda step: pipeline.training_views(
        source,
        image_size=config.image_size,
        start_step=step,
        strength=config.color_jitter_strength,
        use_blur=config.use_blur,
        additive_brightness=config.additive_brightness,
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
        f"SimCLR on {source.num_examples:,} images of {source.origin}: ResNet-{architecture.depth} "
        f"({architecture.width}x; {extras}) at {config.image_size} px, {plan.total_steps:,} steps of "
        f"{config.train_batch_size} images, into {config.model_dir}"
    )


def export(model: SimCLR, folder: RunFolder) -> None:
    """Writes the finished network, images to named endpoints, as a Keras file."""
    with replacing_path(folder.network) as temporary:
        model.network().save(temporary)


def summary(model_dir: Path, result: dict) -> str:
    """What came of it, and what to do with it."""
    lines = [f"{result['step']:,} steps in {result['seconds'] / 60:.1f} minutes; loss {result['loss']:.3f}"]
    if result["unreadable"]:
        lines.append(f"{len(result['unreadable'])} unreadable images were skipped; result.json names them")
    lines += [
        f"network:  {model_dir}/network.keras (Keras), {model_dir} (tf_simclr.load_model, load_encoder)",
        f"test it:  python -m tf_simclr linear-eval --checkpoint {model_dir}",
        f"PyTorch:  python -m converters.tf2torch {model_dir}",
        f"curves:   tensorboard --logdir {model_dir}/logs, or {model_dir}/history.csv",
    ]
    return "\n".join(lines)
