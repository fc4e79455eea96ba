"""Synthetic radiographs of OrthoNet's twelve implants.

Solid bodies in a parallel beam, see `phantom_solids` (geometry), `phantom_anatomy` (bones, flesh),
`phantom_hips`, `phantom_knees`, `phantom_others` (implants) and `phantom_film` (from chords to grey
values). Pose, size, side, view, exposure, scatter, blur, noise, markers and collimation are drawn
from the caller's generator and from nothing else: the same generator gives the same picture.

The pictures show the pipeline at work, they are no evidence about patients: a model that names every
phantom has shown nothing about radiographs of people. The twelve products are those of Patel et al.
2021 (10.1148/ryai.2021200183).

Shape letters: H rows, W columns.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from implant_model import phantom_anatomy as anatomy
from implant_model import phantom_others as others
from implant_model.catalogue import Catalogue, Implant
from implant_model.errors import UsageError
from implant_model.phantom_film import Scene, expose, new_scene
from implant_model.phantom_hips import STEMS, Stem, add_bearing, add_stem
from implant_model.phantom_knees import (
    KNEES,
    Knee,
    add_knee,
    add_oxford_markers,
    carve_joint,
)
from implant_model.phantom_solids import Frame

Laterality = Literal["L", "R"]
OTHERS = ("humeral-stem", "reverse-shoulder", "plate", "nail", "hip-screw")

_JRI, _SMITH_NEPHEW = "JRI Orthopaedics", "Smith & Nephew"
ORTHONET = Catalogue(
    (
        Implant("depuy-corail-collared", "hip", "DePuy", "Corail, with collar"),
        Implant("depuy-corail-collarless", "hip", "DePuy", "Corail, without collar"),
        Implant("jri-furlong-evolution-collared", "hip", _JRI, "Furlong Evolution, with collar"),
        Implant("jri-furlong-evolution-collarless", "hip", _JRI, "Furlong Evolution, without collar"),
        Implant("smith-nephew-anthology", "hip", _SMITH_NEPHEW, "Anthology"),
        Implant("smith-nephew-polarstem", "hip", _SMITH_NEPHEW, "Polarstem"),
        Implant("stryker-accolade-ii", "hip", "Stryker", "Accolade II"),
        Implant("stryker-exeter", "hip", "Stryker", "Exeter"),
        Implant("depuy-sigma", "knee", "DePuy", "Sigma"),
        Implant("smith-nephew-genesis-ii", "knee", _SMITH_NEPHEW, "Genesis II"),
        Implant("smith-nephew-legion", "knee", _SMITH_NEPHEW, "Legion"),
        Implant("zimmer-biomet-oxford", "knee", "Zimmer Biomet", "Oxford"),
    )
)


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
    """Draws a radiograph of one of OrthoNet's implants.

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
        return _hip(implant, rng, height_px, STEMS[implant.name])
    if implant.name in KNEES:
        return _knee(implant, rng, height_px, KNEES[implant.name])
    raise UsageError(
        f"There is no phantom of {implant.name!r}; there is one of {', '.join(ORTHONET.names)}."
    )


def render_unknown(
    rng: np.random.Generator, height_px: int = 512, kind: str | None = None
) -> Phantom:
    """Draws a radiograph of an implant that OrthoNet's catalogue does not hold.

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
        return _shoulder(chosen, rng, height_px)
    return _hip(Implant(f"other-{chosen}", "hip", "none"), rng, height_px, chosen)


def render_without_implant(rng: np.random.Generator, height_px: int = 512) -> Phantom:
    """Draws a radiograph of a hip or knee as it grew; the mask is empty.

    It shows the pipeline at work, it is no evidence about patients.

    Args:
        rng: As for `render`.
        height_px: As for `render`.

    Raises:
        UsageError: The picture would be too small.
    """
    _check_height(height_px)
    if rng.random() < 0.5:
        return _hip(Implant("no-implant", "hip", "none"), rng, height_px, None)
    return _knee(Implant("no-implant", "knee", "none"), rng, height_px, None)


def _check_height(height_px: int) -> None:
    if not 64 <= height_px <= 8192:
        raise UsageError(f"A phantom of {height_px} rows was asked for; 64 to 8192 are accepted.")


def _open_scene(
    rng: np.random.Generator, height_px: int, field_mm: float, aspect: float
) -> tuple[Scene, float]:
    """An empty scene of this height in mm and width / height, and its pixel spacing in mm."""
    spacing_mm = round(field_mm / height_px, 5)
    return new_scene(height_px, round(height_px * aspect), spacing_mm), spacing_mm


def _finish(
    scene: Scene,
    implant: Implant,
    rng: np.random.Generator,
    *,
    view: str,
    body_part: str,
    spacing_mm: float,
    flip: bool,
    laterality: Laterality,
) -> Phantom:
    """Turns the scene to its side and takes the radiograph."""
    if rng.random() < 0.12:
        others.add_clips(scene, rng)
    seen = scene.flipped() if flip else scene
    letter = laterality if rng.random() < 0.7 else ""
    pixels_HW = expose(seen, rng, letter)
    mask_HW = seen.mask()
    return Phantom(pixels_HW, mask_HW, implant, view, laterality, spacing_mm, body_part)


def _side(rng: np.random.Generator) -> Laterality:
    return "L" if rng.random() < 0.5 else "R"


def _hip(
    implant: Implant, rng: np.random.Generator, height_px: int, inside: Stem | str | None
) -> Phantom:
    """A hip or pelvis from the front with a stem, another implant by its kind, or nothing."""
    whole = rng.random() < 0.2
    field_mm = rng.uniform(300, 360) if whole else rng.uniform(225, 300)
    aspect = rng.uniform(1.0, 1.2) if whole else rng.uniform(0.72, 1.0)
    scene, spacing_mm = _open_scene(rng, height_px, field_mm, aspect)
    height, width = scene.size_mm
    across = width / 2 - anatomy.MIDLINE_MM if whole else width * rng.uniform(0.42, 0.58)
    down = height * (rng.uniform(0.34, 0.42) if whole else rng.uniform(0.22, 0.36))
    hip = scene.frame.at(across, down, rng.uniform(-4, 4))
    anatomy.add_hip_flesh(scene, hip, rng)
    other = anatomy.add_pelvis(scene, hip, rng)
    _fill_hip(scene, hip, rng, inside)
    both = whole and isinstance(inside, Stem) and rng.random() < 0.2
    _fill_hip(scene, other, rng, inside if both else None)
    laterality = _side(rng)
    return _finish(
        scene, implant, rng, view="AP", body_part="PELVIS" if whole else "HIP",
        spacing_mm=spacing_mm, flip=laterality == "L", laterality=laterality,
    )  # fmt: skip


def _fill_hip(
    scene: Scene, hip: Frame, rng: np.random.Generator, inside: Stem | str | None
) -> None:
    """Adds one proximal femur and what was put into it; `hip` is the centre of the joint."""
    size = rng.uniform(0.9, 1.12)
    lean = rng.uniform(-9, 3)
    turn = rng.uniform(-22, 22)
    x, y = inside.head() if isinstance(inside, Stem) else (42.0, -36.0)
    x *= float(np.cos(np.radians(turn)))
    axis = hip.at(0, 0, lean, scale=(size, size)).at(-x, -y)
    fit = rng.uniform(0.97, 1.08)
    shaft = axis.at(rng.uniform(-1.5, 1.5), 0, rng.uniform(-1.5, 1.5), scale=(fit, fit))
    if isinstance(inside, Stem):
        anatomy.add_femur(scene, shaft, rng)
        head = add_stem(scene, axis, inside, turn)
        add_bearing(scene, head, hip, rng, cemented_cup=0.55 if inside.cemented else 0.12)
        return
    anatomy.add_femur(scene, shaft, rng, head=(x / fit, y / fit))
    if inside == "plate":
        others.add_plate(scene, shaft.at(0, 80), rng)
    elif inside == "nail":
        others.add_nail(scene, shaft, rng)
    elif inside == "hip-screw":
        others.add_hip_screw(scene, shaft, rng)


def _knee(
    implant: Implant, rng: np.random.Generator, height_px: int, inside: Knee | None
) -> Phantom:
    """A knee from the front or from the side, with a prosthesis or as it grew."""
    side = rng.random() < 0.5
    scene, spacing_mm = _open_scene(
        rng, height_px, rng.uniform(190, 270), rng.uniform(0.62, 0.9)
    )
    height, width = scene.size_mm
    size = rng.uniform(0.9, 1.12)
    place = (width * rng.uniform(0.43, 0.57), height * rng.uniform(0.36, 0.5))
    tibia = scene.frame.at(*place, rng.uniform(-6, 6), scale=(size, size))
    if side:  # flexion turns about the middle of the posterior condyles
        femur = tibia.at(5, -18, rng.uniform(2, 38)).at(-5, 18)
    else:
        femur = tibia.at(rng.uniform(-2, 2), 0, rng.uniform(-8, -2))
    add_bones = anatomy.add_knee_side if side else anatomy.add_knee_front
    add_bones(scene, femur, tibia, rng)
    if inside is not None:
        _fill_knee(scene, femur, tibia, rng, inside, side)
    laterality = _side(rng)
    return _finish(
        scene, implant, rng, view="LL" if side else "AP", body_part="KNEE", spacing_mm=spacing_mm,
        flip=bool(rng.random() < 0.5) if side else laterality == "L", laterality=laterality,
    )  # fmt: skip


def _fill_knee(
    scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator, knee: Knee, side: bool
) -> None:
    """Cuts the bones and adds the prosthesis, a little turned and shifted on them."""
    if knee is KNEES["zimmer-biomet-oxford"]:
        add_oxford_markers(scene, tibia, side, rng)
    else:
        carve_joint(scene, knee, femur, tibia, side)
    squeeze = float(np.cos(np.radians(rng.uniform(-18, 18))))
    upper = femur.at(rng.uniform(-1, 1), 0, rng.uniform(-2, 2), scale=(squeeze, 1.0))
    lower = tibia.at(rng.uniform(-1, 1), 0, rng.uniform(-2, 2), scale=(squeeze, 1.0))
    add_knee(scene, knee, upper, lower, side)


def _shoulder(kind: str, rng: np.random.Generator, height_px: int) -> Phantom:
    """A shoulder prosthesis from the front."""
    scene, spacing_mm = _open_scene(
        rng, height_px, rng.uniform(200, 260), rng.uniform(0.75, 1.0)
    )
    height, width = scene.size_mm
    place = (width * rng.uniform(0.3, 0.42), height * rng.uniform(0.26, 0.4))
    humerus = scene.frame.at(*place, rng.uniform(-4, 10))
    anatomy.add_shoulder(scene, humerus, rng)
    if kind == "humeral-stem":
        others.add_humeral_stem(scene, humerus, rng)
    else:
        others.add_reverse_shoulder(scene, humerus, rng)
    laterality = _side(rng)
    return _finish(
        scene, Implant(f"other-{kind}", "shoulder", "none"), rng, view="AP", body_part="SHOULDER",
        spacing_mm=spacing_mm, flip=laterality == "L", laterality=laterality,
    )  # fmt: skip
