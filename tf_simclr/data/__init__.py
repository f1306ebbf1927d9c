"""Where examples come from, and the streams of views that a training takes."""

STREAM = 2
"""Version of the streams: it counts up when the same seed and step give other batches than before.  A checkpoint holds
it, and a run that was begun with another one is not resumed.  1: until files and orders were drawn by whole seeds."""
