"""New implants in a package from a few radiographs each, without training a network."""
