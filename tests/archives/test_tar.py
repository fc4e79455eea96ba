import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model.archives.read import BytesReader
from implant_model.errors import ArchiveReason, Reason
from implant_model.limits import MIB, Limits
from tests.support.archive_samples import (
    END,
    ZERO_BLOCK,
    CountingReader,
    PatternReader,
    entry,
    header,
    padded,
    pax,
    peak_bytes,
    read,
    some_files,
    tar_of,
)

CORRUPT, TRUNCATED = ArchiveReason.CORRUPT, ArchiveReason.TRUNCATED

# tarfile strips slashes at the end of names; NUL ends a name.
_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\"),
    min_size=1,
    max_size=150,
).filter(lambda name: not name.endswith("/"))
_members = st.tuples(
    _names,
    st.binary(max_size=1500),
    st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_members, max_size=8), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_agrees_with_tarfile(members: list[tuple[str, bytes, bytes]], tar_format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "target" * 20
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data) if info.size else None)

    reading = read(buffer.getvalue())

    expected = []
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        for info in tar:
            if not info.isdir():
                file = tar.extractfile(info) if info.isreg() else None
                expected.append((info.size, file.read() if file else None))
    assert reading.error is None
    assert [(m.size, m.data or (b"" if m.reason == "empty" else None)) for m in reading.members
            if m.reason not in ("nested_archive", "clutter")] == [
        expected[m.index] for m in reading.members if m.reason not in ("nested_archive", "clutter")
    ]  # fmt: skip
    assert len(reading.members) == len(expected)
    kept = [name for name, _, kind in members if kind != tarfile.DIRTYPE]
    printable = [(m.name, name) for m, name in zip(reading.members, kept, strict=True)]
    assert all(ours == name for ours, name in printable)


def test_a_cut_at_any_block_or_byte_loses_no_member_unseen() -> None:
    files = some_files(20)
    whole = tar_of(files, tarfile.USTAR_FORMAT)
    proven = len(whole.rstrip(b"\0")) // 512 * 512 + 512 + len(END)
    cuts = {*range(512, len(whole), 512), *range(300, len(whole), 997)}
    for cut in sorted(cuts):
        reading = read(whole[:cut])
        good = [member for member in reading.members if member.reason is None]
        assert [(m.name, m.data) for m in good] == files[: len(good)], cut
        if cut >= proven:
            assert reading.error is None, cut
            assert len(good) == 20
        else:
            assert reading.reason is TRUNCATED, cut
            assert [m.reason for m in reading.members[len(good) :]] in ([], [Reason.TRUNCATED])


def test_every_flipped_header_bit_is_seen_or_harmless() -> None:
    files = some_files(3, largest=700)
    whole = tar_of(files, tarfile.USTAR_FORMAT)
    starts = [0]
    for _, data in files[:-1]:
        starts.append(starts[-1] + 512 + len(padded(data)))
    num_silent = 0
    for number, start in enumerate(starts):
        for bit in range(512 * 8):
            damaged = bytearray(whole)
            damaged[start + bit // 8] ^= 1 << bit % 8
            reading = read(bytes(damaged))
            assert len(reading.members) == 3, (number, bit)
            others = [i for i in range(3) if i != number]
            assert [reading.contents[i] for i in others] == [files[i] for i in others], bit
            if reading.error is None:
                assert reading.contents == files, (number, bit)
                num_silent += 1
            else:
                assert reading.reason is CORRUPT
                assert reading.members[number].reason is Reason.CORRUPT
    # Harmless are only flips between the kinds of filler in the checksum's own field.
    assert num_silent < 3 * 40


def test_a_destroyed_header_costs_one_member_and_is_told() -> None:
    files = some_files(5, largest=900)
    whole = bytearray(tar_of(files, tarfile.USTAR_FORMAT))
    start = whole.index(b"study/0002.dcm")
    whole[start : start + 512] = b"\xa5" * 512
    reading = read(bytes(whole))
    assert reading.reason is CORRUPT
    assert reading.contents == [*files[:2], *files[3:]]


def test_without_any_end_block_or_with_one() -> None:
    files = some_files(3)
    body = b"".join(entry(data, name.encode()) for name, data in files)
    for end in (b"", ZERO_BLOCK, ZERO_BLOCK + bytes(300)):
        reading = read(body + end)
        assert reading.contents == files
        assert reading.reason is TRUNCATED
        assert "two blocks of zeros" in str(reading.error)
    assert read(body + END).error is None
    assert read(body + END + bytes(100)).error is None


def test_a_header_that_the_end_cuts_is_no_member() -> None:
    reading = read(entry(b"data") + header()[:300])
    assert reading.rows == [("x.dcm", None)]
    assert reading.reason is TRUNCATED


def test_concatenated_tars_are_read_on() -> None:
    first, second = some_files(3, 1), some_files(4, 2)
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT):
        reading = read(tar_of(first, tar_format) + tar_of(second, tar_format))
        assert reading.error is None
        assert reading.contents == first + second


def test_an_empty_tar_before_another_hides_nothing() -> None:
    files = some_files(3)
    assert read(tar_of([]) + tar_of(files)).contents == files


@pytest.mark.parametrize("size", [1024, 10240])
def test_empty_tar(size: int) -> None:
    reading = read(bytes(size))
    assert (reading.members, reading.error) == ([], None)


@pytest.mark.parametrize("size", [512, 1000, 100_000])
def test_zeros_that_no_empty_tar_has_keep_their_row(size: int) -> None:
    assert read(bytes(size)).contents == [("object", bytes(size))]


@pytest.mark.parametrize("junk", [b"junk", b"\1" * 512, b"junk" * 1000])
def test_bytes_after_the_end_are_told(junk: bytes) -> None:
    files = some_files(2)
    reading = read(tar_of(files) + junk)
    assert reading.contents == files
    assert reading.reason is CORRUPT
    assert "behind its end" in str(reading.error)


def test_a_hole_of_zeros_is_not_taken_for_the_end() -> None:
    files = some_files(2)
    body = tar_of(files).rstrip(b"\0")
    body = padded(body)
    assert read(body + bytes(MIB)).error is None
    for rest in (b"", tar_of(files)):
        reading = read(body + bytes(3 * MIB) + rest)
        assert reading.contents == files * (2 if rest else 1)
        assert reading.reason is CORRUPT


def test_pax_size_counts_and_not_the_headers() -> None:
    inner = entry(b"smuggled", b"inner.dcm")
    tar = pax((b"size", b"%d" % len(inner))) + header(b"outer.dcm", 0) + inner
    reading = read(tar + entry(b"next", b"next.dcm") + END)
    assert reading.error is None
    assert reading.rows == [("outer.dcm", "nested_archive"), ("next.dcm", None)]


def test_pax_records() -> None:
    tar = (
        pax((b"comment", b"of all"), kind=b"g")
        + pax((b"path", "Röntgen/größe.dcm".encode()), (b"mtime", b"1.5"))
        + entry(b"one")
        + entry(b"two", b"two.dcm")
        + pax((b"path", b"name with = and\nnewline"))
        + entry(b"three")
        + pax((b"path", b"given"), (b"path", b""))
        + entry(b"four", b"kept.dcm")
        + END
    )
    reading = read(tar)
    assert reading.error is None
    assert [name for name, _ in reading.rows] == [
        "Röntgen/größe.dcm",
        "two.dcm",
        "name with = and\\x0anewline",
        "kept.dcm",
    ]


def test_global_pax_records_hold_for_all_that_follow() -> None:
    tar = pax((b"path", b"all.dcm"), kind=b"g") + entry(b"1") + pax((b"path", b"own")) + entry(b"2")
    assert [name for name, _ in read(tar + entry(b"3") + END).rows] == ["all.dcm", "own", "all.dcm"]


@pytest.mark.parametrize(
    "record",
    [
        b"no length\n",
        b"99 path=beyond\n",
        b"3 a\n",
        b"12 path=cut",
        b"0 path=x\n",
        b"\xff\xfe",
        b"10 size=-1\n",
        b"11 size=1_0\n",
        b"5 =x\n",
    ],
)
def test_bad_pax_record_costs_its_member_and_is_told(record: bytes) -> None:
    reading = read(pax(record) + entry(b"one", b"1.dcm") + entry(b"two", b"2.dcm") + END)
    assert reading.rows == [("1.dcm", "corrupt"), ("2.dcm", None)]
    assert reading.reason is CORRUPT
    assert "form of pax" in str(reading.error)


def test_extended_header_over_the_limit_is_not_read() -> None:
    for claimed in (Limits().tar_header_bytes + 1, 4 << 30):
        tar = entry(b"one") + header(b"pax", claimed, b"x") + bytes(512)
        reading = read(tar)
        assert reading.rows == [("x.dcm", None)]
        assert reading.reason is ArchiveReason.UNSUPPORTED
        assert "Limits.tar_header_bytes" in str(reading.error)


def test_extended_header_without_its_member_is_told() -> None:
    for end in (END, END + entry(b"other") + END):
        reading = read(entry(b"one") + pax((b"path", b"lost")) + end)
        assert reading.reason is CORRUPT
        assert "no member after it" in str(reading.error)
    assert read(entry(b"one") + pax((b"path", b"lost"))).reason is TRUNCATED


def test_any_extended_header_of_a_member_announces_one() -> None:
    for extension in (pax((b"mtime", b"1")), pax(), header(b"l", 4, b"K") + padded(b"goal")):
        assert read(entry(b"one") + extension + END).reason is CORRUPT
    for_all = pax((b"comment", b"0123abcd"), kind=b"g")
    assert read(for_all + END).error is None
    assert read(entry(b"one") + for_all + for_all + END).contents == [("x.dcm", b"one")]


def test_bad_global_record_is_told_and_costs_no_member() -> None:
    reading = read(pax(b"rubbish", kind=b"g") + entry(b"one") + entry(b"two") + END)
    assert [reason for _, reason in reading.rows] == [None, None]
    assert reading.reason is CORRUPT


def test_gnu_long_names() -> None:
    name = b"long/" * 60 + b"x.dcm"
    long_name = header(b"././@LongLink", len(name) + 1, b"L", b"ustar  \0") + padded(name + b"\0")
    long_link = header(b"././@LongLink", 4, b"K", b"ustar  \0") + padded(b"goal")
    tar = long_name + entry(b"one") + long_link + long_name + header(b"l", 0, b"2") + END
    assert read(tar).rows == [(name.decode(), None), (name.decode(), "not_regular")]


def test_prefix_is_read_in_ustar_only() -> None:
    tar = (
        entry(b"1", b"name", prefix=b"folder")
        + entry(b"2", b"name", prefix=b"12345670", magic=b"ustar  \0")
        + entry(b"3", b"name", magic=b"")
        + entry(b"4", b"name", prefix=b"f", at_476=b"00000000000 ", at_508=b"tar\0")
    )
    names = [name for name, _ in read(tar + END).rows]
    assert names == ["folder/name", "name", "name", "f/name"]


def test_sizes_in_other_notations() -> None:
    base_256 = b"\x80" + (5).to_bytes(11, "big")
    for size in (b"00000000005\0", b"          5 ", b"5\0rubbish\0\0\0", base_256, b"000000000005"):
        tar = header(size=size) + padded(b"abcde") + END
        assert read(tar).contents == [("x.dcm", b"abcde")], size
    for size in (b"-0000000005\0", b"0000000000x\0", b"\xff" * 12, b"\x90" + bytes(11)):
        reading = read(entry(b"one") + header(size=size) + padded(b"abcde") + END)
        assert reading.rows == [("x.dcm", None), ("x.dcm", "corrupt")], size
        assert reading.reason is CORRUPT


def test_signed_check_sums_of_old_tars() -> None:
    block = bytearray(header("Größe.dcm".encode("latin-1"), 3))
    num_negative = sum(byte >= 128 for byte in block)
    block[148:156] = b"%06o\0 " % (int(block[148:154], 8) - 256 * num_negative)
    assert read(bytes(block) + padded(b"abc") + END).rows == [("Gr\\xf6\\xdfe.dcm", None)]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"M"])
def test_what_is_no_file_gets_a_row(kind: bytes) -> None:
    reading = read(entry(b"one") + header(b"x.dcm", 0, kind) + entry(b"two") + END)
    assert reading.rows == [("x.dcm", None), ("x.dcm", "not_regular"), ("x.dcm", None)]
    assert reading.error is None


@pytest.mark.parametrize("kind", [b"1", b"2", b"5"])
@pytest.mark.parametrize("has_body", [False, True])
def test_links_that_declare_a_size(kind: bytes, has_body: bool) -> None:
    link = header(b"link", 700, kind) + (padded(b"b" * 700) if has_body else b"")
    for after in (entry(b"two"), b""):
        reading = read(entry(b"one") + link + after + END)
        links = [] if kind == b"5" else [("link", "not_regular")]
        assert reading.rows == [("x.dcm", None), *links, ("x.dcm", None)][: None if after else -1]
        assert reading.error is None


def test_directories_are_not_counted() -> None:
    tar = (
        header(b"folder.dcm", 0, b"5")
        + header(b"old/", 0, b"\0", b"")
        + header(b"dump/", 600, b"D") + padded(b"y" * 600)
        + entry(b"data", b"not-one/", kind=b"\0")
        + END
    )  # fmt: skip
    assert read(tar).contents == [("not-one/", b"data")]


def test_unknown_types_are_files_as_posix_says() -> None:
    assert read(entry(b"data", kind=b"Z") + entry(b"7", kind=b"7") + END).contents == [
        ("x.dcm", b"data"),
        ("x.dcm", b"7"),
    ]


def test_sparse_members_are_passed_over_whole() -> None:
    old = header(b"old", 1000, b"S", b"ustar  \0", at_482=b"\1", at_483=b"%011o\0" % (1 << 40))
    old += bytes(504) + b"\1" + bytes(7) + bytes(512) + padded(b"s" * 1000)
    tar = (
        old
        + pax(
            (b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"new"), (b"path", b"GNUSparse.0/n")
        )
        + entry(b"map and data")
        + entry(b"after", b"after.dcm")
        + END
    )
    reading = read(tar)
    assert reading.error is None
    assert reading.rows == [
        ("old", "unsupported_encoding"),
        ("new", "unsupported_encoding"),
        ("after.dcm", None),
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"../../etc/passwd", "../../etc/passwd"),
        (b"/absolute", "/absolute"),
        (b"C:\\x.dcm", "C:\\x.dcm"),
        (b"\xff\xfe.dcm", "\\xff\\xfe.dcm"),
        (b"\xed\xb2\x80", "\\xed\\xb2\\x80"),
        (b"a\x1b[31m\x7f", "a\\x1b[31m\\x7f"),
        (b"\xe2\x80\xaertl", "\u202ertl"),
        (b"", ""),
    ],
)
def test_names_are_data(raw: bytes, expected: str) -> None:
    assert read(entry(b"data") + entry(b"data", raw) + END).contents[1] == (expected, b"data")


def test_long_names_are_cut_between_characters() -> None:
    tar = entry(b"0") + pax((b"path", "ä".encode() * 400)) + entry(b"1") + END
    assert read(tar, Limits(name_bytes=301)).members[1].name == "ä" * 150


def test_duplicate_names_are_members_each() -> None:
    files = [("same.dcm", b"first"), ("same.dcm", b"second")]
    assert read(tar_of(files)).contents == files


def test_too_large_members_are_passed_over_without_reading() -> None:
    num_bytes = 20 << 30
    huge = pax((b"size", b"%d" % num_bytes)) + header(b"huge.dcm", 0)
    reader = PatternReader(entry(b"one"), huge, num_bytes, entry(b"two", b"2.dcm"), END)
    reading = read(reader)
    assert reading.rows == [("x.dcm", None), ("huge.dcm", "too_large"), ("2.dcm", None)]
    assert reading.members[1].size == num_bytes
    assert reading.error is None
    assert reader.num_bytes < 64 * MIB

    cut = PatternReader(entry(b"one"), huge, num_bytes - 512)
    assert read(cut).rows == [("x.dcm", None), ("huge.dcm", "too_large")]
    assert read(cut).reason is TRUNCATED


def test_a_size_that_lies_takes_no_memory() -> None:
    reader = BytesReader(entry(b"one") + header(b"lie.dcm", Limits().member_bytes) + bytes(2000))
    reading, peak = peak_bytes(reader)
    assert [m.reason for m in reading.members] == [Reason.TRUNCATED]
    assert peak < MIB


def test_memory_does_not_grow_with_the_archive() -> None:
    one = entry(b"x" * 30, b"many.dcm")
    peaks = [
        peak_bytes(BytesReader(one * count + END, chunk_bytes=64 << 10))[1]
        for count in (6_000, 24_000)
    ]
    assert peaks[1] - peaks[0] < 64 << 10, peaks


def test_members_across_chunks_are_whole() -> None:
    files = some_files(30, largest=5000)
    for chunk_bytes in (1, 511, 512, 513, 4096):
        tar = tar_of(files)
        assert read(_Chunked(tar, chunk_bytes)).contents == files


class _Chunked(CountingReader):
    def read_at(self, offset: int, size: int) -> bytes:
        return super().read_at(offset, min(size, 12_000))


@pytest.mark.skipif(shutil.which("tar") is None, reason="the tar command is not installed")
@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_archives_of_the_tar_command(tmp_path: Path, tar_format: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    for name, data in some_files(5):
        (root / "folder" / Path(name).name).write_bytes(data)
    (root / "link").symlink_to("folder")
    (root / "folder" / "hard").hardlink_to(root / "folder" / "0000.dcm")
    if has_sparse := tar_format in ("gnu", "oldgnu", "posix"):
        with (root / "sparse").open("wb") as sparse:
            sparse.truncate(3 * MIB)
            sparse.seek(MIB)
            sparse.write(b"island")
        (root / ("n" * 150)).write_bytes(b"long")
    made = tmp_path / "made.tar"
    subprocess.run(
        ["tar", f"--format={tar_format}", *["--sparse"] * has_sparse, "-cf", made, "root"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    with tarfile.open(made) as tar:
        expected = {info.name: info for info in tar if not info.isdir()}
        reading = read(made.read_bytes())
        assert reading.error is None
        assert [name for name, _ in reading.rows] == list(expected)
        for member in reading.members:
            info = expected[member.name]
            if info.issparse():
                assert member.reason is Reason.UNSUPPORTED_ENCODING
            elif info.isreg():
                file = tar.extractfile(info)
                assert file is not None
                assert member.data == file.read()
            else:
                assert member.reason is Reason.NOT_REGULAR
