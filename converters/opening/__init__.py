"""What a path holds, told by content, and opened."""
