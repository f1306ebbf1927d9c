"""What a user brings: code by its name, and encoders of other kinds than our ResNets."""
