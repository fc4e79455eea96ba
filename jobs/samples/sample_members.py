"""The members of the sample archives: phantoms in several file formats, and what is no radiograph.

All of it follows from a seed. Phantoms show the pipeline at work, they are no evidence about
patients.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from implant_model.errors import ImplantError, Reason
from implant_model.package.catalogue import ORTHONET, Implant
from implant_model.phantoms.files import (
    TRANSFER_SYNTAXES,
    Patient,
    draw_patient,
    write_dicom,
    write_drawn_dicom,
    write_jpeg,
    write_png,
)
from implant_model.phantoms.render import Phantom, render, render_unknown

UNKNOWN_SHARE: Final = 0.2
"""Phantoms of implants outside the catalogue for each one inside."""
HEIGHT_PX: Final = 512
_EXPLICIT: Final = TRANSFER_SYNTAXES[0]
_CS_MODALITY: Final = b"\x08\x00\x60\x00CS\x02\x00"  # (0008,0060), explicit VR, two characters
_PATIENTS: Final = 1 << 40  # keeps the patients' generators apart from the pictures'
_ODD: Final = 1 << 41


@dataclass(frozen=True)
class SampleMember:
    """One member of a sample archive, and what must become of it.

    Attributes:
        name: In the archive; it gives no information of what the picture shows.
        data: The file.
        label: Name of the implant; empty for what is no radiograph.
        patient: Patient ID of a phantom.
        side: L or R, the side that a phantom shows.
        joint: Its joint.
        reason: Why it must be rejected or ignored; None for a phantom.
    """

    name: str
    data: bytes
    label: str = ""
    patient: str = ""
    side: str = ""
    joint: str = ""
    reason: Reason | None = None


def phantoms(num_each: int, seed: int) -> Iterator[SampleMember]:
    """Phantoms of each implant of the catalogue and of others, in random order, one a patient.

    Args:
        num_each: Pictures of each implant of the catalogue.
        seed: Decides every byte.
    """
    shown: list[Implant | None] = [*ORTHONET.implants] * num_each
    shown += [None] * max(round(UNKNOWN_SHARE * len(shown)), 1)
    order = np.random.default_rng(seed).permutation(len(shown))
    for number, place in enumerate(order.tolist()):
        yield _phantom(shown[place], number, seed)


def _phantom(implant: Implant | None, number: int, seed: int) -> SampleMember:
    rng = np.random.default_rng([seed, number])
    patient = draw_patient(np.random.default_rng([seed, _PATIENTS + number]))
    picture = render_unknown(rng, HEIGHT_PX) if implant is None else render(implant, rng, HEIGHT_PX)
    ending, data = _write(picture, rng, patient)
    name = f"images/{number:05d}.{ending}"
    shown, side = picture.implant, picture.laterality
    return SampleMember(name, data, shown.name, patient.identifier, side, shown.joint)


def _write(picture: Phantom, rng: np.random.Generator, patient: Patient) -> tuple[str, bytes]:
    """Return two of three as DICOM, in any transfer syntax; the others as PNG or JPEG."""
    kind = int(rng.integers(9))
    if kind == 0:
        return "jpg", write_jpeg(picture)
    if kind < 3:
        return "png", write_png(picture, 8 * kind)
    return "dcm", write_drawn_dicom(picture, rng, patient)


def oddities(seed: int) -> list[SampleMember]:
    """Return what archives hold besides radiographs, each with the reason that it must get."""
    rng = np.random.default_rng([seed, _ODD])
    picture = render(ORTHONET.implants[0], rng, HEIGHT_PX)
    blank = replace(picture, pixels_HW=np.zeros_like(picture.pixels_HW))
    dicom = write_dicom(picture, rng, transfer_syntax=_EXPLICIT, modality="DX")
    png = write_png(picture, 8)
    return [
        SampleMember("README.txt", b"Exported for the registry.\n", reason=Reason.NOT_AN_IMAGE),
        SampleMember("DICOMDIR", b"\0" * 512, reason=Reason.CLUTTER),
        SampleMember("images/.DS_Store", b"\0\0\0\1Bud1", reason=Reason.CLUTTER),
        SampleMember("images/half.dcm", dicom[: len(dicom) // 2], reason=Reason.TRUNCATED),
        SampleMember("images/empty.dcm", b"", reason=Reason.EMPTY),
        SampleMember("images/blank.png", write_png(blank, 8), reason=Reason.BAD_PIXELS),
        SampleMember("images/slice.dcm", _as_ct(dicom), reason=Reason.NOT_A_RADIOGRAPH),
        SampleMember("__MACOSX/images/._1.dcm", b"\0\5\x16\7", reason=Reason.CLUTTER),
        SampleMember("older.zip", b"PK\x05\x06" + b"\0" * 18, reason=Reason.NESTED_ARCHIVE),
        SampleMember("images/scan.tif", b"II*\0\x08\0\0\0", reason=Reason.UNSUPPORTED_ENCODING),
        SampleMember("images/half.png", png[: len(png) // 2], reason=Reason.TRUNCATED),
        SampleMember("report.html", b"<!doctype html><p>text</p>", reason=Reason.NOT_AN_IMAGE),
    ]


def _as_ct(dicom: bytes) -> bytes:
    """Return the same file with CT for its modality."""
    if dicom.count(_CS_MODALITY + b"DX") != 1:
        raise ImplantError("The sample's DICOM file does not hold the modality DX exactly once.")
    return dicom.replace(_CS_MODALITY + b"DX", _CS_MODALITY + b"CT")
