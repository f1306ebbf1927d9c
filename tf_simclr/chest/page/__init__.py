"""The page that reads radiographs in a browser."""
