"""Fits networks with Ray Train, from a split to calibrated, measured outputs."""
