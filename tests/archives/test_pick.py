"""A member by its index is the one that reading in order yields, in every kind of archive."""

import contextlib
import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Iterator

import pytest

from implant_model.archives.pick import MemberPicker
from implant_model.archives.read import BytesReader
from implant_model.errors import ArchiveError
from tests.support.archive_samples import LIMITS, read, tar_of

CONTENTS = {
    f"{'long/' * (30 * (n % 3))}{n}.bin": random.Random(n).randbytes(1 + n * 40_000)
    for n in range(12)
} | {"folder/.DS_Store": b"clutter", "empty": b"", "last": b"x" * 300_000}


class Counting(BytesReader):
    """Counts the bytes that are handed out."""

    handed = 0

    def read_at(self, offset: int, size: int) -> bytes:
        data = super().read_at(offset, size)
        self.handed += len(data)
        return data

    def stream(self, start: int = 0) -> Iterator[bytes]:
        for offset in range(start, self.size, 4096):
            yield self.read_at(offset, 4096)


def pax_with_globals() -> bytes:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all"}
    ) as tar:
        for name, data in CONTENTS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "last"
        tar.addfile(link)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.mkdir("folder")
        for name, data in CONTENTS.items():
            out.writestr(name, data)
    return file.getvalue()


ARCHIVES = {
    "tar": tar_of(CONTENTS),
    "pax": pax_with_globals(),
    "zip": zipped(),
    "tar.gz": gzip.compress(tar_of(CONTENTS)),
    "single": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_member_is_the_one_of_its_place(kind: str) -> None:
    whole = read(ARCHIVES[kind], name="object").members
    picker, reader = MemberPicker("object", LIMITS), BytesReader(ARCHIVES[kind])
    order = list(range(len(whole)))
    random.Random(1).shuffle(order)
    for index in (*order, *order):
        assert picker.pick(reader, index) == whole[index]
    assert picker.pick(reader, len(whole)) is None


def damaged() -> dict[str, bytes]:
    tar, zip_ = bytearray(ARCHIVES["tar"]), bytearray(ARCHIVES["zip"])
    cut = {f"cut {n}": bytes(tar[: len(tar) * n // 10]) for n in range(3, 10)}
    for n in range(40):
        at = random.Random(n).randrange(len(tar))
        flipped = bytearray(tar)
        flipped[at] ^= 1 << n % 8
        cut[f"flipped {n}"] = bytes(flipped)
    header = bytearray(tar)
    header[ARCHIVES["tar"].index(b"3.bin") + 2] ^= 255
    zip_[400] ^= 255
    return {**cut, "header": bytes(header), "zip": bytes(zip_), "zip cut": bytes(zip_[:-60])}


DAMAGED = damaged()


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_archive_gives_what_reading_in_order_gives(kind: str) -> None:
    reading = read(DAMAGED[kind], name="object")
    picker, reader = MemberPicker("object", LIMITS), BytesReader(DAMAGED[kind])
    for member in reversed(reading.members):
        assert picker.pick(reader, member.index) == member
    with contextlib.suppress(ArchiveError):
        assert picker.pick(reader, len(reading.members)) is None


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_bodies_before_the_member_are_not_read(kind: str) -> None:
    contents = {f"{n}": random.Random(n).randbytes(400_000) for n in range(30)}
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as out:
            for name, data in contents.items():
                out.writestr(name, data)
    reader = Counting(file.getvalue() or tar_of(contents))
    picker = MemberPicker("object", LIMITS)
    member = picker.pick(reader, 20)
    assert member is not None
    assert member.data == contents["20"]
    assert reader.handed < reader.size / 3
    reader.handed = 0
    assert picker.pick(reader, 12) is not None
    assert reader.handed < 1_600_000, "the end of a zip, which has its directory, is read again"
