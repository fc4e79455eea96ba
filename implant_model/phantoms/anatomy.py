"""Lays bones and soft tissue around the hip, the knee and the shoulder into a scene.

The bones are those of `phantom_bones`, and so are the axes. They show the pipeline at work, they
are no evidence about patients.
"""

import numpy as np

from implant_model.phantoms import bones as bones
from implant_model.phantoms.film import Scene
from implant_model.phantoms.shapes import Loft, Points, loft
from implant_model.phantoms.solids import Frame, Map, add_ball, add_bowl, add_loft, add_prism


def add_bone(scene: Scene, frame: Frame, outer: Loft, canal: Loft, density: float = 1.0) -> None:
    """Add a long bone: cortex between the two lofts, a sixth of its density inside."""
    add_loft(scene.bone_HW, frame, outer, density)
    add_loft(scene.bone_HW, frame, canal, -0.84 * density)


def _add_plate(scene: Scene, frame: Frame, outline_N2: Points, depth: float) -> None:
    """Add a flat bone: a bevelled prism of cancellous bone within a thin cortex."""
    add_prism(scene.bone_HW, frame, outline_N2, depth, bevel_mm=4.0)
    centre = outline_N2.mean(axis=0)
    inner_N2 = centre + (outline_N2 - centre) * 0.93
    add_prism(scene.bone_HW, frame, inner_N2, -0.28 * depth, bevel_mm=2.5)


def add_soft(scene: Scene, frame: Frame, body: Loft) -> None:
    """Add a soft-tissue body where it is thicker than what is there already."""
    alone_HW: Map = np.zeros_like(scene.soft_HW)
    add_loft(alone_HW, frame, body)
    np.maximum(scene.soft_HW, alone_HW, out=scene.soft_HW)


def add_pelvis(scene: Scene, hip: Frame, rng: np.random.Generator) -> Frame:
    """Add both halves of the pelvis; `hip` has its origin at the head's centre.

    Returns:
        The frame of the other hip, mirrored: medial is +x there too.
    """
    other = hip.at(2 * bones.MIDLINE_MM, 0, scale=(-1.0, 1.0))
    density = rng.uniform(0.75, 1.15)
    for side in (hip, other):
        for outline_N2, depth in (
            (bones.ILIUM, 9.0),
            (bones.SUPERIOR_RAMUS, 9.0),
            (bones.ISCHIUM, 13.0),
            (bones.INFERIOR_RAMUS, 7.0),
        ):
            _add_plate(scene, side, outline_N2, depth * density)
        add_bowl(scene.bone_HW, side.at(0, 0, 45), (29.0, 25.5), 15.0, 0.45 * density)
    add_prism(scene.bone_HW, hip, bones.SACRUM, 11 * density, bevel_mm=9.0)
    return other


def add_hip_flesh(scene: Scene, hip: Frame, rng: np.random.Generator) -> None:
    """Add trunk and thighs of a person between slim and stout, and gas in the bowel."""
    stout = rng.uniform(0.0, 1.0)
    reach, depth = 70 + 45 * stout, 150 + 90 * stout
    far = 2 * bones.MIDLINE_MM
    trunk = [(-320, -reach, far + reach, depth), (-40, -reach - 5, far + reach + 5, depth)]
    trunk += [(20, -reach + 8, far + reach - 8, depth * 0.9), (70, 0, far, depth * 0.6)]
    trunk += [(105, bones.MIDLINE_MM - 15, bones.MIDLINE_MM + 15, 2)]
    add_soft(scene, hip, loft(trunk, smooth_mm=50))
    thigh = [
        (-200, -reach, 40, 5),
        (-60, -reach, 65, depth * 0.7),
        (60, -reach + 4, 85, depth * 0.85),
    ]
    thigh += [(160, -reach + 12, 80, depth * 0.75), (340, -reach + 22, 68, depth * 0.65)]
    for side in (hip, hip.at(far, 0, scale=(-1.0, 1.0))):
        add_soft(scene, side, loft(thigh, smooth_mm=40))
    for _ in range(int(rng.integers(0, 6))):
        flat = rng.uniform(0.5, 1.4)
        gas = hip.at(rng.uniform(35, 140), rng.uniform(-130, -40), scale=(1.0, flat))
        add_ball(scene.soft_HW, gas, rng.uniform(6, 14), -rng.uniform(0.6, 1.0))


def add_femur(
    scene: Scene, femur: Frame, rng: np.random.Generator, head: tuple[float, float] | None = None
) -> None:
    """Add the proximal femur; with `head`, the centre of its own head, (x, y) in mm."""
    density = rng.uniform(0.75, 1.1)
    add_bone(
        scene,
        femur,
        bones.FEMUR,
        bones.FEMUR_CANAL if head is None else bones.FEMUR_OPEN_CANAL,
        density,
    )
    if head is None:
        return
    axis = float(np.degrees(np.arctan2(head[0], -head[1])))
    neck = femur.at(*head, axis)
    add_loft(scene.bone_HW, neck, bones.FEMUR_NECK, 0.5 * density)
    add_loft(scene.bone_HW, neck, bones.FEMUR_NECK_CORE, -0.38 * density)
    add_ball(scene.bone_HW, femur.at(*head), 23.5, 0.24 * density)
    add_ball(scene.bone_HW, femur.at(*head), 21.5, -0.06 * density)


def add_knee_front(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Add a knee seen from the front; both frames have their origin in the joint line."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, femur, bones.KNEE_FEMUR, bones.KNEE_FEMUR_CANAL, density)
    add_prism(scene.bone_HW, femur, bones.NOTCH, -6 * density, bevel_mm=4)
    patella = femur.at(rng.uniform(-5, 3), rng.uniform(-36, -22), scale=(1.0, 1.05))
    add_ball(scene.bone_HW, patella, 20.0, 0.16 * density)
    add_bone(scene, tibia, bones.TIBIA, bones.TIBIA_CANAL, density)
    add_bone(scene, tibia.at(-32, 0, 1), bones.FIBULA, bones.FIBULA_CANAL, density)
    _add_leg(scene, femur, tibia, rng)


def add_knee_side(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Add a knee seen from the side, its front to the left; frames as in `add_knee_front`."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, femur, bones.SIDE_FEMUR, bones.SIDE_FEMUR_CANAL, density)
    patella = femur.at(-43, rng.uniform(-36, -22), -8, scale=(0.48, 1.0))
    add_ball(scene.bone_HW, patella, 21.0, 0.34 * density)
    add_bone(scene, tibia, bones.SIDE_TIBIA, bones.SIDE_TIBIA_CANAL, density)
    add_bone(scene, tibia.at(17, 0, -2), bones.FIBULA, bones.FIBULA_CANAL, density)
    _add_leg(scene, femur, tibia, rng)


def _add_leg(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Add the flesh of thigh and calf."""
    reach, depth = rng.uniform(50, 72), rng.uniform(105, 150)
    thigh = [(-300, -reach - 12, reach + 12, depth + 20), (-60, -reach, reach, depth)]
    thigh += [(20, -reach + 6, reach - 6, depth - 8), (130, -reach + 14, reach - 14, 4)]
    calf = [(-130, -reach + 14, reach - 14, 4), (-20, -reach + 6, reach - 6, depth - 8)]
    calf += [(30, -reach + 8, reach - 8, depth - 8), (100, -reach + 4, reach, depth - 4)]
    calf += [(280, -reach + 16, reach - 14, depth - 35)]
    add_soft(scene, femur, loft(thigh, smooth_mm=40))
    add_soft(scene, tibia, loft(calf, smooth_mm=40))


def add_shoulder(scene: Scene, humerus: Frame, rng: np.random.Generator) -> None:
    """Add a shoulder from the front; the origin is the middle of the humeral head."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, humerus, bones.HUMERUS, bones.HUMERUS_CANAL, density)
    chest = humerus.at(0, 0)
    _add_plate(scene, chest, bones.SCAPULA, 6 * density)
    _add_plate(scene, chest, bones.ACROMION, 9 * density)
    for rib in range(5):
        arc = [(70 + 12 * t, -50 + 34 * rib + 22 * np.sin(t * 0.5)) for t in range(9)]
        upper = np.array(arc)
        outline_N2 = np.concatenate([upper, upper[::-1] + (0, 9)])
        _add_plate(scene, chest, outline_N2, 4 * density)
    depth = rng.uniform(110, 160)
    trunk = [(-220, 60, 300, 4), (-110, 30, 330, depth * 0.5), (-30, -20, 340, depth)]
    trunk += [(60, -12, 330, depth), (300, 30, 320, depth)]
    arm = [(-75, -5, 60, 4), (-50, -34, 60, depth * 0.5), (0, -52, 56, depth)]
    arm += [(80, -48, 44, depth * 0.9), (300, -40, 40, depth * 0.8)]
    add_soft(scene, humerus, loft(trunk, smooth_mm=40))
    add_soft(scene, humerus, loft(arm, smooth_mm=30))
