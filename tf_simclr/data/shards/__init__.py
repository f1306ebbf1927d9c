"""Data sets in shards: WebDataset's tars, and TFRecord files of Examples with an image."""
