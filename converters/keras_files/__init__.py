"""Keras' files: `.keras`, `.h5` and `.weights.h5`, and the layers that their configuration names."""
