"""Lays hip stems, heads, cups, cement and screws into a scene.

The stems are those of `phantom_hips`. They show the pipeline at work, they are no evidence about
patients.
"""

import numpy as np

from implant_model.phantoms import film as film
from implant_model.phantoms.film import Scene
from implant_model.phantoms.hips import EXETER, MANTLE, Stem
from implant_model.phantoms.shapes import loft, rod
from implant_model.phantoms.solids import Frame, add_ball, add_bowl, add_loft, add_prism, add_wire


def add_stem(scene: Scene, frame: Frame, stem: Stem, turn_degrees: float) -> Frame:
    """Adds stem, neck, collar and cement.

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
    """Carves grooves and the insertion hole; what is carved never exceeds the body there."""
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
    """Adds the mantle, and the hollow that the centraliser leaves below the tip."""
    add_loft(scene.cement_HW, frame, MANTLE, film.CEMENT)
    add_loft(scene.cement_HW, frame, EXETER, -film.CEMENT)
    add_loft(scene.cement_HW, frame, rod(148, 159, 6.5), -film.CEMENT)


def add_bearing(
    scene: Scene, head: Frame, socket: Frame, rng: np.random.Generator, cemented_cup: float
) -> None:
    """Adds a head of metal or ceramic and a cup of random make: they do not betray the stem.

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
    """Adds a cancellous screw: its head at the frame's origin, its shaft along +y, in mm."""
    reach = length or rng.uniform(18, 34)
    turns = np.arange(3.0, reach, 1.3)
    thread = [(float(y), -2.4 - 0.5 * (k % 2), 2.4 + 0.5 * (k % 2)) for k, y in enumerate(turns)]
    thread = [(3.0, -2.0, 2.0), *thread[1:], (reach + 2, -0.4, 0.4)]
    add_loft(scene.implant_HW, frame, loft(thread, smooth_mm=0.0), film.TITANIUM)
    add_loft(scene.implant_HW, frame, rod(0, 3.2, 7.5), film.TITANIUM)
