"""Sets the scene of one radiograph: view, field, pose, sizes, anatomy, implant.

Everything is drawn as a right limb; `View.flip` states whether the picture shows it mirrored. The
scenes show the pipeline at work, they are no evidence about patients.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from implant_model.phantoms import anatomy as anatomy
from implant_model.phantoms import others as others
from implant_model.phantoms.bones import MIDLINE_MM
from implant_model.phantoms.film import Scene, new_scene
from implant_model.phantoms.hips import Stem, add_bearing, add_stem
from implant_model.phantoms.knees import KNEES, Knee, add_knee, add_oxford_markers, carve_joint
from implant_model.phantoms.solids import Frame

Laterality = Literal["L", "R"]


@dataclass(frozen=True)
class View:
    """A scene and how it is looked at.

    Attributes:
        scene: What is in the beam, as a right limb.
        spacing_mm: Distance between pixels.
        view: DICOM View Position: AP or LL.
        body_part: DICOM Body Part Examined.
        laterality: Which limb it is.
        flip: Whether the picture shows it mirrored.
    """

    scene: Scene
    spacing_mm: float
    view: str
    body_part: str
    laterality: Laterality
    flip: bool


def _open_scene(
    rng: np.random.Generator, height_px: int, field_mm: float, aspect: float
) -> tuple[Scene, float]:
    """An empty scene of this height in mm and width / height, and its pixel spacing in mm."""
    spacing_mm = round(field_mm / height_px, 5)
    return new_scene(height_px, round(height_px * aspect), spacing_mm), spacing_mm


def _side(rng: np.random.Generator) -> Laterality:
    return "L" if rng.random() < 0.5 else "R"


def hip_view(rng: np.random.Generator, height_px: int, inside: Stem | str | None) -> View:
    """A hip or pelvis from the front with a stem, another implant by its kind, or nothing."""
    whole = rng.random() < 0.2
    field_mm = rng.uniform(300, 360) if whole else rng.uniform(225, 300)
    aspect = rng.uniform(1.0, 1.2) if whole else rng.uniform(0.72, 1.0)
    scene, spacing_mm = _open_scene(rng, height_px, field_mm, aspect)
    height, width = scene.size_mm
    across = width / 2 - MIDLINE_MM if whole else width * rng.uniform(0.42, 0.58)
    down = height * (rng.uniform(0.34, 0.42) if whole else rng.uniform(0.22, 0.36))
    hip = scene.frame.at(across, down, rng.uniform(-4, 4))
    anatomy.add_hip_flesh(scene, hip, rng)
    other = anatomy.add_pelvis(scene, hip, rng)
    _fill_hip(scene, hip, rng, inside)
    both = whole and isinstance(inside, Stem) and rng.random() < 0.2
    _fill_hip(scene, other, rng, inside if both else None)
    laterality = _side(rng)
    return View(
        scene, spacing_mm, "AP", "PELVIS" if whole else "HIP", laterality, laterality == "L"
    )


def _fill_hip(
    scene: Scene, hip: Frame, rng: np.random.Generator, inside: Stem | str | None
) -> None:
    """Add one proximal femur and what was put into it; `hip` is the centre of the joint."""
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
        others.add_plate(scene, shaft.at(0, 62), rng)
    elif inside == "nail":
        others.add_nail(scene, shaft, rng)
    elif inside == "hip-screw":
        others.add_hip_screw(scene, shaft, rng)


def knee_view(rng: np.random.Generator, height_px: int, inside: Knee | None) -> View:
    """Return a knee from the front or from the side, with a prosthesis or as it grew."""
    side = rng.random() < 0.5
    scene, spacing_mm = _open_scene(rng, height_px, rng.uniform(190, 270), rng.uniform(0.62, 0.9))
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
    flip = bool(rng.random() < 0.5) if side else laterality == "L"
    return View(scene, spacing_mm, "LL" if side else "AP", "KNEE", laterality, flip)


def _fill_knee(
    scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator, knee: Knee, side: bool
) -> None:
    """Cut the bones and add the prosthesis, a little turned and shifted on them."""
    if knee is KNEES["zimmer-biomet-oxford"]:
        add_oxford_markers(scene, tibia, side, rng)
    else:
        carve_joint(scene, knee, femur, tibia, side)
    squeeze = float(np.cos(np.radians(rng.uniform(-18, 18))))
    upper = femur.at(rng.uniform(-1, 1), 0, rng.uniform(-2, 2), scale=(squeeze, 1.0))
    lower = tibia.at(rng.uniform(-1, 1), 0, rng.uniform(-2, 2), scale=(squeeze, 1.0))
    add_knee(scene, knee, upper, lower, side)


def shoulder_view(rng: np.random.Generator, height_px: int, kind: str) -> View:
    """Return a shoulder prosthesis from the front."""
    scene, spacing_mm = _open_scene(rng, height_px, rng.uniform(200, 260), rng.uniform(0.75, 1.0))
    height, width = scene.size_mm
    place = (width * rng.uniform(0.3, 0.42), height * rng.uniform(0.26, 0.4))
    humerus = scene.frame.at(*place, rng.uniform(-4, 10))
    anatomy.add_shoulder(scene, humerus, rng)
    if kind == "humeral-stem":
        others.add_humeral_stem(scene, humerus, rng)
    else:
        others.add_reverse_shoulder(scene, humerus, rng)
    laterality = _side(rng)
    return View(scene, spacing_mm, "AP", "SHOULDER", laterality, laterality == "L")
