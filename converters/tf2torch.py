"""`python -m converters.tf2torch`: a TensorFlow or Keras checkpoint to PyTorch."""

from collections.abc import Sequence

from converters.command import run


def main(line: Sequence[str] | None = None, program: str = "python -m converters.tf2torch") -> None:
    """Converts a TensorFlow or Keras checkpoint to PyTorch, checks the file, and says what it did."""
    run(line, program, description=main.__doc__ or "", usual="pth")


if __name__ == "__main__":
    main()
