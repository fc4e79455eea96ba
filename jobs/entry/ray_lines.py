"""Ray's own lines go to a file, so that a user reads the job's alone.

Ray writes warnings, plans and C++ lines that read as faults to the standard error, from native
threads, too: so the descriptor itself is turned to a file before Ray is imported, and what the job
says goes to a copy of the one that was there.
"""

import os
import sys
import tempfile
from typing import TextIO

_visible: TextIO | None = None


def visible() -> TextIO:
    """Return the stream that a person reads: the standard error as it was."""
    return sys.stderr if _visible is None else _visible


def divert() -> None:
    """Turn the standard error to a new file of its owner's, and name it; once for a process.

    Where it is not the process's own (in a notebook, in a test), or there is no room for a file, it
    stays as it is.
    """
    global _visible
    if _visible is not None or not _is_descriptor_2():
        return
    sys.stderr.flush()
    try:
        file, path = tempfile.mkstemp(prefix="implant-ray-", suffix=".log")
    except OSError:
        return
    encoding = sys.stderr.encoding
    _visible = os.fdopen(os.dup(2), "w", 1, encoding, errors="backslashreplace")
    os.dup2(file, 2)
    os.close(file)
    _visible.write(f"Ray's own messages are in {path}\n")


def restore() -> None:
    """Turn the standard error back, for a traceback that a person has to see."""
    global _visible
    if _visible is not None:
        sys.stderr.flush()
        os.dup2(_visible.fileno(), 2)
        _visible.close()
        _visible = None


def _is_descriptor_2() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False
