"""The eight hip stems of OrthoNet, by shape.

Each stem is drawn from what is publicly known of its shape (makers' brochures and published
radiographs): outline, cross-section, length, neck, collar, tip, surface. Measures are rounded and
of a middle size; they are drawings, not the makers' data. They show the pipeline at work, they are
no evidence about patients.

A stem's frame: y down the stem's axis in mm, y = 0 at the calcar, x medial; see `phantom_anatomy`.
"""

from dataclasses import dataclass

import numpy as np

from implant_model.phantoms import film as film
from implant_model.phantoms.film import Scene
from implant_model.phantoms.shapes import Loft, Points, loft, rod, rounded
from implant_model.phantoms.solids import Frame, add_ball, add_bowl, add_loft, add_prism, add_wire


@dataclass(frozen=True)
class Stem:
    """A femoral stem.

    Attributes:
        body: The stem below the neck.
        neck_degrees: Between neck and stem (CCD angle).
        neck_mm: From the stem's axis to the head's centre, along the neck.
        neck_widths: Neck's width in mm at its root and at its taper.
        metal: Attenuation in 1/mm.
        collar: Outline of a collar in the stem's frame, or None.
        ridges: Horizontal grooves, as (first y, last y, pitch, depth) in mm.
        ribs: Vertical grooves, as (x, first y, last y, width, depth) in mm.
        hole: (x, y, radius) of an insertion hole.
        cemented: It is in a mantle of cement.
    """

    body: Loft
    neck_degrees: float
    neck_mm: float
    neck_widths: tuple[float, float]
    metal: float = film.TITANIUM
    collar: Points | None = None
    ridges: tuple[float, float, float, float] | None = None
    ribs: tuple[tuple[float, float, float, float, float], ...] = ()
    hole: tuple[float, float, float] | None = None
    cemented: bool = False

    def head(self) -> tuple[float, float]:
        """Centre of the head in the stem's frame, in mm."""
        lean = np.radians(180 - self.neck_degrees)
        return float(self.neck_mm * np.sin(lean)), float(4 - self.neck_mm * np.cos(lean))


# Corail: straight, quadrangular, a trumpet that flares to both sides, horizontal grooves above and
# vertical ones below, slim pointed end. Its collar is a thin plate that follows the oblique cut.
_CORAIL = loft(
    [
        (-19, -7, -2, 9), (-15, -10.5, 7, 14), (-8, -13, 15, 15), (0, -13.2, 17.5, 15.5),
        (9, -12, 13.4, 15), (20, -10.6, 10.4, 13.5), (35, -9.2, 8.4, 12), (60, -7.6, 6.8, 10.5),
        (90, -5.9, 5.3, 9), (116, -4.3, 4.0, 7.5), (125, -3.2, 3.0, 6.5), (129, -1.2, 1.2, 4),
    ],
    exponent=8, smooth_mm=5,
)  # fmt: skip
_CORAIL_RIBS = ((-1.9, 48.0, 112.0, 1.6, 2.2), (1.9, 48.0, 112.0, 1.6, 2.2))
_CORAIL_COLLAR = rounded([(9, -8), (12, -11), (27.5, 4.5), (25, 7.2)], passes=1)

# Furlong Evolution: short and fully coated; a round cone with a lateral shoulder above, a step into
# a parallel-sided cylinder below, bullet tip. Its collar is horizontal and thick.
_FURLONG = loft(
    [
        (-17, -4, 3, 9), (-13, -11, 10, 15), (-7, -16.5, 15, 20), (2, -15.4, 15.4, 21),
        (16, -12.3, 12.0, 19), (30, -9.3, 9.0, 16), (35, -8.4, 8.2, 14), (37, -6.7, 6.7, 13),
        (70, -6.5, 6.5, 13), (99, -6.4, 6.4, 12.8), (106, -5.2, 5.2, 10), (110, -2.6, 2.6, 5),
    ],
    exponent=2, smooth_mm=3,
)  # fmt: skip
_FURLONG_COLLAR = rounded(
    [(8, -3.5), (22, -4.5), (26.5, -2), (26.5, 1.8), (22, 3.2), (8, 4)], passes=2
)

# Anthology: a flat wedge, thin from front to back, its lateral shoulder cut away, a porous sleeve
# that ends in a step, narrow pointed end.
_ANTHOLOGY = loft(
    [
        (-15, -1, 6, 8), (-8, -5, 13.5, 10), (-1, -8.5, 17.2, 10.5), (9, -12, 15, 10.5),
        (22, -12.4, 10.8, 10), (48, -9.6, 7.6, 9), (49, -8.7, 6.6, 8.2), (75, -5.6, 4.6, 7),
        (97, -3.0, 2.6, 5.6), (107, -1.8, 1.5, 4), (110, -0.8, 0.7, 2.5),
    ],
    exponent=8, smooth_mm=3,
)  # fmt: skip

# Polarstem: long slim double taper with a rounded shoulder, ribs on its upper third, and a distal
# end cut obliquely on its medial side.
_POLARSTEM = loft(
    [
        (-18, -2, 2, 8), (-13, -7.5, 9.5, 12), (-5, -10.6, 15.8, 13.5), (5, -11, 15.2, 13.5),
        (18, -10.4, 11.8, 12.5), (36, -9.4, 9.4, 11.5), (62, -8.4, 7.6, 10.5), (92, -7.2, 5.6, 9),
        (118, -6.0, 4.2, 8), (132, -5.2, 1.6, 6.5), (143, -4.4, -1.6, 4.5), (146, -3.8, -2.6, 3),
    ],
    exponent=4, smooth_mm=4,
)  # fmt: skip
_POLARSTEM_RIBS = tuple((x, -4.0, 34.0, 2.0, 3.4) for x in (-5.2, -0.6, 4.0))

# Accolade II: a flat wedge with a square lateral shoulder that carries the insertion hole, a
# strongly curved medial side that follows the calcar, a coating that ends in a step, a broad end.
_ACCOLADE = loft(
    [
        (-16, -13, 4, 8), (-14, -14.6, 9, 9), (-6, -15.2, 16, 10.5), (2, -14.6, 19, 10.5),
        (9, -13.6, 17.6, 10.5), (18, -12.5, 13, 10), (30, -11, 9.6, 9.5), (52, -9.2, 7.0, 8.6),
        (53, -8.2, 6.1, 8.0), (75, -7.0, 5.4, 7.2), (95, -6.0, 4.8, 6.6), (100, -4.6, 3.8, 6),
        (103, -2, 1.6, 4),
    ],
    exponent=8, smooth_mm=2.5,
)  # fmt: skip

# Exeter: polished steel, a smooth collarless double taper without a step or a groove, in cement
# that shows a hollow below the tip (the centraliser's).
EXETER = loft(
    [
        (-19, -4, 5, 9), (-14, -8, 10, 10), (-6, -9.8, 13.2, 10.5), (6, -9.8, 11.6, 10.5),
        (30, -8.6, 8.8, 9.5), (60, -7.0, 7.2, 8.5), (90, -5.4, 5.6, 7), (120, -3.9, 4.1, 5.6),
        (140, -3.0, 3.1, 4.8), (147, -2.3, 2.4, 4), (149, -1.2, 1.2, 2.5),
    ],
    exponent=4, smooth_mm=8,
)  # fmt: skip
MANTLE = loft(
    [
        (-4, -12, 15, 15), (6, -13.5, 15.5, 17), (30, -12, 12.4, 17), (60, -10.2, 10.4, 15),
        (100, -8.6, 8.6, 13.5), (150, -7.4, 7.4, 13), (176, -7.2, 7.2, 13), (182, -5.5, 5.5, 9),
    ],
    smooth_mm=9,
)  # fmt: skip

_CORAIL_STEM = Stem(_CORAIL, 135, 55, (15, 11.5), ridges=(-4, 40, 4.4, 1.5), ribs=_CORAIL_RIBS)
_FURLONG_STEM = Stem(_FURLONG, 132, 54, (17, 13))

STEMS: dict[str, Stem] = {
    "depuy-corail-collared": Stem(
        _CORAIL, 135, 55, (15, 11.5), collar=_CORAIL_COLLAR, ridges=(-4, 40, 4.4, 1.5),
        ribs=_CORAIL_RIBS,
    ),
    "depuy-corail-collarless": _CORAIL_STEM,
    "jri-furlong-evolution-collared": Stem(_FURLONG, 132, 54, (17, 13), collar=_FURLONG_COLLAR),
    "jri-furlong-evolution-collarless": _FURLONG_STEM,
    "smith-nephew-anthology": Stem(_ANTHOLOGY, 131, 54, (13, 11)),
    "smith-nephew-polarstem": Stem(_POLARSTEM, 135, 56, (14, 12), ribs=_POLARSTEM_RIBS),
    "stryker-accolade-ii": Stem(_ACCOLADE, 129, 53, (15, 10.5), hole=(-8.2, -7.5, 2.6)),
    "stryker-exeter": Stem(EXETER, 126, 54, (14, 10.5), metal=film.STEEL, cemented=True),
}  # fmt: skip


def add_stem(scene: Scene, frame: Frame, stem: Stem, turn_degrees: float) -> Frame:
    """Add stem, neck, collar and cement.

    Args:
        scene: Its maps are changed in place.
        frame: The stem's.
        stem: What to draw.
        turn_degrees: Anteversion left over in the picture.

    Returns:
        The frame of the head: its centre, y towards the stem along the neck.
    """
    target_HW = scene.implant_HW
    squeeze = float(np.cos(np.radians(turn_degrees)))
    if stem.cemented:
        _add_cement(scene, frame)
    add_loft(target_HW, frame, stem.body, stem.metal, turn_degrees)
    flat = frame.at(0, 0, scale=(squeeze, 1.0))
    _add_surface(scene, flat, stem)
    if stem.collar is not None:
        add_prism(target_HW, flat, stem.collar, stem.metal * 18, bevel_mm=1.5)
    x, y = stem.head()
    head = frame.at(x * squeeze, y, float(np.degrees(np.arctan2(x * squeeze, 4 - y))))
    root, taper = stem.neck_widths
    length = stem.neck_mm - 14
    neck = [
        (0, -taper / 2, taper / 2),
        (14, -taper / 2, taper / 2),
        (length * 0.75, -root * 0.42, root * 0.42),
    ]
    neck += [(length, -root / 2, root / 2), (length + 7, -root * 0.45, root * 0.45)]
    add_loft(target_HW, head, loft(neck, exponent=2, smooth_mm=6), stem.metal)
    return head


def _add_surface(scene: Scene, frame: Frame, stem: Stem) -> None:
    """Carve grooves and the insertion hole; what is carved never exceeds the body there."""
    target_HW = scene.implant_HW
    if stem.ridges is not None:
        first, last, pitch, depth = stem.ridges
        stations = np.array(stem.body.stations)
        for y in np.arange(first, last, pitch):
            left, right = (float(np.interp(y, stations[:, 0], stations[:, k])) for k in (1, 2))
            slot = np.array(
                [(left, y), (right, y), (right, y + pitch * 0.4), (left, y + pitch * 0.4)]
            )
            add_prism(target_HW, frame, slot, -stem.metal * depth)
    for x, first, last, width, depth in stem.ribs:
        slot = np.array(
            [
                (x - width / 2, first),
                (x + width / 2, first),
                (x + width / 3, last),
                (x - width / 3, last),
            ]
        )
        add_prism(target_HW, frame, slot, -stem.metal * depth)
    if stem.hole is not None:
        x, y, radius = stem.hole
        depth = float(
            np.interp(y, [s[0] for s in stem.body.stations], [s[3] for s in stem.body.stations])
        )
        ring = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.stack([x + radius * np.cos(ring), y + radius * np.sin(ring)], axis=1)
        add_prism(target_HW, frame, circle, -stem.metal * depth * 0.85)


def _add_cement(scene: Scene, frame: Frame) -> None:
    """Add the mantle, and the hollow that the centraliser leaves below the tip."""
    add_loft(scene.cement_HW, frame, MANTLE, film.CEMENT)
    add_loft(scene.cement_HW, frame, EXETER, -film.CEMENT)
    add_loft(scene.cement_HW, frame, rod(148, 159, 6.5), -film.CEMENT)


def add_bearing(
    scene: Scene, head: Frame, socket: Frame, rng: np.random.Generator, cemented_cup: float
) -> None:
    """Add a head of metal or ceramic and a cup of random make: they do not betray the stem.

    Args:
        scene: Its maps are changed in place.
        head: The head's frame.
        socket: Upright frame at the same centre, medial to the right.
        rng: Draws sizes, materials, inclination, anteversion, screws.
        cemented_cup: Probability of an all-polyethylene cup with a wire marker.
    """
    radius = rng.choice([14.0, 16.0, 16.0, 18.0])
    metal = rng.choice([film.COBALT_CHROME, film.CERAMIC, film.CERAMIC * 1.6])
    add_ball(scene.implant_HW, socket, radius, metal)
    add_loft(scene.implant_HW, head, rod(1, radius * 0.85, 11), -metal)  # the bore for the taper
    outer = radius + rng.uniform(9.0, 13.0)
    bowl = socket.at(0, 0, rng.uniform(35, 52))
    tilt = rng.uniform(6, 24)
    if rng.random() < cemented_cup:
        add_bowl(scene.cement_HW, bowl, (outer + 2.5, outer), tilt, film.CEMENT)
        flat = float(np.sin(np.radians(tilt)))
        angles = np.linspace(0, 2 * np.pi, 33)
        ring = [(outer * np.cos(a), outer * flat * np.sin(a)) for a in angles]
        add_wire(scene.implant_HW, bowl, [(float(x), float(y)) for x, y in ring], 1.2, film.STEEL)
        return
    wall = rng.uniform(3.0, 5.0)
    add_bowl(scene.implant_HW, bowl, (outer, outer - wall), tilt, film.TITANIUM)
    add_bowl(scene.cement_HW, bowl, (outer - wall, radius + 0.3), tilt, film.POLYETHYLENE)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        add_screw(scene, bowl.at(rng.uniform(-9, 5), -outer + 2, rng.uniform(155, 200)), rng)


def add_screw(scene: Scene, frame: Frame, rng: np.random.Generator, length: float = 0.0) -> None:
    """Add a cancellous screw: its head at the frame's origin, its shaft along +y, in mm."""
    reach = length or rng.uniform(18, 34)
    turns = np.arange(3.0, reach, 1.3)
    thread = [(float(y), -2.4 - 0.5 * (k % 2), 2.4 + 0.5 * (k % 2)) for k, y in enumerate(turns)]
    thread = [(3.0, -2.0, 2.0), *thread[1:], (reach + 2, -0.4, 0.4)]
    add_loft(scene.implant_HW, frame, loft(thread, smooth_mm=0.0), film.TITANIUM)
    add_loft(scene.implant_HW, frame, rod(0, 3.2, 7.5), film.TITANIUM)
