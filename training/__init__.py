"""Fits, calibrates and evaluates the networks of a model package."""
