"""Fits the classifier of local shapes: canonical pose, Gaussian mixture, linear layer."""
