"""Classes 85 to 116: archives, as whole objects of their own."""

import bz2
import gzip
import lzma
import struct
import sys
import tarfile
from functools import partial
from typing import Any

from implant_model.errors import ArchiveReason, Reason
from implant_model.limits import MIB
from tests.support.archive_samples import (
    END,
    RawEntry,
    entry,
    header,
    padded,
    pax,
    pkware_encrypted,
    raw_zip,
    tar_of,
    zip_of,
)
from tests.torture.cases.bombs import deflated_zeros
from tests.torture.cases.case import ArchiveCase
from tests.torture.cases.files import flipped, png

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CORRUPT, TRUNCATED = ArchiveReason.CORRUPT, ArchiveReason.TRUNCATED
UNSUPPORTED, ENCRYPTED = ArchiveReason.UNSUPPORTED, ArchiveReason.ENCRYPTED
NOT_REGULAR, NESTED, EMPTY = Reason.NOT_REGULAR, Reason.NESTED_ARCHIVE, Reason.EMPTY
CLUTTER, NOT_AN_IMAGE = Reason.CLUTTER, Reason.NOT_AN_IMAGE


def pictures(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{i}.png", png(i)) for i in range(first, first + count)]


def tar(count: int = 3, first: int = 0) -> bytes:
    return tar_of(pictures(count, first), tarfile.USTAR_FORMAT)


def tar_body(count: int = 3) -> bytes:
    """A tar without its end."""
    return b"".join(entry(data, name.encode()) for name, data in pictures(count))


def picture_entry(seed: int = 0, name: bytes = b"a.png", **given: bytes) -> bytes:
    return entry(png(seed), name, **given)


def stale_record() -> bytes:
    """A tar of one record whose rest is what an older tar left there."""
    whole = picture_entry() + END
    return whole + (picture_entry(1) + END + bytes(10_240))[: -len(whole) % 10_240]


def stored(seed: int = 0, name: bytes = b"a.png", **lies: Any) -> RawEntry:
    """An entry of a zip with a picture; its fields may lie."""
    return RawEntry(name, png(seed), **lies)


def between(*middle: RawEntry) -> bytes:
    """A zip of entries between two pictures."""
    return raw_zip(stored(1, b"first.png"), *middle, stored(2, b"last.png"))


def lying_zip(**lies: Any) -> bytes:
    return between(stored(3, **lies))


def named(*names: bytes) -> bytes:
    """A tar of pictures under these names."""
    return b"".join(picture_entry(i, name) for i, name in enumerate(names)) + END


def long_named(name: bytes) -> bytes:
    long_name = header(b"././@LongLink", len(name) + 1, b"L", b"ustar  \0") + padded(name + b"\0")
    return long_name + picture_entry() + END


def sparse_pax() -> bytes:
    names = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"%d" % (1 << 40)))
    return pax(*names) + picture_entry(0) + picture_entry(1) + END


def sparse_gnu() -> bytes:
    block = header(b"hole.dcm", 512, b"S", b"ustar  \0") + bytes(512)
    return block + picture_entry(1) + END


def lying_pax_size() -> bytes:
    """The pax header states another size than the member's own header: the first one counts."""
    inner = picture_entry(1, b"inner.png")
    return pax((b"size", b"%d" % len(inner))) + header(b"o.dcm", 0) + inner + picture_entry(2) + END


def streamed_zip() -> bytes:
    return zip_of(pictures(3), streamed=True)


def zip_cut() -> bytes:
    whole = zip_of(pictures(3))
    return whole[: whole.index(b"PK\x01\x02") - 100]


def entries_over_16_bits() -> bytes:
    """65,600 entries of no bytes, and a directory that counts them in 16 bits."""
    number, local = 65_600, RawEntry(b"x", b"").local()
    records = b"".join(RawEntry(b"x", b"").record(i * len(local)) for i in range(number))
    count = number % 65_536
    end = struct.pack("<4sHHHHII", b"PK\5\6", 0, 0, count, count, len(records), len(local) * number)
    return local * number + records + end + bytes(2)


def tiny_members(count: int) -> bytes:
    return (header(b"x", 1) + b"1" + bytes(511)) * count + END


def over_the_limit() -> bytes:
    """A member of 513 MiB, all there: 400 kB of gzip would be a bomb, so it is a zip's entry."""
    big = RawEntry(b"big.dcm", deflated_zeros(513), b"", method=8, size=513 * MIB, crc=1)
    return raw_zip(big, stored(1))


def every_clutter() -> bytes:
    names = ("__MACOSX/._0.png", ".DS_Store", "Thumbs.db", "DICOMDIR", "a/._b.dcm", "0.png")
    return tar_of([(name, png(0)) for name in names])


GZ = gzip.compress
CASES = (
    ArchiveCase(85, "empty tar", lambda: bytes(10240)),
    ArchiveCase(85, "empty zip", lambda: zip_of([])),
    ArchiveCase(86, "no bytes", lambda: b"", (EMPTY,)),
    ArchiveCase(
        87, "tar cut in a member", lambda: tar()[:5000], (None, None, Reason.TRUNCATED), TRUNCATED
    ),
    ArchiveCase(87, "tar cut at a member", lambda: tar_body(2), (None, None), TRUNCATED),
    ArchiveCase(
        88,
        "bit flip in a header",
        lambda: flipped(tar(), len(tar_body(1)) + 3),
        (None, Reason.CORRUPT, None),
        CORRUPT,
    ),
    ArchiveCase(89, "tar without an end", tar_body, (None,) * 3, TRUNCATED),
    ArchiveCase(
        89, "tar with half an end", lambda: tar_body() + bytes(512), (None,) * 3, TRUNCATED
    ),
    ArchiveCase(90, "two tars", lambda: tar(2) + tar(2, 2), (None,) * 4),
    ArchiveCase(90, "junk behind a tar", lambda: tar() + b"junk" * 200, (None,) * 3, CORRUPT),
    ArchiveCase(90, "a tar behind an empty one", lambda: bytes(10240) + tar(2), (None,) * 2),
    ArchiveCase(
        91,
        "gzip cut",
        lambda: GZ(tar())[: len(GZ(tar())) // 2],
        (None, Reason.TRUNCATED),
        TRUNCATED,
    ),
    ArchiveCase(91, "gzip CRC wrong", lambda: flipped(GZ(tar()), -8), (None,) * 3, CORRUPT),
    ArchiveCase(91, "gzip length wrong", lambda: flipped(GZ(tar()), -1), (None,) * 3, CORRUPT),
    ArchiveCase(91, "gzip of members", lambda: GZ(tar()[:3000]) + GZ(tar()[3000:]), (None,) * 3),
    ArchiveCase(91, "junk behind a gzip", lambda: GZ(tar()) + b"junk", (None,) * 3, CORRUPT),
    ArchiveCase(92, "tar that is a gzip", lambda: GZ(tar()), (None,) * 3),
    ArchiveCase(92, "tar that is a zstd", lambda: zstd.compress(tar()), (None,) * 3),
    ArchiveCase(92, "tar that is an xz", lambda: lzma.compress(tar()), (), UNSUPPORTED),
    ArchiveCase(92, "tar that is a bzip2", lambda: bz2.compress(tar()), (), UNSUPPORTED),
    ArchiveCase(92, "gzip that is a zip", lambda: zip_of(pictures(3)), (None,) * 3),
    ArchiveCase(
        93,
        "bad pax keyword",
        lambda: pax(b"no length\n") + picture_entry(0) + picture_entry(1) + END,
        (Reason.CORRUPT, None),
        CORRUPT,
    ),
    ArchiveCase(93, "pax size against the header", lying_pax_size, (NESTED, None)),
    ArchiveCase(93, "GNU long name", lambda: long_named(b"long/" * 60 + b"x.png"), (None,)),
    ArchiveCase(93, "sparse by pax", sparse_pax, (Reason.UNSUPPORTED_ENCODING, None)),
    ArchiveCase(93, "sparse by GNU", sparse_gnu, (Reason.UNSUPPORTED_ENCODING, None)),
    ArchiveCase(
        94,
        "links and devices",
        lambda: (
            b"".join(header(b"x.dcm", 0, kind) for kind in (b"1", b"2", b"3", b"4", b"6"))
            + header(b"folder.dcm", 0, b"5")
            + picture_entry()
            + END
        ),
        (*(NOT_REGULAR,) * 5, None),
    ),
    ArchiveCase(
        95,
        "names that climb",
        lambda: named(b"../../a.png", b"/etc/a.png", b"C:\\a.png", b"a\\..\\b.png"),
        (None,) * 4,
    ),
    ArchiveCase(
        95,
        "names of odd characters",
        lambda: named(b"a\nb.png", "\u202egnp.a".encode(), b"\x1b[2J.png", b" "),
        (None,) * 4,
    ),
    ArchiveCase(95, "no name", lambda: named(b"", b"b.png"), (None,) * 2),
    ArchiveCase(95, "name of 300 characters", lambda: long_named(b"n" * 300), (None,)),
    ArchiveCase(95, "name of 100 kB", lambda: long_named(b"n" * 100_000), (None,)),
    ArchiveCase(
        96,
        "names that are not UTF-8",
        lambda: named(b"R\xf6ntgen.png", b"\xed\xa0\x80.png"),
        (None,) * 2,
    ),
    ArchiveCase(
        96, "name of code page 437", lambda: raw_zip(stored(0, b"R\x94ntgen.png")), (None,)
    ),
    ArchiveCase(97, "names twice in a tar", lambda: named(b"a.png", b"a.png"), (None,) * 2),
    ArchiveCase(97, "names twice in a zip", lambda: raw_zip(stored(0), stored(1)), (None,) * 2),
    ArchiveCase(98, "zip64", lambda: raw_zip(stored(0, wide=True), wide=True), (None,)),
    ArchiveCase(98, "streamed zip", streamed_zip, (None,) * 3),
    ArchiveCase(98, "65600 entries", entries_over_16_bits, (EMPTY,) * 65_600, heavy=True),
    *(
        ArchiveCase(
            98,
            f"zip with a wrong {what}",
            partial(lying_zip, **lie),
            (None, Reason.CORRUPT, None),
        )
        for what, lie in (
            ("size", {"size": 6}),
            ("local size", {"local_size": 6}),
            ("CRC", {"crc": 1}),
            ("local name", {"local_name": b"other"}),
            ("offset", {"offset": 1 << 31}),
        )
    ),
    ArchiveCase(
        98,
        "zip that counts wrong",
        lambda: raw_zip(stored(0), stored(1), count=3),
        (None,) * 2,
        CORRUPT,
    ),
    ArchiveCase(98, "zip cut", zip_cut, (None, None, Reason.TRUNCATED), TRUNCATED),
    ArchiveCase(
        99,
        "entries at one place",
        lambda: raw_zip(stored(0), stored(1), stored(2, offset=0)),
        (Reason.CORRUPT, None, Reason.CORRUPT),
    ),
    ArchiveCase(
        100,
        "encrypted",
        lambda: raw_zip(pkware_encrypted(b"a.dcm", png(), b"password")),
        (Reason.ENCRYPTED,),
        ENCRYPTED,
    ),
    ArchiveCase(
        100, "AES", lambda: raw_zip(stored(0, method=99, flags=1)), (Reason.ENCRYPTED,), ENCRYPTED
    ),
    ArchiveCase(
        100,
        "one entry encrypted",
        lambda: between(pkware_encrypted(b"a.dcm", png(), b"password")),
        (None, Reason.ENCRYPTED, None),
    ),
    *(
        ArchiveCase(
            101,
            f"method {method}",
            partial(lying_zip, method=method),
            (None, Reason.UNSUPPORTED_ENCODING, None),
        )
        for method in (6, 12, 93, 95)
    ),
    ArchiveCase(102, "zip of several disks", lambda: raw_zip(stored(0), disk=1), (), UNSUPPORTED),
    ArchiveCase(
        104,
        "archives in archives",
        lambda: tar_of([("a.zip", zip_of([("b.tar", tar())])), ("c.png", png())]),
        (NESTED, None),
    ),
    ArchiveCase(
        113,
        "zip behind a program",
        lambda: b"MZ" + bytes(500) + zip_of(pictures(2)),
        (None,) * 2,
        CORRUPT,
    ),
    ArchiveCase(
        113,
        "zip with a damaged first byte and a comment",
        lambda: b"X" + raw_zip(stored(0), stored(1), comment=b"from a PACS")[1:],
        (Reason.CORRUPT, None),
    ),
    ArchiveCase(
        113,
        "zip with bytes behind it",
        lambda: zip_of(pictures(2)) + b"a signature",
        (None,) * 2,
        CORRUPT,
    ),
    ArchiveCase(
        114,
        "more entries than 16 bits count",
        lambda: raw_zip(*(RawEntry(b"%d" % n, b"") for n in range(3)), count=3),
        (EMPTY,) * 3,
    ),
    ArchiveCase(115, "stale blocks in the last record", stale_record, (None,)),
    ArchiveCase(
        115,
        "access list of Solaris",
        lambda: header(b"a.png", 9, b"A") + padded(b"user:rwx,") + picture_entry() + END,
        (None,),
    ),
    ArchiveCase(
        115, "volume label", lambda: header(b"V", 0, b"V") + picture_entry() + END, (None,)
    ),
    ArchiveCase(116, "cpio", lambda: b"070701" + b"0" * 104 + png(), (), UNSUPPORTED),
    ArchiveCase(116, "cab", lambda: b"MSCF\0\0\0\0" + bytes(60), (), UNSUPPORTED),
    ArchiveCase(
        116, "lzma alone", lambda: lzma.compress(png(), lzma.FORMAT_ALONE), (), UNSUPPORTED
    ),
    ArchiveCase(105, "no picture", lambda: tar_of([("a.txt", b"text")]), (NOT_AN_IMAGE,)),
    ArchiveCase(105, "1000 tiny members", lambda: tiny_members(1000), (NOT_AN_IMAGE,) * 1000),
    ArchiveCase(
        105,
        "20000 tiny members",
        lambda: tiny_members(20_000),
        (NOT_AN_IMAGE,) * 20_000,
        heavy=True,
    ),
    ArchiveCase(106, "member over the limit", over_the_limit, (Reason.TOO_LARGE, None)),
    ArchiveCase(107, "clutter", every_clutter, (*(CLUTTER,) * 5, None)),
    ArchiveCase(
        109, "one picture twice", lambda: tar_of([("a.png", png()), ("b.png", png())]), (None,) * 2
    ),
)
