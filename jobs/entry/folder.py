"""The folder of this machine that a job writes to."""

import tempfile
from pathlib import Path

from implant_model.errors import UsageError
from implant_model.storage.local_files import make_private


def local_folder(text: str, option: str) -> Path:
    """Return the folder that an option names, whole.

    Raises:
        UsageError: It is no folder of this machine.
    """
    if "://" in text:
        raise UsageError(f"{option} is {text}; a folder of this machine is expected.")
    return Path(text).absolute()


def make_folder(text: str, option: str = "--report") -> Path:
    """Return the folder to write to, made for its owner alone where it is not there.

    Raises:
        UsageError: It is no folder of this machine, or may not be written to.
    """
    folder = local_folder(text, option)
    try:
        make_private(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder} cannot be written: {error.strerror}.") from error
    return folder
