"""A finished model asked about another hospital's radiographs."""
