"""Bones and soft tissue around the hip, the knee and the shoulder, as lofts and bevelled plates.

A right limb seen from the front, or from the side with the front to the left: x to the right, y
down, in mm. From the front, medial is to the right. Measures are rounded from textbook anatomy of
adults. They show the pipeline at work, they are no evidence about patients.
"""

import numpy as np

from implant_model.phantom_film import Scene
from implant_model.phantom_solids import (
    Frame,
    Loft,
    Map,
    Points,
    add_ball,
    add_bowl,
    add_loft,
    add_prism,
    loft,
    rounded,
)

MIDLINE_MM = 88.0  # from the hip's centre to the middle of the body

# The femur below the neck cut: y = 0 is the cut at the calcar, x = 0 the shaft's axis.
FEMUR = loft(
    [
        (-27, -24, -17), (-22, -31, -10), (-12, -36, -3), (-4, -36, 12), (2, -35.5, 20),
        (12, -33, 20), (20, -30, 19), (29, -26, 21.5), (38, -22, 20.5), (50, -18.5, 16.5),
        (70, -16, 15), (110, -15, 14.5), (180, -15, 14.5), (330, -16, 16),
    ],
    smooth_mm=9,
)  # fmt: skip
FEMUR_CANAL = loft(
    [
        (-23, -23, -18), (-12, -33.5, -5), (-3, -33.5, 11), (4, -33, 17.5), (14, -30, 16.5),
        (26, -25, 15.5), (38, -19, 13), (55, -12.5, 10), (75, -9.5, 8.5), (110, -7.8, 7.2),
        (180, -7.5, 7), (330, -9, 9),
    ],
    smooth_mm=9,
)  # fmt: skip
# A femur with its own neck has no cut surface: its canal opens towards the neck.
FEMUR_OPEN_CANAL = loft(
    [
        (-23, -23, -18), (-12, -33.5, -3), (-4, -33.5, 12.5), (2, -33, 20.5), (12, -30.5, 19.5),
        (26, -25, 16.5), (38, -19, 13), (55, -12.5, 10), (75, -9.5, 8.5), (110, -7.8, 7.2),
        (180, -7.5, 7), (330, -9, 9),
    ],
    smooth_mm=9,
)  # fmt: skip
FEMUR_NECK = loft([(-4, -15, 15), (16, -15.5, 15.5), (34, -20, 19), (50, -25, 22), (60, -20, 16)])
FEMUR_NECK_CORE = loft([(-4, -13, 13), (16, -13, 12.5), (34, -19, 15), (50, -25, 19), (60, -20, 14)])

ILIUM = rounded(
    [
        (-25, -6), (-32, -20), (-27, -40), (-40, -78), (-46, -108), (-30, -136), (2, -150),
        (42, -140), (64, -112), (58, -84), (50, -60), (38, -44), (34, -20), (32, 4), (24, 18),
        (6, 24), (-6, -20),
    ]
)  # fmt: skip
SUPERIOR_RAMUS = rounded(
    [(24, -14), (52, 6), (78, 16), (85, 24), (85, 50), (77, 50), (70, 38), (54, 28), (36, 24), (20, 22)]
)  # fmt: skip
ISCHIUM = rounded([(4, 18), (28, 18), (34, 40), (38, 62), (30, 80), (14, 82), (3, 66), (2, 44)])
INFERIOR_RAMUS = rounded(
    [(24, 68), (42, 64), (66, 46), (78, 40), (84, 54), (62, 72), (42, 86), (26, 86)]
)
SACRUM = rounded(
    [
        (52, -116), (66, -126), (110, -126), (124, -116), (116, -84), (104, -60), (97, -28), (88, -18),
        (79, -28), (72, -60), (60, -84),
    ]
)  # fmt: skip

KNEE_FEMUR = loft(
    [
        (-260, -15, 15), (-120, -15.5, 15.5), (-80, -18, 18), (-55, -24, 24), (-36, -33, 32),
        (-22, -38, 37), (-10, -38, 37), (-2, -32, 31), (2, -24, 23),
    ],
    smooth_mm=9,
)  # fmt: skip
KNEE_FEMUR_CANAL = loft(
    [
        (-260, -8, 8), (-120, -9, 9), (-80, -13, 13), (-55, -21, 21), (-36, -31, 30),
        (-22, -36, 35), (-10, -36, 35), (-3, -30, 29),
    ],
    smooth_mm=9,
)  # fmt: skip
NOTCH = rounded([(-9, 4), (-8, -10), (0, -17), (8, -10), (9, 4)])
TIBIA = loft(
    [
        (5, -30, 30), (9, -37, 37), (18, -37, 36), (30, -31, 30), (45, -22, 22), (70, -16, 16),
        (120, -13.5, 13.5), (260, -12, 12),
    ],
    smooth_mm=7,
)  # fmt: skip
TIBIA_CANAL = loft(
    [
        (7, -28, 28), (12, -35, 35), (20, -34.5, 33.5), (32, -28, 27), (47, -18, 18), (70, -10.5, 10.5),
        (120, -7, 7), (260, -6, 6),
    ],
    smooth_mm=7,
)  # fmt: skip
FIBULA = loft([(20, -6, 4), (26, -8, 7), (36, -7, 6), (60, -5, 5), (260, -5.5, 5.5)], smooth_mm=5)
FIBULA_CANAL = loft([(23, -4, 2), (36, -5, 4), (60, -2, 2), (260, -2, 2)], smooth_mm=5)
SIDE_FEMUR = loft(
    [
        (-260, -17, 13), (-120, -18, 13), (-70, -20, 15), (-50, -25, 19), (-34, -30, 28),
        (-20, -30, 33), (-8, -26, 33), (0, -16, 27), (4, -4, 14),
    ],
    smooth_mm=8,
)  # fmt: skip
SIDE_FEMUR_CANAL = loft(
    [
        (-260, -10, 6), (-120, -11, 6), (-70, -16, 11), (-50, -22, 16), (-34, -28, 25),
        (-20, -28, 31), (-8, -24, 31), (0, -12, 23),
    ],
    smooth_mm=8,
)  # fmt: skip
SIDE_TIBIA = loft(
    [
        (5, -20, 22), (9, -25, 27), (20, -26, 24), (32, -25, 16), (50, -18, 12), (80, -14, 12),
        (260, -13, 11),
    ],
    smooth_mm=7,
)  # fmt: skip
SIDE_TIBIA_CANAL = loft(
    [(8, -18, 20), (12, -23, 25), (22, -24, 22), (34, -21, 13), (52, -12, 7), (80, -7, 6), (260, -6, 5)],
    smooth_mm=7,
)  # fmt: skip
HUMERUS = loft(
    [(-20, -12, 8), (-10, -25, 22), (4, -26, 24), (22, -22, 18), (45, -15, 14), (80, -12, 12), (260, -11, 11)],
    smooth_mm=9,
)  # fmt: skip
HUMERUS_CANAL = loft(
    [(-17, -10, 6), (-8, -23, 20), (6, -24, 22), (24, -19, 15), (45, -10, 9), (80, -6, 6), (260, -5, 5)],
    smooth_mm=9,
)  # fmt: skip
SCAPULA = rounded(
    [(28, -22), (36, -32), (60, -34), (110, -62), (118, -40), (104, 60), (92, 88), (74, 52), (44, 26), (30, 18)]
)  # fmt: skip
ACROMION = rounded([(-24, -34), (-8, -44), (30, -46), (64, -36), (60, -30), (28, -38), (-4, -34)])


def add_bone(scene: Scene, frame: Frame, outer: Loft, canal: Loft, density: float = 1.0) -> None:
    """Adds a long bone: cortex between the two lofts, a sixth of its density inside."""
    add_loft(scene.bone_HW, frame, outer, density)
    add_loft(scene.bone_HW, frame, canal, -0.84 * density)


def _add_plate(scene: Scene, frame: Frame, outline_N2: Points, depth: float) -> None:
    """Adds a flat bone: a bevelled prism of cancellous bone within a thin cortex."""
    add_prism(scene.bone_HW, frame, outline_N2, depth, bevel_mm=4.0)
    centre = outline_N2.mean(axis=0)
    inner_N2 = centre + (outline_N2 - centre) * 0.93
    add_prism(scene.bone_HW, frame, inner_N2, -0.28 * depth, bevel_mm=2.5)


def add_soft(scene: Scene, frame: Frame, body: Loft) -> None:
    """Adds a soft-tissue body where it is thicker than what stands there already."""
    alone_HW: Map = np.zeros_like(scene.soft_HW)
    add_loft(alone_HW, frame, body)
    np.maximum(scene.soft_HW, alone_HW, out=scene.soft_HW)


def add_pelvis(scene: Scene, hip: Frame, rng: np.random.Generator) -> Frame:
    """Adds both halves of the pelvis; `hip` has its origin at the head's centre.

    Returns:
        The frame of the other hip, mirrored: medial is +x there too.
    """
    other = hip.at(2 * MIDLINE_MM, 0, scale=(-1.0, 1.0))
    density = rng.uniform(0.75, 1.15)
    for side in (hip, other):
        for outline_N2, depth in (
            (ILIUM, 9.0), (SUPERIOR_RAMUS, 9.0), (ISCHIUM, 13.0), (INFERIOR_RAMUS, 7.0),
        ):  # fmt: skip
            _add_plate(scene, side, outline_N2, depth * density)
        add_bowl(scene.bone_HW, side.at(0, 0, 45), (29.0, 25.5), 15.0, 0.45 * density)
    add_prism(scene.bone_HW, hip, SACRUM, 11 * density, bevel_mm=9.0)
    return other


def add_hip_flesh(scene: Scene, hip: Frame, rng: np.random.Generator) -> None:
    """Adds trunk and thighs of a person between slim and stout, and gas in the bowel."""
    stout = rng.uniform(0.0, 1.0)
    reach, depth = 70 + 45 * stout, 150 + 90 * stout
    far = 2 * MIDLINE_MM
    trunk = [(-320, -reach, far + reach, depth), (-40, -reach - 5, far + reach + 5, depth)]
    trunk += [(20, -reach + 8, far + reach - 8, depth * 0.9), (70, 0, far, depth * 0.6)]
    trunk += [(105, MIDLINE_MM - 15, MIDLINE_MM + 15, 2)]
    add_soft(scene, hip, loft(trunk, smooth_mm=50))
    thigh = [(-200, -reach, 40, 5), (-60, -reach, 65, depth * 0.7), (60, -reach + 4, 85, depth * 0.85)]
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
    """Adds the proximal femur; with `head`, the centre of its own head, (x, y) in mm."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, femur, FEMUR, FEMUR_CANAL if head is None else FEMUR_OPEN_CANAL, density)
    if head is None:
        return
    axis = float(np.degrees(np.arctan2(head[0], -head[1])))
    neck = femur.at(*head, axis)
    add_loft(scene.bone_HW, neck, FEMUR_NECK, 0.5 * density)
    add_loft(scene.bone_HW, neck, FEMUR_NECK_CORE, -0.38 * density)
    add_ball(scene.bone_HW, femur.at(*head), 23.5, 0.24 * density)
    add_ball(scene.bone_HW, femur.at(*head), 21.5, -0.06 * density)


def add_knee_front(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Adds a knee seen from the front; both frames have their origin in the joint line."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, femur, KNEE_FEMUR, KNEE_FEMUR_CANAL, density)
    add_prism(scene.bone_HW, femur, NOTCH, -6 * density, bevel_mm=4)
    patella = femur.at(rng.uniform(-5, 3), rng.uniform(-36, -22), scale=(1.0, 1.05))
    add_ball(scene.bone_HW, patella, 20.0, 0.16 * density)
    add_bone(scene, tibia, TIBIA, TIBIA_CANAL, density)
    add_bone(scene, tibia.at(-32, 0, 1), FIBULA, FIBULA_CANAL, density)
    _add_leg(scene, femur, tibia, rng)


def add_knee_side(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Adds a knee seen from the side, its front to the left; frames as in `add_knee_front`."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, femur, SIDE_FEMUR, SIDE_FEMUR_CANAL, density)
    patella = femur.at(-43, rng.uniform(-36, -22), -8, scale=(0.48, 1.0))
    add_ball(scene.bone_HW, patella, 21.0, 0.34 * density)
    add_bone(scene, tibia, SIDE_TIBIA, SIDE_TIBIA_CANAL, density)
    add_bone(scene, tibia.at(17, 0, -2), FIBULA, FIBULA_CANAL, density)
    _add_leg(scene, femur, tibia, rng)


def _add_leg(scene: Scene, femur: Frame, tibia: Frame, rng: np.random.Generator) -> None:
    """Adds the flesh of thigh and calf."""
    reach, depth = rng.uniform(50, 72), rng.uniform(105, 150)
    thigh = [(-300, -reach - 12, reach + 12, depth + 20), (-60, -reach, reach, depth)]
    thigh += [(20, -reach + 6, reach - 6, depth - 8), (130, -reach + 14, reach - 14, 4)]
    calf = [(-130, -reach + 14, reach - 14, 4), (-20, -reach + 6, reach - 6, depth - 8)]
    calf += [(30, -reach + 8, reach - 8, depth - 8), (100, -reach + 4, reach, depth - 4)]
    calf += [(280, -reach + 16, reach - 14, depth - 35)]
    add_soft(scene, femur, loft(thigh, smooth_mm=40))
    add_soft(scene, tibia, loft(calf, smooth_mm=40))


def add_shoulder(scene: Scene, humerus: Frame, rng: np.random.Generator) -> None:
    """Adds a shoulder from the front; the origin is the middle of the humeral head."""
    density = rng.uniform(0.75, 1.1)
    add_bone(scene, humerus, HUMERUS, HUMERUS_CANAL, density)
    chest = humerus.at(0, 0)
    _add_plate(scene, chest, SCAPULA, 6 * density)
    _add_plate(scene, chest, ACROMION, 9 * density)
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
