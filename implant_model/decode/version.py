"""The version of the decode: what pixels a file has, and which rows an archive."""

from typing import Final

DECODE_VERSION: Final = 2
"""Raised by each change after which some file gives other pixels or another row.

It enters the configuration hash, so that no half-read archive is continued by a decode that sees
other pixels, and is in the table `archives`, so that one may find what an older decode read.
`tests/decode/test_golden.py` fails on changed pixels until it is raised. Its steps:

1. Everything up to version 0.1.0, which did not record it; pixels changed within it.
2. The first that is recorded. 12-bit JPEG, padded JPEG 2000 and JPEG without an end marker are
   decoded, pixels that are not square by their spacing stretched; a collimator within a frame is
   cut with it; archives are read as docs/inputs.md has it.
"""
FIRST_DECODE_VERSION: Final = 1
"""Of rows and packages from before it was recorded."""
