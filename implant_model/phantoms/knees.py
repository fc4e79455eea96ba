"""The four knee prostheses of OrthoNet, from the front and from the side.

Femoral component, insert, tray and keel, each drawn from what is publicly known of its shape
(makers' brochures and published radiographs): flange, condyles, box, lugs, keel, wings, stem.
Measures are rounded and of a middle size; they are drawings, not the makers' data. They show the
pipeline at work, they are no evidence about patients.

Frames: origin in the joint line, y down, mm; x is medial from the front, posterior from the side.
"""

from dataclasses import dataclass

import numpy as np

from implant_model.phantoms import film as film
from implant_model.phantoms.film import Scene
from implant_model.phantoms.shapes import Loft, Points, loft, rod, rounded
from implant_model.phantoms.solids import Frame, add_ball, add_loft, add_prism, add_wire

Outline = tuple[tuple[float, float], ...]
Plate = tuple[Outline, float]  # a closed outline in mm and its depth in mm


@dataclass(frozen=True)
class Knee:
    """A knee prosthesis.

    Attributes:
        front_femur: Plates of the femoral component from the front.
        side_femur: The same from the side.
        front_tray: Plates of the tray with keel and wings from the front.
        side_tray: The same from the side.
        front_rods: Lofts of both components from the front: lugs (y < 0), keel and stem.
        side_rods: The same from the side.
        metals: Attenuation in 1/mm of the femoral component and of the tray.
        insert_mm: Thickness of the polyethylene.
    """

    front_femur: tuple[Plate, ...]
    side_femur: tuple[Plate, ...]
    front_tray: tuple[Plate, ...]
    side_tray: tuple[Plate, ...]
    front_rods: tuple[tuple[float, Loft], ...]
    side_rods: tuple[tuple[float, Loft], ...]
    metals: tuple[float, float]
    insert_mm: float = 9.0


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """Return a rectangle from its edges in mm."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


# The distal condyles: 55 mm of metal along the beam, hence opaque; behind and above them the thin
# walls of the posterior condyles and of the flange.
_CONDYLES: Outline = (
    (-33, -12), (-34, -6), (-30, 1), (-20, 3), (-11, 0), (-8, -5), (8, -5), (11, 0), (20, 3),
    (30, 1), (34, -6), (33, -12), (12, -8), (-12, -8),
)  # fmt: skip
_SIGMA_FRONT: tuple[Plate, ...] = (
    (_CONDYLES, 40.0),
    (((-34, -28), (-12, -28), (-9, -8), (-34, -4)), 8.0),
    (((12, -28), (34, -28), (34, -4), (9, -8)), 8.0),
    (
        ((-16, -47), (-4, -50), (12, -49), (19, -44), (30, -22), (32, -8), (-32, -8), (-29, -22)),
        4.5,
    ),
)
# Genesis II: the flange's ridge runs laterally, the lateral posterior condyle is higher.
_GENESIS_FRONT: tuple[Plate, ...] = (
    (
        (
            (-34, -13), (-35, -6), (-30, 2), (-21, 3.5), (-12, 0), (-9, -7), (8, -7), (11, 0),
            (19, 2.5),
            (29, 0), (33, -6), (32, -12), (12, -9), (-12, -9),
        ),
        40.0,
    ),
    (((-35, -34), (-27, -36), (-14, -34), (-11, -8), (-35, -4)), 10.0),
    (((12, -24), (31, -23), (33, -4), (9, -8)), 7.0),
    (
        ((-24, -44), (-17, -51), (-8, -51), (3, -44), (16, -34), (26, -22), (31, -8), (-33, -8),
        (-31, -26)),
        5.0,
    ),
)  # fmt: skip
# Legion: a posterior-stabilised housing whose walls and roof stand between the condyles.
_LEGION_FRONT: tuple[Plate, ...] = (
    (_CONDYLES, 40.0),
    (((-34, -30), (-12, -30), (-9, -8), (-34, -4)), 8.5),
    (((12, -27), (34, -27), (34, -4), (9, -8)), 8.5),
    (
        ((-24, -44), (-12, -48), (10, -46), (20, -40), (30, -20), (32, -8), (-32, -8), (-31, -22)),
        4.5,
    ),
    (box(-11.5, -27, -8.5, -4), 34.0),
    (box(8.5, -27, 11.5, -4), 34.0),
    (box(-11.5, -29, 11.5, -25.5), 26.0),
)
# Oxford: a spherical cap on the medial condyle alone, on two pegs; a tray with a wall on the side
# of the spines and a keel; a free bearing with markers.
_OXFORD_FRONT: tuple[Plate, ...] = (
    (
        (
            (10, -13),
            (10, -6),
            (13, -1),
            (20, 1.5),
            (27, -1),
            (30, -6),
            (30, -13),
            (24, -9),
            (16, -9),
        ),
        34.0,
    ),
    (((10, -8), (10.5, -20), (14, -27), (20, -29), (26, -27), (29.5, -20), (30, -8)), 6.5),
)

_SIGMA_SIDE: tuple[Plate, ...] = (
    (
        (
            (-31, -50), (-34, -38), (-35.5, -24), (-33, -10), (-25, -1), (-12, 3), (4, 3), (18, 0),
            (28, -8),
            (31, -18), (28, -29), (23, -31), (22, -14), (14, -6.5), (-12, -6.5), (-23, -15),
            (-27, -30), (-28, -50),
        ),
        46.0,
    ),
)  # fmt: skip
_GENESIS_SIDE: tuple[Plate, ...] = (
    (
        (
            (-35, -50), (-36.5, -36), (-36, -22), (-32, -9), (-22, 0), (-8, 4), (8, 3), (20, -2),
            (29, -11), (31, -20),
            (28, -26), (22, -26), (21, -13), (12, -8), (-10, -8), (-22, -17), (-29, -34),
            (-32, -50),
        ),
        42.0,
    ),
    (((20, -12), (30, -12), (34, -22), (31, -34), (25, -37), (23, -28)), 21.0),
)  # fmt: skip
_LEGION_SIDE: tuple[Plate, ...] = (
    (
        (
            (-30, -46), (-34, -34), (-35, -22), (-32, -9), (-24, -1), (-12, 3), (4, 3), (18, 0),
            (28, -8),
            (31, -18), (29, -30), (23, -31), (22, -14), (14, -6.5), (-12, -6.5), (-23, -15),
            (-26, -30), (-27, -46),
        ),
        46.0,
    ),
    (((-14, -6), (-12, -28), (14, -28), (20, -20), (20, -8)), 5.0),
    (((-12, -28), (14, -28), (14, -25.5), (-12, -25.5)), 18.0),
)  # fmt: skip
_OXFORD_SIDE: tuple[Plate, ...] = (
    (
        (
            (-13, -5), (-11, -0.5), (-2, 3), (9, 2), (19, -5), (25, -16), (24, -27), (19.5, -27),
            (18.5, -17),
            (12, -8), (4, -4.5), (-5, -4.0),
        ),
        19.0,
    ),
)  # fmt: skip

KNEES: dict[str, Knee] = {
    # Sigma: symmetrical tray; a central keel whose two wings reach down like a delta.
    "depuy-sigma": Knee(
        _SIGMA_FRONT, _SIGMA_SIDE,
        ((box(-36, 9, 36, 13), 40.0), (((-26, 13), (26, 13), (7, 42), (-7, 42)), 3.2)),
        ((box(-23, 9, 23, 13), 55.0), (((-2, 13), (15, 13), (5, 38), (-2, 42)), 9.0)),
        (
            (1, loft([(13, -7.5, 7.5), (30, -6.5, 6.5), (46, -5.5, 5.5), (49, -3.5, 3.5)])),
            (-19, rod(-19, -6, 6.5)), (19, rod(-19, -6, 6.5)),
        ),
        ((0, loft([(13, -7.5, 7.5), (30, -6.5, 6.5), (46, -5.5, 5.5), (49, -3.5, 3.5)])),
        (-1, rod(-19, -6, 6.5))),
        (film.COBALT_CHROME, film.TITANIUM),
    ),
    # Genesis II: tray wider on the medial side; a short round keel with fins that slope like the
    # wings of a swallow and point backwards.
    "smith-nephew-genesis-ii": Knee(
        _GENESIS_FRONT, _GENESIS_SIDE,
        (
            (box(-32, 9, 38, 12.5), 40.0),
            (((-19, 12), (-7, 12), (-5, 36), (-9, 37), (-22, 23)), 4.5),
            (((7, 12), (19, 12), (22, 23), (9, 37), (5, 36)), 4.5),
        ),
        ((box(-24, 9, 22, 12.5), 55.0), (((0, 12), (22, 12), (17, 24), (5, 37)), 8.0)),
        (
            (1, loft([(12, -9.5, 9.5), (24, -8.5, 8.5), (38, -7, 7), (41, -5, 5)])),
            (-21, rod(-17, -6, 8, 4)), (16, rod(-17, -6, 8, 4)),
        ),
        ((-4, loft([(12, -9.5, 9.5), (24, -8.5, 8.5), (38, -7, 7), (41, -5, 5)])),
        (3, rod(-17, -6, 8, 4))),
        (film.ZIRCONIUM, film.TITANIUM),
        10.0,
    ),
    # Legion: the revision member of the family: a keel with a junction and a fluted press-fit stem.
    "smith-nephew-legion": Knee(
        _LEGION_FRONT, _LEGION_SIDE,
        (
            (box(-33, 10, 37, 14.5), 40.0),
            (((-20, 14), (-7, 14), (-6, 40), (-10, 40)), 5.0),
            (((7, 14), (20, 14), (10, 40), (6, 40)), 5.0),
        ),
        ((box(-24, 10, 22, 14.5), 55.0), (((0, 14), (16, 14), (7, 40)), 8.0)),
        (
            (1, loft([(14, -8.5, 8.5), (48, -7.5, 7.5), (50, -7.5, 7.5)], smooth_mm=1)),
            (1, loft([(50, -5.2, 5.2), (53, -6.6, 6.6), (104, -6.6, 6.6), (112, -5, 5),
            (116, -2, 2)], smooth_mm=1)),
        ),
        (
            (-3, loft([(14, -8.5, 8.5), (48, -7.5, 7.5), (50, -7.5, 7.5)], smooth_mm=1)),
            (-3, loft([(50, -5.2, 5.2), (53, -6.6, 6.6), (104, -6.6, 6.6), (112, -5, 5),
            (116, -2, 2)], smooth_mm=1)),
        ),
        (film.COBALT_CHROME, film.TITANIUM),
        11.0,
    ),
    "zimmer-biomet-oxford": Knee(
        _OXFORD_FRONT, _OXFORD_SIDE,
        ((box(7, 7, 35, 10.5), 40.0), (box(7, 2, 9.8, 8), 36.0), (box(19, 10, 22, 20.5), 26.0)),
        ((box(-22, 7, 22, 10.5), 27.0), (box(-19, 2.5, 17, 8), 3.0), (((-12, 10), (15, 10),
        (9, 20.5), (-10, 20.5)), 3.4)),
        ((20, rod(-25, -6, 6)),),
        ((3, rod(-25, -3, 6)), (12, rod(-20, -6, 4.5))),
        (film.COBALT_CHROME, film.COBALT_CHROME),
        7.0,
    ),
}  # fmt: skip


def add_knee(scene: Scene, knee: Knee, femur: Frame, tibia: Frame, side: bool) -> None:
    """Add a prosthesis.

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
    """Take away the bone that the cuts remove, where the whole joint is replaced."""
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
    """Add the free bearing's radiopaque markers: a wire in front and two balls behind."""
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
