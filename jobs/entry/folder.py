"""The folder of this machine that a job writes to."""

import tempfile
from pathlib import Path

from implant_model.errors import UsageError


def local_folder(text: str, option: str) -> Path:
    """Return the folder that an option names, whole.

    Raises:
        UsageError: It is no folder of this machine.
    """
    if "://" in text:
        raise UsageError(f"{option} is {text}; a folder of this machine is expected.")
    return Path(text).absolute()


def checked_folder(text: str, option: str = "--report") -> Path:
    """Return the folder to write to; it is not made, so that a refused call leaves nothing.

    Whoever writes the first file makes it, see `implant_model.storage.local_files`.

    Raises:
        UsageError: It is no folder of this machine, or may not be made or written to.
    """
    folder = local_folder(text, option)
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder} cannot be written: {error.strerror}.") from error
    return folder
