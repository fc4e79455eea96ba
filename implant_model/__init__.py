"""Bytes of a radiograph in, identification of the implant out.

Knows nothing of Ray, of jobs or of training. For registry audit and research; not a medical device.
"""

__version__ = "0.1.0"
