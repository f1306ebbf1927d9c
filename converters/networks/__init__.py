"""A network that was read, as one that computes: in NumPy, PyTorch and Keras."""
