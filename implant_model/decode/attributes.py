"""Values of DICOM attributes out of their bytes, whatever their VR claims (PS3.5 section 6.2).

pydicom converts a value by the VR that the file states, and warns with the value in the message
where that fails. These accessors take what can be had of the bytes and return None for the rest.
"""

import struct
import unicodedata
from collections.abc import Iterator

from implant_model.decode.decoded import Header
from implant_model.decode.elements import Elements
from implant_model.decode.kinds import (
    defined_body_part,
    defined_laterality,
    defined_modality,
    defined_view,
)
from implant_model.errors import Doubt

CHARACTER_SET = 0x00080005
PRESENTATION_INTENT = 0x00080068
INTENSITY_SIGN = 0x00281041
_USUAL_SHAPE = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
_LOW_IS_BONE = {1: True, 0xFFFF: False, -1: False}
"""By the Pixel Intensity Relationship Sign, a signed short: 1 where high values are much beam."""
LARGEST_IDENTIFIER = 256  # characters; LO holds 64, broken files more


class Attributes:
    """The attributes of one dataset.

    Attributes:
        elements: The elements that hold them.
    """

    def __init__(self, elements: Elements) -> None:
        self.elements = elements

    @staticmethod
    def wanted() -> frozenset[int]:
        """Return tags that the decoder reads; nothing else of a file is kept."""
        return WANTED

    def raw(self, tag: int) -> bytes:
        """Return value bytes; empty where the element is missing."""
        return self.elements.values.get(tag, b"")

    def text(self, tag: int) -> str:
        """First value of an element of ASCII text, without padding; empty where there is none."""
        first = self.raw(tag).split(b"\\", 1)[0]
        return first.decode("ascii", "replace").strip("\0 \t\r\n")

    def integer(self, tag: int) -> int | None:
        """Return a binary whole number (US or UL); of another length, what it states as text."""
        raw = self.raw(tag)
        if len(raw) == 2:
            return int(struct.unpack(self._order + "H", raw)[0])
        if len(raw) == 4:
            return int(struct.unpack(self._order + "I", raw)[0])
        return self.written_integer(tag)

    def written_integer(self, tag: int) -> int | None:
        """Return a whole number in text (IS)."""
        number = _number(self.text(tag))
        return int(number) if number is not None and abs(number) < 2**63 else None

    def shorts(self, tag: int) -> list[int]:
        """Return unsigned 16-bit numbers."""
        raw = self.raw(tag)
        return list(struct.unpack(f"{self._order}{len(raw) // 2}H", raw[: len(raw) // 2 * 2]))

    def decimal(self, tag: int) -> float | None:
        """First value of a DS; a decimal comma is read as a point. None for what is no number."""
        return _number(self.text(tag))

    def decimals(self, tag: int) -> list[float | None]:
        """Return all values of a DS or IS."""
        parts = self.raw(tag).decode("ascii", "replace").split("\\")
        return [_number(part.strip("\0 ")) for part in parts]

    def identifier(self, tag: int) -> str | None:
        """A text in the file's character set, stripped, as valid Unicode without control codes."""
        raw = self.raw(tag).strip(b"\0 ")
        if not raw:
            return None
        text = _decoded(raw, self.raw(CHARACTER_SET))[:LARGEST_IDENTIFIER]
        text = text.encode("utf-8", "replace").decode("utf-8")
        return "".join(c for c in text if unicodedata.category(c) != "Cc").strip() or None

    @property
    def _order(self) -> str:
        return "<" if self.elements.little else ">"


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def _decoded(raw: bytes, character_set: bytes) -> str:
    """Decode by Specific Character Set (PS3.5 6.1); by Latin-1 where that is unknown or fails."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    # Two thirds of the time that the decoders take to import, for the few files that need it.
    from pydicom.charset import convert_encodings, decode_bytes

    names = [name.strip("\0 ") for name in character_set.decode("ascii", "replace").split("\\")]
    try:
        return str(decode_bytes(raw, convert_encodings(names), set()))
    except Exception:  # no character set may cost a picture, and pydicom raises many kinds
        return raw.decode("latin-1")


def header_of(attributes: Attributes) -> Header:
    """Return what the tables may show of a file; never raises."""
    rows, columns = attributes.integer(0x00280010), attributes.integer(0x00280011)
    laterality = attributes.text(0x00200062) or attributes.text(0x00200060)
    return Header(
        rows=rows if rows is not None and 0 <= rows < 2**31 else None,
        columns=columns if columns is not None and 0 <= columns < 2**31 else None,
        patient=attributes.identifier(0x00100020),
        study=attributes.identifier(0x0020000D),
        series=attributes.identifier(0x0020000E),
        instance=attributes.identifier(0x00080018),
        accession=attributes.identifier(0x00080050),
        modality=defined_modality(attributes.text(0x00080060).upper()),
        body_part=defined_body_part(attributes.text(0x00180015).upper()),
        view=defined_view(attributes.text(0x00185101).upper()),
        laterality=defined_laterality(laterality.upper()),
        doubts=tuple(_doubts(attributes)),
    )


def _doubts(attributes: Attributes) -> Iterator[Doubt]:
    """Yield what the header leaves in doubt of the picture's looks (PS3.3 C.8.11.3, C.11.6).

    MONOCHROME1 goes with a presentation LUT of INVERSE and MONOCHROME2 with IDENTITY; and bone,
    which little of the beam gets through, is to be bright: the sign of the relation between values
    and the beam's intensity tells which values are bone.
    """
    if attributes.text(PRESENTATION_INTENT).upper() == "FOR PROCESSING":
        yield Doubt.FOR_PROCESSING
    photometric, shape = attributes.text(0x00280004).upper(), attributes.text(0x20500020).upper()
    if photometric not in _USUAL_SHAPE:
        return
    sign, slope = attributes.integer(INTENSITY_SIGN), attributes.decimal(0x00281053)
    is_inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    low_is_bright = is_inverted != (slope is not None and slope < 0)
    contradicts = shape in _USUAL_SHAPE.values() and shape != _USUAL_SHAPE[photometric]
    if contradicts or (sign in _LOW_IS_BONE and _LOW_IS_BONE[sign] != low_is_bright):
        yield Doubt.POLARITY


WANTED = frozenset(
    {
        CHARACTER_SET,
        *(0x00080016, 0x00080018, 0x00080050, 0x00080060, 0x00080064, 0x00100020),
        *(PRESENTATION_INTENT, INTENSITY_SIGN),
        *(0x00181600, 0x00181602, 0x00181604, 0x00181606, 0x00181608, 0x00181610, 0x00181612),
        *(
            0x00181620,
            0x00180015,
            0x00185101,
            0x00181164,
            0x0020000D,
            0x0020000E,
            0x00200060,
            0x00200062,
        ),
        *(0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280030),
        0x00280034,
        *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121),
        *(0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x20500020),
        *(0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203),
        *(0x00283000, 0x00283010),
        *(0x00283002, 0x00283006),
    }
)
