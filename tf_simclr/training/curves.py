"""TensorBoard's files without TensorFlow, by TensorBoard's own writer."""

import io
import time
from pathlib import Path

import keras
from PIL import Image


class Summaries:
    """Points and pictures, in a file of their own in a folder."""

    def __init__(self, folder: Path, *, suffix: str = ""):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventFileWriter(str(folder), filename_suffix=suffix)

    def scalars(self, values: dict[str, float], *, step: int) -> None:
        """Adds a point to each curve."""
        self.add([{"tag": name, "simple_value": float(value)} for name, value in values.items()], step=step)

    def image(self, name: str, png: bytes) -> None:
        """Adds a picture, and ends the file."""
        width, height = Image.open(io.BytesIO(png)).size
        picture = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": png}
        self.add([{"tag": name, "image": picture}], step=0)
        self.writer.close()

    def add(self, values: list[dict], *, step: int) -> None:
        """Writes a record."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self.writer.flush()


class Curves(keras.callbacks.Callback):
    """What Keras' TensorBoard callback writes of a training, under its names; that one needs TensorFlow."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self.summaries: Summaries | None = None

    def on_epoch_end(self, epoch, logs=None):
        self.summaries = self.summaries or Summaries(self.folder / "train")
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {f"epoch_{name}": value for name, value in (logs or {}).items()}
        self.summaries.scalars(values | {"epoch_learning_rate": rate}, step=epoch)

    def on_train_end(self, logs=None):
        if self.summaries is not None:
            self.summaries.writer.close()
            self.summaries = None
