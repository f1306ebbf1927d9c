"""TensorFlow's files: bundles, their index, graphs of objects and SavedModels, read and written without TensorFlow."""
