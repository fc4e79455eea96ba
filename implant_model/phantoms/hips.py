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
from implant_model.phantoms.shapes import Loft, Points, loft, rounded


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
        cemented: It stands in a mantle of cement.
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
