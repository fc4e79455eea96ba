"""The archives that `benchmarks.speed` reads: tars of phantoms, one folder for each kind of file.

Phantoms of a detector's size take seconds to draw and to encode, so that a tar repeats a few of
them, and what asks for more archives gets more names (links) of one tar. Every contender reads the
same files. Phantoms are no evidence about patients.
"""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.dicom_files import write_dicom
from implant_model.phantoms.picture_files import write_jpeg, write_png
from implant_model.phantoms.render import Phantom, render

NUM_DIFFERENT: Final = 4
"""Pictures that differ within a tar."""
LARGE: Final = (2500, 2048)
SMALL: Final = (250, 250)


@dataclass(frozen=True)
class Kind:
    """One kind of archive, and what the contenders are expected to take for a picture of it.

    Attributes:
        title: What the table calls it.
        shape: Rows and columns of a picture.
        suffix: Of the members' names.
        members: Pictures in one tar.
        encode: Phantom to file.
        expected_ms: Wall milliseconds a picture of each contender on two cores; only decides how
            many archives fill the time that is asked for.
        least: Ratios that the project set itself: to the loader, to the tuned loop, to plain Ray
            Data, and to the limit.
    """

    title: str
    shape: tuple[int, int]
    suffix: str
    members: int
    encode: Callable[[Phantom], bytes]
    expected_ms: dict[str, float]
    least: tuple[float, float, float, float]

    @property
    def is_dicom(self) -> bool:
        """Return whether the pictures are DICOM files."""
        return self.suffix == ".dcm"


def _dicom(transfer_syntax: str) -> Callable[[Phantom], bytes]:
    return lambda phantom: write_dicom(
        phantom, np.random.default_rng(0), transfer_syntax=str(transfer_syntax)
    )


def _kind(
    title: str,
    suffix: str,
    encode: Callable[[Phantom], bytes],
    expected_ms: tuple[float, float, float, float, float],
    least: tuple[float, float, float, float],
) -> Kind:
    expected = dict(zip(("job", "loader", "tuned", "ray", "daft"), expected_ms, strict=True))
    return Kind(title, LARGE, suffix, 16, encode, expected, least)


KINDS: Final = {
    "dicom": _kind(
        "DICOM 16 bit uncompressed", ".dcm", _dicom(ExplicitVRLittleEndian),
        (7, 65, 18, 90, 0), (11, 2, 15, 0.80),
    ),
    "jpeg2000": _kind(
        "DICOM JPEG 2000 lossless", ".dcm", _dicom(JPEG2000Lossless), (20, 370, 130, 400, 0),
        (18, 2, 19, 0.85),
    ),
    "jpegls": _kind(
        "DICOM JPEG-LS", ".dcm", _dicom(JPEGLSLossless), (60, 160, 80, 250, 0),
        (3, 1.2, 4, 0.85),
    ),
    "rle": _kind(
        "DICOM RLE", ".dcm", _dicom(RLELossless), (11, 110, 40, 200, 0),
        (10, 2, 16, 0.80),
    ),
    "jpeg": _kind(
        "JPEG 2500 x 2048, 8 bit", ".jpg", write_jpeg, (8, 21, 14, 27, 25),
        (4, 1.2, 5, 0.80),
    ),
    "png": _kind(
        "PNG 2500 x 2048, 16 bit", ".png", write_png, (27, 70, 40, 90, 80),
        (3.5, 1.2, 4, 0.85),
    ),
    "small": Kind(
        "JPEG 250 x 250", SMALL, ".jpg", 256, write_jpeg,
        {"job": 4, "loader": 11, "tuned": 6, "ray": 13, "daft": 10}, (4, 1.2, 4, 0.75),
    ),
}  # fmt: skip


def phantoms(shape: tuple[int, int]) -> list[Phantom]:
    """Draw the pictures that differ, all of one shape."""
    drawn = []
    for number in range(NUM_DIFFERENT):
        implant = ORTHONET.implants[number * len(ORTHONET) // NUM_DIFFERENT]
        phantom = render(implant, np.random.default_rng(number), shape[0])
        resized = cv2.resize(phantom.pixels_HW, shape[::-1], interpolation=cv2.INTER_AREA)
        drawn.append(replace(phantom, pixels_HW=resized.astype(np.uint16)))
    return drawn


def pictures(kind: Kind) -> list[bytes]:
    """Return the members that differ."""
    return [kind.encode(phantom) for phantom in phantoms(kind.shape)]


def write_tar(path: Path, members: list[bytes], kind: Kind) -> None:
    """Write a tar of so many members; nothing where it is there already."""
    if path.exists():
        return
    unfinished = path.with_suffix(".part")
    with tarfile.open(unfinished, "w") as archive:
        for number in range(kind.members):
            data = members[number % len(members)]
            header = tarfile.TarInfo(f"{number:06}{kind.suffix}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    unfinished.rename(path)


def prepare(folder: Path, name: str) -> Path:
    """Write the tar of a kind below `folder`; return its path."""
    path = folder / f"{name}.tar"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_tar(path, pictures(KINDS[name]), KINDS[name])
    return path


def link(tar: Path, folder: Path, count: int) -> list[Path]:
    """Give one tar `count` names in a new folder."""
    folder.mkdir(parents=True)
    names = [folder / f"{number:05}.tar" for number in range(count)]
    for name in names:
        name.hardlink_to(tar)
    return names
