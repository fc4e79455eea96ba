"""Radiographs and what a model sees on them: what `jobs.explain` is made of."""
