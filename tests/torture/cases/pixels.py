"""Classes 40 to 59: the description of the pixels and their encoding."""

import io
import struct
from typing import Any

import jpeg_ls
import numpy as np
import pydicom
from imagecodecs import jpeg8_encode

from implant_model.errors import Reason
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded
from tests.torture.cases.case import Case
from tests.torture.cases.files import (
    J2K,
    JPEG,
    JPEG_EXTENDED,
    JPEG_LS,
    PIXELS,
    RLE,
    compressed,
    grey8,
    relabelled,
    stream_of,
)

CORRUPT, TRUNCATED, TOO_LARGE = Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_LARGE
UNSUPPORTED, MULTI_FRAME = Reason.UNSUPPORTED_ENCODING, Reason.MULTI_FRAME


def described(number: int, what: str, reason: Reason | None = None, **attributes: Any) -> Case:
    return Case(number, what, lambda: dicom(picture(), **attributes), reason)


def palette(entries: int, **more: Any) -> bytes:
    ramp = np.linspace(0, 65535, 256).astype("<u2")[:entries]
    luts = {f"{c}PaletteColorLookupTableData": ramp.tobytes() for c in ("Red", "Green", "Blue")}
    shape = {
        f"{c}PaletteColorLookupTableDescriptor": [entries, 0, 16] for c in ("Red", "Green", "Blue")
    }
    return dicom(grey8(), PhotometricInterpretation="PALETTE COLOR", **(luts | shape | more))


def colour(planar: int = 0, **more: Any) -> bytes:
    samples = np.repeat(grey8()[..., None], 3, axis=-1)
    stored = np.ascontiguousarray(np.moveaxis(samples, -1, 0)) if planar else samples
    return dicom(samples, PlanarConfiguration=planar, PixelData=stored.tobytes(), **more)


def ybr_422() -> bytes:
    grey = grey8()
    pairs = np.full((*grey.shape, 2), 128, np.uint8)
    pairs.reshape(-1, 4)[:, :2] = grey.reshape(-1, 2)
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)
    return dicom(ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())


def lying_j2k(rows: int = 60_000) -> bytes:
    stream = bytearray(stream_of(grey8()))
    struct.pack_into(">I", stream, 8, rows)
    return compressed(J2K, bytes(stream), grey8())


def absurd_tiles() -> bytes:
    """Tiles of 1 x 1: some 8,000 of them in a stream that holds one."""
    stream = bytearray(stream_of(grey8()))
    struct.pack_into(">II", stream, 24, 1, 1)
    return compressed(J2K, bytes(stream), grey8())


def no_fragment() -> bytes:
    data = compressed(J2K, stream_of(grey8()), grey8())
    start = data.index(PIXELS + b"OB") + 12
    return data[:start] + b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)


def fragments(parts: list[bytes], table: bytes = b"") -> bytes:
    """A frame in parts, behind an offset table of these bytes."""
    data = compressed(J2K, stream_of(grey8()), grey8())
    start = data.index(PIXELS + b"OB") + 12
    items = [table, *(part + b"\0" * (len(part) % 2) for part in parts)]
    body = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)
    return data[:start] + body + b"\xfe\xff\xdd\xe0" + bytes(4)


def halves() -> list[bytes]:
    stream = stream_of(grey8())
    middle = len(stream) // 4 * 2
    return [stream[:middle], stream[middle:]]


def jpeg_ls_frame(lossy_error: int = 0) -> bytes:
    pixels = grey8()
    return bytes(
        jpeg_ls.encode_pixel_data(
            pixels.tobytes(),
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            samples_per_pixel=1,
            bits_allocated=8,
            bits_stored=8,
            photometric_interpretation=2,
            pixel_representation=0,
            lossy_error=lossy_error,
            interleave_mode=0,
        )
    )


def rle() -> bytes:
    data = to_bytes(dataset(grey8()))
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.compress(RLE, generate_instance_uid=False)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


def rle_segments(count: int, content: bytes) -> bytes:
    frame = struct.pack("<16I", count, 64, *[0] * 14) + content
    return compressed(RLE, frame, grey8())


def float_pixels() -> bytes:
    ds = dataset(picture(), PixelData=None)
    ds.add_new(0x7FE00008, "OF", picture().astype("<f4").tobytes())
    return to_bytes(ds)


def twelve_bit_jpeg() -> bytes:
    frame = jpeg8_encode(picture(), level=95, bitspersample=12)
    return compressed(JPEG_EXTENDED, bytes(frame), picture())


def jpeg_xl() -> bytes:
    frame = b"\xff\x0a" + bytes(50)
    data = compressed("1.2.840.10008.1.2.4.201", frame, grey8())
    return relabelled(data, b"2.4.201", b"2.4.110")


CASES = (
    described(40, "no rows", CORRUPT, Rows=None),
    described(40, "rows 0", CORRUPT, Rows=0),
    described(40, "rows 65535", TRUNCATED, Rows=65535),
    described(40, "rows and columns 65535", TOO_LARGE, Rows=65535, Columns=65535),
    Case(40, "odd sides", lambda: dicom(picture(97, 81))),
    described(41, "pixels too short", TRUNCATED, PixelData=bytes(96 * 80 * 2 - 2)),
    described(41, "pixels too long", None, PixelData=picture().tobytes() + b"12"),
    Case(41, "file cut in the pixels", lambda: dicom(picture())[:-100], TRUNCATED),
    described(42, "allocated 12", UNSUPPORTED, BitsAllocated=12),
    described(42, "allocated 1", UNSUPPORTED, BitsAllocated=1),
    described(42, "allocated 64", UNSUPPORTED, BitsAllocated=64),
    Case(
        42,
        "allocated 32",
        lambda: dicom(picture().astype(np.uint32), BitsStored=32, HighBit=31),
    ),
    described(43, "stored over allocated", None, BitsStored=20, HighBit=19),
    described(43, "stored 0", None, BitsStored=0),
    described(44, "high bit", None, HighBit=15),
    Case(
        45,
        "data above the stored bits",
        lambda: dicom(picture() | np.uint16(0x8000) * (picture() > 2000)),
    ),
    Case(
        46,
        "overlay in the unused bits",
        lambda: dicom(picture() | np.uint16(0x4000) * (picture() % 2)),
    ),
    described(47, "unsigned data said to be signed", None, PixelRepresentation=1),
    Case(
        48,
        "MONOCHROME1",
        lambda: dicom(np.uint16(4095) - picture(), PhotometricInterpretation="MONOCHROME1"),
    ),
    Case(49, "palette", lambda: palette(256)),
    Case(49, "index outside the palette", lambda: palette(128)),
    Case(
        49,
        "palette shorter than it states",
        lambda: palette(256, BluePaletteColorLookupTableData=b"\0\0"),
        CORRUPT,
    ),
    Case(
        49,
        "palette of no entries",
        lambda: palette(256, RedPaletteColorLookupTableDescriptor=[1, 0, 16]),
    ),
    Case(50, "RGB", colour),
    Case(50, "RGB by planes", lambda: colour(planar=1)),
    Case(50, "YBR", lambda: colour(PhotometricInterpretation="YBR_FULL")),
    Case(50, "YBR 422", ybr_422),
    described(50, "ARGB", UNSUPPORTED, PhotometricInterpretation="ARGB"),
    described(50, "no photometric interpretation", None, PhotometricInterpretation=None),
    described(50, "grey of 3 samples", CORRUPT, SamplesPerPixel=3),
    described(51, "two frames", MULTI_FRAME, NumberOfFrames=2, PixelData=picture().tobytes() * 2),
    described(51, "16 frames", MULTI_FRAME, NumberOfFrames=16, PixelData=picture().tobytes() * 16),
    described(51, "a billion frames", TOO_LARGE, NumberOfFrames=10**9),
    described(51, "0 frames", None, NumberOfFrames=0),
    Case(
        52,
        "JPEG of another size",
        lambda: compressed(JPEG, encoded(grey8()[:50], "JPEG"), grey8()),
        CORRUPT,
    ),
    Case(53, "two fragments", lambda: fragments(halves())),
    Case(53, "wrong offset table", lambda: fragments(halves(), struct.pack("<I", 999))),
    Case(53, "no fragment", no_fragment, CORRUPT),
    Case(
        53,
        "delimiter inside the frame",
        lambda: fragments([stream_of(grey8(), comment=b"\xfe\xff\xdd\xe0\0\0\0\0")]),
    ),
    Case(
        53,
        "cut in a fragment",
        lambda: compressed(J2K, stream_of(grey8()), grey8())[:-300],
        TRUNCATED,
    ),
    Case(
        54,
        "PNG in a JPEG syntax",
        lambda: compressed(JPEG, encoded(grey8(), "PNG"), grey8()),
        UNSUPPORTED,
    ),
    Case(54, "JPEG 2000 in a JPEG syntax", lambda: compressed(JPEG, stream_of(grey8()), grey8())),
    Case(
        54,
        "native pixels in a compressed syntax",
        lambda: relabelled(dicom(picture()), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
        CORRUPT,
    ),
    Case(55, "JPEG", lambda: compressed(JPEG, encoded(grey8(), "JPEG"), grey8())),
    Case(55, "JPEG 2000", lambda: compressed(J2K, stream_of(grey8()), grey8())),
    Case(55, "JPEG-LS", lambda: compressed(JPEG_LS, jpeg_ls_frame(), grey8())),
    Case(55, "RLE", rle),
    Case(
        56,
        "JPEG-LS near-lossless",
        lambda: compressed("1.2.840.10008.1.2.4.81", jpeg_ls_frame(2), grey8()),
    ),
    Case(56, "JPEG of 12 bits", twelve_bit_jpeg),
    Case(
        117,
        "JPEG 2000 with a pad byte",
        lambda: compressed(J2K, stream_of(grey8()) + b"\0", grey8()),
    ),
    Case(
        118, "pixels twice as high as wide", lambda: dicom(picture(), PixelSpacing=["0.2", "0.1"])
    ),
    Case(
        118,
        "rectangular shutter",
        lambda: dicom(
            picture(),
            ShutterShape="RECTANGULAR",
            ShutterLeftVerticalEdge="9",
            ShutterRightVerticalEdge="70",
            ShutterUpperHorizontalEdge="9",
            ShutterLowerHorizontalEdge="80",
        ),
    ),
    Case(
        118,
        "shutter that leaves nothing",
        lambda: dicom(
            picture(),
            ShutterShape="CIRCULAR",
            CenterOfCircularShutter=["1", "1"],
            RadiusOfCircularShutter="1",
        ),
    ),
    Case(56, "JPEG XL", jpeg_xl, UNSUPPORTED),
    Case(57, "JPEG 2000 of another size", lying_j2k, CORRUPT),
    Case(57, "JPEG 2000 of absurd tiles", absurd_tiles, TRUNCATED),
    Case(
        57,
        "JPEG 2000 cut",
        lambda: compressed(J2K, stream_of(grey8())[:-400], grey8()),
        TRUNCATED,
    ),
    Case(58, "RLE short", lambda: rle_segments(1, b"\x81\x00"), TRUNCATED),
    Case(58, "RLE planes", lambda: rle_segments(3, bytes(64)), CORRUPT),
    Case(59, "float pixels", float_pixels, UNSUPPORTED),
)
