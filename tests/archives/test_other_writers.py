"""What other programs write, cut or put together: nothing of it is lost in silence."""

import bz2
import io
import lzma
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from implant_model.content import Content, content_of
from implant_model.errors import ArchiveReason
from tests.support.archive_samples import (
    PatternReader,
    RawEntry,
    deflated_entry,
    entry,
    header,
    padded,
    pkware_encrypted,
    raw_zip,
    read,
    zip_of,
)
from tests.support.pictures import noise_png

END = bytes(1024)
FILES = {"a.dcm": b"one", "b.dcm": b"two", "c.dcm": b"three"}
NAMES = [(name, None) for name in FILES]
RECORD = 10_240


# --- zip: where it begins and ends --------------------------------------------------------------


@pytest.mark.parametrize(
    "comment", [b"", b"from a PACS", bytes(65_535), b"PK\5\6 is no end record", b"x" * 65_535]
)
@pytest.mark.parametrize("first", [b"", b"X", b"MZ a program that unpacks it\0"])
@pytest.mark.parametrize("trailing", [b"", b"\0" * 400, b"a signature of the writer's"])
def test_zip_whose_ends_are_not_its_own_is_read(
    comment: bytes, first: bytes, trailing: bytes
) -> None:
    entries = [deflated_entry(name.encode(), data) for name, data in FILES.items()]
    stored = raw_zip(*entries, comment=comment)
    stored = (first + stored if len(first) > 1 else first + stored[len(first) :]) + trailing
    if len(comment) + len(trailing) > 65_535:
        stored, trailing = stored[: -len(trailing)], b""
    reading = read(stored)
    damaged = 1 if len(first) == 1 else 0
    assert reading.rows[damaged:] == NAMES[damaged:]
    assert len(reading.rows) == 3
    whole = len(first) < 2 and not trailing.strip(b"\0")
    assert (reading.error is None) == whole


def test_zip64_behind_a_program_is_read() -> None:
    entries = [RawEntry(name.encode(), data, wide=True) for name, data in FILES.items()]
    reading = read(b"MZ" + bytes(1000) + raw_zip(*entries, wide=True))
    assert reading.rows == NAMES


@pytest.mark.parametrize(
    "data",
    [
        b"no zip, but PK\5\6 and nothing behind it",
        b"text" + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 46, 4, 0),
        b"PK\5\6" * 20_000,
    ],
)
def test_four_bytes_by_chance_are_no_zip(data: bytes) -> None:
    reading = read(b"\1\2" + data)
    assert len(reading.rows) == 1
    assert reading.error is None


def test_image_with_a_zip_behind_it_is_an_image() -> None:
    picture = noise_png(1)
    assert read(picture + zip_of(FILES)).rows == [("object", None)]


# --- zip: over 4 GiB without zip64 --------------------------------------------------------------


def wrapped_zip(*parts: "RawEntry | int") -> PatternReader:
    """A zip whose offsets are modulo 2**32; a number is a gap of so many zeros."""
    pieces: list[bytes | int] = []
    records, position = b"", 0
    for part in parts:
        if isinstance(part, int):
            pieces.append(part)
            position += part
            continue
        data = part.local()
        records += part.record(position % 2**32)
        pieces.append(data)
        position += len(data)
    count = sum(not isinstance(part, int) for part in parts) % 2**16
    end = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(records), position % 2**32, 0
    )
    return PatternReader(*pieces, records, end)


def as_macos(name: str, data: bytes) -> RawEntry:
    """Bit 3, sizes in a descriptor."""
    crc = zlib.crc32(data)
    sizes = struct.pack("<4s3I", b"PK\7\10", crc, len(data), len(data))
    return RawEntry(name.encode(), data, flags=8, descriptor=sizes)


@pytest.mark.parametrize("gaps", [(5 << 30,), (3 << 30, 3 << 30), (9 << 30, 1 << 20)])
def test_zip_over_4_gib_as_macos_writes_it(gaps: tuple[int, ...]) -> None:
    files = [as_macos(f"{n}.dcm", b"content %d" % n) for n in range(8)]
    parts: list[RawEntry | int] = [*files[:3], gaps[0], *files[3:6], *gaps[1:], *files[6:]]
    reading = read(wrapped_zip(*parts))
    assert reading.rows == [(f"{n}.dcm", None) for n in range(8)]
    assert reading.error is None


def test_more_than_65535_entries_without_zip64() -> None:
    names = [b"%05d" % n for n in range(65_540)]
    reading = read(raw_zip(*(RawEntry(name, b"x") for name in names[:300]), count=300))
    assert len(reading.rows) == 300
    body = b"".join(RawEntry(name, b"").local() for name in names)
    offsets = range(0, len(body), len(RawEntry(names[0], b"").local()))
    records = b"".join(RawEntry(n, b"").record(at) for n, at in zip(names, offsets, strict=True))
    count = len(names) % 2**16
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(records), len(body), 0)
    reading = read(body + records + end)
    assert len(reading.rows) == len(names)
    assert reading.error is None


def test_all_of_a_zip_that_is_encrypted_is_refused_as_such() -> None:
    entries = [pkware_encrypted(name.encode(), data, b"secret") for name, data in FILES.items()]
    reading = read(raw_zip(*entries))
    assert reading.reason is ArchiveReason.ENCRYPTED


# --- tar: behind its end, and records of no member ----------------------------------------------


def record_filled(data: bytes, filling: bytes) -> bytes:
    """A tar whose last record holds what an older one left in the writer's buffer."""
    rest = -len(data) % RECORD
    stale = (filling * (RECORD // len(filling) + 1))[-rest:] if rest else b""
    return data + stale


STALE = entry(b"old one", b"old-1.dcm") + entry(b"old two", b"old-2.dcm") + END


@pytest.mark.parametrize("filling", [STALE, entry(b"old"), b"\xff" * 512])
def test_stale_blocks_of_the_last_record_are_no_members(filling: bytes) -> None:
    stored = record_filled(entry(b"one") + entry(b"two", b"y.dcm") + END, filling)
    assert len(stored) == RECORD
    reading = read(stored)
    assert reading.rows == [("x.dcm", None), ("y.dcm", None)]
    assert reading.error is None


def tar(names: str, blocking: int = 20) -> bytes:
    body = b"".join(entry(name.encode() * 1500, f"{name}.dcm".encode()) for name in names) + END
    return body + bytes(-len(body) % (512 * blocking))


@pytest.mark.parametrize("blocking", [1, 2, 20, 64, 128])
@pytest.mark.parametrize("count", [2, 3])
def test_tars_one_after_the_other_are_read(blocking: int, count: int) -> None:
    parts = [tar(names, blocking) for names in ("ab", "cde", "f")[:count]]
    reading = read(b"".join(parts))
    assert [name for name, _ in reading.rows] == [
        f"{n}.dcm" for n in "abcdef"[: (2, 5, 6)[count - 1]]
    ]
    assert reading.error is None


def test_tar_of_records_whose_end_is_a_bound_is_not_read_on() -> None:
    body = entry(b"one" * 2900) + END  # 9,728 bytes: one block of the record is left
    stored = record_filled(body, header(b"old.dcm", 3))
    assert read(stored).rows == [("x.dcm", None)]


@pytest.mark.parametrize("kind", [b"A", b"E", b"I", b"N", b"V"])
@pytest.mark.parametrize("body", [b"", b"user:rw-,group:r--,mask:rwx\n" * 40])
def test_metadata_of_other_tars_is_no_member(kind: bytes, body: bytes) -> None:
    metadata = header(b"x.dcm", len(body), kind) + padded(body)
    long_name = header(b"././@LongLink", 9, b"L") + padded(b"long.dcm\0")
    reading = read(metadata + entry(b"one") + long_name + metadata + entry(b"two") + END)
    assert reading.rows == [("x.dcm", None), ("long.dcm", None)]
    assert reading.error is None


# --- parts, and archives of other kinds ---------------------------------------------------------

PARTS = ["x.tar.ab", "x.tar.zz", "x.tar.002", "x.tgz.ac", "x.tar.gz.ab", "x.zip.002", "x.z01"]
PARTS += ["X.Z12", "x.r00", "x.part2.rar", "x.7z.003", "x.tar.aab", "x.taraa", "x.tar.zst.0003"]


@pytest.mark.parametrize("name", PARTS)
def test_part_of_a_split_archive_is_no_complete_success(name: str) -> None:
    reading = read(b"\x93 the middle of something" * 100, name=name)
    assert reading.rows == []
    assert reading.reason is ArchiveReason.UNSUPPORTED
    assert "join the parts into one file first" in str(reading.error)
    assert name not in str(reading.error)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.dcm", "x.001", "IM000001", "a.txt"])
def test_other_names_are_none_of_parts(name: str) -> None:
    assert read(b"\x93 no image" * 100, name=name).error is None


def test_part_that_is_what_it_is_by_its_content_is_read(tmp_path: Path) -> None:
    assert read(noise_png(1), name="x.tar.ab").error is None
    stored = tar("abc")
    first = read(stored[:3000], name="x.tar.aa")
    assert first.rows[0] == ("a.dcm", None)
    assert first.reason is ArchiveReason.TRUNCATED


OTHERS = {
    "cpio, newc": b"070701" + b"0" * 104,
    "cpio, crc": b"070702" + b"0" * 104,
    "cpio, odc": b"070707" + b"0" * 70,
    "cpio, binary": struct.pack("<13H", 0o070707, *[0] * 9, 6, 0, 0) + b"x.dcm\0",
    "cpio, swapped": struct.pack(">13H", 0o070707, *[0] * 9, 6, 0, 0) + b"x.dcm\0",
    "cab": b"MSCF\0\0\0\0" + bytes(60),
    "lzma": lzma.compress(b"content" * 100, lzma.FORMAT_ALONE),
    "xz": lzma.compress(b"content"),
    "bzip2": bz2.compress(b"content"),
    "lz4": b"\x04\x22\x4d\x18" + bytes(20),
    "lz4, old": b"\x02\x21\x4c\x18" + bytes(20),
    "ar": b"!<arch>\ndebian-binary   ",
    "arj": b"\x60\xea\x2b\x00\x22" + bytes(60),
    "lzh": b"\x20\x00-lh5-" + bytes(60),
    "zoo": b"ZOO 2.10 Archive.\x1a\0\0\xdc\xa7\xc4\xfd" + bytes(60),
    "rpm": b"\xed\xab\xee\xdb" + bytes(60),
    "xar": b"xar!" + bytes(60),
    "lzop": b"\x89LZO\x00\r\n\x1a\n" + bytes(60),
    "snappy": b"\xff\x06\x00\x00sNaPpY" + bytes(60),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(60),
    "rar": b"Rar!\x1a\x07\x01\x00" + bytes(60),
    "compress": b"\x1f\x9d\x90" + bytes(60),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_archive_of_another_kind_is_unsupported(kind: str) -> None:
    assert content_of(OTHERS[kind]) is Content.OTHER_ARCHIVE
    reading = read(OTHERS[kind])
    assert (reading.rows, reading.reason) == ([], ArchiveReason.UNSUPPORTED)
    inner = read(entry(OTHERS[kind]) + END)
    assert inner.rows == [("x.dcm", "nested_archive")]


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x60\xea no ARJ", b"\xc7\x71 no cpio" + bytes(40), b"\x71\xc7", b"]\0\0 no lzma" * 9),
        *(b"07070 digits", b"!<arch", b"xar", bytes(range(256)), b"MSCF\1"),
    ],
)
def test_a_few_bytes_alike_are_no_archive(data: bytes) -> None:
    assert content_of(data) is not Content.OTHER_ARCHIVE


def test_archives_of_the_machines_own_tools_are_told(tmp_path: Path) -> None:
    """Python's own writers, and `cpio` and `ar` where they are installed."""
    (tmp_path / "x.dcm").write_bytes(b"content")
    for command in ("echo x.dcm | cpio -o > made", "ar rc made x.dcm"):
        (tmp_path / "made").unlink(missing_ok=True)
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=False)
        if done.returncode == 0:
            made = (tmp_path / "made").read_bytes()
            assert content_of(made) is Content.OTHER_ARCHIVE, command
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as file:
        file.add(tmp_path / "x.dcm", "x.dcm")
    assert read(held.getvalue()).rows == [("x.dcm", None)]
