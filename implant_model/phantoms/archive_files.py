"""Archives of given members: the same members make the same bytes.

They carry phantoms, which show the pipeline at work and are no evidence about patients.
"""

import gzip
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, cast

from implant_model.errors import UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIXES = (".tar", ".tar.gz", ".tar.zst", ".zip")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold

Writer = Callable[[IO[bytes], Iterable[tuple[str, bytes]]], None]


def archive_writer(name: str) -> Writer:
    """Return the writer of the kind of archive that a name's ending means.

    It takes an open file and the members, name and bytes, and keeps one member in memory.

    Raises:
        UsageError: The ending is not one of `SUFFIXES`.
    """
    writers: dict[str, Writer] = dict(
        zip(SUFFIXES, (_write_tar, _write_tar_gz, _write_tar_zst, _write_zip), strict=True)
    )
    for suffix, writer in writers.items():
        if name.endswith(suffix) and name != suffix:
            return writer
    raise UsageError(
        f"A sample archive named {name!r} was asked for; the endings {', '.join(SUFFIXES)} are "
        "accepted."
    )


def _write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)  # owner root and time 0: the same bytes every time
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def _write_tar_gz(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        _write_tar(cast(IO[bytes], packed), members)


def _write_tar_zst(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with zstd.ZstdFile(file, "wb", level=3) as packed:
        _write_tar(cast(IO[bytes], packed), members)


def _write_zip(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
