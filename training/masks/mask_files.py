"""Masks as PNG files: written for a look and a correction, read back in their place.

A mask belongs to the member of its name: `FOLDER/ARCHIVE/MEMBER.png`, or `FOLDER/MEMBER.png`, with
or without the member's own ending (`00012.dcm` has `00012.dcm.png` or `00012.png`). Of its
darkest and its brightest grey the brighter is implant, whatever they are: masks of 0 and 1 are
common. A mask has the size of the prepared picture, which `write_masks` puts beside it. Masks that
a labels file names have the radiograph's own size, see `training.masks.table_masks`.

Shapes: N images, S side of the prepared picture, H rows, W columns.
"""

import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from implant_model.content import PNG_MAGIC
from implant_model.errors import UsageError
from implant_model.storage.local_files import write_whole

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PICTURE = ".picture.png"
MAX_BYTES = 16 << 20  # of a mask's file; one of 4096 px without compression has as many
MAX_BETWEEN = 0.05  # share of a mask's pixels that are neither black nor white: its outline's
MAX_WHITE = 0.75  # share that is implant; of a negative more is
TILE_PX = 192
TILES = 8  # in a row of a contact sheet
FOUND, TRUE = (0, 0, 255), (0, 200, 0)  # blue, green, red


def mask_files(folder: Path) -> set[Path]:
    """All files of a folder that may be masks; pictures that `write_masks` put beside them are not.

    Raises:
        UsageError: It is no folder that can be read.
    """
    if not folder.is_dir():
        raise UsageError(f"segmenter.masks is {folder}; a folder of masks is expected, or nothing.")
    return {file for file in folder.rglob("*.png") if not file.name.endswith(PICTURE)}


def mask_file(folder: Path, archive: str, member: str) -> Path | None:
    """Return the file of a member's mask, or None where there is none.

    Args:
        folder: Of masks.
        archive: The archive's path below --images; "" for none.
        member: Name inside. A name that leads out of the folder has no mask.
    """
    inside = PurePosixPath(member)
    for place in (PurePosixPath(archive) / inside, inside):
        for name in (f"{place}.png", str(place.with_suffix(".png")) if place.name else ""):
            file = folder.joinpath(*PurePosixPath(name).parts) if is_inside(name) else folder
            if file.is_file():
                return file
    return None


def is_inside(name: str) -> bool:
    """Return whether a file of this name lies in the folder that it is joined to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name


def read_mask(file: Path, size_px: int, what: str) -> Mask:
    """Read a mask.

    Args:
        file: PNG, grey or colour.
        size_px: S; the mask must be (S, S).
        what: Calls the mask in messages; its file has a member's name.

    Raises:
        UsageError: It cannot be read, has another size, or shows what is no mask.
    """
    try:
        data = file.read_bytes() if file.stat().st_size <= MAX_BYTES else b""
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}.") from error
    pixels_HW = _decoded(data)
    if pixels_HW is None:
        raise UsageError(f"{what} is no PNG of at most {MAX_BYTES >> 20} MiB.")
    if pixels_HW.shape != (size_px, size_px):
        raise UsageError(
            f"{what} has {pixels_HW.shape[0]} rows and {pixels_HW.shape[1]} columns; "
            f"{size_px} of each are expected, as the prepared picture has them."
        )
    return _mask_of(pixels_HW, what)


def mask_of_radiograph(data: bytes, shape: tuple[int, ...], what: str) -> Mask:
    """Return the mask that a PNG of a radiograph's own size is.

    Its darkest grey is black and its brightest white, whatever they are: masks of 0 and 1 are
    common.

    Args:
        data: The file.
        shape: Rows and columns of the radiograph.
        what: Calls the mask in messages.

    Raises:
        UsageError: It is no PNG, has another size, or shows what is no mask.
    """
    size = png_shape(data)
    if size is not None and size != tuple(shape):
        raise UsageError(
            f"{what} has {size[0]} rows and {size[1]} columns, and its radiograph {shape[0]} and "
            f"{shape[1]}; the size of the radiograph is expected."
        )
    pixels_HW = None if size is None else _decoded(data)
    if pixels_HW is None:
        raise UsageError(f"{what} is no PNG of at most {MAX_BYTES >> 20} MiB.")
    return _mask_of(pixels_HW, what)


def _mask_of(pixels_HW: NDArray[np.uint8 | np.uint16], what: str) -> Mask:
    """Return what is bright of a mask's greys, whichever two they are.

    Raises:
        UsageError: It shows what is no mask.
    """
    black, white = int(pixels_HW.min()), int(pixels_HW.max())
    near = (white - black) / 8
    between_HW = (pixels_HW > black + near) & (pixels_HW < white - near)
    mask_HW: Mask = pixels_HW > (black + white) / 2
    faults = {
        "is of one grey": black == white,
        "has many greys, as a radiograph has": between_HW.mean() > MAX_BETWEEN,
        f"is white on more than {MAX_WHITE:.0%}, as a negative is": mask_HW.mean() > MAX_WHITE,
    }
    for fault in (fault for fault, has_it in faults.items() if has_it):
        raise UsageError(f"{what} {fault}; the implant in white on black is expected.")
    return mask_HW


def png_shape(data: bytes) -> tuple[int, int] | None:
    """Return rows and columns that a PNG states in its IHDR chunk; None of what is no PNG."""
    if not data.startswith(PNG_MAGIC) or len(data) < 24:
        return None
    columns, rows = struct.unpack(">II", data[16:24])
    return rows, columns


def _decoded(data: bytes) -> NDArray[np.uint8 | np.uint16] | None:
    """Decode a PNG to grey, in its own depth."""
    if not data.startswith(PNG_MAGIC):
        return None
    how = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None
    return None if pixels is None else cast("NDArray[np.uint8 | np.uint16]", pixels)


def write_masks(folder: Path, names: Sequence[str], images_NSS: Grey, masks_NSS: Mask) -> None:
    """Write masks, and beside each its picture as `NAME.picture.png`.

    Args:
        folder: Made if it is not there; masks of the same names are replaced.
        names: Of the files, without an ending; they may hold slashes.
        images_NSS: Prepared pictures.
        masks_NSS: bool.

    Raises:
        UsageError: A name leads out of the folder.
    """
    for name, image_SS, mask_SS in zip(names, images_NSS, masks_NSS, strict=True):
        if not is_inside(name):
            raise UsageError("A mask cannot be written: its member's name leads out of the folder.")
        file = folder.joinpath(*PurePosixPath(name).parts)
        write_whole(file.with_name(f"{file.name}.png"), _png(mask_SS.astype(np.uint8) * 255))
        write_whole(file.with_name(f"{file.name}{PICTURE}"), _png(image_SS))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise UsageError(f"A picture of shape {pixels.shape} cannot be written as PNG.")
    return bytes(data)


def contact_sheet(cases: Sequence[tuple[Grey, Mask, Mask | None]]) -> bytes:
    """Return pictures with the outlines of their masks, as one PNG.

    Args:
        cases: Picture, found mask (red), true mask (green) or None; at least one.
    """
    tiles = [_tile(*case) for case in cases]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % TILES)
    rows = [np.hstack(tiles[start : start + TILES]) for start in range(0, len(tiles), TILES)]
    return _png(np.vstack(rows))


def _tile(image_HW: Grey, found_HW: Mask, true_HW: Mask | None) -> NDArray[np.uint8]:
    tile = cv2.resize(cv2.cvtColor(image_HW, cv2.COLOR_GRAY2BGR), (TILE_PX, TILE_PX))
    for mask_HW, colour in ((true_HW, TRUE), (found_HW, FOUND)):
        if mask_HW is not None:
            size = (TILE_PX, TILE_PX)
            large_HW = cv2.resize(mask_HW.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(large_HW, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, outlines, -1, colour, 1)
    return np.asarray(tile, np.uint8)
