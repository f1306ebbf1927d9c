"""Chest radiographs: reading, preparation, studies.  For research, not for diagnosis."""
