"""The bytes of one member > the networks' picture of it, as the decoding process makes it.

Decode and preprocessing in one place, so that what is measured, tested and run is the same. Nothing
here guards the caller against a decoder that crashes: that is `implant_model.sandbox`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from implant_model.decode import decode
from implant_model.decode_raster import JPEG_MAGIC
from implant_model.decoded import Decoded, Header
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits
from implant_model.preprocess import Preprocessing, preprocess, trim


@dataclass(frozen=True)
class Picture:
    """What became of one member.

    Attributes:
        header: What the file says of itself; identifiers are raw.
        image: uint8 of shape (size_px, size_px); None where `reason` is set.
        reason: Why there is no picture; None where there is one.
    """

    header: Header
    image: np.ndarray | None
    reason: Reason | None


def picture_of(data: bytes | memoryview, spec: Preprocessing, limits: Limits) -> Picture:
    """Decodes and preprocesses one member on the calling thread.

    Args:
        data: The member, whole; see `decode` of a memoryview that can be written.
        spec: The package's preprocessing.
        limits: Bounds on what is read.

    Returns:
        The picture or the reason; nothing that the bytes hold raises.
    """
    decoded = decode(data, limits, spec.working_px)
    if decoded.pixels_HW is None:
        return Picture(decoded.header, None, decoded.reason)
    try:
        if spec.trim_borders and _is_coarse(data, decoded):
            decoded = decode(data, limits)
        return Picture(decoded.header, preprocess(_pixels(decoded), spec), None)
    except MemberError as error:
        return Picture(decoded.header, None, error.reason)
    except (MemoryError, cv2.error):
        return Picture(decoded.header, None, Reason.TOO_LARGE)


def _is_coarse(data: bytes | memoryview, decoded: Decoded) -> bool:
    """Whether a JPEG was decoded too small to cut its border to the pixel.

    In full it takes half as long again. JPEG 2000 would take forty times as long, and stays.
    """
    pixels_HW, header = decoded.pixels_HW, decoded.header
    if data[:3] != JPEG_MAGIC or pixels_HW is None or header.rows is None:
        return False
    is_reduced = max(pixels_HW.shape) < max(header.rows, header.columns or 0)
    return is_reduced and trim(pixels_HW).shape != pixels_HW.shape


def _pixels(decoded: Decoded) -> np.ndarray:
    if decoded.pixels_HW is None:
        raise MemberError(decoded.reason or Reason.CORRUPT, "The second decode gave no picture.")
    return decoded.pixels_HW
