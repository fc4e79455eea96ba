"""Keeps memory that was freed for what comes next, instead of giving it back to the system.

glibc gives back each large block as soon as it is free and gets the next one as fresh pages, which
the kernel clears. A network does so for each layer: of its time on a CPU a sixth.
"""

import ctypes
from typing import Final

from implant_model.limits import MIB

# Numbers and meaning: mallopt(3). glibc accepts no threshold above 32 MiB.
_SETTINGS: Final = ((-3, 32 * MIB), (-1, 512 * MIB), (-2, 64 * MIB))  # mmap threshold, trim, pad


def keep_freed_memory() -> bool:
    """Sets this process's allocator so; returns whether it could, which it can with glibc alone."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all([mallopt(number, size) == 1 for number, size in _SETTINGS])
