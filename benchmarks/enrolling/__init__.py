"""How well implants are told that were added to a package from a few images."""
