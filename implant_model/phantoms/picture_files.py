"""Phantoms as PNG and JPEG files. They show the pipeline at work, no evidence about patients.

Shape letters: H rows, W columns.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.phantoms.render import Phantom


def write_png(phantom: Phantom, bits: int = 16) -> bytes:
    """Write a phantom as a grey PNG of 8 or 16 bits; it is no evidence about patients.

    Raises:
        UsageError: `bits` is neither 8 nor 16.
    """
    grey_HW = phantom.pixels_HW
    if bits == 16:
        return _imencode(".png", ((grey_HW << 4) | (grey_HW >> 8)).astype(np.uint16))
    if bits == 8:
        return _imencode(".png", _eight_bits(grey_HW))
    raise UsageError(f"A PNG of {bits} bits was asked for; 8 or 16 are accepted.")


def write_jpeg(phantom: Phantom, quality: int = 92) -> bytes:
    """Write a phantom as a grey JPEG of 8 bits; it is no evidence about patients.

    Raises:
        UsageError: `quality` is not in 1..100.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"A JPEG of quality {quality} was asked for; 1 to 100 is accepted.")
    return _imencode(".jpg", _eight_bits(phantom.pixels_HW), [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_mask(phantom: Phantom) -> bytes:
    """Write a phantom's implant mask as a PNG of 0 and 255; it is no evidence about patients."""
    return _imencode(".png", phantom.mask_HW.astype(np.uint8) * np.uint8(255))


def _eight_bits(grey_HW: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return 0..4095 to 0..255, rounded to the nearest."""
    return ((grey_HW.astype(np.uint32) * 255 + 2047) // 4095).astype(np.uint8)


def _imencode(
    suffix: str, image_HW: NDArray[np.uint8] | NDArray[np.uint16], options: Sequence[int] = ()
) -> bytes:
    done, data = cv2.imencode(suffix, image_HW, list(options))
    if not done:
        raise UsageError(f"OpenCV could not write a {suffix} of shape {image_HW.shape}.")
    return data.tobytes()
