"""Data sets made into shards."""
