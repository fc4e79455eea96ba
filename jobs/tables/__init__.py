"""The tables of an output: their schemas, how rows are published exactly once, and verification."""
