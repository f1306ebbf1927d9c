"""Two views of an image: processor time a view, against the reference's way, torchvision's, and ours of before.

python benchmarks/input_pipeline.py [--photos FOLDER] [--torchvision_python ENV/bin/python] [--rounds 5] [--markdown]

Each pipeline runs in its own process, all take turns, and what counts is the processor's time, in the process and its
workers, so that other work on the machine disturbs little; a ratio is of two runs in one round.  Claims, of medians;
exits 1 where one does not hold:

    224 px, from JPEG files       the host decodes, a device makes views: 3 times the reference's way, 6 torchvision's
    the same, from a cache        `--cache resized`, made before: 7 times and 16 times
    32 px, pixels in memory       views by the host, a batch at a time: 4 times the host image by image

With a device's views, blur costs the host nothing; the others are measured with it and without.  What views cost a
device is not measured here.  "crops alone" are the same pipelines without colours and blur: with decoding, they say
where the time goes.  Without a folder the photos are parts of scikit-learn's two, 500 × 375 pixels like most of
ImageNet's.
torchvision's transforms run in a DataLoader with 2 workers, in the interpreter of an environment that has it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

SIZE = 224
BATCH = 64
SMALL, SMALL_BATCH = 32, 512
TORCHVISION = ("torchvision (Pillow)", "torchvision (v2, tensors)")
DEVICE, CACHED, RAW = "device views", "device views, cache", "device views, raw cache"
CLAIMS = {
    (DEVICE, "reference style"): 3.0,
    (CACHED, "reference style"): 7.0,
    **{(DEVICE, name): 6.0 for name in TORCHVISION},
    **{(CACHED, name): 16.0 for name in TORCHVISION},
}
"""Pipeline and peer → how many times faster it must be."""
SMALL_CLAIM = 4.0
SMALL_ROUNDS, SMALL_BATCHES = 9, 12
"""At least so many, also where the others are few: they are cheap, and single rounds differ by half."""


def ours(photos: Path, *, blur: bool, colors: bool = True) -> Iterator:
    from tf_simclr.data import pipeline, sources
    from tf_simclr.data.recipe import Recipe

    recipe = Recipe(use_blur=blur) if colors else Recipe(use_blur=False, jitter_probability=0, grayscale_probability=0)
    source = sources.from_folder(photos, labelled=False)
    sizes = {"batch_size": BATCH, "image_size": SIZE}
    return iter(pipeline.training_views(source, **sizes, seed=0, unreadable=pipeline.Unreadable(), recipe=recipe))


def for_device(photos: Path, *, blur: bool, cache: str = "none") -> Iterator:
    """What the host does where a device makes the views; `blur` changes nothing."""
    from tf_simclr.data import pipeline, sources
    from tf_simclr.data.kept.resized import resized

    source = sources.from_folder(photos, labelled=False)
    source = source if cache == "none" else resized(source, size=256, kind=cache)
    sizes = {"batch_size": BATCH, "image_size": SIZE}
    return iter(pipeline.packed_views(source, **sizes, seed=0, unreadable=pipeline.Unreadable()))


def small(photos: Path, *, blur: bool, way: str) -> Iterator:
    """CIFAR-10's recipe on pixels in memory, in batches of 512; `blur` changes nothing."""
    import numpy as np
    import tensorflow as tf

    from tf_simclr.data import pipeline, sources
    from tf_simclr.data.recipe import Recipe

    coarse = np.random.RandomState(0).uniform(0, 255, (5000, 5, 5, 3))
    pixels = tf.cast(tf.clip_by_value(tf.image.resize(coarse, (SMALL, SMALL)), 0, 255), tf.uint8).numpy()
    if way == "image by image":
        pipeline.in_batches = lambda *arguments, **options: False
    make = pipeline.packed_views if way == "device" else pipeline.training_views
    sizes = {"batch_size": SMALL_BATCH, "image_size": SMALL}
    recipe = Recipe(color_jitter_strength=0.5, use_blur=False)
    source = sources.from_arrays(pixels, np.arange(len(pixels)) % 10)
    return iter(make(source, **sizes, seed=0, unreadable=pipeline.Unreadable(), recipe=recipe))


def decoding(photos: Path, *, blur: bool) -> Iterator:
    """Reading and decoding alone: what no pipeline can be faster than.  `blur` changes nothing."""
    import tensorflow as tf

    files = tf.data.Dataset.list_files(str(photos / "*")).repeat()
    return iter(files.map(lambda file: tf.shape(tf.io.decode_jpeg(tf.io.read_file(file), 3)), 2).batch(BATCH))


def reference_style(photos: Path, *, blur: bool, colors: bool = True) -> Iterator:
    """Image by image, with TensorFlow's own image functions and conditionals; blur in batches, as in a model."""
    import tensorflow as tf

    def jittered(image):
        changes = (
            lambda x: x * tf.random.uniform((), 0.2, 1.8),
            lambda x: tf.image.random_contrast(x, 0.2, 1.8),
            lambda x: tf.image.random_saturation(x, 0.2, 1.8),
            lambda x: tf.image.random_hue(x, 0.2),
        )
        order = tf.random.shuffle(tf.range(4))
        for i in range(4):
            first = [lambda x=image, change=change: change(x) for change in changes]
            pairs = [lambda k=k: tf.cond(order[i] < k + 1, first[k], first[k + 1]) for k in (0, 2)]  # noqa: B023
            image = tf.clip_by_value(tf.cond(order[i] < 2, *pairs), 0.0, 1.0)
        return image

    def gray(image):
        return tf.tile(tf.image.rgb_to_grayscale(image), (1, 1, 3))

    def view(pixels):
        image = tf.image.convert_image_dtype(pixels, tf.float32)  # for each view, as the reference does
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.crop_to_bounding_box(image, begin[0], begin[1], extent[0], extent[1])
        image = tf.image.resize([image], (SIZE, SIZE), tf.image.ResizeMethod.BICUBIC)[0]
        image = tf.image.random_flip_left_right(image)
        if colors:
            plain = image
            image = colored = tf.cond(tf.random.uniform(()) < 0.8, lambda: jittered(plain), lambda: plain)
            image = tf.cond(tf.random.uniform(()) < 0.2, lambda: gray(colored), lambda: colored)
        return tf.clip_by_value(tf.reshape(image, (SIZE, SIZE, 3)), 0.0, 1.0)

    def two_views(file):
        pixels = tf.io.decode_jpeg(tf.io.read_file(file), 3)
        return tf.concat([view(pixels), view(pixels)], -1)

    def blurred(images):
        offsets = tf.range(-(SIZE // 20), SIZE // 20 + 1, dtype=tf.float32)
        kernel = tf.nn.softmax(-(offsets**2) / (2 * tf.random.uniform((), 0.1, 2.0) ** 2))
        across = tf.tile(kernel[None, :, None, None], (1, 1, 3, 1))
        smooth = tf.nn.depthwise_conv2d(images, across, (1, 1, 1, 1), "SAME")
        smooth = tf.nn.depthwise_conv2d(smooth, tf.transpose(across, (1, 0, 2, 3)), (1, 1, 1, 1), "SAME")
        chosen = tf.cast(tf.random.uniform((BATCH, 1, 1, 1)) < 0.5, tf.float32)
        return tf.clip_by_value(smooth * chosen + images * (1 - chosen), 0.0, 1.0)

    in_model = tf.function(lambda images: tf.concat([blurred(part) for part in tf.split(images, 2, -1)], -1))
    files = tf.data.Dataset.list_files(str(photos / "*")).repeat().map(two_views, tf.data.AUTOTUNE)
    batches = files.batch(BATCH, drop_remainder=True).prefetch(2)  # as many as ours: what waits is not measured
    return (in_model(batch) for batch in batches) if blur and colors else iter(batches)


class Photos:
    """Two views a file, for torch's DataLoader: endlessly the files in their order."""

    def __init__(self, files: list[Path], load: Callable, transform: Callable):
        self.files, self.load, self.transform = files, load, transform

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int):
        image = self.load(self.files[index % len(self.files)])
        return self.transform(image), self.transform(image)


def torchvision_pillow(photos: Path, *, blur: bool) -> Iterator:
    from PIL import Image
    from torchvision import transforms as v1

    steps = [
        v1.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=v1.InterpolationMode.BICUBIC),
        v1.RandomHorizontalFlip(),
        v1.RandomApply([v1.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        v1.RandomGrayscale(0.2),
        *([v1.RandomApply([v1.GaussianBlur(23, (0.1, 2.0))], 0.5)] if blur else []),
        v1.ToTensor(),
    ]
    return loaded(Photos(sorted(photos.iterdir()), lambda file: Image.open(file).convert("RGB"), v1.Compose(steps)))


def torchvision_tensors(photos: Path, *, blur: bool) -> Iterator:
    """Pillow decodes here, too: not every build of torchvision has its own decoder."""
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        v2.RandomGrayscale(0.2),
        *([v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], 0.5)] if blur else []),
        v2.ToDtype(torch.float32, scale=True),
    ]

    def load(file: Path):
        return v2.functional.pil_to_tensor(Image.open(file).convert("RGB"))

    return loaded(Photos(sorted(photos.iterdir()), load, v2.Compose(steps)))


def loaded(photos: Photos) -> Iterator:
    """A loader's batches; its two workers end with each measurement, so that their time is counted."""
    import torch

    while True:
        count = yield
        part = torch.utils.data.Subset(photos, range(count * BATCH))
        for batch in torch.utils.data.DataLoader(part, BATCH, num_workers=2):
            del batch
        yield


PIPELINES = {
    DEVICE: for_device,
    CACHED: partial(for_device, cache="jpeg"),
    RAW: partial(for_device, cache="raw"),
    "host views": ours,
    "reference style": reference_style,
    "torchvision (Pillow)": torchvision_pillow,
    "torchvision (v2, tensors)": torchvision_tensors,
    "host views, crops alone": partial(ours, colors=False),
    "reference style, crops alone": partial(reference_style, colors=False),
    "decoding alone": decoding,
}
SMALL_PIPELINES = {
    "32 px: host views, in batches": partial(small, way="batches"),
    "32 px: host views, image by image": partial(small, way="image by image"),
    "32 px: device views": partial(small, way="device"),
}


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def settle() -> None:
    """Waits until nothing has worked ahead for a while: the next pipeline is alone."""
    quiet = 0
    while quiet < 4:  # on a busy machine, work may wait for a processor
        before = processor_seconds()
        time.sleep(0.15)
        quiet = quiet + 1 if processor_seconds() - before < 0.005 else 0


def serve(name: str, photos: Path, *, blur: bool) -> None:
    """Answers each line, a number of batches, with the processor's seconds that they took.

    What is made ahead is full before and after: as much is made as is taken.
    """
    if not name.startswith("torchvision"):
        from tf_simclr.replicas.find import leave_processors_to_input

        leave_processors_to_input()  # as beside an accelerator, which is what such a pipeline is for
    batches = (PIPELINES | SMALL_PIPELINES)[name](photos, blur=blur)
    for line in chain(["2"], iter(sys.stdin.readline, "")):  # two batches to warm up
        count = int(line)
        if name.startswith("torchvision"):  # makes nothing ahead
            before = processor_seconds()
            next(batches)
            batches.send(count)
        else:
            take(batches, 1)
            settle()
            before = processor_seconds()
            take(batches, count)
            settle()  # until as many are made again as were taken
        used = processor_seconds() - before
        sys.stdout.write(f"{used}\n")
        sys.stdout.flush()


def take(batches: Iterator, count: int) -> None:
    for _ in range(count):
        next(batches)


class Server:
    """A pipeline in its own process."""

    def __init__(self, name: str, options: argparse.Namespace, *, blur: bool):
        torch = name.startswith("torchvision")
        words = ["--photos", str(options.photos), "--serve", name, *(["--blur"] if blur else [])]
        interpreter = options.torchvision_python if torch else sys.executable
        root = str(Path(__file__).resolve().parents[1])
        self.command = [interpreter, __file__, *words]
        self.environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.start()

    def start(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen(self.command, env=self.environment, text=True, **pipes)
        self.answer()

    def answer(self) -> float:
        line = self.process.stdout.readline()
        if line:
            return float(line)
        code = self.process.wait()
        self.said.seek(0)
        last = [one for one in self.said.read().decode(errors="replace").splitlines() if one.strip()][-1:]
        raise EndedError(f"{' '.join(self.command)} ended with code {code}: {' '.join(last) or 'nothing is said'}")

    def views_per_second(self, batches: int, *, batch: int) -> float:
        try:
            return 2 * batch * batches / self.seconds(batches)
        except (EndedError, BrokenPipeError) as error:  # a machine may end a process for want of memory: once more
            sys.stderr.write(f"{error}; it is started again\n")
            self.start()
            return 2 * batch * batches / self.seconds(batches)

    def seconds(self, batches: int) -> float:
        self.process.stdin.write(f"{batches}\n")
        self.process.stdin.flush()
        return self.answer()


class EndedError(Exception):
    """A pipeline's process is there no more."""


def measured(
    options: argparse.Namespace, pipelines: dict[str, Callable], *, blur: bool, batch: int = BATCH
) -> dict[str, list[float]]:
    """Pipeline → views per second and core, one number a round."""
    names = [n for n in pipelines if options.torchvision_python or not n.startswith("torchvision")]
    names = [name for name in names if not options.only or name in options.only]
    servers = {name: Server(name, options, blur=blur) for name in names}
    speeds = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            speeds[name].append(servers[name].views_per_second(options.batches, batch=batch))
    for server in servers.values():
        server.process.stdin.close()
        server.process.wait()
    return speeds


def table(speeds: dict[str, list[float]], head: str) -> None:
    """Prints what each pipeline takes of a processor."""
    sys.stdout.write(f"\n| {head} | ms of a processor a view | views/s and core |\n| --- | --- | --- |\n")
    for name, values in speeds.items():
        median = statistics.median(values)
        sys.stdout.write(f"| {name} | {1000 / median:.3f} | {median:.0f} |\n")


def claimed(speeds: dict[str, list[float]], claims: dict[tuple[str, str], float]) -> bool:
    """Prints the ratios that are claimed, and says whether all hold."""
    sys.stdout.write("\n| faster | than | times | rounds | claim |\n| --- | --- | --- | --- | --- |\n")
    holds = True
    for (name, peer), claim in claims.items():
        if name not in speeds or peer not in speeds:
            continue
        ratios = [mine / other for mine, other in zip(speeds[name], speeds[peer], strict=True)]
        median = statistics.median(ratios)
        holds &= median >= claim
        verdict = f"≥ {claim:g}: {'holds' if median >= claim else 'DOES NOT HOLD'}"
        spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
        sys.stdout.write(f"| {name} | {peer} | {median:.2f} × | {spread} | {verdict} |\n")
    sys.stdout.flush()
    return holds


SHOWN = {DEVICE: "device views", CACHED: "the same, JPEG cache", RAW: "raw cache", "host views": "host views"}
PEER = "reference style"


def documented(plain: dict[str, list[float]], blurred: dict[str, list[float]], small: dict[str, list[float]]) -> None:
    """Prints the table of docs/input.md: milliseconds of a processor a view, and how many times the peer's speed."""
    names = [name for name in (*SHOWN, PEER, *TORCHVISION, "decoding alone") if name in plain]
    head = ("", "ms a view", "with blur", "the official code's way", "with blur")
    rows = [head, ("---",) * len(head)]
    for name in names:
        own = [f"{1000 / statistics.median(speeds[name]):.2f}" for speeds in (plain, blurred)]
        ratios = [
            statistics.median(mine / other for mine, other in zip(speeds[name], speeds[PEER], strict=True))
            for speeds in (plain, blurred)
        ]
        shown = {PEER: "the official code's way", **SHOWN}.get(name, name)
        rows.append((shown, *own, *(f"{ratio:.2f} ×" for ratio in ratios)))
    for name, speeds in small.items():
        one = [mine / other for mine, other in zip(speeds, list(small.values())[1], strict=True)]
        times = f"{statistics.median(one):.2f} × image by image"
        rows.append((name, f"{1000 / statistics.median(speeds):.3f}", "", times, ""))
    sys.stdout.write("\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows))


def cut_photos(folder: Path, count: int = 64) -> Path:
    """Writes parts of scikit-learn's photographs as JPEGs, and returns the folder."""
    import tensorflow as tf
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    for i in range(count):
        top, left = (i * 7) % 50, (i * 11) % 140
        part = photos[i % len(photos)][top : top + 375, left : left + 500]
        (folder / f"{i:03}.jpg").write_bytes(tf.io.encode_jpeg(part, quality=90).numpy())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--torchvision_python", help="interpreter of an environment with torch and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=12, help=f"of {BATCH} images, in each round")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/input.md, too")
    parser.add_argument("--only", nargs="*", choices=PIPELINES | SMALL_PIPELINES, help="fewer pipelines, less memory")
    parser.add_argument("--serve", choices=PIPELINES | SMALL_PIPELINES, help=argparse.SUPPRESS)
    parser.add_argument("--blur", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.photos, blur=options.blur)
        return
    holds = []
    with tempfile.TemporaryDirectory() as temporary:
        if options.photos is None:
            options.photos = Path(temporary) / "photos"
            options.photos.mkdir()
            cut_photos(options.photos)
        os.environ["TF_SIMCLR_CACHE"] = temporary
        large = {}
        for blur in (False, True):
            large[blur] = speeds = measured(options, PIPELINES, blur=blur)
            table(speeds, f"two views of {SIZE} px, {'with' if blur else 'without'} blur")
            holds.append(claimed(speeds, CLAIMS))
        options.rounds = max(options.rounds, SMALL_ROUNDS)
        options.batches = max(options.batches, SMALL_BATCHES)
        speeds = measured(options, SMALL_PIPELINES, blur=False, batch=SMALL_BATCH)
        table(speeds, f"two views of {SMALL} px, batches of {SMALL_BATCH}, colours at half strength, no blur")
        fast, slow, _ = SMALL_PIPELINES
        holds.append(claimed(speeds, {(fast, slow): SMALL_CLAIM}))
        if options.markdown and PEER in large[False]:
            documented(large[False], large[True], speeds)
    if not options.torchvision_python:
        sys.stdout.write("\ntorchvision was not measured: give --torchvision_python\n")
    sys.exit(0 if all(holds) else 1)


if __name__ == "__main__":
    try:
        main()
    except EndedError as error:
        sys.exit(str(error))
