"""Makes tests/decode/golden: one file of each format, and the pixels that this decode gives it.

    python -m tests.decode.make_golden

The files are written once and kept, since an encoder may change, too. The pixels, in golden.json,
are written anew after DECODE_VERSION was raised; before that, changed pixels are refused.
"""

import base64
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gdcm
import numpy as np
from PIL import Image

from implant_model.decode.prepare import decode, picture_of
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.dicom_files import TRANSFER_SYNTAXES, write_dicom
from implant_model.phantoms.render import render
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded
from tests.torture.cases.displays import lut_item

GOLDEN: Final = Path(__file__).parent / "golden"
SIZE_PX: Final = 32
BASELINE, LOSSY_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"


def main() -> int:
    """Write what is missing, then the pixels; return 3 where they changed under one version."""
    GOLDEN.mkdir(exist_ok=True)
    for name, make in {**phantoms(), **displays(), **pictures()}.items():
        file = GOLDEN / name
        if not file.exists():
            file.write_bytes(make())
    made = {file.name: pixels_of(file.read_bytes()) for file in files()}
    held = read_golden()
    if held and held["decode_version"] == DECODE_VERSION:
        changed = [
            name for name, pixels in made.items() if held["files"].get(name, pixels) != pixels
        ]
        if changed:
            print(f"Raise DECODE_VERSION first: the pixels of {', '.join(changed)} changed.")
            return 3
    document = {"decode_version": DECODE_VERSION, "files": made}
    (GOLDEN / "golden.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def files() -> list[Path]:
    """The golden files, in order."""
    return sorted(file for file in GOLDEN.iterdir() if file.name != "golden.json")


def read_golden() -> dict[str, Any]:
    """What golden.json holds; empty where there is none."""
    file = GOLDEN / "golden.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def pixels_of(data: bytes) -> dict[str, Any]:
    """The full picture's shape, type and hash, and the small picture that networks see."""
    decoded = decode(data, Limits())
    small = picture_of(data, Preprocessing(size_px=SIZE_PX), Limits())
    if decoded.pixels_HW is None or small.image is None:
        return {"reason": str(decoded.reason or small.reason)}
    pixels = np.ascontiguousarray(decoded.pixels_HW)
    return {
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "picture": base64.b64encode(small.image.tobytes()).decode(),
    }


def phantoms() -> dict[str, Callable[[], bytes]]:
    """Each lossless transfer syntax, and MONOCHROME1."""
    drawn = render(ORTHONET.implants[0], np.random.default_rng(1), 128)
    rng = np.random.default_rng
    made: dict[str, Callable[[], bytes]] = {
        f"{syntax}.dcm": lambda syntax=syntax: write_dicom(drawn, rng(2), transfer_syntax=syntax)  # type: ignore[misc]
        for syntax in TRANSFER_SYNTAXES
    }
    made["jpeg-lossless.dcm"] = lambda: lossless_jpeg(write_dicom(drawn, rng(2)))
    made["monochrome1.dcm"] = lambda: write_dicom(drawn, rng(2), photometric="MONOCHROME1")
    return made


def displays() -> dict[str, Callable[[], bytes]]:
    """What changes how values become grey."""
    grey = picture()
    curve = lut_item(np.rint(np.linspace(0, 1, 4096) ** 2 * 65535).astype(np.uint16))
    return {
        "window.dcm": lambda: dicom(grey, WindowCenter="1500", WindowWidth="1200"),
        "sigmoid.dcm": lambda: dicom(
            grey, WindowCenter="1500", WindowWidth="1200", VOILUTFunction="SIGMOID"
        ),
        "voi-lut.dcm": lambda: dicom(grey, VOILUTSequence=curve),
        "modality-lut.dcm": lambda: dicom(grey, ModalityLUTSequence=curve),
        "slope.dcm": lambda: dicom(grey, RescaleSlope="2", RescaleIntercept="-100"),
        "signed.dcm": lambda: dicom((grey.astype(np.int32) - 2048).astype(np.int16)),
        "padding.dcm": lambda: dicom(grey, PixelPaddingValue=0),
        "inverse.dcm": lambda: dicom(grey, PresentationLUTShape="INVERSE"),
        "aspect.dcm": lambda: dicom(grey, PixelAspectRatio=["2", "1"]),
        "jpeg-baseline.dcm": lambda: wrapped(BASELINE, "JPEG", quality=90),
        "jpeg2000-lossy.dcm": lambda: wrapped(
            LOSSY_2000, "JPEG2000", quality_mode="rates", quality_layers=[8], irreversible=True
        ),
    }


def pictures() -> dict[str, Callable[[], bytes]]:
    """PNG and JPEG files; two are large enough that they are decoded at a reduced size."""
    grey = picture()
    small = np.asarray(grey >> 4, np.uint8)
    large = np.asarray(picture(520, 400) >> 4, np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "grey16.png": lambda: encoded(Image.fromarray(grey << 4), "PNG"),
        "grey8.png": lambda: encoded(Image.fromarray(small), "PNG"),
        "colour.png": lambda: encoded(Image.fromarray(small).convert("RGB"), "PNG"),
        "palette.png": lambda: encoded(Image.fromarray(small).convert("P"), "PNG"),
        "grey.jpg": lambda: encoded(Image.fromarray(small), "JPEG", quality=90),
        "colour.jpg": lambda: encoded(Image.fromarray(small).convert("RGB"), "JPEG", quality=90),
        "turned.jpg": lambda: encoded(Image.fromarray(small), "JPEG", quality=90, exif=turned),
        "large.jpg": lambda: encoded(Image.fromarray(large), "JPEG", quality=85),
        "large-2000.dcm": lambda: wrapped(
            "1.2.840.10008.1.2.4.90", "JPEG2000", large, irreversible=False
        ),
    }


def wrapped(syntax: str, file_format: str, pixels: np.ndarray | None = None, **more: Any) -> bytes:
    """An 8-bit picture in DICOM, compressed by Pillow."""
    grey = np.asarray(picture() >> 4, np.uint8) if pixels is None else pixels
    options = {**more, "no_jp2": True} if file_format == "JPEG2000" else more
    return to_bytes(dataset(grey), syntax, encoded(Image.fromarray(grey), file_format, **options))


def lossless_jpeg(data: bytes) -> bytes:
    """The same picture in JPEG Lossless, process 14 (1.2.840.10008.1.2.4.70), by GDCM."""
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.dcm"), Path(folder, "packed.dcm")
        plain.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        writer = gdcm.ImageWriter()
        if not reader.Read():
            raise RuntimeError("GDCM does not read the phantom.")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM does not compress the phantom.")
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM does not write the phantom.")
        return packed.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
