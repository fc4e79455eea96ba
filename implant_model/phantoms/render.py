"""Synthetic radiographs of OrthoNet's twelve implants.

Solid bodies in a parallel beam. One level down: `phantom_scenes` (view and pose), `phantom_anatomy`
with `phantom_bones`, `phantom_hips` and `phantom_knees` (the products' shapes) with their `_parts`,
`phantom_others` (what the catalogue lacks), `phantom_film` (from chords to grey values),
`phantom_solids` with `phantom_shapes` (geometry). Pose, size, side, view, exposure, scatter, blur,
noise, markers and collimation are drawn from the caller's generator and from nothing else: the same
generator gives the same picture.

The pictures show the pipeline at work, they are no evidence about patients: a model that names
every phantom has shown nothing about radiographs of people. The twelve products are those of Patel
et al. 2021 (10.1148/ryai.2021200183).

Shape letters: H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET, Implant
from implant_model.phantoms.film import expose
from implant_model.phantoms.hips import STEMS
from implant_model.phantoms.knees import KNEES
from implant_model.phantoms.others import add_clips
from implant_model.phantoms.scenes import Laterality, View, hip_view, knee_view, shoulder_view

OTHERS = ("humeral-stem", "reverse-shoulder", "plate", "nail", "hip-screw")


@dataclass(frozen=True)
class Phantom:
    """One synthetic radiograph: it shows the pipeline at work, it is no evidence about patients.

    Attributes:
        pixels_HW: (H, W) uint16 in 0..4095, MONOCHROME2: bone bright.
        mask_HW: (H, W) bool, where metal or ceramic of an implant lies in the beam.
        implant: What it shows; the name starts with `other-` where the catalogue lacks it and is
            `no-implant` where there is none.
        view: DICOM View Position: AP or LL.
        laterality: L or R.
        spacing_mm: Distance between pixels, both ways.
        body_part: DICOM Body Part Examined: HIP, PELVIS, KNEE, SHOULDER.
    """

    pixels_HW: NDArray[np.uint16]
    mask_HW: NDArray[np.bool_]
    implant: Implant
    view: str
    laterality: Laterality
    spacing_mm: float
    body_part: str


def render(implant: Implant, rng: np.random.Generator, height_px: int = 512) -> Phantom:
    """Draw a radiograph of one of OrthoNet's implants.

    It shows the pipeline at work, it is no evidence about patients.

    Args:
        implant: One of `ORTHONET`.
        rng: Draws everything that varies; its state alone decides the picture.
        height_px: Rows of the picture; columns follow, 0.75 to 1.1 times as many.

    Raises:
        UsageError: The implant is not one of OrthoNet's, or the picture would be too small.
    """
    _check_height(height_px)
    if implant.name in STEMS:
        return _take(hip_view(rng, height_px, STEMS[implant.name]), implant, rng)
    if implant.name in KNEES:
        return _take(knee_view(rng, height_px, KNEES[implant.name]), implant, rng)
    raise UsageError(
        f"There is no phantom of {implant.name!r}; there is one of {', '.join(ORTHONET.names)}."
    )


def render_unknown(
    rng: np.random.Generator, height_px: int = 512, kind: str | None = None
) -> Phantom:
    """Draw a radiograph of an implant that OrthoNet's catalogue does not hold.

    It shows the pipeline at work, it is no evidence about patients.

    Args:
        rng: As for `render`.
        height_px: As for `render`.
        kind: One of `OTHERS`; drawn where it is None.

    Raises:
        UsageError: There is no such kind, or the picture would be too small.
    """
    _check_height(height_px)
    chosen = str(rng.choice(OTHERS)) if kind is None else kind
    if chosen not in OTHERS:
        raise UsageError(f"There is no phantom of {chosen!r}; there is one of {', '.join(OTHERS)}.")
    if chosen in ("humeral-stem", "reverse-shoulder"):
        implant = Implant(f"other-{chosen}", "shoulder", "none")
        return _take(shoulder_view(rng, height_px, chosen), implant, rng)
    implant = Implant(f"other-{chosen}", "hip", "none")
    return _take(hip_view(rng, height_px, chosen), implant, rng)


def render_without_implant(rng: np.random.Generator, height_px: int = 512) -> Phantom:
    """Draw a radiograph of a hip or knee as it grew; the mask is empty.

    It shows the pipeline at work, it is no evidence about patients.

    Args:
        rng: As for `render`.
        height_px: As for `render`.

    Raises:
        UsageError: The picture would be too small.
    """
    _check_height(height_px)
    if rng.random() < 0.5:
        return _take(hip_view(rng, height_px, None), Implant("no-implant", "hip", "none"), rng)
    return _take(knee_view(rng, height_px, None), Implant("no-implant", "knee", "none"), rng)


def _check_height(height_px: int) -> None:
    if not 64 <= height_px <= 8192:
        raise UsageError(f"A phantom of {height_px} rows was asked for; 64 to 8192 are accepted.")


def _take(view: View, implant: Implant, rng: np.random.Generator) -> Phantom:
    """Turn the scene to its side and take the radiograph."""
    if rng.random() < 0.12:
        add_clips(view.scene, rng)
    seen = view.scene.flipped() if view.flip else view.scene
    letter = view.laterality if rng.random() < 0.7 else ""
    pixels_HW = expose(seen, rng, letter)
    return Phantom(
        pixels_HW, seen.mask(), implant, view.view, view.laterality, view.spacing_mm, view.body_part
    )
