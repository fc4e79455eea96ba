"""Automatic masks against the phantoms' true ones: `python -m benchmarks.mask_overlap`.

Draws phantoms of OrthoNet's twelve products, prepares them as a training would (borders left in:
collimation is part of what the masks must stand), and prints Dice by product, of all, and of those
graded good. `--sheet FILE` writes a contact sheet: found red, true green. Phantoms show that the
method works; they are no evidence about patients.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render
from training.masks.automatic import GradedMask, find_mask
from training.masks.mask_files import contact_sheet
from training.masks.overlap import dice


@dataclass(frozen=True)
class Case:
    """One phantom with its true and its automatic mask."""

    product: str
    image_SS: NDArray[np.uint8]
    true_SS: NDArray[np.bool_]
    found: GradedMask

    @property
    def dice(self) -> float:
        """Of the automatic mask against the true one."""
        return dice(self.found.mask_HW, self.true_SS)


def cases(each: int, size_px: int, height_px: int) -> list[Case]:
    """Draw `each` phantoms of each product and find their masks."""
    image = Preprocessing(size_px=size_px, trim_borders=False)
    mask = Preprocessing(size_px=size_px, trim_borders=False, low_percent=0.0, high_percent=100.0)
    drawn = []
    for number, implant in enumerate(ORTHONET):
        for turn in range(each):
            phantom = render(implant, np.random.default_rng([number, turn]), height_px)
            image_SS = preprocess(phantom.pixels_HW, image)
            true_SS = preprocess(phantom.mask_HW.astype(np.uint8) * 255, mask) > 127
            drawn.append(Case(implant.name, image_SS, true_SS, find_mask(image_SS)))
    return drawn


def report(drawn: list[Case]) -> list[str]:
    """Return lines of the report."""
    lines = []
    for name in ORTHONET.names:
        figures = [case.dice for case in drawn if case.product == name]
        lines.append(f"{name:<36} median Dice {np.median(figures):.3f} of {len(figures)}")
    figures = [case.dice for case in drawn]
    good = [case.dice for case in drawn if case.found.grade.word == "good"]
    for title, part in (("all", figures), ("graded good", good)):
        lines.append(
            f"{title:<36} median Dice {np.median(part):.3f}, mean {np.mean(part):.3f} of "
            f"{len(part)}; {sum(value >= 0.9 for value in part)} reach 0.9"
        )
    return lines


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=6, help="phantoms of each product")
    parser.add_argument("--size-px", type=int, default=256, help="side of the prepared picture")
    parser.add_argument("--height-px", type=int, default=384, help="rows of the phantom")
    parser.add_argument("--sheet", type=Path, help="PNG to write")
    options = parser.parse_args()
    drawn = cases(options.each, options.size_px, options.height_px)
    print("\n".join(report(drawn)))
    if options.sheet:
        tiles = [(case.image_SS, case.found.mask_HW, case.true_SS) for case in drawn]
        options.sheet.write_bytes(contact_sheet(tiles))


if __name__ == "__main__":
    main()
