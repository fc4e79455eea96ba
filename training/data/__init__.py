"""Labelled radiographs: labels, reading, splits, near duplicates, and what is odd about a set."""
