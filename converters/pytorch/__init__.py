"""PyTorch's files: zip and pickle, read without running what they say."""
