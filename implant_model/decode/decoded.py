"""What a decoded member is: the header values that the tables may show, and the picture.

`implant_model.decode.prepare` is the place to import them from. Knows nothing of file formats.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from implant_model.archives.members import Member
from implant_model.errors import Doubt, Outcome, Reason

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file states of itself; None where it gives no information that is understood.

    Identifiers are raw values: they go through `implant_model.privacy` before they are written, are
    never logged, and are left out of `repr`.

    Attributes:
        rows: Height of the stored image in pixels, before any turn, cut or resize.
        columns: Width of the stored image in pixels.
        frame: Index of the frame, from 0.
        patient: Patient ID (0010,0020).
        study: Study Instance UID (0020,000D).
        series: Series Instance UID (0020,000E).
        instance: SOP Instance UID (0008,0018).
        accession: Accession Number (0008,0050).
        modality: Modality (0008,0060), a defined term of PS3.3 C.7.3.1.1.1.
        body_part: Body Part Examined (0018,0015), a defined term of PS3.16 Annex L.
        view: View Position (0018,5101), a defined term.
        laterality: `R`, `L`, `B` or `U`, of (0020,0062) or else (0020,0060).
        doubts: Why the picture may not look as radiographs do, see `Doubt`.
    """

    rows: int | None = None
    columns: int | None = None
    frame: int = 0
    patient: str | None = field(default=None, repr=False)
    study: str | None = field(default=None, repr=False)
    series: str | None = field(default=None, repr=False)
    instance: str | None = field(default=None, repr=False)
    accession: str | None = field(default=None, repr=False)
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    laterality: str | None = None
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """One member after its decode: a picture, or the reason why there is none.

    Attributes:
        header: What the file states of itself, as far as it could be read.
        pixels_HW: Display-ready grey of shape (height, width), uint8 or uint16, upright, 0 black,
            bone bright, scaled to the full range of its type (unless `unscaled` was asked for);
            None where `reason` is set.
        reason: Why there is no picture; None where there is one.
    """

    header: Header
    pixels_HW: Pixels | None
    reason: Reason | None


@dataclass(frozen=True)
class Prepared:
    """One member, ready for the networks.

    Attributes:
        header: What the file states of itself; identifiers are raw.
        image: uint8 of shape (size_px, size_px); None where `reason` is set.
        reason: Why there is no picture; None where there is one.
    """

    header: Header
    image: np.ndarray | None
    reason: Reason | None

    @property
    def outcome(self) -> Outcome | None:
        """Return what becomes of the member; None while its picture waits for the classifier."""
        if self.reason is None:
            return None
        return Outcome.IGNORED if self.reason is Reason.CLUTTER else Outcome.REJECTED


def prepare_member(member: Member, prepare: Callable[[bytes | memoryview], Prepared]) -> Prepared:
    """Have a member's content prepared, or give the reason why it has none."""
    if member.data is None:
        return Prepared(Header(), None, member.reason)
    return prepare(member.data)
