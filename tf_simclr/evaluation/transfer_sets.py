"""The twelve data sets of SimCLR's transfer table (Table 8), with their splits and metrics.

Metrics and test splits are those of SimCLR, Appendix B.8.1, which follows Kornblith et al. (arXiv:1805.08974, Table 1):
that one gives the numbers of training (with validation) and of test images.  Where the creators define no validation
split, SimCLR holds out a part of the training images that it does not number; the numbers here are those that BYOL
(arXiv:2006.07733, Appendix D), which follows the same protocol, reports.
"""

from dataclasses import KW_ONLY, dataclass

from tf_simclr.errors import check


@dataclass(frozen=True)
class TransferSet:
    """One of them."""

    title: str
    """What a table calls it."""
    tfds: str | None
    """Its name in TensorFlow Datasets; None: it is not there."""
    sizes: tuple[int, int, int]
    """Images to train on, to validate on and to test on, as reported."""
    _: KW_ONLY
    metric: str = "accuracy"
    """A name of `metrics.METRICS`."""
    train: str = "train"
    """Split to train on; with `validation` None, the validation images are drawn from it."""
    validation: str | None = None
    """The creators' validation split, if there is one."""
    test: str = "test"
    """Split to test on."""
    label_key: str | None = None
    """Feature with the labels, where an image may have several classes."""
    note: str = ""
    """What is different here from the paper, or why tfds does not have it."""

    @property
    def held_share(self) -> float:
        """Share of `train` that is held out for validation where there is no such split."""
        return self.sizes[1] / (self.sizes[0] + self.sizes[1])


_PER_CLASS = "mean_per_class_accuracy"
TRANSFER_SETS = {
    "food101": TransferSet("Food-101", "food101", (68175, 7575, 25250), test="validation"),
    "cifar10": TransferSet("CIFAR-10", "cifar10", (45000, 5000, 10000)),
    "cifar100": TransferSet("CIFAR-100", "cifar100", (44933, 5067, 10000)),
    "birdsnap": TransferSet("Birdsnap", None, (42405, 4981, 2443),
        note="its creators give out links to photographs, of which ever more are dead"),
    "sun397": TransferSet("SUN397", "sun397/standard-part1-120k", (15880, 3970, 19850),
        note="the first of ten partitions, its images at most 120,000 pixels"),
    "cars196": TransferSet("Stanford Cars", "cars196", (6494, 1650, 8041)),
    "aircraft": TransferSet("FGVC Aircraft", None, (3334, 3333, 3333), metric=_PER_CLASS, validation="validation",
        note="its creators' archive has an image list of each split"),
    "voc2007": TransferSet("PASCAL VOC 2007", "voc/2007", (2501, 2510, 4952), metric="mean_average_precision",
        validation="validation", label_key="labels",
        note="a logistic regression a class; images where a class is marked difficult do not count for that class"),
    "dtd": TransferSet("DTD", "dtd", (1880, 1880, 1880), validation="validation", note="the first of ten splits"),
    "pets": TransferSet("Oxford-IIIT Pets", "oxford_iiit_pet", (2940, 740, 3669), metric=_PER_CLASS),
    "caltech101": TransferSet("Caltech-101", "caltech101", (2550, 510, 6084), metric=_PER_CLASS,
        note="30 random images a class to train and validate on: tfds' draw, not the paper's, which nobody published"),
    "flowers102": TransferSet("Oxford 102 Flowers", "oxford_flowers102", (1020, 1020, 6149), metric=_PER_CLASS,
        validation="validation"),
}  # fmt: skip
"""By the name that the command line takes, in the paper's order."""


def chosen_sets(names: str) -> dict[str, TransferSet]:
    """The sets of a comma-separated list; `all`: those that tfds has.

    Raises:
        InputError: a name is none of them.

    Example:
        >>> list(chosen_sets("cifar10,dtd"))
        ['cifar10', 'dtd']
    """
    if names == "all":
        return {name: one for name, one in TRANSFER_SETS.items() if one.tfds}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(TRANSFER_SETS))
    rule = f"datasets must be all, or some of {','.join(TRANSFER_SETS)}"
    check(len(wanted) > 0 and not unknown, rule, unknown=unknown)
    return {name: TRANSFER_SETS[name] for name in wanted}


def how_to_get(name: str, *, data_dir: str) -> str:
    """One sentence on how to make a set that is missing available."""
    one = TRANSFER_SETS[name]
    own = f"put your own under IMAGE_DIR/{name}/{{{','.join(folders(one))}}}/CLASS/ and give --image_dir IMAGE_DIR"
    if one.tfds is None:
        return f"{one.title} is not in TensorFlow Datasets ({one.note}); {own}"
    own = "" if one.label_key else f", or {own}"
    return f"{one.title} is not prepared; build it with: tfds build {one.tfds} --data_dir {data_dir}{own}"


def folders(one: TransferSet) -> list[str]:
    """Names of the folders that a set of one's own has."""
    return ["train", *(["validation"] if one.validation else []), "test"]
