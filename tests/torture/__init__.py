"""The torture set, and an attack on each promise: `python -m tests.torture`."""
