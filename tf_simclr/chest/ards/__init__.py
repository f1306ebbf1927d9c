"""The ARDS pipeline: stages, findings, report."""
