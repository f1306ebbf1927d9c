"""What fine-tuning and distillation share: the loop, the test at its end, and what they leave behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from tf_simclr.commands.parts.networks import code_of
from tf_simclr.config import Distill, Finetune, plain
from tf_simclr.data import pipeline
from tf_simclr.data.device_views import DeviceViews
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.data.subsets import in_pixels
from tf_simclr.evaluation import binary, multi_label
from tf_simclr.evaluation.features import Features, extract, source_digest
from tf_simclr.evaluation.intervals import SEPARATED, auc_interval, estimate, separated
from tf_simclr.evaluation.metrics import hit_rate, top_k_hits
from tf_simclr.evaluation.reports import Answers, write_report
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.machine.signals import Stopping
from tf_simclr.models.classifier import Classifier, thaw
from tf_simclr.models.network import plain as plain_network
from tf_simclr.replicas import Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say, typed
from tf_simclr.training import Feed, Plan, train
from tf_simclr.training.closing import Closing
from tf_simclr.training.reporting import reports as reports_of
from tf_simclr.training.results import Result, finished_result, save_network
from tf_simclr.training.viewing import views_on_device, with_held
from tf_simclr.training.watching import Watch

_TOP = 5
"""Of so many guesses one may be right, in the second accuracy; ImageNet's custom."""
_TESTED = ("top1", "mean_auc")
"""What the history has of tests between epochs, as numbers; in `result.json` their names are the last test's."""


@dataclass(frozen=True)
class Job:
    """A training with all that belongs to it but the model and the images."""

    config: Finetune | Distill
    folder: RunFolder
    plan: Plan
    test: Source
    """Images and labels to test on."""
    notes: dict
    """What else `result.json` says."""
    devices: Devices


def supervise(job: Job, model: Classifier, *, source: Source) -> dict:
    """Trains a compiled model on images and targets, tests and exports it, and returns what `result.json` holds."""
    # 1. What accompanies the training.  2. The views, made on the host or in the step.
    unreadable, devices = Unreadable(), job.devices
    result = Result(
        job.folder, unreadable, devices=devices, division=source.division, notes=source.notes, without=_TESTED
    )
    told = reports_of(job.config, job.folder) if devices.chief else []
    watchers = [_Tests(job)] if job.config.eval_epochs else []
    views_of = views_on_device(
        job.config, source, recipe=pipeline.flips(job.config.augment), devices=devices, single=True
    )
    if views_of is not None or not has_tensorflow():
        source = in_pixels(source, cache=job.config.cache_dataset)
    if views_of is not None:
        model.views_of = views_of = with_held(views_of, source, devices=devices)
    # 3. The training, from the newest whole checkpoint on.
    with Stopping() as stopping:
        train(
            model,
            _feed(job.config, source, unreadable=unreadable, views_of=views_of),
            plan=job.plan,
            run=job.folder,
            say=say,
            watchers=watchers,
            callbacks=[result, *told],
            devices=devices,
            stopping=stopping,
        )
        # 4. The test, once, by one process; then the network, and last the result, by which the run counts as finished.
        closing = Closing(stopping, devices=devices, run=job.folder, step=job.plan.total_steps, say=say)
        for one in told:
            one.finish()
        found = closing.by_chief(lambda: _predictions(model, job, unreadable=unreadable))
        if unreadable.names:
            say(unreadable.report())
        content = result.write()

        def whole() -> dict:
            save_network(job.folder, thaw(model.network()))
            return report(job, cast(Features, found), before=content)

        written = closing.by_chief(whole)
        return devices.collect(written)[0]  # the others return when all is written


def report(job: Job, found: Features, *, before: dict) -> dict:
    """Adds the test to `result.json`, which says that a run is finished; the answers go into `result.npz`."""
    # 1. The measures; images of any number of classes have AUCs, and no single answer.  Intervals are over images.
    config, test, classes = job.config, job.test, job.test.class_names
    scores: dict[str, Any]
    if test.several:
        measures = scores = multi_label.measured(found.values, found.labels, names=classes)
    else:
        scores = _accuracies(found, seed=config.seed)
        measures = scores | ranked(found)
    answers = Answers(found.names, found.labels, {"classifier": found.values}, classes=() if test.several else classes)
    # 2. What was tested, and what is to be known of the images to learn from and of those to test on.
    tested: dict[str, Any] = {"eval_split": config.eval_split, "eval_images": len(found.values)}
    content, notes = source_digest(test), list(dict.fromkeys([*before.get("notes", ()), *test.notes]))
    tested |= {} if content is None else {"eval_content": content}
    tested |= {} if test.division is None else {"eval_division": test.division}
    tested |= {"notes": notes} if notes else {}
    # 3. What was there, what was tested, and how it came about.
    more = before | measures | tested | job.notes
    write_report(job.folder.result, command=plain(config), results={"classifier": scores}, answers=answers, **more)
    return more


def finished(folder: RunFolder, config: Finetune | Distill, *, test: Source) -> dict | None:
    """What `result.json` holds of a run that has ended, and was tested on the images that are asked for; else none."""
    there = finished_result(folder)
    # Tested on another split, or on other images, it is asked again.
    if there is None or there.get("eval_split") != config.eval_split or not {"top1", "mean_auc"} & there.keys():
        return None
    content = source_digest(test, say)
    same = there.get("eval_content", content) == content  # runs of earlier versions have not noted it
    if not same:
        say(f"{folder.path} was tested on other images than {test.origin} has now: they are tested anew")
    return there if same else None


def _feed(
    config: Finetune | Distill, source: Source, *, unreadable: Unreadable, views_of: DeviceViews | None = None
) -> Feed:
    """First step to the batches from it on: crops and flips, or the view that evaluation has.

    Where `views_of` makes the views, batches are what it makes them of.
    """
    batch, size = config.train_batch_size, config.image_size
    buffer = pipeline.buffer_size(batch, image_size=size)
    stream = pipeline.Stream(batch_size=batch, buffer=buffer, seed=config.seed, cache=config.cache_dataset)

    def batches(step: int, share: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        return pipeline.single_views(
            source,
            stream=replace(stream, start_step=step, share=share),
            image_size=size,
            unreadable=unreadable,
            augment=config.augment,
            packed=views_of is not None,
            held=views_of is not None and views_of.held is not None,
        )

    return batches


class _Tests(Watch):
    """Tests every few epochs: `top1` in the history.  The test at the end is made apart, with its interval."""

    def __init__(self, job: Job):
        super().__init__()
        self.job = job

    def due(self, epoch: Any) -> Any:
        return (epoch + 1) % self.job.config.eval_epochs == 0

    def numbers(self) -> Any:
        found = _predictions(self.model, self.job, unreadable=Unreadable())
        if self.job.test.several:
            mean = multi_label.mean_auc(found.values, found.labels)
            return {} if np.isnan(mean) else {"mean_auc": mean}
        return {"top1": float(np.mean(top_k_hits(found.values, found.labels, k=1)))}


def _predictions(model: Classifier, job: Job, *, unreadable: Unreadable) -> Features:
    """The logits `(n, classes)` of every test image, with labels and names."""
    sizes: dict[str, Any] = {"batch_size": job.config.eval_batch_size, "image_size": job.config.image_size}
    return extract(tested(model), evaluation_batches(job.test, **sizes, unreadable=unreadable))


def tested(model: Classifier) -> keras.Model:
    """A copy of the model as it is, images to logits, in float32 on one device; compiled once."""
    # Made once a model: both are compiled with it.
    if not hasattr(model, "tested"):
        network = model.network()
        own = keras.Model(network.input, network.output["logits_sup"])
        pair = own, plain_network(own)
        model.tested = lambda: pair  # within a function Keras does not find the copy's layers
    own, copy = model.tested()
    copy.set_weights(own.get_weights())
    return copy


def _accuracies(found: Features, *, seed: int) -> dict[str, dict[str, float]]:
    """Top-1 and top-5 accuracy (of fewer classes top-n) with their 95 % bootstrap intervals over the test images."""
    ranks = (1, min(_TOP, found.values.shape[1]))
    return {f"top{k}": hit_rate(top_k_hits(found.values, found.labels, k=k), seed=seed) for k in ranks}


def ranked(found: Features) -> dict[str, dict[str, float]]:
    """Of two classes that both occur the AUC with its 95 % interval over the images, else nothing."""
    if found.values.shape[1] != 2 or len(set(found.labels.tolist())) != 2:
        return {}
    # The difference of both logits orders as the probability does.
    scores = found.values[:, 1] - found.values[:, 0]
    if separated(scores, found.labels):
        say(SEPARATED)
    return {"auc": estimate(binary.roc_auc(scores, found.labels), auc_interval(scores, found.labels))}


def summary(config: Finetune | Distill, result: dict) -> str:
    """What came of it, and what to do with it."""
    model_dir = config.model_dir
    lines = [f"{result['step']:,} steps in {result['seconds'] / 60:.1f} minutes"]
    for name in (name for name in result if name.startswith("top")):
        score = result[name]
        interval = f"{100 * score['low']:.1f}–{100 * score['high']:.1f}"
        lines.append(f"{name + ':':<10}{100 * score['accuracy']:.1f} % ({interval}, 95 % bootstrap interval)")
    if "auc" in result:
        auc = result["auc"]
        lines.append(f"AUC:      {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f}, 95 % interval)")
    lines += multi_label.lines(result) if "mean_auc" in result else []
    lines[-1] += f" on {result['eval_images']:,} images of {result['eval_split']}"
    if result["unreadable"]:
        lines.append(f"{len(result['unreadable'])} unreadable images were skipped; result.json names them")
    lines += [
        f"network:  {model_dir}/network.keras (Keras), {model_dir} (tf_simclr.load_model)",
        f"figures:  {typed('compare', model_dir, '--figures', Path(model_dir) / 'figures')}",
        f"export:   {typed('export', '--checkpoint', model_dir, *code_of(config.encoder))}",
    ]
    if not RunFolder(model_dir).blueprint.exists():
        lines.append(f"PyTorch:  {typed(Path(model_dir), program='python -m converters.tf2torch')}")
    return "\n".join(lines)
