"""What is watched while a training runs: numbers that join an epoch's line of the history, and pictures.

Nothing here changes what a training computes: networks run in inference mode, on images drawn by a seed of their own.
"""
