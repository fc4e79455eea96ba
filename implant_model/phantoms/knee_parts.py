"""Lays knee prostheses into a scene.

The prostheses are those of `phantom_knees`. They show the pipeline at work, they are no evidence
about patients.
"""

import numpy as np

from implant_model.phantoms import film as film
from implant_model.phantoms.film import Scene
from implant_model.phantoms.knees import Knee, Outline, box
from implant_model.phantoms.shapes import Points, rounded
from implant_model.phantoms.solids import Frame, add_ball, add_loft, add_prism, add_wire


def add_knee(scene: Scene, knee: Knee, femur: Frame, tibia: Frame, side: bool) -> None:
    """Adds a prosthesis.

    Args:
        scene: Its maps are changed in place.
        knee: What to draw.
        femur: Frame of the femoral component.
        tibia: Frame of tray and keel.
        side: From the side, else from the front.
    """
    femoral = knee.side_femur if side else knee.front_femur
    tibial = knee.side_tray if side else knee.front_tray
    for plates, frame, metal in zip((femoral, tibial), (femur, tibia), knee.metals, strict=True):
        for outline, depth in plates:
            smooth = _outline(outline)
            add_prism(scene.implant_HW, frame, smooth, depth * metal, bevel_mm=1.2)
    for x, body in knee.side_rods if side else knee.front_rods:
        upper = body.stations[0][0] < 0
        metal = knee.metals[0] if upper else knee.metals[1]
        add_loft(scene.implant_HW, (femur if upper else tibia).at(x, 0), body, metal)


def _outline(outline: Outline) -> Points:
    """The outline with corners cut once if it is a straight part, thrice if it is a casting."""
    return rounded(outline, passes=1 if len(outline) <= 6 else 3)


def carve_joint(scene: Scene, knee: Knee, femur: Frame, tibia: Frame, side: bool) -> None:
    """Takes away the bone that the cuts remove, where the whole joint is replaced."""
    bone_HW = scene.bone_HW
    reach = 45.0
    keep = bone_HW.copy()
    above = np.array(box(-reach, -6.0, reach, 30.0))
    below = np.array(box(-reach, -30.0, reach, knee.insert_mm + 1))
    gone_HW = np.zeros_like(bone_HW)
    add_prism(gone_HW, femur, above, 1.0)
    upper_HW = np.zeros_like(bone_HW)
    add_prism(upper_HW, tibia, below, 1.0)
    bone_HW[:] = keep * (1 - np.minimum(gone_HW, 1) * np.minimum(upper_HW, 1))
    if side:
        add_prism(bone_HW, femur, rounded(box(-30, -30, -22, -12), 1), -1.5)


def add_oxford_markers(scene: Scene, tibia: Frame, side: bool, rng: np.random.Generator) -> None:
    """Adds the free bearing's radiopaque markers: a wire in front and two balls behind."""
    slide = rng.uniform(-3, 3)
    if side:
        wire = [(-12 + slide, 3.0), (-12 + slide, 6.5)]
        balls = [(13 + slide, 4.0), (14 + slide, 4.6)]
    else:
        wire = [(13 + slide / 3, 4.6), (28 + slide / 3, 4.6)]
        balls = [(14 + slide / 3, 3.4), (27 + slide / 3, 3.4)]
    add_wire(scene.implant_HW, tibia, wire, 0.9, film.STEEL)
    for x, y in balls:
        add_ball(scene.implant_HW, tibia.at(x, y), 0.9, film.STEEL)
