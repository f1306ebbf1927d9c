"""A search over the knobs of a command: its plan, what it tries next, and its trials."""
