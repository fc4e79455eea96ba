import io
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model.archives.read import BytesReader
from implant_model.errors import ArchiveReason, Reason
from implant_model.limits import MIB, Limits
from tests.support.archive_samples import (
    CountingReader,
    PatternReader,
    RawEntry,
    deflated,
    deflated_entry,
    peak_bytes,
    pkware_encrypted,
    raw_zip,
    read,
    some_files,
    zip_of,
)

CORRUPT, TRUNCATED = ArchiveReason.CORRUPT, ArchiveReason.TRUNCATED
UNSUPPORTED, ENCRYPTED = ArchiveReason.UNSUPPORTED, ArchiveReason.ENCRYPTED

_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(_names, st.binary(max_size=3000)), max_size=8, unique_by=lambda file: file[0]
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
)
def test_agrees_with_zipfile(files: list[tuple[str, bytes]], method: int, streamed: bool) -> None:
    stored = zip_of(files, method, streamed)
    reading = read(stored)
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        infos = [info for info in archive.infolist() if not (info.is_dir() and not info.file_size)]
        expected = [(info.filename, info.file_size, archive.read(info)) for info in infos]
    assert reading.error is None
    assert [(m.name, m.size) for m in reading.members] == [file[:2] for file in expected]
    for member, (_, _, content) in zip(reading.members, expected, strict=True):
        if member.reason is None:
            assert member.data == content
        elif member.reason is Reason.EMPTY:
            assert content == b""
        else:
            assert member.reason in (Reason.CLUTTER, Reason.NESTED_ARCHIVE)


@pytest.mark.parametrize("streamed", [False, True])
def test_cut_at_any_byte_is_told_and_gives_the_whole_members(streamed: bool) -> None:
    files = some_files(4, largest=300)
    stored = zip_of(files, streamed=streamed)
    for cut in range(4, len(stored)):
        reading = read(stored[:cut])
        assert reading.reason is TRUNCATED, cut
        good = [pair for pair in reading.contents if pair[1] is not None]
        assert good == files[: len(good)]
        assert len(reading.members) - len(good) <= 1
    assert len(good) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_no_flipped_bit_loses_a_member_unseen(streamed: bool) -> None:
    files = [(name + "x", data) for name, data in some_files(3, largest=120)]
    stored = zip_of(files, streamed=streamed)
    for bit in range(len(stored) * 8):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        reading = read(bytes(damaged))
        if reading.error is None and bit >= 32:
            assert len(reading.members) == 3, bit
            for member, (name, data) in zip(reading.members, files, strict=True):
                assert member.data in (None, data), bit
                assert member.reason or member.name == name, bit


def test_zip64() -> None:
    entries = [RawEntry(f"{i}.dcm".encode(), b"c%d" % i, wide=True) for i in range(3)]
    for stored in (raw_zip(*entries, wide=True), raw_zip(*entries)):
        reading = read(stored)
        assert reading.error is None
        assert reading.contents == [(f"{i}.dcm", b"c%d" % i) for i in range(3)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"content")
    assert read(buffer.getvalue()).contents == [("a", b"content")]


def test_zip64_records_that_contradict_the_others_are_told() -> None:
    stored = bytearray(raw_zip(RawEntry(), wide=True))
    stored[-22 + 10 : -22 + 12] = struct.pack("<H", 7)
    reading = read(bytes(stored))
    assert reading.contents == [("x.dcm", b"content")]
    assert reading.reason is CORRUPT


@pytest.mark.parametrize("wide", [True, False])
def test_more_entries_than_16_bits_count(wide: bool) -> None:
    number = 65_600
    local = RawEntry(b"x", b"").local()
    records = b"".join(RawEntry(b"x", b"").record(i * len(local)) for i in range(number))
    end = raw_zip(RawEntry(b"x", b""), count=number if wide else number - 65_536, wide=wide)
    end = end[end.index(b"PK\6\6" if wide else b"PK\5\6") :]
    start = len(local) * number
    if wide:
        end = end[:40] + struct.pack("<QQ", len(records), start) + end[56:]
        end = end[:64] + struct.pack("<Q", start + len(records)) + end[72:]
    else:
        end = end[:12] + struct.pack("<II", len(records), start) + end[20:]
    reading = read(local * number + records + end)
    assert reading.error is None
    assert len(reading.members) == number
    assert {m.reason for m in reading.members} == {Reason.EMPTY}


def test_offsets_beyond_any_file_are_damage() -> None:
    for offset in (1 << 63, (1 << 64) - 1, 1 << 40):
        stored = bytearray(raw_zip(RawEntry(), wide=True))
        at = stored.index(b"PK\6\6") + 48
        stored[at : at + 8] = struct.pack("<Q", offset)
        reading = read(bytes(stored))
        assert reading.contents == [("x.dcm", b"content")]
        assert reading.reason is CORRUPT


def test_counts_that_lie_are_told() -> None:
    for count in (1, 3):
        reading = read(raw_zip(RawEntry(b"a"), RawEntry(b"b"), count=count))
        assert reading.contents == [("a", b"content"), ("b", b"content")]
        assert reading.reason is CORRUPT
        assert "do not agree" in str(reading.error)


_LIES = [
    {"size": 6}, {"size": 8}, {"size": 0}, {"size": 1 << 20},
    {"stored_bytes": 6}, {"stored_bytes": 8}, {"stored_bytes": 1 << 20}, {"stored_bytes": 0},
    {"local_size": 6}, {"local_size": 0}, {"local_stored_bytes": 1 << 30},
    {"crc": 1}, {"local_crc": 1}, {"local_name": b"other"}, {"local_method": 8},
    {"offset": 1 << 31}, {"stored": b"conTent", "content": b"content"},
    {"size": 6, "local_size": 6}, {"method": 8, "local_method": 8},
]  # fmt: skip


@pytest.mark.parametrize(
    "lie", _LIES, ids=lambda lie: ",".join(f"{k}={v!r}" for k, v in lie.items())
)
def test_headers_that_lie_cost_their_own_entry_only(lie: dict[str, object]) -> None:
    liar = RawEntry(b"liar", **lie)  # type: ignore[arg-type]
    reading = read(raw_zip(RawEntry(b"a"), liar, RawEntry(b"b")))
    assert reading.rows == [("a", None), ("liar", "corrupt"), ("b", None)]


def test_sizes_of_deflated_entries_are_counted() -> None:
    content = b"content" * 1000
    for size in (6999, 7001, 0, 1):
        lie = RawEntry(b"liar", deflated(content), content, method=8, size=size)
        reading = read(raw_zip(RawEntry(b"a"), lie, RawEntry(b"b")))
        assert reading.rows == [("a", None), ("liar", "corrupt"), ("b", None)]


def test_a_wrong_offset_cannot_read_another_entry_twice() -> None:
    reading = read(raw_zip(RawEntry(b"a"), RawEntry(b"b"), RawEntry(b"c", offset=0)))
    assert [reason for _, reason in reading.rows] == ["corrupt", None, "corrupt"]
    # Which of two that share bytes is the liar cannot be distinguished from the directory.
    reading = read(raw_zip(RawEntry(b"a"), RawEntry(b"b"), RawEntry(b"c", offset=3)))
    assert [reason for _, reason in reading.rows] == ["corrupt", None, "corrupt"]


def test_overlapping_entries_are_refused() -> None:
    """A flat bomb: all entries stand for the same bytes, or each quotes the next one."""
    body = deflated(bytes(MIB))
    kernel = RawEntry(b"x", body, bytes(MIB), method=8)
    same = raw_zip(kernel, *[RawEntry(b"x", b"", bytes(MIB), method=8, offset=0)] * 0)
    records = kernel.record(0) * 1000
    start = len(kernel.local())
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1000, 1000, len(records), start, 0)
    last, peak = peak_bytes(BytesReader(same[:start] + records + end))
    assert last.error is None
    reading = read(same[:start] + records + end)
    assert [m.reason for m in reading.members[:-1]] == [Reason.CORRUPT] * 999
    assert peak < 8 * MIB

    inner = RawEntry(b"inner", b"content")
    outer = RawEntry(b"outer", inner.local())
    stored = raw_zip(outer)[: len(outer.local())]
    records = outer.record(0) + inner.record(30 + 5)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(records), len(stored), 0)
    assert read(stored + records + end).rows == [("outer", "corrupt"), ("inner", None)]


def test_bombs_are_too_large_or_corrupt_and_memory_is_flat() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    unit = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = unit * 200 + b"\x03\x00"
    content_of = {"crc": 1, "content": b""}
    honest = RawEntry(b"honest", bomb, method=8, size=200 * MIB, **content_of)  # type: ignore[arg-type]
    lying = RawEntry(b"lying", bomb, method=8, size=1000, **content_of)  # type: ignore[arg-type]
    small = [deflated_entry(b"%d" % i, bytes(7 * MIB)) for i in range(12)]
    stored = raw_zip(RawEntry(b"a"), honest, lying, *small, RawEntry(b"b"))
    assert len(stored) < MIB
    rows = read(stored).rows
    assert rows[:3] == [("a", None), ("honest", "too_large"), ("lying", "corrupt")]
    assert [reason for _, reason in rows[3:-1]] == [None] * 9 + ["too_large"] * 3
    assert rows[-1] == ("b", None)
    _, peak = peak_bytes(BytesReader(stored))
    assert peak < 24 * MIB  # a member of 7 MiB, and what inflates the next


def test_limits_on_members_need_no_reading() -> None:
    big = RawEntry(b"big", b"", size=20 << 30, stored_bytes=20 << 30, wide=True,
                   local_size=0xFFFFFFFF, local_stored_bytes=0xFFFFFFFF)  # fmt: skip
    after = RawEntry(b"after")
    start = len(big.local()) + (20 << 30)
    records = big.record(0) + RawEntry(b"after", offset=start, wide=True).record(0)
    whole = raw_zip(big, after, wide=True, count=2)
    end = bytearray(whole[whole.index(b"PK\6\6") :])
    directory = start + len(after.local())
    end[40:56] = struct.pack("<QQ", len(records), directory)
    end[64:72] = struct.pack("<Q", directory + len(records))
    reader = PatternReader(big.local(), 20 << 30, after.local() + records + bytes(end))
    reading = read(reader)
    assert reading.error is None
    assert reading.rows == [("big", "too_large"), ("after", None)]
    assert reading.members[0].size == 20 << 30
    assert reader.num_bytes < 16 * MIB


def test_duplicate_names_are_members_each() -> None:
    reading = read(raw_zip(RawEntry(b"same", b"first"), RawEntry(b"same", b"second")))
    assert reading.contents == [("same", b"first"), ("same", b"second")]


def test_encrypted_entries() -> None:
    secret = pkware_encrypted(b"secret.dcm", b"content", b"password")
    stored = raw_zip(secret)
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:  # the sample is a right one
        assert archive.read("secret.dcm", b"password") == b"content"
    aes = RawEntry(b"aes.dcm", bytes(30), method=99, flags=1)
    for all_encrypted in (raw_zip(secret, aes), raw_zip(secret, RawEntry(b"._x"))):
        reading = read(all_encrypted)
        assert reading.rows[0] == ("secret.dcm", "encrypted")
        assert reading.reason is ENCRYPTED
    reading = read(raw_zip(secret, RawEntry(b"plain"), aes))
    assert [reason for _, reason in reading.rows] == ["encrypted", None, "encrypted"]
    assert reading.error is None
    reading = read(raw_zip(secret, aes)[:-30])
    assert [reason for _, reason in reading.rows] == ["encrypted", "encrypted"]


@pytest.mark.parametrize("method", [1, 6, 9, 12, 14, 20, 93, 95, 97, 98, 65535])
def test_unknown_methods(method: int) -> None:
    reading = read(raw_zip(RawEntry(b"a"), RawEntry(b"b", method=method), RawEntry(b"c")))
    assert reading.rows == [("a", None), ("b", "unsupported_encoding"), ("c", None)]
    assert reading.error is None


def test_split_zips_are_refused() -> None:
    for disk in (1, 2):
        reading = read(raw_zip(RawEntry(), disk=disk))
        assert reading.reason is UNSUPPORTED
        assert "several files" in str(reading.error)
    first_piece = b"PK\7\x08" + RawEntry(b"a").local() + RawEntry(b"b").local()[:-3]
    reading = read(first_piece)
    assert reading.rows == [("a", None), ("b", "truncated")]
    assert reading.reason is TRUNCATED


def test_concatenated_zips_are_told() -> None:
    first, second = some_files(2, 1), some_files(3, 2)
    reading = read(zip_of(first) + zip_of(second))
    assert reading.contents == second
    assert reading.reason is CORRUPT
    assert "before its first entry" in str(reading.error)


def test_bytes_behind_the_end() -> None:
    files = some_files(2)
    assert read(zip_of(files) + bytes(1000)).error is None
    reading = read(zip_of(files) + b"rubbish")
    assert reading.contents == files
    assert reading.reason is CORRUPT


def test_comments_may_hold_anything() -> None:
    comment = b"PK\5\6" + bytes(18) + b"PK\5\6" + b"\xff" * 60000
    reading = read(raw_zip(RawEntry(), comment=comment))
    assert (reading.contents, reading.error) == ([("x.dcm", b"content")], None)


def test_a_cut_zip_with_a_zip_in_it_does_not_pass_for_the_inner_one() -> None:
    inner = zip_of(some_files(2))
    outer = raw_zip(RawEntry(b"inner.zip", inner), RawEntry(b"after", b"x" * 50))
    reading = read(outer[: len(outer) - 120])
    assert reading.error is not None
    assert read(outer).rows == [("inner.zip", "nested_archive"), ("after", None)]


def test_damaged_directory_is_replaced_by_the_local_headers() -> None:
    files = some_files(4)
    for streamed in (False, True):
        stored = bytearray(zip_of(files, streamed=streamed))
        second = stored.index(b"PK\1\2", stored.index(b"PK\1\2") + 1)
        stored[second] ^= 0x10
        reading = read(bytes(stored))
        assert reading.contents == files
        assert reading.reason is CORRUPT


def test_streamed_zip_without_directory() -> None:
    content = random.Random(0).randbytes(3 * MIB) + bytes(MIB)
    files = [("big.dcm", content), ("folder/", b""), ("empty.dcm", b""), ("last.dcm", b"content")]
    stored = zip_of(files, streamed=True)
    cut = stored[: stored.index(b"PK\1\2")]
    reading = read(cut)
    assert reading.reason is TRUNCATED
    assert reading.contents == [("big.dcm", content), ("empty.dcm", None), ("last.dcm", b"content")]
    assert read(cut, Limits(member_bytes=MIB)).rows[0] == ("big.dcm", "too_large")
    over = Limits(archive_bytes=2 * MIB)
    assert read(cut, over).rows == [("big.dcm", "too_large")]
    flipped = bytearray(cut)
    flipped[1000] ^= 1
    assert read(bytes(flipped)).rows[0] == ("big.dcm", "corrupt")


def test_stored_content_of_unknown_size_ends_the_salvage() -> None:
    entry = RawEntry(b"a", b"content", flags=8, descriptor=b"PK\7\x08" + bytes(12))
    stored = raw_zip(RawEntry(b"first"), entry, RawEntry(b"b"))
    assert read(stored).error is None
    reading = read(stored[:-30])
    assert reading.rows == [("first", None), ("a", "corrupt")]
    assert reading.reason is TRUNCATED


def test_links_and_devices_get_a_row() -> None:
    kinds = [0o120777, 0o010644, 0o020644, 0o060644, 0o140755]
    entries = [RawEntry(b"%d" % kind, b"", attributes=kind << 16) for kind in kinds]
    reading = read(raw_zip(*entries, RawEntry(b"file", attributes=0o100644 << 16)))
    assert [reason for _, reason in reading.rows] == ["not_regular"] * 5 + [None]
    # What has content was read from a pipe (`... | zip x.zip -`) and is a file; a link never is.
    entries = [RawEntry(b"%d" % kind, attributes=kind << 16) for kind in kinds]
    reasons = [reason for _, reason in read(raw_zip(*entries)).rows]
    assert reasons == ["not_regular", None, None, None, None]
    # The same bits mean nothing in attributes of another system.
    assert read(raw_zip(RawEntry(attributes=0o120777 << 16, system=0))).rows == [("x.dcm", None)]


def test_directories_are_not_counted() -> None:
    stored = raw_zip(
        RawEntry(b"folder.dcm/", b""),
        RawEntry(b"unix", b"", attributes=0o040755 << 16),
        RawEntry(b"windows\\", b"", attributes=0x10, system=0),
        RawEntry(b"not-one/", b"content"),
    )
    assert read(stored).contents == [("not-one/", b"content")]


def test_names() -> None:
    up = "größe.dcm".encode()
    unicode_path = struct.pack("<HHBI", 0x7075, 5 + len(up), 1, zlib.crc32(b"gr#o")) + up
    wrong = struct.pack("<HHBI", 0x7075, 5 + len(up), 1, 1) + up
    stored = raw_zip(
        RawEntry(b"r\x94ntgen"),
        RawEntry("röntgen".encode()),
        RawEntry("röntgen".encode(), flags=0x800),
        RawEntry(b"r\x94ntgen", flags=0x800),
        RawEntry(b"gr#o", extra=unicode_path),
        RawEntry(b"gr#o", extra=wrong),
        RawEntry(b"..\\..\\x\0y"),
        RawEntry(b""),
        RawEntry(b"x" * 5000),
    )
    assert [name for name, _ in read(stored).rows] == [
        "röntgen", "röntgen", "röntgen", "r\\x94ntgen", "größe.dcm", "gr#o", "..\\..\\x\\x00y", "",
        "x" * 4096,
    ]  # fmt: skip


def test_broken_extra_fields_do_not_matter() -> None:
    entry = RawEntry(extra=b"\1\0\xff", local_extra=b"\x75\x70\xff\xff")
    assert read(raw_zip(entry)).contents == [("x.dcm", b"content")]


def test_empty_zip() -> None:
    reading = read(zip_of([]))
    assert (reading.members, reading.error) == ([], None)


def _large_files(count: int) -> list[tuple[str, bytes]]:
    rng = random.Random(1)
    return [(f"{i:04}.jpg", rng.randbytes(100_000)) for i in range(count)]


def test_a_remote_zip_takes_few_requests_and_no_byte_twice() -> None:
    files = _large_files(300)
    stored = zip_of(files, zipfile.ZIP_STORED)
    reader = CountingReader(stored)
    assert read(reader).contents == files
    assert len(reader.reads) == 1  # its end
    assert len(reader.streams) == 1
    assert reader.num_bytes < len(stored) * 1.05
    assert reader.num_open == 0


def test_a_remote_zip_out_of_order_reads_what_it_needs() -> None:
    files = _large_files(120)
    entries = [RawEntry(name.encode(), data) for name, data in files]
    order = random.Random(0).sample(range(120), 120)
    stored = raw_zip(*entries, order=order)
    reader = CountingReader(stored)
    assert read(reader).contents == [files[i] for i in order]
    assert len(reader.reads) <= 122
    assert reader.num_bytes < len(stored) * 1.8


def test_one_entry_out_of_order_leaves_the_stream_where_it_is() -> None:
    files = _large_files(150)
    entries = [RawEntry(name.encode(), data) for name, data in files]
    order = [*range(5), *range(6, 100), 5, *range(100, 150)]
    reader = CountingReader(raw_zip(*entries, order=order))
    assert read(reader).contents == [files[i] for i in order]
    assert len(reader.streams) == 1


def test_memory_does_not_grow_with_the_content() -> None:
    part = RawEntry(b"x.jpg", random.Random(0).randbytes(MIB))
    local = part.local()
    records = b"".join(part.record(i * len(local)) for i in range(100))
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 100, 100, len(records), 100 * len(local), 0)
    last, peak = peak_bytes(PatternReader(*[local] * 100, records + end))
    assert last.error is None
    assert last.members[0].index == 99
    # The first request of 4 MiB, the last of 1, two members, two chunks.
    assert peak < 16 * MIB


def test_the_directory_takes_little_memory() -> None:
    number = 5_000
    entry = RawEntry(b"x.jpg", b"")
    local = entry.local()
    records = b"".join(entry.record(i * len(local)) for i in range(number))
    end = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, number, number, len(records), number * len(local), 0
    )
    stored = local * number + records + end
    last, peak = peak_bytes(BytesReader(stored))
    assert last.members[0].index == number - 1
    # Its bytes (51 an entry), the offsets and what sorts them; zipfile takes 500 an entry.
    assert peak < 3 * len(records) + 40 * number


@pytest.mark.skipif(shutil.which("zip") is None, reason="the zip command is not installed")
@pytest.mark.parametrize("options", [["-0"], ["-9"], ["-fz"], ["-P", "password"], ["-y"]])
def test_archives_of_the_zip_command(tmp_path: Path, options: list[str]) -> None:
    files = [("röntgen.dcm", b"x" * 1000), ("leer.dcm", b""), *some_files(3)]
    for name, data in files:
        (tmp_path / Path(name).name).write_bytes(data)
    (tmp_path / "link").symlink_to("leer.dcm")
    made = tmp_path / "made.zip"
    names = [Path(name).name for name, _ in files]
    subprocess.run(
        ["zip", "-q", *options, made, *names, "link"], check=True, cwd=tmp_path, capture_output=True
    )
    reading = read(made.read_bytes())
    by_name = {Path(name).name: data for name, data in files} | {"link": b""}
    assert [m.name for m in reading.members] == [*names, "link"]
    for member in reading.members:
        if "-P" in options and member.size:
            assert member.reason is Reason.ENCRYPTED
        elif member.name == "link" and "-y" in options:
            assert member.reason is Reason.NOT_REGULAR
        else:
            assert (member.data or b"") == by_name[member.name]
