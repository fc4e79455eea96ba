"""Files of this machine, written whole or not at all, and never through a link that someone left.

What is published goes through `put_if_absent`; this is for what a run leaves in a folder of the
user's: pages, worklists, caches, checkpoints. They may hold identifiers or radiographs, so nobody
but their owner may read them until the owner decides otherwise.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

OWNER_ALONE = 0o077
"""Mask of files on disk that hold identifiers or a key: no rights for others."""
_OPEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that takes the name `path` when the block ends without an error.

    Until then it has a name that nobody can guess, in the same folder, which is made where it is
    missing. What stood at `path` is replaced at once; a link there is replaced, not followed.

    Args:
        path: The file's name.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    make_private(path.parent)
    part = path.with_name(f".{secrets.token_hex(16)}.part")
    try:
        with os.fdopen(os.open(part, _OPEN, 0o600), "wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing: for their owner alone.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, see `whole_file`."""
    with whole_file(path) as file:
        file.write(data)
