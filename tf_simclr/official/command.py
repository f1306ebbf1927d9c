"""`python -m tf_simclr.run`: training and evaluation as the official TF2 `run.py` has them.

An evaluation is the supervised head's top-1 and top-5 accuracy on the centre crops of `eval_split`, of a checkpoint of
`model_dir`.  As the official code does, it writes `result.json` (here: besides what training has put there),
`result_<step>.json`, `flags.json` and a SavedModel in `saved_model/<step>`.
"""

import importlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from converters import convert
from tf_simclr.commands.parts.images import open_source
from tf_simclr.commands.parts.networks import check_classifier_of
from tf_simclr.config.training import Pretrain
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.evaluation.metrics import accuracy, top_k_accuracy
from tf_simclr.files import read_json, write_json
from tf_simclr.files.places import is_bucket, written
from tf_simclr.machine.launchers import started
from tf_simclr.models.network import weights_by_name
from tf_simclr.official.flags import Call
from tf_simclr.optimizers import train_steps
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say, show
from tf_simclr.weights import load_model

_WAIT = 15
"""Seconds between two looks for a new checkpoint, the official code's number."""


def run(call: Call) -> None:
    """Trains, evaluates, or both.

    Raises:
        InputError: several processes were started to evaluate, which would write the same files.
    """
    who = None if call.mode == "train" else started()
    check(who is None, f"mode must be train where {who} has started several processes; evaluate in one", mode=call.mode)
    # 1. Training, by the command of that name.
    if call.mode != "eval":
        importlib.import_module(f"tf_simclr.commands.{call.flags['train_mode']}").run(call.config)
    if call.mode == "train":
        return
    if isinstance(call.config, Pretrain) and not call.config.lineareval_while_pretraining:
        say("no evaluation: without lineareval_while_pretraining pretraining has no classifier")
        return
    # 2. One evaluation of the last checkpoint, or of each as it appears, as when training runs elsewhere.
    if call.mode == "train_then_eval":
        show(line(evaluate(call, _steps_of(call)[-1])))
        return
    for result in evaluations(call, sleep=time.sleep):
        show(line(result))


def evaluations(call: Call, *, sleep: Callable[[float], None]) -> Iterator[dict]:
    """Evaluates the newest checkpoint, and each newer one when it appears, up to that of the last step."""
    last = _total_steps(call)
    done = -1
    for look in itertools.count():
        newest = max(_steps_of(call), default=-1)
        # Only the newest: those that appeared during an evaluation are passed over, as in the official code.
        if newest > done:
            done = newest
            yield evaluate(call, newest)
        if done >= last:
            return
        place = written(call.config.model_dir)
        rule = f"{place} must hold the checkpoint of step {last:,}: evaluation waits for new ones on a path alone"
        check(not is_bucket(place), rule, newest=max(newest, 0))
        if look == 0:
            say(f"waiting for checkpoints in {call.config.model_dir}, up to that of step {last:,} (Ctrl-C ends it)")
        sleep(_WAIT)


def _total_steps(call: Call) -> int:
    """Steps of the training, as its flags say."""
    config = call.config
    if config.train_steps:
        return config.train_steps
    images = open_source(config, config.train_split).num_examples
    return train_steps(images, config.train_batch_size, epochs=config.train_epochs)


def _steps_of(call: Call) -> list[int]:
    """The steps of the run's checkpoints, the first one first."""
    return sorted(RunFolder(call.config.model_dir).steps())


def evaluate(call: Call, step: int) -> dict[str, float]:
    """Evaluates one checkpoint and writes what the official code writes.

    Raises:
        InputError: it has no classifier, or not the classes of the split.
    """
    model_dir = call.config.model_dir
    network = load_model(model_dir, step=step)
    has = "logits_sup" in network.output
    check(has, f"{model_dir} must have a classifier to evaluate: pretrain on labelled images, or finetune")
    logits = _logits_of(call, network)
    rule = "the classifier must have the classes of the eval_split"
    classes = logits.values.shape[1]
    check(logits.labels.max() < classes, rule, classes=classes, largest_label=int(logits.labels.max()))
    result = {
        "eval/regularization_loss": _l2_loss(network, call),
        "eval/label_top_1_accuracy": accuracy(logits.values.argmax(axis=1), logits.labels),
        "eval/label_top_5_accuracy": top_k_accuracy(logits.values, logits.labels, k=min(5, classes)),
        "global_step": float(step),
    }
    write(call, result)
    return result


def _logits_of(call: Call, network: keras.Model) -> Features:
    """The classifier's outputs on the evaluation split, or on its first `eval_steps` batches."""
    config, flags = call.config, call.flags
    source = open_source(config, flags["eval_split"], labelled=True)
    check_classifier_of(config.model_dir, source)
    sizes = {"batch_size": flags["eval_batch_size"], "image_size": config.image_size}
    batches = evaluation_batches(source, **sizes, unreadable=Unreadable())
    return extract(network, batches.take(flags["eval_steps"] or -1), endpoint="logits_sup")


def _l2_loss(network: keras.Model, call: Call) -> float:
    """The weight decay that the optimizer leaves to the loss: with LARS of the classifier's kernel alone.

    See docs/official-code.md#weight-decay.
    """
    named = {name: np.asarray(weight) for name, weight in weights_by_name(network).items()}
    # Else of all that trains and belongs to no BatchNorm.
    every = [name for name in named if name.endswith(("/kernel", "/bias"))]
    decayed = ["logits_sup/kernel"] if call.config.optimizer == "lars" else every
    # ½ λ Σ w², in float64, as of millions of weights.
    squares = sum(np.square(named[name], dtype=np.float64).sum() for name in decayed)
    return float(0.5 * call.config.weight_decay * squares)


def write(call: Call, result: dict[str, float]) -> None:
    """Result, flags and SavedModel, where the official code has them."""
    folder, step = RunFolder(call.config.model_dir), int(result["global_step"])
    # What training has noted in the result stays.
    before = read_json(folder.result) if folder.result.exists() else {}
    write_json(folder.result, before | result)
    write_json(folder.path / f"result_{step}.json", result)
    write_json(folder.path / "flags.json", call.flags)
    exports = folder.path / "saved_model"
    if not (exports / str(step)).exists():
        convert(folder.path, exports / str(step), to="savedmodel", step=step, verify=False)
    # 0 keeps all: nothing is cut off.
    kept = call.flags["keep_hub_module_max"]
    for old in exported(exports)[: -kept if kept > 0 else 0]:
        shutil.rmtree(old)


def exported(exports: Path) -> list[Path]:
    """The exported steps, the first one first."""
    return sorted((path for path in exports.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def line(result: dict[str, float]) -> str:
    """What a person wants to know of it."""
    top1, top5 = (100 * result[f"eval/label_top_{k}_accuracy"] for k in (1, 5))
    return f"step {result['global_step']:,.0f}: top-1 {top1:.1f} %, top-5 {top5:.1f} % (result.json, saved_model/)"
