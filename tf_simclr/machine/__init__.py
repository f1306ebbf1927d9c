"""The machine: what it can compute with, and who started this process on it, told without a framework."""
