"""A model that is handed on: its card, its answers, and why."""
