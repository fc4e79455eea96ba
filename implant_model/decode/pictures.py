"""The bytes of one member > the networks' picture of it, as the decoding process makes it.

Decode and preprocessing in one place, so that what is measured, tested and run is the same. Nothing
here guards the caller against a decoder that crashes: that is `implant_model.decode.sandbox`.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from implant_model.decode.decoded import Decoded, Header
from implant_model.decode.prepare import decode
from implant_model.decode.preprocess import Preprocessing, preprocess, trim
from implant_model.decode.raster import JPEG_MAGIC
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits


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
    decoded = decode(data, limits, spec.working_px, unscaled=True)
    if decoded.pixels_HW is None:
        return Picture(decoded.header, None, decoded.reason)
    try:
        if spec.trim_borders and _is_reduced_jpeg(data, decoded):
            if _has_border(decoded):
                decoded = decode(data, limits)
            else:
                spec = replace(spec, trim_borders=False)  # it need not be looked for twice
        return Picture(decoded.header, preprocess(_pixels(decoded), spec), None)
    except MemberError as error:
        return Picture(decoded.header, None, error.reason)
    except (MemoryError, cv2.error):
        return Picture(decoded.header, None, Reason.TOO_LARGE)


def _is_reduced_jpeg(data: bytes | memoryview, decoded: Decoded) -> bool:
    """Whether a JPEG was decoded too small to cut a border to the pixel.

    In full it takes half as long again. JPEG 2000 would take forty times as long, and stays.
    """
    rows, columns = decoded.header.rows or 0, decoded.header.columns or 0
    return data[:3] == JPEG_MAGIC and max(_pixels(decoded).shape) < max(rows, columns)


def _has_border(decoded: Decoded) -> bool:
    pixels_HW = _pixels(decoded)
    return trim(pixels_HW).shape != pixels_HW.shape


def _pixels(decoded: Decoded) -> np.ndarray:
    if decoded.pixels_HW is None:
        raise MemberError(decoded.reason or Reason.CORRUPT, "The second decode gave no picture.")
    return decoded.pixels_HW
