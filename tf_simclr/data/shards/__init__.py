"""Data sets in shards: WebDataset's tars, TFRecord, Parquet, Arrow, ArrayRecord."""
