"""Four packages of shoulder prostheses, each without one manufacturer, to which it is then added.

    python -m benchmarks.shoulder_labels ../shared/data/shoulder/labels.csv /tmp/shoulder.csv
    python -m benchmarks.enrolling.held_out_makers --images ../shared/data/shoulder/images \
        --labels /tmp/shoulder.csv --output /tmp/makers

Each package is a Fisher vector without an outside image, by benchmarks/configs/held-out-maker.toml,
trained on two thirds of the other three manufacturers' radiographs; the last third tests. Of the
manufacturer that is left out 40 radiographs are for `jobs.enrol`, in two choices that share none,
and the others test. Near duplicates are on one side of each division. What is there is not made
again. `benchmarks.enrolling.enrol --makers DIR` then measures.
"""

import argparse
import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits
from training.data.duplicates import near_groups
from training.data.gather import Gathered, gather, list_images
from training.data.labels import read_labels

CONFIG: Final = Path(__file__).parents[1] / "configs" / "held-out-maker.toml"
PIXELS: Final = Preprocessing(size_px=224, fit="pad")
DUPLICATE_BITS: Final = 40
CHOICES: Final = 2
POOL: Final = 20
"""Radiographs of a choice of the manufacturer that is left out."""
TESTED: Final = 3
"""One in so many of a known manufacturer's radiographs tests."""
COLUMNS: Final = ("archive", "member", "label")


@dataclass(frozen=True)
class Radiographs:
    """The set, divided for each manufacturer that is left out.

    Attributes:
        held: As they were read.
        files: Of each, below the folder of images.
        groups_N: Near duplicates have one number.
    """

    held: Gathered
    files: tuple[str, ...]
    groups_N: np.ndarray

    @property
    def makers(self) -> list[str]:
        """Return the manufacturers."""
        return sorted(set(self.held.labels))

    def in_turn(self, maker: str) -> list[list[int]]:
        """Return a manufacturer's radiographs, near duplicates together, in random order."""
        mine = [at for at, label in enumerate(self.held.labels) if label == maker]
        groups = sorted({int(self.groups_N[at]) for at in mine})
        order = np.random.default_rng(0).permutation(len(groups)).tolist()
        return [[at for at in mine if self.groups_N[at] == groups[place]] for place in order]

    def pool(self, maker: str, choice: int) -> list[int]:
        """Return radiographs to enrol of one that is left out, one of each group."""
        return [group[0] for group in self.in_turn(maker)[choice * POOL :][:POOL]]

    def trained(self, left_out: str) -> list[int]:
        """Return what a package without a manufacturer is trained on."""
        return [
            at
            for maker in self.makers
            if maker != left_out
            for place, group in enumerate(self.in_turn(maker))
            if place % TESTED
            for at in group
        ]

    def calibration(self, left_out: str, each: int) -> list[int]:
        """Return so many radiographs of each known manufacturer, out of those that test."""
        tested = self.tested(left_out)
        known = [maker for maker in self.makers if maker != left_out]
        return [
            at
            for maker in known
            for at in [at for at in tested if self.held.labels[at] == maker][:each]
        ]

    def tested(self, left_out: str) -> list[int]:
        """Return what a package is tested on once the manufacturer is in it."""
        trained = {*self.trained(left_out)}
        pools = self.in_turn(left_out)[: CHOICES * POOL]
        enrolled = {at for group in pools for at in group}
        return [at for at in range(len(self.files)) if at not in trained | enrolled]


def read_radiographs(images: Path, labels: Path, cache: Path) -> Radiographs:
    """Read and prepare the whole set."""
    table = read_labels(str(labels))
    objects = list_images([str(images)], (table.uri,))
    held = gather(objects, table, PIXELS, Limits(), str(cache))
    files = tuple(place.archive for place in held.places)
    return Radiographs(held, files, near_groups(held.hashes_NB, DUPLICATE_BITS))


def write_labels(path: Path, radiographs: Radiographs, chosen: Sequence[int]) -> None:
    """Write a labels file of some radiographs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        rows = ((radiographs.files[at], "", radiographs.held.labels[at]) for at in chosen)
        writer.writerows(rows)


def main() -> None:
    """Divide the set and train the four packages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    radiographs = read_radiographs(options.images, options.labels, options.output / "cache")
    for maker in radiographs.makers:
        trained = radiographs.trained(maker)
        print(maker, Counter(radiographs.held.labels[at] for at in trained), flush=True)
        package, labels = options.output / maker, options.output / f"{maker}.csv"
        if package.exists():
            continue
        write_labels(labels, radiographs, trained)
        call = [*(sys.executable, "-m", "jobs.train", "--images", str(options.images))]
        call += ["--labels", str(labels), "--config", str(CONFIG), "--output", str(package)]
        subprocess.run(call, check=True)


if __name__ == "__main__":
    main()
