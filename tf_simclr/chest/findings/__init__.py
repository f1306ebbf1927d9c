"""Several findings of a radiograph at once: fits, numbers, report."""
