"""The official SimCLR checkpoints: where they lie, what they are, and how good they are said to be.

None of them could be downloaded where this was written.  Names, addresses, steps and accuracies are quoted.

References:
    google-research/simclr, README.md at dec99a8 (folders, v1's zips, the 65 SimCLRv2 checkpoints with accuracies,
        which are Table 1 of arXiv:2006.10029)
    google-research/simclr, tf2/README.md at 4c1f379 (the same as TF2 SavedModels)
    google-research/simclr, tf2/colabs/imagenet_results.ipynb at be265c2 (paths `r{depth}_{width}x_sk{0|1}`; what the
        authors measured with the SavedModels, among them v1's fine-tuned networks)
    google-research/simclr, issue 109 (the classifier's input after fine-tuning) and issue 130 (the self-distilled one)
    google-research/robustness_metrics, models/simclr.py (paths of v1's checkpoints)
"""

import difflib
import re
from dataclasses import dataclass

from tf_simclr.errors import check

TF1 = "gs://simclr-checkpoints"
TF2 = "gs://simclr-checkpoints-tf2"
_ZIPS = "gs://simclr-gcs/checkpoints"

_CATEGORIES = {
    "finetuned_1pct": 1,
    "finetuned_10pct": 1,
    "finetuned_100pct": 0,
    "pretrained": 0,
    "supervised": 0,
}
"""Folder of SimCLRv2, in the order of the README's columns → the projection layer that feeds the classifier.

By default the authors fine-tuned from the first layer of the projection head for 1 % and 10 % of the labels, and from
its input for all (quoted in issue 109); a linear evaluation reads the pooled features.
"""

V2 = {
    (50, 1, False): (57.9, 68.4, 76.3, 71.7, 76.6),
    (50, 1, True): (64.5, 72.1, 78.7, 74.6, 78.5),
    (50, 2, False): (66.3, 73.9, 79.1, 75.6, 77.8),
    (50, 2, True): (70.6, 77.0, 81.3, 77.7, 79.3),
    (101, 1, False): (62.1, 71.4, 78.2, 73.6, 78.0),
    (101, 1, True): (68.3, 75.1, 80.6, 76.3, 79.6),
    (101, 2, False): (69.1, 75.8, 80.7, 77.0, 78.9),
    (101, 2, True): (73.2, 78.8, 82.4, 79.0, 80.1),
    (152, 1, False): (64.0, 73.0, 79.3, 74.5, 78.3),
    (152, 1, True): (70.0, 76.5, 81.3, 77.2, 79.9),
    (152, 2, False): (70.2, 76.6, 81.1, 77.4, 79.1),
    (152, 2, True): (74.2, 79.4, 82.9, 79.4, 80.4),
    (152, 3, True): (74.9, 80.1, 83.1, 79.8, 80.5),
}
"""Depth, width and selective kernels → ImageNet top-1 accuracy in % of each category (README, its first table)."""

_PARAMETERS = {
    (50, 1, False): 24, (50, 1, True): 35, (50, 2, False): 94, (50, 2, True): 140, (50, 4, False): 375,
    (101, 1, False): 43, (101, 1, True): 65, (101, 2, False): 170, (101, 2, True): 257,
    (152, 1, False): 58, (152, 1, True): 89, (152, 2, False): 233, (152, 2, True): 354, (152, 3, True): 795,
}  # fmt: skip
"""The same → millions of parameters of the encoder, counted by its architecture, as tests do."""

ADVICE = {
    "features on a small machine": "simclrv2/pretrained/r50_1x_sk0",
    "features for transfer, on one large GPU": "simclrv2/pretrained/r101_2x_sk1",
    "the best features": "simclrv2/pretrained/r152_3x_sk1",
    "a classifier for ImageNet": "simclrv2/finetuned_100pct/r152_3x_sk1",
    "a start from few labels": "simclrv2/finetuned_10pct/r50_1x_sk0",
}
"""What somebody wants → the checkpoint to take."""

_V1 = {
    "pretrain": {1: 69.1, 2: 74.2, 4: 76.6},
    "finetune_10pct": {1: 65.8, 2: 71.6, 4: 74.5},
    "finetune_100pct": {1: 75.6, 2: 79.2, 4: 80.8},
}
"""Folder of SimCLR v1 → width → top-1: `pretrain` by the README, the others by the authors' imagenet_results.ipynb."""

FOLDERS = {
    "simclrv2/distill_1pct": "distilled from ResNet-152 3x+SK; a ResNet-50 has 73.9 % (abstract of 2006.10029)",
    "simclrv2/distill_10pct": "the same with 10 % of the labels; a ResNet-50 has 77.5 %",
    "simclrv1": "additional ones, such as v1 fine-tuned on other data sets",
}
"""Folders with checkpoints whose names no source tells; `checkpoints list --remote ADDRESS` asks the bucket."""

COMPARED = {(50, 1, False), (50, 1, True), (50, 2, False), (101, 1, True), (152, 1, False)}
"""Depth, width, selective kernels of networks whose every endpoint is held against the official code's numbers."""

NAMED = {(101, 1, False), (101, 2, True), (152, 1, True), (152, 2, False), (152, 3, True)}
"""As `COMPARED`: of these only the variables' names and shapes are."""

STATUS = {
    "endpoints": "made by the official names and shapes and filled by a formula, it gives the official activations",
    "names": "its variables' names and shapes are those that the official code writes",
    "rule": "its names follow the same rules as those of the others",
}
"""What was checked here, without the checkpoint itself."""


@dataclass(frozen=True)
class Official:
    """One official checkpoint.

    Attributes:
        name: its path in the bucket, such as `simclrv2/pretrained/r50_1x_sk0`.
        depth: of the ResNet.
        width: its channel multiplier.
        sk: whether it has selective kernels (ratio 0.0625) and ResNet-D.
        tf1: address of the TF1 checkpoint.
        tf2: address of the TF2 SavedModel.
        selector: the projection layer that feeds its classifier (`ft_proj_selector`); None: no source tells.
        top1: official accuracy on ImageNet's validation images in %; None: no source was seen.
    """

    name: str
    depth: int
    width: int
    sk: bool
    tf1: str
    tf2: str
    selector: int | None
    top1: float | None

    @property
    def network(self) -> str:
        """In words."""
        return f"ResNet-{self.depth} {self.width}x{' SK' if self.sk else ''}"

    @property
    def parameters(self) -> int:
        """Of the encoder, in millions."""
        return _PARAMETERS[self.depth, self.width, self.sk]

    @property
    def features(self) -> int:
        """Numbers that an image gets."""
        return 2048 * self.width

    @property
    def megabytes(self) -> int:
        """Of the encoder in float32; what is downloaded has heads, and may have an optimizer's state, too."""
        return 4 * self.parameters

    @property
    def checked(self) -> str:
        """A key of `STATUS`."""
        key = (self.depth, self.width, self.sk)
        return "endpoints" if key in COMPARED else "names" if key in NAMED else "rule"


def _v2() -> list[Official]:
    """The 65 of SimCLRv2, and the one distilled network whose path is known."""
    # A name for each combination of category and network, as the bucket's folders are.
    found = []
    for column, (category, selector) in enumerate(_CATEGORIES.items()):
        for (depth, width, sk), accuracies in V2.items():
            name = f"simclrv2/{category}/r{depth}_{width}x_sk{int(sk)}"
            found.append(_entry(name, (depth, width, sk), selector=selector, top1=accuracies[column]))
    distilled = "simclrv2/distill_1pct/r152_3x_sk1/r152_3x_sk1"  # teacher, student
    return [*found, _entry(distilled, (152, 3, True), selector=None, top1=None)]


def v1() -> list[Official]:
    """Those of SimCLR v1: as folders, and as the zips of their first publication."""
    found = [
        _entry(f"simclrv1/{category}/{width}x", (50, width, False), selector=0, top1=top1)
        for category, accuracies in _V1.items()
        for width, top1 in accuracies.items()
    ]
    for width, top1 in _V1["pretrain"].items():
        zipped, folder = f"{_ZIPS}/ResNet50_{width}x.zip", f"{TF2}/simclrv1/pretrain/{width}x/saved_model"
        found.append(Official(f"simclrv1/ResNet50_{width}x", 50, width, False, zipped, folder, 0, top1))
    return found


def _entry(name: str, network: tuple[int, int, bool], *, selector: int | None, top1: float | None) -> Official:
    """A checkpoint whose name is its path in both buckets."""
    return Official(name, *network, f"{TF1}/{name}", f"{TF2}/{name}/saved_model", selector, top1)


CHECKPOINTS = {one.name: one for one in (*v1(), *_v2())}
"""Name → checkpoint."""


def find(name: str) -> Official:
    """The checkpoint of this name.

    Example:
        >>> find("simclrv2/pretrained/r50_1x_sk0").top1
        71.7

    Raises:
        InputError: there is none.
    """
    near = (meant_by(name) or [one for one in CHECKPOINTS if one.startswith(name.strip("/"))] or [*CHECKPOINTS])[:6]
    rule = f"name must be one of `checkpoints list`, such as {', '.join(near)}, or a gs:// address"
    check(name in CHECKPOINTS, rule, name=name)
    return CHECKPOINTS[name]


def meant_by(text: str) -> list[str]:
    """The checkpoints that may have been meant: their names end so, or are nearly this one.

    Example:
        >>> meant_by("pretrained/r50_2x_sk1"), meant_by("simclrv2/pretraind/r50_1x_sk0")[:1], meant_by("runs/pets")
        (['simclrv2/pretrained/r50_2x_sk1'], ['simclrv2/pretrained/r50_1x_sk0'], [])
    """
    return _named_so(text) or difflib.get_close_matches(text.strip("/"), CHECKPOINTS, n=2, cutoff=0.85)


def _named_so(text: str) -> list[str]:
    """The checkpoints whose name this is, or ends so; `.zip` may follow, as v1's were published.

    Example:
        >>> _named_so("simclrv2/pretrained/r50_1x_sk0"), len(_named_so("r152_3x_sk1")), _named_so("r999_1x_sk0")
        (['simclrv2/pretrained/r50_1x_sk0'], 6, [])
    """
    # Whole, or by its last parts: `r50_1x_sk0` ends the names of five categories.
    wanted = text.strip("/").removesuffix(".zip")
    # A whole name is one checkpoint; its last part may end the names of several.
    whole = [name for name in CHECKPOINTS if name == wanted]
    last = wanted.split("/")[-1]
    told = bool(re.fullmatch(r"r\d+_\dx_sk[01]|ResNet50_\dx", last)) or "/" in wanted
    return whole or [name for name in CHECKPOINTS if told and f"/{name}".endswith(f"/{wanted}")]
