"""What weights are called, in whose naming, and what network they make."""
