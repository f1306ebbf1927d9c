"""Keras' other backends, on machines that have no TensorFlow."""
