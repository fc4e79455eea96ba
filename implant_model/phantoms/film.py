"""From chord lengths in the body to the grey values of a radiograph.

Beer-Lambert attenuation of an effectively monoenergetic beam of about 55 keV, scatter as a wide
blur of what passes, detector blur, quantum and electronic noise, collimation, lead markers, and the
log, dynamic-range compression, edge enhancement and window of a digital system. Attenuation
coefficients are rounded from the NIST tables (Hubbell and Seltzer 1995, NISTIR 5632) at 50-60 keV.

The pictures show the pipeline at work, they are no evidence about patients.

Shape letters: H rows, W columns.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from implant_model.phantoms.solids import Frame, Map

# Linear attenuation in 1/mm; bone, cement and polyethylene are what they add to soft tissue.
SOFT = 0.021
BONE = 0.055
TITANIUM = 0.45
COBALT_CHROME = 1.1
STEEL = 1.0
ZIRCONIUM = 1.3
CERAMIC = 0.13
CEMENT = 0.055
POLYETHYLENE = -0.003

WHITE = 4095  # 12 bits stored
_SEEN = 0.12  # optical depth above which a pixel belongs to the implant's mask


@dataclass(frozen=True)
class Scene:
    """What is between tube and detector; the maps are filled in place.

    Attributes:
        soft_HW: Soft tissue in mm.
        bone_HW: Bone in mm of cortical bone.
        cement_HW: Optical depth of cement and polyethylene: not part of the mask.
        implant_HW: Optical depth of metal and ceramic.
        frame: Millimetres of the detector plane, from its upper left corner, to pixels.
    """

    soft_HW: Map
    bone_HW: Map
    cement_HW: Map
    implant_HW: Map
    frame: Frame

    @property
    def size_mm(self) -> tuple[float, float]:
        """Return height and width of the field in millimetres."""
        height, width = self.soft_HW.shape
        return height / self.frame.px_per_mm, width / self.frame.px_per_mm

    def flipped(self) -> "Scene":
        """The same scene with left and right exchanged; the frame stays that of the detector."""
        maps = (self.soft_HW, self.bone_HW, self.cement_HW, self.implant_HW)
        soft, bone, cement, implant = (np.ascontiguousarray(m[:, ::-1]) for m in maps)
        return Scene(soft, bone, cement, implant, self.frame)

    def mask(self) -> NDArray[np.bool_]:
        """(H, W), where metal or ceramic lies in the beam."""
        return self.implant_HW > _SEEN


def new_scene(height_px: int, width_px: int, spacing_mm: float) -> Scene:
    """Return an empty scene of (height_px, width_px) pixels, `spacing_mm` apart."""
    soft, bone, cement, implant = (np.zeros((height_px, width_px), np.float32) for _ in range(4))
    scale = 1 / spacing_mm
    return Scene(
        soft, bone, cement, implant, Frame(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]))
    )


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 1
) -> Map:
    """Return band-limited noise of about unit variance, (H, W) float32, `cells` bumps across."""
    total_HW = np.zeros(shape, np.float32)
    for octave in range(octaves):
        side = cells << octave
        coarse = rng.standard_normal((side, side), dtype=np.float32)
        total_HW += _resized(coarse, shape) * np.float32(1.4 * 0.7**octave)
    return total_HW


def _resized(image_HW: Map, shape: tuple[int, int]) -> Map:
    """The image at another size: averaged where that is smaller, interpolated where larger."""
    how = cv2.INTER_AREA if shape[0] < image_HW.shape[0] else cv2.INTER_LINEAR
    return cast(Map, cv2.resize(image_HW, (shape[1], shape[0]), interpolation=how))


def _blurred(image_HW: Map, sigma_px: float) -> Map:
    return cast(Map, cv2.GaussianBlur(image_HW, (0, 0), sigma_px))


def expose(scene: Scene, rng: np.random.Generator, letter: str) -> NDArray[np.uint16]:
    """Take the radiograph of a scene.

    Args:
        scene: What is in the beam.
        rng: Draws exposure, scatter, blur, noise, markers, collimation and processing.
        letter: Of the lead side marker, L or R; an empty text leaves it out.

    Returns:
        (H, W) uint16 in 0..4095, MONOCHROME2: bone bright.
    """
    shape = (scene.soft_HW.shape[0], scene.soft_HW.shape[1])
    grain_HW = smooth_noise(rng, shape, 64, octaves=2)
    depth_HW = scene.bone_HW * (BONE + BONE * 0.07 * grain_HW)
    depth_HW += scene.soft_HW * np.float32(SOFT)
    depth_HW += scene.cement_HW
    depth_HW += np.maximum(scene.implant_HW, 0)
    if letter:
        _add_marker(depth_HW, rng, letter)
    passed_HW = np.exp(-depth_HW)
    window_HW = _collimation(rng, shape)
    if window_HW is not None:
        passed_HW *= window_HW
    return _process(_detect(passed_HW, scene, rng), window_HW, scene, rng)


def _add_marker(depth_HW: Map, rng: np.random.Generator, letter: str) -> None:
    """Lay a lead letter into the beam, near a corner."""
    height, width = depth_HW.shape
    size = rng.uniform(0.05, 0.075) * height
    scale = size / 21  # cv2's Hershey letters are about 21 px high at scale 1
    column = rng.choice([rng.uniform(0.05, 0.14), rng.uniform(0.82, 0.92)]) * width
    row = rng.choice([rng.uniform(0.10, 0.2), rng.uniform(0.82, 0.95)]) * height
    cover_HW = np.zeros(depth_HW.shape, np.uint8)
    thick = max(round(size / 8), 1)
    place = (round(column - size / 3), round(row))
    cv2.putText(cover_HW, letter, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    if rng.random() < 0.3:
        centre = (place[0] + round(size * 0.42), place[1] - round(size * 0.5))
        cv2.circle(cover_HW, centre, round(size * 0.85), 200, max(thick // 2, 1), cv2.LINE_AA)
    depth_HW += cover_HW * np.float32(rng.uniform(1.5, 4.0) / 255)


def _collimation(rng: np.random.Generator, shape: tuple[int, int]) -> Map | None:
    """Transmission of the collimator's shutters, (H, W) in 0..1, or None where they are open."""
    if rng.random() < 0.55:
        return None
    height, width = shape
    inset = rng.uniform(-0.05, 0.07, size=4).clip(0) * (width, height, width, height)
    left, top, right, bottom = inset
    corners = np.array(
        [
            [left, top],
            [width - right, top],
            [width - right, height - bottom],
            [left, height - bottom],
        ]
    )
    turn = np.radians(rng.uniform(-1.5, 1.5))
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([width / 2, height / 2])
    open_HW = np.zeros(shape, np.uint8)
    points = np.round(((corners - middle) @ spin.T + middle) * 16).astype(np.int32)
    cv2.fillPoly(open_HW, [points], 255, cv2.LINE_AA, 4)
    return open_HW.astype(np.float32) * np.float32(0.995 / 255) + np.float32(0.005)


def _detect(passed_HW: Map, scene: Scene, rng: np.random.Generator) -> Map:
    """Add scatter, blur and noise to the transmitted fraction, (H, W)."""
    height, width = passed_HW.shape
    small = _resized(passed_HW, (height // 8, width // 8))
    spread_px = rng.uniform(15.0, 30.0) * scene.frame.px_per_mm / 8
    scatter_HW = _resized(_blurred(small, spread_px), (height, width))
    blur_px = max(rng.uniform(0.15, 0.45) * scene.frame.px_per_mm, 0.6)
    signal_HW = _blurred(passed_HW, blur_px)
    signal_HW += scatter_HW * np.float32(rng.uniform(0.08, 0.35))
    # Photons for each pixel behind the typical body: enough for noise of 0.7 to 3 %.
    typical = float(np.median(signal_HW[::8, ::8]))
    photons = np.exp(rng.uniform(np.log(1.2e3), np.log(2e4))) / max(typical, 1e-6)
    noise_HW = rng.standard_normal(signal_HW.shape, dtype=np.float32)
    noise_HW *= np.sqrt(signal_HW * np.float32(1 / photons) + np.float32((3 / photons) ** 2))
    signal_HW += noise_HW
    return np.maximum(signal_HW, np.float32(0.5 / photons))


def _process(
    signal_HW: Map, window_HW: Map | None, scene: Scene, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return log, dynamic-range compression, edge enhancement and window of a digital system."""
    log_HW = -np.log(signal_HW)
    height, width = log_HW.shape
    inside = slice(None) if window_HW is None else window_HW[::8, ::8] > 0.9
    floor, ceiling = np.percentile(log_HW[::8, ::8][inside], (1.0, 99.0))
    small = np.clip(_resized(log_HW, (height // 8, width // 8)), floor, ceiling)
    spread_px = rng.uniform(25.0, 45.0) * scene.frame.px_per_mm / 8
    broad_HW = _resized(_blurred(small, spread_px), (height, width))
    edges_HW = log_HW - _blurred(log_HW, 1.0 + scene.frame.px_per_mm * 0.6)
    log_HW -= broad_HW * np.float32(rng.uniform(0.25, 0.6))
    log_HW += edges_HW * np.float32(rng.uniform(0.0, 0.5))
    low, high = np.percentile(log_HW[::8, ::8][inside], (rng.uniform(0.5, 4.0), 99.5))
    high += rng.uniform(-0.05, 0.15) * (high - low)
    grey_HW = np.clip((log_HW - low) * np.float32(1 / max(high - low, 1e-3)), 0, 1)
    grey_HW **= np.float32(rng.uniform(0.8, 1.35))
    if window_HW is not None and rng.random() < 0.75:
        grey_HW *= window_HW > 0.5  # the digital shutter blackens what the collimator hid
    top = rng.uniform(0.9, 1.0) * WHITE
    grey_HW *= np.float32(top)
    return cast(NDArray[np.uint16], np.rint(grey_HW).astype(np.uint16))
