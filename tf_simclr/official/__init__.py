"""The official code's command line: its flags and its way to run."""
