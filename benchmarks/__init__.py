"""What reproduces each figure that the README or a model card states."""
