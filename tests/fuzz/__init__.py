"""Files that nobody writes in good faith, and what reads them in a process of its own.

`python -m tests.fuzz --files 5000 --seed 0` changes intact files of every container, reads each, and prints a table.
"""
