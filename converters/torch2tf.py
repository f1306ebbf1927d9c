"""`python -m converters.torch2tf`: PyTorch weights to TensorFlow or Keras."""

from collections.abc import Sequence

from converters.command import run


def main(line: Sequence[str] | None = None, program: str = "python -m converters.torch2tf") -> None:
    """Converts PyTorch weights to TensorFlow or Keras, checks the file, and says what it did."""
    run(line, program, description=main.__doc__ or "", usual="tf1")


if __name__ == "__main__":
    main()
