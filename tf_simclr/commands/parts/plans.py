"""How long a training is, and by which rule its weights move, as its options say."""

from typing import Any

import keras

from tf_simclr import optimizers
from tf_simclr.config import Distill, Finetune, LinearEval, Pretrain
from tf_simclr.replicas import Devices
from tf_simclr.training import Plan


def plan_of(config: Pretrain | Finetune | Distill, num_examples: int) -> Plan:
    """Length and pace, counted as the reference counts them (docs/official-code.md#learning-rate)."""
    # Whole batches: a rest of an epoch reaches into the next one.
    epoch, epochs = max(1, num_examples // config.train_batch_size), 0
    total = steps_of(config, num_examples)
    if not config.train_steps:  # a step more than the epochs have: they end with the number that was asked for
        epochs = min(config.train_epochs, total)
        epoch = total // epochs
    return Plan(
        total_steps=total,
        steps_per_epoch=epoch,
        epochs=epochs,
        batch_size=config.train_batch_size,
        checkpoint_steps=config.checkpoint_steps or config.checkpoint_epochs * epoch,
        keep_checkpoint_max=config.keep_checkpoint_max,
    )


def steps_of(config: Pretrain | Finetune | Distill | LinearEval, num_examples: int) -> int:
    """Steps of a training; of epochs one more than they have, as the reference takes it."""
    return config.train_steps or optimizers.train_steps(
        num_examples, config.train_batch_size, epochs=config.train_epochs
    )


def schedule_of(
    config: Pretrain | Finetune | Distill | LinearEval, *, steps: int, num_examples: int
) -> optimizers.WarmUpCosine:
    """The learning rate of each of so many steps."""
    batch = config.train_batch_size
    peak = optimizers.scaled_learning_rate(config.learning_rate, batch, scaling=config.learning_rate_scaling)
    warmup = optimizers.warmup_steps(num_examples, batch, warmup_epochs=config.warmup_epochs)
    return optimizers.WarmUpCosine(peak, steps, warmup_steps=warmup)


def optimizer_of(
    config: Pretrain | Finetune | Distill | LinearEval, *, steps: int, num_examples: int
) -> keras.optimizers.Optimizer:
    """The optimizer, by that schedule; on replicas it is made within their scope."""
    schedule = schedule_of(config, steps=steps, num_examples=num_examples)
    return optimizers.build(config.optimizer, schedule, momentum=config.momentum, weight_decay=config.weight_decay)


def compile_on(
    devices: Devices,
    model: keras.Model,
    *,
    optimizer: keras.optimizers.Optimizer,
    config: Pretrain | Finetune | Distill,
    loss: Any = None,
) -> None:
    """Compiles a model that was made on these devices."""
    # Loss scaling around the optimizer, as float16 overflows.
    model.compile(
        optimizers.LossScale(optimizer) if config.mixed_precision == "float16" else optimizer,
        loss,
        steps_per_execution=config.steps_per_execution,
        jit_compile=devices.jit_compile(config.jit_compile),
    )
