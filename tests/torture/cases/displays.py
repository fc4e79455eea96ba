"""Classes 60 to 70: how stored values become a picture."""

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from implant_model.errors import Reason
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.torture.cases.case import Case
from tests.torture.cases.files import with_element

CENTER, WIDTH, SLOPE, INTERCEPT = 0x00281050, 0x00281051, 0x00281053, 0x00281052


def windowed(center: bytes, width: bytes) -> bytes:
    """A window whose values are any text."""
    data = with_element(dicom(picture()), CENTER, b"DS", center + b" " * (len(center) % 2))
    return with_element(data, WIDTH, b"DS", width + b" " * (len(width) % 2))


def window(what: str, center: bytes, width: bytes, number: int = 60) -> Case:
    return Case(number, what, lambda: windowed(center, width))


def sloped(slope: bytes, intercept: bytes = b"0 ") -> Callable[[], bytes]:
    def make() -> bytes:
        data = with_element(dicom(picture()), INTERCEPT, b"DS", intercept)
        return with_element(data, SLOPE, b"DS", slope + b" " * (len(slope) % 2))

    return make


def lut_item(entries: np.ndarray, first: int = 0) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, 16])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def squared() -> Sequence:
    return lut_item(np.rint(np.linspace(0, 1, 4096) ** 2 * 65535))


def constant(value: int) -> Callable[[], bytes]:
    return lambda: dicom(np.full((96, 80), value, np.uint16))


def padded() -> bytes:
    pixels = np.full((140, 120), 4095, np.uint16)
    pixels[20:116, 20:100] = picture() // 4 + 1000
    ds = dataset(pixels)
    ds.add_new(0x00280120, "US", 4095)
    return to_bytes(ds)


def shown(number: int, what: str, **attributes: Any) -> Case:
    return Case(number, what, lambda: dicom(picture(), **attributes))


def marked() -> bytes:
    """A side marker burned in: a letter of full brightness at the border."""
    pixels = picture()
    pixels[4:16, 4:6] = pixels[14:16, 4:12] = 4095
    return dicom(pixels)


BAD = Reason.BAD_PIXELS
CASES = (
    window("width 0", b"2048", b"0"),
    window("width a half", b"2048", b"0.5"),
    window("width negative", b"2048", b"-300"),
    window("window beside the values", b"-9999", b"100"),
    window("centre NaN", b"nan", b"4000", 61),
    window("width infinite", b"2048", b"inf", 61),
    window("window empty", b"", b"", 61),
    window("window of letters", b"x", b"y", 61),
    window("decimal comma", b"2048,5", b"1001", 61),
    window("windows of unequal number", b"2048\\300\\1", b"1001", 61),
    shown(62, "VOI LUT", VOILUTSequence=squared()),
    shown(62, "VOI LUT and window", VOILUTSequence=squared(), WindowCenter=1, WindowWidth=2),
    shown(63, "modality LUT", ModalityLUTSequence=squared()),
    *(
        Case(63, f"slope {what}", sloped(slope))
        for what, slope in (("0", b"0"), ("empty", b""), ("NaN", b"nan"), ("of 1e400", b"1e400"))
    ),
    Case(63, "intercept of letters", sloped(b"1 ", b"abcd")),
    shown(64, "sigmoid", VOILUTFunction="SIGMOID", WindowCenter=2000, WindowWidth=1000),
    shown(64, "unknown function", VOILUTFunction="CUBIC", WindowCenter=2000, WindowWidth=1000),
    Case(65, "constant", constant(700), BAD),
    Case(65, "all black", constant(0), BAD),
    Case(65, "all white", constant(4095), BAD),
    shown(66, "inverse presentation", PresentationLUTShape="INVERSE"),
    Case(67, "padding value", padded),
    window("window for 8 bits", b"127", b"255", 68),
    shown(69, "tall pixels", PixelAspectRatio=[2, 1]),
    shown(69, "absurd pixels", PixelAspectRatio=[1, 1000]),
    shown(70, "orientation flipped", PatientOrientation=["R", "H"]),
    Case(70, "side marker", marked),
)
