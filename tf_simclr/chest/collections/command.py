"""`tf-simclr chest prepare`: radiographs to records, once, and what is in them."""

from tf_simclr.chest.collections import chexpert, nih, siim, synthetic, tables
from tf_simclr.chest.collections.collection import Collection
from tf_simclr.config import ChestPrepare
from tf_simclr.machine.accelerators import quietly, settle_tensorflow
from tf_simclr.terminal import say, show


def run(config: ChestPrepare) -> None:
    """Prepares as configured and prints the report."""
    # 1. What there is: files, labels, patients.
    if config.source == "synthetic" and not (config.raw / "train").exists():
        say(f"making up {config.patients} patients in {config.raw} …")
        synthetic.write(config.raw, config.patients, seed=config.seed)
    collection = opened(config)
    # 2. Records and report; TensorFlow, which takes seconds to load, is needed from here on alone.
    with quietly():
        from tf_simclr.chest.collections.report import prepared

        settle_tensorflow()
    show(prepared(config, collection))


def opened(config: ChestPrepare) -> Collection:
    """The collection that is to be prepared.

    Raises:
        InputError: it is not what it is said to be.
    """
    # By the kind of collection: each reads its own tables.
    if config.source in ("siim", "synthetic"):
        return siim.collection(config.raw, boxless_siblings=config.boxless_siblings)
    if config.source == "nih":
        return nih.collection(config.raw)
    if config.source == "chexpert":
        return chexpert.collection(config.raw)
    if config.source == "folder":
        return tables.from_folder(config.raw)
    label = config.label_columns or config.label_column
    return tables.from_csv(config.raw, path=config.path_column, label=label, patient=config.patient_column)
