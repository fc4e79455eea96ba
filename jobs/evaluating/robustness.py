"""What poor scans do to a picture, as pure functions: blur, noise, exposure, turn, crop, and so on.

They work on preprocessed pictures, so lengths are in pixels of the networks' input and shares are
of its side: the same strength means the same to every package, whatever its input size. The kinds
are those that Patel et al. 2021 varied (10.1148/ryai.2021200183), and what archives do besides.

Shapes: N images, H rows, W columns; uint8 in and out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Distortion:
    """One kind of poor scan at one strength.

    Attributes:
        kind: What is done, such as `blur`.
        strength: How much, in words, with its unit.
        apply: The pure function, NHW to NHW.
    """

    kind: str
    strength: str
    apply: Callable[[Images], Images]

    @property
    def name(self) -> str:
        """Return kind and strength."""
        return f"{self.kind}, {self.strength}"


def blur(images_NHW: Images, sigma: float) -> Images:
    """Blur with a Gaussian of `sigma`, a share of the side, such as 0.01."""
    sigma_px = sigma * images_NHW.shape[1]

    def one(image_HW: Images) -> Images:
        return _bytes(cv2.GaussianBlur(image_HW, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT))

    return _each(images_NHW, one)


def noise(images_NHW: Images, sigma: float, seed: int = 0) -> Images:
    """Add Gaussian noise of `sigma`, a share of white; each image has its own, by its place."""

    def one(place: int, image_HW: Images) -> Images:
        rng = np.random.default_rng([seed, place])
        grain_HW = rng.normal(0.0, 255 * sigma, image_HW.shape)
        return _bytes(image_HW + grain_HW)

    return _stack(images_NHW, (one(*pair) for pair in enumerate(images_NHW)))


def exposure(images_NHW: Images, gamma: float) -> Images:
    """Bend the greys: white x (grey / white)^gamma; over 1 is darker, black and white stay."""
    levels = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return np.asarray(levels[images_NHW], np.uint8)


def rotation(images_NHW: Images, degrees: float) -> Images:
    """Turn about the centre, counter-clockwise; the corners are filled with black."""
    height, width = images_NHW.shape[1:]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)

    def one(image_HW: Images) -> Images:
        return _bytes(cv2.warpAffine(image_HW, matrix, (width, height), flags=cv2.INTER_LINEAR))

    return _each(images_NHW, one)


def crop(images_NHW: Images, share: float) -> Images:
    """Cut `share` of each side off, half at either end, and enlarge the rest to the old size."""
    height, width = images_NHW.shape[1:]
    top, left = round(height * share / 2), round(width * share / 2)

    def one(image_HW: Images) -> Images:
        rest_HW = image_HW[top : height - top, left : width - left]
        return _bytes(cv2.resize(rest_HW, (width, height), interpolation=cv2.INTER_LINEAR))

    return _each(images_NHW, one)


def jpeg(images_NHW: Images, quality: int) -> Images:
    """Store and read back as JPEG of `quality` 1..100."""

    def one(image_HW: Images) -> Images:
        done, data = cv2.imencode(".jpg", image_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not done:
            raise ValueError(f"OpenCV could not write a JPEG of shape {image_HW.shape}.")
        return _bytes(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)))

    return _each(images_NHW, one)


def downscale(images_NHW: Images, factor: float) -> Images:
    """Average down to 1 / `factor` of each side, and enlarge to the old size."""
    height, width = images_NHW.shape[1:]
    small = max(1, round(width / factor)), max(1, round(height / factor))

    def one(image_HW: Images) -> Images:
        reduced_HW = cv2.resize(image_HW, small, interpolation=cv2.INTER_AREA)
        return _bytes(cv2.resize(reduced_HW, (width, height), interpolation=cv2.INTER_LINEAR))

    return _each(images_NHW, one)


def distortions() -> Iterator[Distortion]:
    """Yield each kind of poor scan, mild and then strong."""
    for sigma in (0.005, 0.015):
        yield Distortion("blur", f"{100 * sigma:g} % of the side", partial(blur, sigma=sigma))
    for sigma in (0.04, 0.12):
        yield Distortion("noise", f"{100 * sigma:g} % of white", partial(noise, sigma=sigma))
    for gamma in (0.6, 1.67):
        meant = f"{'brighter' if gamma < 1 else 'darker'}, gamma {gamma:g}"
        yield Distortion("exposure", meant, partial(exposure, gamma=gamma))
    for degrees in (5.0, -15.0):
        turned = f"{abs(degrees):g} degrees {'counter-' if degrees > 0 else ''}clockwise"
        yield Distortion("rotation", turned, partial(rotation, degrees=degrees))
    for share in (0.1, 0.25):
        yield Distortion("crop", f"{100 * share:g} % of each side", partial(crop, share=share))
    for quality in (40, 10):
        yield Distortion("JPEG", f"quality {quality}", partial(jpeg, quality=quality))
    for factor in (2.0, 4.0):
        yield Distortion("downscale", f"{factor:g} times", partial(downscale, factor=factor))


def _each(images_NHW: Images, one: Callable[[Images], Images]) -> Images:
    return _stack(images_NHW, map(one, images_NHW))


def _stack(images_NHW: Images, changed: Iterator[Images]) -> Images:
    """Keep the shape of a set without an image."""
    return np.stack([*changed]) if len(images_NHW) else images_NHW.copy()


def _bytes(image_HW: NDArray[np.generic]) -> Images:
    return np.clip(np.rint(np.asarray(image_HW, np.float32)), 0, 255).astype(np.uint8)
