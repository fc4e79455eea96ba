"""The folder that a report is written to."""

import os
from pathlib import Path

from implant_model.errors import UsageError


def make_folder(report: str) -> Path:
    """The folder to write to.

    Raises:
        UsageError: It is no folder of this machine, or may not be written to.
    """
    folder = Path(report).absolute()
    if "://" in report:
        raise UsageError(f"--report is {report}; a folder of this machine is wanted.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--report {folder} cannot be written: {error.strerror}.") from error
    return folder
