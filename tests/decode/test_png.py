"""Pixels of a PNG by ISA-L and Pillow against Pillow alone, and deflated data against zlib."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from implant_model.content import PNG_MAGIC
from implant_model.decode import raster as png_module
from implant_model.decode.markers import png_frame
from implant_model.decode.prepare import decode
from implant_model.decode.raster import BLOCK_BYTES, inflate, store_pixels
from implant_model.errors import Reason
from implant_model.limits import Limits
from tests.support.pictures import encoded
from tests.torture.cases.files import chunk

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]


def noise(rows: int, columns: int, mode: str) -> Image.Image:
    """A picture that Pillow filters in several ways: noise on a ramp."""
    values = np.random.default_rng(rows).integers(0, 40, (rows, columns, 4))
    values += np.arange(columns)[:, None] % 200
    if mode == "I;16":
        return Image.fromarray((values[..., 0] * 271).astype(np.uint16))
    return Image.fromarray(values.astype(np.uint8), "RGBA").convert(mode)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def assemble(parts: list[tuple[bytes, bytes]]) -> bytes:
    return PNG_MAGIC + b"".join(chunk(kind, content) for kind, content in parts)


def with_pixels(data: bytes, stream: bytes) -> bytes:
    """The file with another content of its one IDAT chunk."""
    return assemble([(k, stream if k == b"IDAT" else c) for k, c in chunks(data)])


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 257)])
def test_the_pixels_are_those_that_pillow_inflates(mode: str, shape: tuple[int, int]) -> None:
    data = encoded(noise(*shape, mode))
    stored = store_pixels(data, png_frame(data))
    assert stored != data
    np.testing.assert_array_equal(pixels_of(stored), pixels_of(data))


def test_what_stands_beside_the_pixels_stays() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(40, 30, "P"), exif=exif, transparency=3)
    with Image.open(io.BytesIO(store_pixels(data, png_frame(data)))) as image:
        image.load()
        assert image.info["transparency"] == 3
        assert image.getexif()[0x0112] == 6


def test_many_chunks_of_pixels_are_one_stream() -> None:
    data = encoded(noise(300, 257, "I;16"))
    parts = [
        (kind, content[start : start + 1000])
        for kind, content in chunks(data)
        for start in range(0, max(len(content), 1), 1000)
    ]
    split = assemble(parts)
    stored = store_pixels(split, png_frame(split))
    assert sum(kind == b"IDAT" for kind, _ in chunks(stored)) == 1
    np.testing.assert_array_equal(pixels_of(stored), pixels_of(data))


def damaged() -> dict[str, bytes]:
    data = encoded(noise(40, 30, "L"))
    parts = list(chunks(data))
    (stream,) = (content for kind, content in parts if kind == b"IDAT")
    lines = zlib.decompress(stream)
    apart = [
        piece
        for kind, content in parts
        for piece in (
            [(kind, content[:50]), (b"tEXt", b"a\0b"), (kind, content[50:])]
            if kind == b"IDAT"
            else [(kind, content)]
        )
    ]
    return {
        "its checksum is wrong": with_pixels(data, stream[:-1] + bytes([stream[-1] ^ 1])),
        "it ends early": with_pixels(data, stream[:-20]),
        "it has a line too few": with_pixels(data, zlib.compress(lines[:-31])),
        "it has a line too many": with_pixels(data, zlib.compress(lines + bytes(31))),
        "it is a bomb": with_pixels(data, zlib.compress(lines + bytes(1 << 24))),
        "it has no pixels": assemble([part for part in parts if part[0] != b"IDAT"]),
        "its pixels are apart": assemble(apart),
        "it is of no colour type": data[:25] + b"\x05" + data[26:],
        "it is interlaced": data[:28] + b"\x01" + data[29:],
    }


@pytest.mark.parametrize("what", damaged())
def test_what_is_not_as_it_should_be_is_left_to_pillow(what: str) -> None:
    data = damaged()[what]
    assert store_pixels(data, png_frame(data)) is data


def test_a_large_picture_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_module, "MAX_STORED_BYTES", 40 * 31)
    fits, larger = encoded(noise(40, 30, "L")), encoded(noise(41, 30, "L"))
    assert store_pixels(fits, png_frame(fits)) is not fits
    assert store_pixels(larger, png_frame(larger)) is larger


def test_a_filter_that_does_not_exist_is_found_by_pillow() -> None:
    data = encoded(noise(40, 30, "L"))
    bad = with_pixels(data, zlib.compress(b"\x09" * (40 * 31)))
    assert store_pixels(bad, png_frame(bad)) != bad
    assert decode(bad, Limits()).reason is Reason.CORRUPT


contents = st.binary(max_size=3000) | st.builds(bytes, st.integers(0, 300_000))


@given(contents, st.sampled_from([0, 1, 6, 9]))
def test_inflate_gives_what_was_deflated(content: bytes, level: int) -> None:
    stream = zlib.compress(content, level)
    pieces = inflate(stream + b"behind the end", len(content))
    assert pieces is not None
    assert b"".join(pieces) == content
    assert all(len(piece) == BLOCK_BYTES for piece in pieces[:-1])
    assert inflate(stream, len(content) + 1) is None
    assert not content or inflate(stream, len(content) - 1) is None


@given(st.binary(min_size=1, max_size=3000), st.floats(0, 1, exclude_max=True))
def test_a_cut_stream_is_none(content: bytes, share: float) -> None:
    stream = zlib.compress(content)
    assert inflate(stream[: int(len(stream) * share)], len(content)) is None


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
)
def test_a_damaged_stream_is_what_zlib_says(content: bytes, flips: list[tuple[float, int]]) -> None:
    data = bytearray(zlib.compress(content))
    for place, value in flips:
        data[int(place * len(data))] = value
    inflater, expected = zlib.decompressobj(), None
    with contextlib.suppress(zlib.error):
        expected = inflater.decompress(data)
    if expected is None or not inflater.eof:
        assert inflate(bytes(data), len(content)) is None
    else:
        assert b"".join(inflate(bytes(data), len(expected)) or []) == expected
