"""Entry points: each module runs as `python -m jobs.NAME`."""
