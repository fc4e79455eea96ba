"""Archives for tests, whole and in every way broken, built from their bytes up."""

import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from implant_model.archives.read import BytesReader, Member, RandomReader, read_members
from implant_model.errors import ArchiveError, ArchiveReason
from implant_model.limits import Limits

LIMITS = Limits()
ZERO_BLOCK = bytes(512)
END = 2 * ZERO_BLOCK

Files = Mapping[str, bytes] | Sequence[tuple[str, bytes]]
"""Contents by name; as pairs where a name is there twice."""


@dataclass
class Reading:
    """What came of reading one archive to its end."""

    members: list[Member] = field(default_factory=list)
    error: ArchiveError | None = None

    @property
    def reason(self) -> ArchiveReason | None:
        return self.error.reason if self.error else None

    @property
    def contents(self) -> list[tuple[str, bytes | None]]:
        return [
            (member.name, None if member.data is None else bytes(member.data))
            for member in self.members
        ]

    @property
    def rows(self) -> list[tuple[str, str | None]]:
        return [(member.name, member.reason) for member in self.members]


def read(archive: bytes | RandomReader, limits: Limits = LIMITS, name: str = "object") -> Reading:
    reader = BytesReader(archive) if isinstance(archive, bytes) else archive
    reading = Reading()
    try:
        for member in read_members(reader, name, limits):
            assert (member.data is None) != (member.reason is None)
            assert member.index == len(reading.members)
            member.name.encode("utf-8")
            reading.members.append(member)
    except ArchiveError as error:
        reading.error = error
    return reading


def peak_bytes(reader: RandomReader, limits: Limits = LIMITS) -> tuple[Reading, int]:
    """Reads an archive as a consumer that keeps nothing; also returns the peak of its memory."""
    last = Reading()
    tracemalloc.start()
    try:
        for member in read_members(reader, "object", limits):
            last.members = [member]
            del member
    except ArchiveError as error:
        last.error = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return last, peak


class CountingReader(BytesReader):
    """Counts requests and the bytes they bring; streams in pieces, as object storage does."""

    def __init__(self, data: bytes, chunk_bytes: int = 1 << 20) -> None:
        super().__init__(data, chunk_bytes)
        self.reads: list[tuple[int, int]] = []
        self.streams: list[int] = []
        self.num_bytes = 0
        self.num_open = 0

    def read_at(self, offset: int, size: int) -> bytes:
        data = super().read_at(offset, size)
        assert 0 <= offset < self.size
        self.reads.append((offset, size))
        self.num_bytes += len(data)
        return data

    def stream(self, start: int = 0) -> Iterator[bytes]:
        self.streams.append(start)
        self.num_open += 1
        try:
            for chunk in super().stream(start):
                self.num_bytes += len(chunk)
                yield chunk
        finally:
            self.num_open -= 1


class PatternReader:
    """A reader of huge objects that are built while they are read: parts of bytes or of zeros."""

    def __init__(self, *parts: bytes | int) -> None:
        self._parts = parts
        self.size = sum(part if isinstance(part, int) else len(part) for part in parts)
        self.num_bytes = 0

    def read_at(self, offset: int, size: int) -> bytes:
        found, start = [], 0
        for part in self._parts:
            length = part if isinstance(part, int) else len(part)
            low, high = max(offset, start), min(offset + size, start + length)
            if low < high and isinstance(part, int):
                found.append(bytes(high - low))
            elif low < high and isinstance(part, bytes):
                found.append(part[low - start : high - start])
            start += length
        self.num_bytes += sum(map(len, found))
        return b"".join(found)

    def stream(self, start: int = 0) -> Iterator[bytes]:
        for offset in range(start, self.size, 1 << 20):
            yield self.read_at(offset, 1 << 20)


def some_files(count: int, seed: int = 0, largest: int = 3000) -> list[tuple[str, bytes]]:
    rng = random.Random(seed)
    return [(f"study/{i:04}.dcm", rng.randbytes(rng.randint(1, largest))) for i in range(count)]


def tar_of(
    files: Files, tar_format: int = tarfile.PAX_FORMAT, mode: Literal["w", "w:gz"] = "w"
) -> bytes:
    """A tar, or a tar.gz, of the files in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tar_format) as tar:
        for name, data in _pairs(files):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _pairs(files: Files) -> Iterable[tuple[str, bytes]]:
    return files.items() if isinstance(files, Mapping) else files


def header(
    name: bytes = b"x.dcm",
    size: int | bytes = 0,
    kind: bytes = b"0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    **at: bytes,
) -> bytes:
    """A header block with a right checksum; `at` sets bytes, as in `at_482=b"1"`."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    block[345 : 345 + len(prefix)] = prefix
    for key, value in at.items():
        offset = int(key.removeprefix("at_"))
        block[offset : offset + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def entry(data: bytes, name: bytes = b"x.dcm", **given: bytes) -> bytes:
    return header(name, len(data), **given) + padded(data)


def pax(*records: bytes | tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    body = b"".join(
        record if isinstance(record, bytes) else pax_record(*record) for record in records
    )
    return header(b"PaxHeaders/x", len(body), kind) + padded(body)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def zip_of(files: Files, method: int = zipfile.ZIP_DEFLATED, streamed: bool = False) -> bytes:
    """A zip of the files in their order."""
    buffer = io.BytesIO()
    sink = _Unseekable(buffer) if streamed else buffer
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in _pairs(files):
            archive.writestr(name, data)
    return buffer.getvalue()


class _Unseekable(io.RawIOBase):
    def __init__(self, sink: io.BytesIO) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._sink.write(data)  # type: ignore[arg-type]


@dataclass
class RawEntry:
    """An entry of a zip whose every field may lie; None: as it should be."""

    name: bytes = b"x.dcm"
    stored: bytes = b"content"
    content: bytes | None = None
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    stored_bytes: int | None = None
    local_name: bytes | None = None
    local_crc: int | None = None
    local_size: int | None = None
    local_stored_bytes: int | None = None
    local_method: int | None = None
    local_extra: bytes = b""
    extra: bytes = b""
    descriptor: bytes = b""
    attributes: int = 0
    system: int = 3
    offset: int | None = None
    wide: bool = False

    def numbers(self) -> tuple[int, int, int]:
        content = self.stored if self.content is None else self.content
        crc = zlib.crc32(content) if self.crc is None else self.crc
        stored = len(self.stored) if self.stored_bytes is None else self.stored_bytes
        return crc, stored, len(content) if self.size is None else self.size

    def local(self) -> bytes:
        crc, stored, size = self.numbers()
        if self.flags & 8:
            crc = stored = size = 0
        crc = crc if self.local_crc is None else self.local_crc
        stored = stored if self.local_stored_bytes is None else self.local_stored_bytes
        size = size if self.local_size is None else self.local_size
        name = self.name if self.local_name is None else self.local_name
        method = self.method if self.local_method is None else self.local_method
        fields = (20, self.flags, method, 0, 0x21, crc, stored, size, len(name))
        fixed = struct.pack("<4s5H3I2H", b"PK\3\4", *fields, len(self.local_extra))
        return fixed + name + self.local_extra + self.stored + self.descriptor

    def record(self, offset: int) -> bytes:
        crc, stored, size = self.numbers()
        offset = offset if self.offset is None else self.offset
        extra = self.extra
        if self.wide:
            extra += struct.pack("<HHQQQ", 1, 24, size, stored, offset)
            size = stored = offset = 0xFFFFFFFF
        fixed = struct.pack(
            "<4sBBHHHHHIIIHHHHHII", b"PK\1\2", 20, self.system, 20, self.flags, self.method, 0,
            0x21, crc, stored, size, len(self.name), len(extra), 0, 0, 0, self.attributes, offset,
        )  # fmt: skip
        return fixed + self.name + extra


def raw_zip(
    *entries: RawEntry,
    count: int | None = None,
    comment: bytes = b"",
    wide: bool = False,
    disk: int = 0,
    order: Sequence[int] | None = None,
) -> bytes:
    body, offsets = b"", []
    for each in entries:
        offsets.append(len(body))
        body += each.local()
    order = range(len(entries)) if order is None else order
    records = b"".join(entries[i].record(offsets[i]) for i in order)
    total = len(entries) if count is None else count
    start, end = len(body), b""
    if wide:
        end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, total, total,
                          len(records), start)  # fmt: skip
        end += struct.pack("<4sIQI", b"PK\6\7", 0, start + len(records), 1)
        total, start, size = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    else:
        size = len(records)
    end += struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, total, total, size, start,
                       len(comment))  # fmt: skip
    return body + records + end + comment


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


def deflated_entry(name: bytes, content: bytes) -> RawEntry:
    return RawEntry(name, deflated(content), content, method=8)


def pkware_encrypted(name: bytes, content: bytes, password: bytes) -> RawEntry:
    """Encrypts by APPNOTE.TXT 6.1, the traditional PKWARE cipher."""
    keys = [0x12345678, 0x23456789, 0x34567890]
    crc_table = [_crc_table_entry(index) for index in range(256)]

    def crc_step(old: int, byte: int) -> int:
        return (old >> 8) ^ crc_table[(old ^ byte) & 0xFF]

    def update(byte: int) -> None:
        keys[0] = crc_step(keys[0], byte)
        keys[1] = (keys[1] + (keys[0] & 0xFF)) * 134775813 + 1 & 0xFFFFFFFF
        keys[2] = crc_step(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    plain = bytes(11) + (zlib.crc32(content) >> 24).to_bytes(1, "little") + content
    cipher = bytearray()
    for byte in plain:
        mask = (keys[2] | 2) & 0xFFFF
        cipher.append(byte ^ (mask * (mask ^ 1) >> 8 & 0xFF))
        update(byte)
    return RawEntry(name, bytes(cipher), content, flags=1)


def _crc_table_entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (0xEDB88320 if index & 1 else 0)
    return index
