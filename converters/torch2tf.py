"""`python -m converters.torch2tf`: PyTorch weights to TensorFlow or Keras."""

from converters.options import run


def main() -> None:
    """Converts PyTorch weights to TensorFlow or Keras, checks the file, and says what it did."""
    run("converters.torch2tf", description=main.__doc__ or "", usual="tf1")


if __name__ == "__main__":
    main()
