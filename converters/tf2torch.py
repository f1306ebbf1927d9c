"""`python -m converters.tf2torch`: a TensorFlow or Keras checkpoint to PyTorch."""

from converters.options import run


def main() -> None:
    """Converts a TensorFlow or Keras checkpoint to PyTorch, checks the file, and says what it did."""
    run("converters.tf2torch", description=main.__doc__ or "", usual="pth")


if __name__ == "__main__":
    main()
