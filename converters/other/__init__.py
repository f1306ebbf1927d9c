"""Containers of no framework: safetensors, NumPy, folders for the hub, and checksums."""
