"""The ARDS pipeline: stages, numbers, report."""
