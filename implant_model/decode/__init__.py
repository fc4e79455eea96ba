"""The bytes of one radiograph > the small grey picture that the networks see."""
