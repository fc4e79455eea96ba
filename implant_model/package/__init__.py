"""Model packages: catalogue, thresholds and weights, checked before any of it is used."""
