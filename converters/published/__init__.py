"""The official checkpoints: which there are, where they lie, and their download."""
