"""Attacks on archives: cut anywhere, any byte changed; no member may be lost without a word."""

import gzip
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Final

from implant_model.errors import ArchiveReason
from tests.support.archive_samples import END, Reading, padded, read, some_files, tar_of, zip_of
from tests.torture.tally import Tally

BLOCK: Final = 512
FORMATS: Final = {
    "ustar": tarfile.USTAR_FORMAT,
    "GNU": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
Files = Sequence[tuple[str, bytes]]


def files_for(name: str, count: int) -> Files:
    """Members; all formats but ustar have names that need a header of their own."""
    long = "" if name == "ustar" else "ö" * 120
    return [(f"{long}{path}", data) for path, data in some_files(count, largest=1500)]


def cut_archives(*, thorough: bool = False) -> Tally:
    """Tars cut at every block, gzips and zips at every byte (or every seventh)."""
    tally = Tally("archives cut at every block or byte")
    for name, tar_format in FORMATS.items():
        files = files_for(name, 20 if thorough else 8)
        whole = tar_of(files, tar_format)
        proven = len(padded(whole.rstrip(b"\0"))) + len(END)
        for cut in range(BLOCK, len(whole), BLOCK):
            reading = read(whole[:cut])
            expected = None if cut >= proven else ArchiveReason.TRUNCATED
            case = f"{name} tar at {cut}"
            tally.check(
                case, reading.reason == expected and is_prefix(reading, files), said(reading)
            )
    files, step = some_files(4, largest=900), 1 if thorough else 7
    for name, whole in (("gzip", gzip.compress(tar_of(files))), ("zip", zip_of(files))):
        for cut in range(4, len(whole), step):  # less shows no kind of archive
            reading = read(whole[:cut])
            told = reading.error is not None or not reading.members[0].data
            tally.check(f"{name} at {cut}", told and is_prefix(reading, files), said(reading))
    return tally


def change_bytes(*, thorough: bool = False) -> Tally:
    """Every byte of every header, of a gzip's trailer and of a zip, one at a time."""
    tally = Tally("archives with one byte changed")
    changes = (0x01, 0x80, 0xFF) if thorough else (0x11,)
    for name, tar_format in FORMATS.items():
        files = files_for(name, 3)
        whole = tar_of(files, tar_format)
        for place, changed in changed_bytes(whole, header_places(whole, files), changes):
            check_damage(tally, f"{name} tar, byte {place}", read(changed), files)
    files = some_files(3, largest=700)
    whole = gzip.compress(tar_of(files))
    for place, changed in changed_bytes(whole, range(len(whole) - 8, len(whole)), range(1, 256)):
        reading = read(changed)
        told = reading.reason is ArchiveReason.CORRUPT and reading.contents == list(files)
        tally.check(f"gzip trailer, byte {place}", told, said(reading))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        whole = zip_of(files, method)
        places = range(0, len(whole), 1 if thorough else 5)
        for place, changed in changed_bytes(whole, places, changes):
            # Two, where a directory places an entry inside the one before: either may be forged.
            check_damage(tally, f"zip, byte {place}", read(changed), files, most_lost=2)
    return tally


def changed_bytes(
    whole: bytes, places: Sequence[int], changes: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    """The archive with one byte XORed, for every place and change."""
    for place in places:
        for change in changes:
            damaged = bytearray(whole)
            damaged[place] ^= change
            yield place, bytes(damaged)


def header_places(whole: bytes, files: Files) -> list[int]:
    """Bytes of the first two members' headers, the extended ones too: a tar proves no content."""
    first, second = (whole.index(data) for _, data in files[:2])
    return [*range(first), *range(first + len(padded(files[0][1])), second)]


def said(reading: Reading) -> str:
    """What came of an archive, without content."""
    return f"{[str(member.reason) for member in reading.members]}, {reading.error}"


def is_prefix(reading: Reading, files: Files) -> bool:
    """Whether the members that are whole are the first ones, and at most one more is named."""
    good = [(member.name, member.data) for member in reading.members if member.reason is None]
    return good == list(files[: len(good)]) and len(reading.members) <= len(good) + 1


def check_damage(
    tally: Tally, case: str, reading: Reading, files: Files, most_lost: int = 1
) -> None:
    """Nothing that is wrong passes for right, and what is missing is told.

    Where no error is raised and no member has a reason, all content is as it was (names as well,
    but in the body of a tar's long name, which nothing proves). Else each member that passes for
    whole has the content of one, and at most one (`most_lost`) fell to the change, unless the
    archive itself states that it is damaged.
    """
    good = [member for member in reading.members if member.reason is None]
    contents = [data for _, data in files]
    if reading.error is None and len(good) == len(reading.members):
        tally.check(case, [member.data for member in good] == contents, said(reading))
        return
    right = all(member.data in contents for member in good)
    kept = len(good) >= len(files) - most_lost or reading.error is not None
    tally.check(case, right and kept, said(reading))
