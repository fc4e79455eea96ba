"""Classes 71 to 84: PNG, JPEG and other pictures."""

import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from implant_model.errors import Reason
from tests.support.dicom_edits import picture
from tests.support.pictures import encoded
from tests.torture.cases.case import Case
from tests.torture.cases.files import chunk, flipped, grey8, png16_colour, png_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
UNSUPPORTED, TRUNCATED, CORRUPT = Reason.UNSUPPORTED_ENCODING, Reason.TRUNCATED, Reason.CORRUPT


def apng() -> bytes:
    first, second = Image.fromarray(grey8()), Image.fromarray(grey8()[::-1])
    return encoded(first, save_all=True, append_images=[second])


def in_mode(mode: str, file_format: str = "PNG") -> Callable[[], bytes]:
    return lambda: encoded(Image.fromarray(grey8()).convert(mode), file_format)


def grey_png(bits: int, *extra: bytes) -> bytes:
    """A PNG of 1, 2, 4 or 8 bits a pixel, written by hand, with more chunks before its data."""
    values = grey8() >> (8 - bits)
    steps = np.arange(8 // bits)[::-1] * bits
    rows = [np.bitwise_or.reduce(row.reshape(-1, 8 // bits) << steps, axis=1) for row in values]
    lines = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 96, bits, 0, 0, 0, 0))
    return SIGNATURE + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(lines)) + IEND


def interlaced() -> bytes:
    """Adam7, written by hand: Pillow reads it but does not write it."""
    grey, lines = grey8(), b""
    for top, left, down, across in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        lines += b"".join(b"\0" + row.tobytes() for row in grey[top::down, left::across])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 96, 8, 0, 0, 0, 1))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(lines)) + IEND


def with_alpha() -> bytes:
    alpha = np.where(np.arange(80) < 60, 255, 0).astype(np.uint8)
    return encoded(np.stack([grey8(), np.broadcast_to(alpha, (96, 80))], axis=-1), "PNG")


def other_sof(marker: bytes, bits: int) -> bytes:
    """A JPEG whose frame header names another process or another number of bits."""
    data = bytearray(encoded(grey8(), "JPEG"))
    start = bytes(data).index(b"\xff\xc0")
    data[start : start + 2] = marker
    data[start + 4] = bits
    return bytes(data)


def mpo() -> bytes:
    first, second = Image.fromarray(grey8()), Image.fromarray(grey8()[::-1])
    return encoded(first, "MPO", save_all=True, append_images=[second], quality=95)


def turned(orientation: int) -> Callable[[], bytes]:
    def make() -> bytes:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return encoded(grey8(), "JPEG", exif=exif)

    return make


def cut(file_format: str, share: float) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = encoded(grey8(), file_format)
        return whole[: int(len(whole) * share)]

    return make


def bad_crc(kind: bytes) -> bytes:
    data = encoded(grey8(), "PNG")
    start = data.index(kind)
    return flipped(data, start + 4 + struct.unpack_from(">I", data, start - 4)[0])


IEND = chunk(b"IEND", b"")
HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(60)
CASES = (
    Case(71, "PNG of 16 bits", lambda: encoded(picture(), "PNG")),
    Case(71, "PNG of 16 bits in colour", png16_colour),
    *(Case(72, f"PNG of {bits} bits", partial(grey_png, bits)) for bits in (1, 2, 4)),
    Case(72, "PNG palette", in_mode("P")),
    Case(72, "PNG transparent grey", lambda: grey_png(8, chunk(b"tRNS", b"\0\x40"))),
    Case(72, "PNG gamma", lambda: grey_png(8, chunk(b"gAMA", struct.pack(">I", 45455)))),
    Case(72, "PNG interlaced", interlaced),
    Case(73, "PNG grey with alpha", with_alpha),
    Case(73, "PNG RGBA", in_mode("RGBA")),
    Case(74, "PNG bit flip", lambda: flipped(encoded(grey8(), "PNG"), 300), CORRUPT),
    Case(74, "PNG checksum of its header", lambda: bad_crc(b"IHDR"), CORRUPT),
    Case(74, "PNG of colour type 5", lambda: png_of(80, 96, 8, 5), CORRUPT),
    Case(74, "PNG of 0 columns", lambda: png_of(0, 10), CORRUPT),
    Case(75, "APNG", apng, Reason.MULTI_FRAME),
    Case(76, "PNG of 14000 x 14000", lambda: png_of(14_000, 14_000), Reason.TOO_LARGE),
    Case(77, "bad colour profile", lambda: grey_png(8, chunk(b"iCCP", b"p\0\0rubbish"))),
    Case(78, "CMYK JPEG", in_mode("CMYK", "JPEG")),
    *(Case(79, f"EXIF orientation {n}", turned(n)) for n in range(1, 9)),
    Case(117, "JPEG without its end marker", lambda: encoded(grey8(), "JPEG")[:-2]),
    Case(117, "JPEG cut in its scan", lambda: encoded(grey8(), "JPEG")[:-40], Reason.TRUNCATED),
    Case(117, "PNG of an absurd side", lambda: png_of(2**31, 3), Reason.TOO_LARGE),
    Case(119, "PGM of 16 bits", lambda: b"P5 80 96 65535 " + bytes(range(240)) * 64),
    Case(119, "PGM cut", lambda: b"P5 80 96 65535 " + bytes(9000), Reason.TRUNCATED),
    Case(119, "PGM in text", lambda: b"P2\n8 8\n255\n" + b"1 200 " * 32),
    Case(80, "progressive JPEG", lambda: encoded(grey8(), "JPEG", progressive=True)),
    Case(80, "JPEG of 12 bits", lambda: other_sof(b"\xff\xc0", 12), UNSUPPORTED),
    Case(80, "lossless JPEG", lambda: other_sof(b"\xff\xc3", 8), UNSUPPORTED),
    Case(80, "JPEG said to be arithmetic", lambda: other_sof(b"\xff\xc9", 8)),
    Case(80, "hierarchical JPEG", lambda: other_sof(b"\xff\xc5", 8), UNSUPPORTED),
    *(
        Case(81, f"{kind} cut at {round(share * 100)} %", cut(kind, share), TRUNCATED)
        for kind in ("PNG", "JPEG")
        for share in (0.25, 0.5, 0.75, 0.99)
    ),
    Case(81, "PNG without its end", lambda: encoded(grey8(), "PNG")[:-12], TRUNCATED),
    Case(82, "MPO", mpo),
    Case(82, "TIFF", lambda: encoded(grey8(), "TIFF"), UNSUPPORTED),
    Case(82, "BMP", lambda: encoded(grey8(), "BMP"), UNSUPPORTED),
    Case(82, "GIF", lambda: encoded(grey8(), "GIF"), UNSUPPORTED),
    Case(82, "WebP", lambda: encoded(grey8(), "WEBP"), UNSUPPORTED),
    Case(82, "JP2", lambda: encoded(grey8(), "JPEG2000"), UNSUPPORTED),
    Case(82, "HEIC", lambda: HEIC, UNSUPPORTED),
    Case(
        83,
        "SVG",
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        Reason.NOT_AN_IMAGE,
        inside="a.png",
    ),
    Case(
        84, "PNG of one changed byte", lambda: flipped(encoded(grey8(), "PNG"), 2000, 255), CORRUPT
    ),
    Case(84, "JPEG without a scan", lambda: encoded(grey8(), "JPEG")[:20] + b"\xff\xd9", TRUNCATED),
    Case(84, "JPEG of markers alone", lambda: b"\xff\xd8" + b"\xff\xe0\0\x02" * 500, TRUNCATED),
)
