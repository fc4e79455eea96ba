"""Synthetic radiographs for the demo, tests and benchmarks; no production code imports it."""
