import gzip
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model.archives.expand import FREE_EXPANSION_BYTES, expansion_budget
from implant_model.archives.read import BytesReader
from implant_model.errors import ArchiveReason, Reason
from implant_model.limits import MIB, Limits
from tests.support.archive_samples import (
    END,
    PatternReader,
    entry,
    header,
    pax,
    peak_bytes,
    read,
    some_files,
    tar_of,
)

CORRUPT, TRUNCATED = ArchiveReason.CORRUPT, ArchiveReason.TRUNCATED
UNSUPPORTED = ArchiveReason.UNSUPPORTED


def _zstd(data: bytes) -> bytes:
    options: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
    return zstd.compress(data, options=options)


_COMPRESSORS = pytest.mark.parametrize("compress", [gzip.compress, _zstd], ids=["gzip", "zstd"])


@_COMPRESSORS
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(max_size=4000), max_size=6),
    st.lists(st.floats(0, 1), max_size=4),
    st.integers(1, 5000),
)
def test_any_split_into_members_or_frames_reads_the_same(
    compress: Callable[[bytes], bytes], contents: list[bytes], cuts: list[float], chunk_bytes: int
) -> None:
    files = [(f"{index}.dcm", data) for index, data in enumerate(contents)]
    tar = tar_of(files)
    at = [0, *sorted(int(cut * len(tar)) for cut in cuts), len(tar)]
    stored = b"".join(compress(tar[a:b]) for a, b in zip(at, at[1:], strict=False))
    plain, expanded = read(tar), read(BytesReader(stored, chunk_bytes))
    assert expanded.members == plain.members
    assert expanded.error is None


@_COMPRESSORS
def test_cut_at_any_byte(compress: Callable[[bytes], bytes]) -> None:
    files = some_files(4, largest=600)
    stored = compress(tar_of(files))
    for cut in range(4, len(stored)):
        reading = read(stored[:cut])
        assert reading.reason is TRUNCATED, cut
        good = [pair for pair in reading.contents if pair[1] is not None]
        assert good == files[: len(good)]
    assert len(good) == 4
    assert read(stored).error is None


def test_every_bit_of_a_gzip_trailer_is_proven_and_costs_no_member() -> None:
    files = some_files(3)
    stored = gzip.compress(tar_of(files))
    for bit in range(8 * 8):
        damaged = bytearray(stored)
        damaged[len(stored) - 8 + bit // 8] ^= 1 << bit % 8
        reading = read(bytes(damaged))
        assert reading.reason is CORRUPT, bit
        assert reading.contents == files


@_COMPRESSORS
def test_no_flipped_byte_loses_a_member_unseen(compress: Callable[[bytes], bytes]) -> None:
    files = some_files(4, largest=400)
    stored = compress(tar_of(files))
    num_silent = 0
    for at in range(len(stored)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(stored)
            damaged[at] ^= flip
            reading = read(bytes(damaged))
            if reading.error is None and reading.contents != files:
                # Its magic is gone, so this is no archive any more: one object, as its row shows.
                assert at < 4
                assert [name for name, _ in reading.rows] == ["object"]
            num_silent += reading.error is None
    assert num_silent < 60  # gzip's time stamp and the like


def test_a_damaged_zstd_frame_gives_what_came_before() -> None:
    files = [(f"{i}.dcm", random.Random(i).randbytes(100_000)) for i in range(40)]
    stored = bytearray(_zstd(tar_of(files)))
    stored[-2] ^= 1  # its checksum: 4 MB lie in one frame
    reading = read(bytes(stored))
    good = [pair for pair in reading.contents if pair[1] is not None]
    assert reading.reason is CORRUPT
    assert good == files[: len(good)]
    assert len(good) >= 38  # the last 128 KiB are lost

    stored[2_000_000] ^= 1
    stored[-2] ^= 1
    reading = read(bytes(stored))
    assert reading.reason is CORRUPT


@_COMPRESSORS
def test_what_follows_the_stream(compress: Callable[[bytes], bytes]) -> None:
    files = some_files(2)
    stored = compress(tar_of(files))
    assert read(stored + bytes(5000)).error is None
    assert read(stored + bytes(100) + compress(b"")).error is None
    for junk in (b"rubbish behind", b"\0\0rubbish behind", stored[:2] + b"\xff" * 40):
        reading = read(stored + junk)
        assert reading.contents == files
        assert reading.reason is CORRUPT


@_COMPRESSORS
def test_concatenated_archives(compress: Callable[[bytes], bytes]) -> None:
    first, second = some_files(2, 1), some_files(3, 2)
    reading = read(compress(tar_of(first)) + compress(tar_of(second)))
    assert reading.error is None
    assert reading.contents == first + second


def test_gzip_header_fields_and_zstd_skippable_frames() -> None:
    files = some_files(2)
    tar = tar_of(files)
    body = gzip.compress(tar)[10:]
    fields = b"\x1f\x8b\x08\x1c" + bytes(6) + struct.pack("<H", 3) + b"abcname\0comment\0"
    assert read(fields + body).contents == files
    skippable = b"\x5f\x2a\x4d\x18" + struct.pack("<I", 7) + b"skipped"
    assert read(skippable + _zstd(tar) + skippable).contents == files


@_COMPRESSORS
def test_one_compressed_radiograph_is_expanded(compress: Callable[[bytes], bytes]) -> None:
    dicom = bytes(128) + b"DICM" + random.Random(0).randbytes(3 * MIB)
    for image in (dicom, b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff\xe0..."):
        reading = read(compress(image))
        assert (reading.contents, reading.error) == ([("object", image)], None)
    reading = read(compress(dicom)[:-9])
    assert reading.rows == [("object", "truncated")]
    assert reading.reason is TRUNCATED
    reading = read(compress(dicom), Limits(member_bytes=MIB))
    assert (reading.rows, reading.error) == ([("object", "too_large")], None)


@_COMPRESSORS
def test_other_compressed_contents(compress: Callable[[bytes], bytes]) -> None:
    assert read(compress(b"")).rows == [("object", "empty")]
    for content in (b"text", compress(tar_of([])), b"PK\3\4" + bytes(100), b"BZh91AY&SY"):
        reading = read(compress(content))
        assert reading.members == []
        assert reading.reason is UNSUPPORTED


def test_zstd_windows_and_dictionaries_over_the_limit_are_refused() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    stored = compressor.compress(tar_of(some_files(2)), mode=compressor.FLUSH_BLOCK)
    reading = read(stored + compressor.flush())
    assert reading.reason is UNSUPPORTED
    assert "--long" in str(reading.error)


def _gzip_bomb(first: bytes, num_zeros: int) -> bytes:
    """Compresses `first` and some MiB of zeros, of which each is the same few bytes."""
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    unit = zlib.compressobj(9, wbits=-15)
    zeros = unit.compress(bytes(MIB)) + unit.flush(zlib.Z_FULL_FLUSH)
    return start + zeros * (num_zeros // MIB)


def _zstd_bomb(first: bytes, num_zeros: int) -> bytes:
    return _zstd(first) + _zstd(bytes(MIB)) * (num_zeros // MIB)


@pytest.mark.parametrize("bomb", [_gzip_bomb, _zstd_bomb])
@pytest.mark.parametrize("declared", [40 << 30, 190 * MIB])
def test_bombs_stop_at_the_budget_with_flat_memory(
    bomb: Callable[[bytes, int], bytes], declared: int
) -> None:
    limits = Limits(member_bytes=16 * MIB)
    size = pax((b"size", b"%d" % declared))
    stored = bomb(entry(b"one") + size + header(b"bomb.dcm", 0), 200 * MIB)
    assert len(stored) < MIB
    last, peak = peak_bytes(BytesReader(stored), limits)
    assert [m.reason for m in last.members] == [Reason.TOO_LARGE]
    assert last.reason is UNSUPPORTED
    assert "Limits.archive_expansion" in str(last.error)
    assert peak < 8 * MIB


def test_a_member_that_the_budget_cuts_is_too_large() -> None:
    limits = Limits(archive_bytes=2 * MIB)
    tar = entry(b"one") + header(b"two.dcm", 4 * MIB) + bytes(4 * MIB) + END
    reading = read(gzip.compress(tar), limits)
    assert reading.rows == [("x.dcm", None), ("two.dcm", "too_large")]
    assert reading.reason is UNSUPPORTED


def test_many_empty_gzip_members_are_passed_in_time() -> None:
    files = some_files(1)
    reading = read(gzip.compress(b"") * 20_000 + gzip.compress(tar_of(files)))
    assert reading.contents == files


def test_memory_is_flat_for_a_large_compressed_archive() -> None:
    rng = random.Random(0)
    part = gzip.compress(entry(rng.randbytes(MIB)), 1)
    reader = PatternReader(*[part] * 48, gzip.compress(END))
    last, peak = peak_bytes(reader)
    assert last.error is None
    # One member twice while it is put together, chunks of 4 and 1 MiB, a decompressor.
    assert peak < 12 * MIB


def test_expansion_budget() -> None:
    limits = Limits(archive_expansion=20, archive_bytes=1 << 34)
    assert expansion_budget(100, limits) == FREE_EXPANSION_BYTES
    assert expansion_budget(1 << 28, limits) == 20 << 28
    assert expansion_budget(1 << 33, limits) == 1 << 34
