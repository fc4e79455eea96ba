"""All cases of the torture set, and the files that pydicom and Python ship."""

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pydicom.data

from tests.torture.cases import archive_cases, bombs, containers, displays, kinds, pictures, pixels
from tests.torture.cases.case import ArchiveCase, Case

_MEMBERS = (
    *containers.CASES,
    *kinds.CASES,
    *pixels.CASES,
    *displays.CASES,
    *pictures.CASES,
    *bombs.MEMBERS,
)
_ARCHIVES = (*archive_cases.CASES, *bombs.ARCHIVES)


def members(*, thorough: bool) -> list[Case]:
    """The cases that are members of archives; the heavy ones too if `thorough`."""
    return [case for case in _MEMBERS if thorough or not case.heavy]


def archives(*, thorough: bool) -> list[ArchiveCase]:
    """The cases that are archives; the heavy ones too if `thorough`."""
    return [case for case in _ARCHIVES if thorough or not case.heavy]


def bomb_names() -> set[str]:
    """Names of the cases that are bombs."""
    return {case.name for case in (*bombs.MEMBERS, *bombs.ARCHIVES)}


def pydicom_files() -> Iterator[tuple[str, bytes]]:
    """Every file that comes with pydicom, by a name of its own."""
    folder = Path(pydicom.data.__file__).parent
    for path in sorted(folder.glob("*_files/**/*")):
        if path.is_file():
            yield f"pydicom/{path.relative_to(folder).as_posix()}", path.read_bytes()


def python_archives() -> Iterator[tuple[str, bytes]]:
    """The archives of Python's own tests, where they are installed."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(tarfile.__file__).parent / "test"
    paths = [path for path in folder.rglob("*") if path.suffix in (".tar", ".zip", ".xz", ".gz")]
    for path in sorted(paths):
        name = "-".join(path.relative_to(folder).parts)
        yield f"{version}-{name}", path.read_bytes()
