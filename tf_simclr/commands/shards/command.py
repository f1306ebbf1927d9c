"""`tf-simclr prepare-shards`: a folder of images as shards."""

from tf_simclr.config import PrepareShards
from tf_simclr.data.shards.prepare import prepare_shards
from tf_simclr.files.places import shown
from tf_simclr.terminal import say, show, typed


def run(config: PrepareShards) -> None:
    """Makes the shards and says what to type next."""
    found = prepare_shards(
        config.image_dir,
        config.out,
        format=config.format,
        shard_size=config.shard_size,
        seed=config.seed,
        image_column=config.image_column,
        label_column=config.label_column,
        say=say,
    )
    show(f"shards: {shown(found)}; train on them: {typed('pretrain', '--image_dir', found)}")
