"""`tf-simclr distill`: a student that learns a teacher's answers to images without labels, into a run folder.

Protocol: SimCLRv2, Section 2.3 and 3.1: random crop and flip, teacher and student see the same view; the student has no
projection head.  Labels count only with alpha below 1, and then those of `labels_fraction` alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from tf_simclr.buckets.keeping import bring, send
from tf_simclr.commands.finetune import Given, GivenOwn
from tf_simclr.commands.parts.images import open_source, same_classes
from tf_simclr.commands.parts.networks import (
    check_channels,
    check_classifier_of,
    check_images,
    own_encoder,
    resnet_of,
    warn_of_new_stem,
    warn_of_stem,
)
from tf_simclr.commands.parts.plans import compile_on, optimizer_of, plan_of
from tf_simclr.commands.parts.runs import agree, begin_run, check_push, find_devices, in_folder, push, see
from tf_simclr.commands.supervised import Job, finished, summary, supervise
from tf_simclr.config import Distill
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.data.subsets import UNKNOWN, choose, listing, lookup, mapped, names_of, of_rows, with_targets
from tf_simclr.errors import check
from tf_simclr.evaluation.features import extract, source_digest, weights_digest
from tf_simclr.files import contents, replacing
from tf_simclr.frameworks import tf
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.models.distillation import Distiller
from tf_simclr.models.network import build_encoder, plain
from tf_simclr.models.normalization import Normalization, precision, share_statistics
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder, read_arrays
from tf_simclr.terminal import say, show
from tf_simclr.training import Plan
from tf_simclr.training.reporting import check_reports
from tf_simclr.weights import load_model, own_network

_ANSWERS = {"key", "place", "names", "logits", "unreadable"}
"""Members of a file with a teacher's answers; `place` is what the names began with where they were made."""


def run(config: Distill) -> None:
    """Distils as configured, tests, and says where the student is."""
    devices = find_devices(config)
    with devices.together():  # what one process alone is refused, the others hear
        source, test = sources(config)
        check_push(config)
        check_reports(config)
    with in_folder(config, devices) as config:
        result = distill(config, source, test=test, devices=devices)
    show(f"\n{summary(config, result)}")
    push(config, config.model_dir, devices=devices)


def sources(config: Distill) -> tuple[Source, Source]:
    """The images to learn from, which need labels only where these count, and those to test on.

    Raises:
        InputError: there are none, or no labels where they are needed.
    """
    source = open_source(config, config.train_split, labelled=None if config.alpha == 1 else True)
    test = open_source(config, config.eval_split, labelled=True)
    if config.alpha < 1:  # else labels to learn from play no part
        same_classes(source, test)
    return source, test


def distill(config: Distill, source: Source, *, test: Source, devices: Devices = ONE_DEVICE) -> dict:
    """Trains a student, from the run folder's last checkpoint on, tests it, and returns what `result.json` holds.

    Raises:
        InputError: the folder holds another run, the teacher has no classifier or one of other classes, or the images
            do not make one batch.
    """
    # The order is `pretrain`'s: what can be refused is refused before anything is written, what is written before
    # anything is computed, and every random number comes after its seed.

    # 1. What is asked for: the teacher, which must know the classes, and the student's network.
    agree(config, source, devices=devices)
    check_classifier_of(config.teacher, test)
    # A teacher that answers in each step is on all devices; one whose answers are kept is one process's own.
    with devices.scope() if config.teacher_views == "same" else contextlib.nullcontext():
        teacher = load_teacher(config, test.num_classes)
    keras.utils.set_random_seed(config.seed)  # behind the teacher, whose layers draw weights that are then replaced
    given = _student_start(config, devices=devices)
    architecture = describe(config, test.num_classes, given=given)

    def made() -> Distiller:
        asked = teacher if config.teacher_views == "same" else None  # in each step, or its answers are kept
        with devices.scope(), precision(config.mixed_precision):
            return student(config, architecture, teacher=asked, given=given)

    model = made() if isinstance(given, GivenOwn) else None
    blueprint = None if model is None else plain(model.network()).to_json()

    # 2. The run folder: begun now, or begun with the same options earlier; nothing is left to do in a finished one.
    folder = begin_run(config, source, test=test, architecture=architecture, devices=devices, blueprint=blueprint)
    if (there := finished(folder, config, test=test)) is not None:
        say(f"{folder.path} is finished; nothing is left to train")
        return there

    # 3. The images with what the student learns from them; the training's length and rates follow from their number.
    source = with_answers(config, source, teacher=teacher, folder=folder, devices=devices)
    plan = plan_of(config, source.num_examples)

    # 4. The student.  The seed comes first: weights are drawn from it, in the order in which layers are built.
    keras.utils.set_random_seed(config.seed)
    model = model or made()
    with devices.scope():
        rule = optimizer_of(config, steps=plan.total_steps, num_examples=source.num_examples)
        compile_on(devices, model, optimizer=rule, config=config)

    # 5. Weights to start from; those of the run's newest checkpoint, where there is one, take their place in 6.
    if given is not None:
        given.fill(model)
    say(_introduction(config, source, architecture=architecture, plan=plan))
    warn_of_stem(teacher, config.image_size)
    warn_of_new_stem(architecture, config.image_size)

    # 6. The training, from the newest whole checkpoint on; then the test, the network, and last the result.
    job = Job(config, folder, plan=plan, test=test, notes={"teacher": str(config.teacher)}, devices=devices)
    return supervise(job, model, source=source)


def load_teacher(config: Distill, num_classes: int) -> keras.Model:
    """The teacher, images to logits.

    Raises:
        InputError: it has no classifier, or one of another number of classes.
    """
    network = load_model(config.teacher, ema=config.ema)
    rule = f"{config.teacher} must have a classifier to teach; fine-tune it first"
    check("logits_sup" in network.output, rule, endpoints=list(network.output))
    logits = network.output["logits_sup"]
    rule = f"{config.teacher} must tell as many classes apart as {config.eval_split} has"
    check(logits.shape[-1] == num_classes, rule, teacher=logits.shape[-1], classes=num_classes)
    return keras.Model(network.input, logits, name="teacher")


def _student_start(config: Distill, *, devices: Devices) -> Given | GivenOwn | None:
    """What the student starts from: a checkpoint, the teacher's encoder drawn anew, or an encoder of another kind.

    None: a ResNet with random weights.

    Raises:
        InputError: it cannot be read or made.
    """
    if config.checkpoint is None and not config.self_distillation:
        encoder = own_encoder(config, devices=devices)
        return None if encoder is None else GivenOwn(config.encoder, encoder)
    origin = config.checkpoint or config.teacher
    with devices.scope():
        network = own_network(origin)
        if network is None:
            if config.checkpoint is None:
                return None
            given_resnet = Given.read(origin)
            check_channels(given_resnet.architecture.channels, config, what=str(origin))
            return given_resnet
        check_images(network, config.image_size)
        given = GivenOwn.of(network, name=config.encoder or str(origin))
        if config.checkpoint is None:
            # Drawn anew: of the teacher's encoder no weight is left.
            given = replace(given, encoder=keras.models.clone_model(given.encoder))
        for line in share_statistics(given.encoder, global_bn=config.global_bn):
            say(line)
    # Heads are the student's own.
    return replace(given, projection=None, head=())


def describe(config: Distill, num_classes: int, *, given: Given | GivenOwn | None) -> Architecture | Own:
    """The student: the architecture of the checkpoint, of the teacher, or of the knobs; without a projection head."""
    if isinstance(given, GivenOwn):
        return replace(given.architecture, num_proj_layers=0, num_classes=num_classes)
    if given is not None:
        encoder = given.architecture
    elif config.self_distillation:
        encoder = Given.read(config.teacher).architecture
    else:
        encoder = resnet_of(config)
    headless = replace(encoder, num_classes=0, ft_proj_selector=0)
    return replace(headless, proj_head_mode="none", num_proj_layers=0, proj_out_dim=128, num_classes=num_classes)


def student(
    config: Distill, architecture: Architecture | Own, *, teacher: Callable | None, given: Given | GivenOwn | None
) -> Distiller:
    """The model, with new weights but for an encoder of another kind."""
    normalization = Normalization(batch_norm_decay=config.batch_norm_decay, global_bn=config.global_bn)
    own = given.encoder if isinstance(given, GivenOwn) else None
    return Distiller(
        own or build_encoder(cast(Architecture, architecture), normalization),
        num_classes=architecture.num_classes,
        teacher=teacher,
        temperature=config.distillation_temperature,
        alpha=config.alpha,
        weight_decay=config.weight_decay,
    )


def with_answers(
    config: Distill, source: Source, *, teacher: keras.Model, folder: RunFolder, devices: Devices = ONE_DEVICE
) -> Source:
    """The images with the targets that the student learns from: known labels, the teacher's cached logits, or both.

    Of several processes the chief has the teacher answer, and the others read what it wrote.
    """
    if config.teacher_views == "same" and config.alpha == 1:
        return replace(source, class_names=())
    labels = _known_labels(config, source)
    if config.teacher_views == "same":
        return with_targets(source, labels)
    path = config.teacher_logits or folder.path / "cache" / "teacher_logits.npz"
    asked: dict[str, Any] = {"teacher": teacher, "path": path}
    found = devices.by_chief(lambda: answers(config, source, **asked))
    see(folder, devices)
    names, logits = found or answers(config, source, **asked, complete=True)
    # Name → row of the answers.
    places, table = lookup(names), tf.constant(logits)
    all_answered = len(names) == source.num_examples
    # Only a file's content can be taken away: what stands for a picture in shards is a number, and would be another's.
    files = source.ordered().element_spec["image"].dtype == tf.string
    rule = (
        f"each image of {source.origin} must be readable for teacher_views cached, but some have no answer; mend them"
    )
    check(all_answered or files, f"{rule}, or take teacher_views same", unreadable=source.num_examples - len(names))

    def changed(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        place = places.lookup(record["name"])
        found = {"label": labels(record), "teacher_logits": table[tf.maximum(place, 0)]}
        # An image without an answer could not be read.  Should it be readable by now, it is still none to learn from:
        # without content it fails to decode, and the pipeline puts another image with its own answer in its place.
        image = record["image"] if all_answered else tf.where(place >= 0, record["image"], "")
        return record | {"label": found, "image": image}

    return mapped(source, changed, class_names=tuple(map(str, range(logits.shape[1]))))


def _known_labels(config: Distill, source: Source) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Record → its label, or -1 where that is held back."""
    if config.alpha == 1:
        return lambda record: tf.constant(UNKNOWN, tf.int64)
    if config.labels_fraction == 1:
        return lambda record: record["label"]
    found = listing(source)
    rows = choose(found.labels, config.labels_fraction, names=found.names, seed=config.labels_seed)
    say(f"{len(rows):,} of {source.num_examples:,} labels count")
    places = lookup(found.names[rows])

    def label(record: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.where(places.lookup(record["name"]) >= 0, record["label"], UNKNOWN)

    return label


def answers(
    config: Distill, source: Source, *, teacher: keras.Model, path: Path, complete: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Names (bytes) and logits of the images, in the view that evaluation has: those in the file, the rest computed.

    Args:
        config: the knobs.
        source: the images.
        teacher: images to logits.
        path: the file.
        complete: the file must hold all of them; nothing is computed.

    Raises:
        InputError: the file is damaged or not complete; it was named, and is another teacher's or of other images; or
            the images change while they are looked at.
    """
    key = _answers_key(config, source, teacher=teacher)
    # 1. What lies there, if it is of the same teacher, images and size.
    bring(path, say=say)
    kept = {} if not path.exists() else read_arrays(path)
    if kept and (kept.keys() != _ANSWERS or str(kept["key"]) != key):
        rule = "must hold this teacher's answers to these images at this size; remove it, or name another file"
        check(config.teacher_logits is None, f"{path} {rule}")
        say(f"{path} is of another teacher, other images or another size; the teacher answers again")
        kept = {}
    # 2. What has no answer yet.
    listed = names_of(source)
    known, failed = moved(kept, source.place) if kept else ({}, set())
    rows = np.array([i for i, name in enumerate(listed) if name not in known and name not in failed], np.int64)
    rule = f"{path}, which the first process has written, must be the same file for all, and the images, too"
    check(not (complete and len(rows)), rule, without_answer=len(rows))
    if len(rows):
        say(f"the teacher answers for {len(rows):,} images, into {path} …")
        part = source if len(rows) == len(listed) else of_rows(source, rows, names=listed[rows])
        sizes: dict[str, Any] = {"batch_size": config.eval_batch_size, "image_size": config.image_size}
        found = extract(teacher, evaluation_batches(part, **sizes, unreadable=Unreadable()))
        # In half precision, which halves the file.
        known |= zip(np.char.encode(found.names).tolist(), found.values.astype(np.float16), strict=True)
        # Looked at again: images that changed meanwhile would have answers of other images.
        same = _answers_key(config, source, teacher=teacher) == key
        check(same, f"the images of {source.origin} must stay as they are while the teacher looks at them; begin again")
        # 3. All of them written.
        answered, failed = [name for name in listed if name in known], {name for name in listed if name not in known}
        text: dict[str, Any] = {
            "place": np.array(source.place),
            "names": np.array(answered),
            "unreadable": np.array(sorted(failed), bytes),
        }
        with replacing(path) as [file]:
            np.savez(file, key=np.array(key), logits=np.stack([known[name] for name in answered]), **text)
        send(path, say=say)
    if failed:
        some = ", ".join(name.decode(errors="replace") for name in sorted(failed)[:3])
        say(f"{len(failed):,} images cannot be read and have no answer; others take their places: {some}")
    answered = [name for name in listed if name in known]
    return np.array(answered), np.stack([known[name] for name in answered]).astype(np.float32)


def moved(kept: dict[str, np.ndarray], place: str) -> tuple[dict[bytes, np.ndarray], set[bytes]]:
    """Name → answer, and names without one, of images that may lie in another folder by now."""
    names, failed = (
        [place.encode() + name.removeprefix(str(kept["place"]).encode()) for name in kept[column].tolist()]
        for column in ("names", "unreadable")
    )
    check(len(names) == len(kept["logits"]), "a teacher's answers must be one for each image; remove their file")
    return dict(zip(names, kept["logits"], strict=True)), set(failed)


def _answers_key(config: Distill, source: Source, *, teacher: keras.Model) -> str:
    """All that the answers hang on: what the teacher computes, what is in the images, and how large it sees them."""
    return contents.of_values(weights_digest(teacher), source_digest(source, say), config.image_size)


def _introduction(config: Distill, source: Source, *, architecture: Architecture | Own, plan: Plan) -> str:
    """What is about to happen."""
    start = "random weights" if config.checkpoint is None else str(config.checkpoint)
    return (
        f"{architecture.title}, from {start}, learns from {config.teacher} at "
        f"temperature {config.distillation_temperature:g}, alpha {config.alpha:g}: {source.num_examples:,} images of "
        f"{source.origin} at {config.image_size} px, {plan.total_steps:,} steps of {config.train_batch_size} images, "
        f"into {config.model_dir}"
    )
