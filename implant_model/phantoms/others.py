"""Implants that are not in OrthoNet's catalogue: what a model must call unknown.

A humeral stem with a head, a compression plate, an intramedullary nail, a dynamic hip screw, and a
reverse shoulder. Generic shapes, of no maker. They show the pipeline at work, they are no evidence
about patients.
"""

import numpy as np

from implant_model.phantoms import film as film
from implant_model.phantoms.film import Scene
from implant_model.phantoms.hips import add_screw
from implant_model.phantoms.shapes import loft, rod, rounded
from implant_model.phantoms.solids import Frame, add_ball, add_bowl, add_loft, add_prism


def add_humeral_stem(scene: Scene, humerus: Frame, rng: np.random.Generator) -> None:
    """Add an anatomical shoulder prosthesis; the origin is the middle of the head."""
    metal = film.COBALT_CHROME if rng.random() < 0.6 else film.TITANIUM
    end = rng.uniform(75, 120)
    body = [
        (-4, -8, 6),
        (10, -9, 9),
        (30, -6.5, 6.5),
        (60, -5, 5),
        (end, -4.2, 4.2),
        (end + 5, -2, 2),
    ]
    add_loft(scene.implant_HW, humerus, loft(body, 4, smooth_mm=5), metal)
    cup = humerus.at(5, -3, rng.uniform(42, 55))
    add_bowl(scene.implant_HW, cup, (rng.uniform(20, 25), 0.0), 8, metal)


def add_reverse_shoulder(scene: Scene, humerus: Frame, rng: np.random.Generator) -> None:
    """Add a reverse shoulder: glenosphere on screws, cup on a humeral stem."""
    ball = humerus.at(22, 6)
    add_ball(scene.implant_HW, ball, rng.uniform(18, 21), film.COBALT_CHROME)
    add_screw(scene, ball.at(6, -6, -75), rng, 30)
    add_screw(scene, ball.at(6, 8, -110), rng, 28)
    stem = humerus.at(-2, 26)
    body = [(0, -15, 15), (9, -13, 13), (20, -8, 8), (60, -5.5, 5.5), (95, -4.5, 4.5), (100, -2, 2)]
    add_loft(scene.implant_HW, stem, loft(body, 2, smooth_mm=5), film.TITANIUM)


def add_plate(scene: Scene, bone: Frame, rng: np.random.Generator) -> None:
    """Add a plate with screws along a shaft whose axis is the frame's y axis."""
    holes = int(rng.integers(6, 11))
    first, pitch = rng.uniform(-20, 10), rng.uniform(12, 16)
    side = bone.at(-16.5, first, rng.uniform(-2, 2))
    last = holes * pitch
    metal = film.STEEL if rng.random() < 0.6 else film.TITANIUM
    flat = rounded([(-2.4, -4), (2.0, -4), (2.0, last), (-2.4, last)], 1)
    add_prism(scene.implant_HW, side, flat, metal * 12, bevel_mm=1)
    for hole in range(holes):
        if rng.random() < 0.85:
            screw = side.at(-1.5, pitch * (hole + 0.5) - 3, -90 + rng.uniform(-4, 4))
            add_screw(scene, screw, rng, rng.uniform(30, 38))


def add_nail(scene: Scene, femur: Frame, rng: np.random.Generator) -> None:
    """Add a cephalomedullary nail with a lag screw that ends in the head; origin as a stem's."""
    width = rng.uniform(10, 12.5)
    body = [
        (-26, -8, 6),
        (-18, -8.5, 8),
        (30, -7.5, 7.5),
        (60, -width / 2, width / 2),
        (330, -width / 2, width / 2),
    ]
    add_loft(scene.implant_HW, femur, loft(body, 2, smooth_mm=12), film.TITANIUM)
    lag = femur.at(42, -34, rng.uniform(48, 52))
    thread = [
        (float(y), -4.0 - (k % 2), 4.0 + (k % 2)) for k, y in enumerate(np.arange(-6, 22, 2.0))
    ]
    add_loft(
        scene.implant_HW,
        lag,
        loft([*thread, (24, -4.6, 4.6), (92, -4.6, 4.6)], smooth_mm=0),
        film.TITANIUM,
    )
    if rng.random() < 0.5:
        add_screw(scene, femur.at(-20, rng.uniform(100, 130), -90), rng, 40)


def add_hip_screw(scene: Scene, femur: Frame, rng: np.random.Generator) -> None:
    """Add a dynamic hip screw: lag screw, barrel and a side plate."""
    lag = femur.at(42, -34, 45)
    thread = [
        (float(y), -5.0 - (k % 2), 5.0 + (k % 2)) for k, y in enumerate(np.arange(-6, 18, 2.2))
    ]
    add_loft(
        scene.implant_HW, lag, loft([*thread, (20, -4, 4), (50, -4, 4)], smooth_mm=0), film.STEEL
    )
    add_loft(scene.implant_HW, lag, rod(45, 84, 12.5), film.STEEL * 0.8)
    holes = int(rng.integers(3, 6))
    side = femur.at(-18.5, 10)
    last = 18 + 16.0 * holes
    add_prism(
        scene.implant_HW,
        side,
        rounded([(-3, 0), (3, 4), (3, last), (-3, last)], 1),
        film.STEEL * 15,
        1.2,
    )
    for hole in range(holes):
        add_screw(scene, side.at(-2, 26 + 16.0 * hole, -90), rng, 38)


def add_clips(scene: Scene, rng: np.random.Generator) -> None:
    """Add a row of skin staples anywhere: metal that is no implant, and not in the mask."""
    height, width = scene.size_mm
    row = scene.frame.at(
        rng.uniform(0.1, 0.5) * width, rng.uniform(0.1, 0.4) * height, rng.uniform(-15, 15)
    )
    for staple in range(int(rng.integers(6, 14))):
        bar = row.at(rng.uniform(-1, 1), staple * 8.0, rng.uniform(-12, 12))
        add_loft(scene.cement_HW, bar.at(0, 0, 90), rod(-3, 3, 0.7), film.STEEL)
