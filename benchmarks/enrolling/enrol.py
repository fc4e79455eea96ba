"""How well implants are told that were added to a package from 5, 10 and 20 images each.

    python -m benchmarks.enrolling.enrol --ten /tmp/ten --makers /tmp/makers \
        --images ../shared/data/shoulder/images --labels /tmp/shoulder.csv

The package knows ten of OrthoNet's twelve implants and is made as benchmarks/configs/enrol.toml
states; `jobs.enrol` adds the other two, twice for each number of images, from different ones, with
and without calibration images of the ten. What is measured on is neither: 50 phantoms of each
implant. Everything is drawn here, by seeds that trained nothing, one image a patient. Phantoms are
no evidence about patients. Then the same for real radiographs of shoulders: four packages, each
without one manufacturer (`benchmarks.enrolling.held_out_makers`). The result goes to
benchmarks/enrolling/enrol.md.
"""

import argparse
import contextlib
import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.enrolling.held_out_makers import (
    CHOICES,
    Radiographs,
    read_radiographs,
    write_labels,
)
from benchmarks.machine import machine
from implant_model.classifier import Classifier, Predictions
from implant_model.errors import Outcome
from implant_model.limits import Limits
from implant_model.package.load import load_package
from implant_model.phantoms.files import ManifestRow, Sample, sample_archives
from jobs import enrol
from jobs.entry.command import OK, run_command
from training.data.gather import gather, list_images
from training.data.labels import read_labels

ROOT: Final = Path(__file__).parents[2]
NEW: Final = ("depuy-sigma", "stryker-exeter")
COUNTS: Final = (5, 10, 20)
POOL_EACH: Final = 40
"""Images of a new implant that choices are drawn from, which share none."""
KNOWN_EACH: Final = 20
MAKER_EACH: Final = 10
POOL, TEST = (480, 2), (600, 3)
"""Pictures of all twelve implants, and the seed that they are drawn by."""


@dataclass(frozen=True)
class Tested:
    """What a package states of the test images, one row of the table.

    Attributes:
        title: Of the row.
        cells: Shares.
    """

    title: str
    cells: Sequence[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ten", type=Path, required=True, help="a package of ten implants")
    parser.add_argument("--makers", type=Path, required=True, help="of held_out_makers --output")
    parser.add_argument("--images", type=Path, required=True, help="the shoulders' radiographs")
    parser.add_argument("--labels", type=Path, required=True, help="their labels file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        found = list(measure(Path(name), options.ten))
        radiographs = read_radiographs(options.images, options.labels, options.makers / "cache")
        real = list(measure_makers(Path(name), options.makers, options.images, radiographs))
    text = report(options.ten, found, real)
    (ROOT / "benchmarks" / "enrolling" / "enrol.md").write_text(text, encoding="utf-8")
    print(text)
    return OK


def measure(folder: Path, ten: Path) -> Iterator[Tested]:
    """Yield a row for the package as it is, and one for each way of adding to it."""
    sample = Sample(images_per_patient=1, height_px=384)
    for part in ("pool", "test"):
        (folder / part).mkdir()
    pool = sample_archives(folder / "pool", *POOL, sample)
    sample_archives(folder / "test", *TEST, sample)
    labels = read_labels(str(folder / "test" / "labels.csv"))
    spec = load_package(str(ten), weights=False).preprocessing
    objects = list_images([str(folder / "test")], (labels.uri,))
    gathered = gather(objects, labels, spec, Limits(), str(folder / "cache"))
    test = (gathered.images[np.arange(len(gathered.labels))], gathered.labels)
    yield tested("before", ten, test, NEW)
    for with_known in (False, True):
        for count in COUNTS:
            rows = []
            for draw in range(POOL_EACH // count):
                made = folder / f"{count}-{draw}-{with_known}"
                add(made, ten, folder, chosen(pool, count, draw, with_known))
                rows.append(tested("", made, test, NEW).cells)
            kind = f"{count} images each" + (f", {KNOWN_EACH} of each known" * with_known)
            yield Tested(kind, np.mean(rows, axis=0).tolist())


def measure_makers(
    folder: Path, makers: Path, images: Path, radiographs: Radiographs
) -> Iterator[Tested]:
    """Yield the same rows for real radiographs, means over the manufacturers left out."""
    held = radiographs.held

    def measured(package: Path, maker: str, left_out: set[int]) -> list[float]:
        places = [at for at in radiographs.tested(maker) if at not in left_out]
        labels = [held.labels[at] for at in places]
        return [*tested("", package, (held.images[np.array(places)], labels), (maker,)).cells]

    rows = [measured(makers / maker, maker, set()) for maker in radiographs.makers]
    yield Tested("before", np.mean(rows, axis=0).tolist())
    for with_known in (False, True):
        for count in COUNTS:
            rows = []
            for maker in radiographs.makers:
                known = radiographs.calibration(maker, MAKER_EACH) if with_known else []
                for draw in range(CHOICES):
                    made = folder / f"{maker}-{count}-{draw}-{with_known}"
                    labels = made.with_suffix(".csv")
                    new = radiographs.pool(maker, draw)[:count]
                    write_labels(labels, radiographs, [*new, *known])
                    enrol_quietly(makers / maker, images, labels, made)
                    rows.append(measured(made, maker, {*known}))
            kind = f"{count} images" + (f", {MAKER_EACH} of each known" * with_known)
            yield Tested(kind, np.mean(rows, axis=0).tolist())


def chosen(pool: list[ManifestRow], count: int, draw: int, with_known: bool) -> list[ManifestRow]:
    """Return the rows that are enrolled; draws share none of the new implants' images."""
    taken = []
    for label in sorted({row["label"] for row in pool}):
        mine = [row for row in pool if row["label"] == label]
        if label in NEW:
            taken += mine[draw * count :][:count]
        elif with_known:
            taken += mine[:KNOWN_EACH]
    return taken


def add(made: Path, ten: Path, folder: Path, rows: list[ManifestRow]) -> None:
    """Make a package with two more implants."""
    labels = made.with_suffix(".csv")
    with labels.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    enrol_quietly(ten, folder / "pool", labels, made)


def enrol_quietly(model: Path, images: Path, labels: Path, made: Path) -> None:
    """Run `jobs.enrol`."""
    call = ["--model", str(model), "--images", str(images), "--labels", str(labels)]
    with contextlib.redirect_stdout(io.StringIO()):
        enrol.main([*call, "--output", str(made)])


def tested(
    title: str, uri: Path, test: tuple[NDArray[np.uint8], Sequence[str]], new: Sequence[str]
) -> Tested:
    """Measure a package on test images with labels."""
    package = load_package(str(uri))
    images_NSS, labels = test
    found = Classifier(package).classify(images_NSS)
    labels_N = np.array([-1 if at is None else at for at in map(package.catalogue.find, labels)])
    new_N = np.array([label in new for label in labels])
    cells = []
    for part_N in (~new_N, new_N):
        cells += shares(found, labels_N, np.flatnonzero(part_N))
    return Tested(title, cells)


def shares(found: Predictions, labels_N: NDArray[np.int64], part: NDArray[np.int64]) -> list[float]:
    """Return best candidate right, covered, candidates, identified and right, called unknown."""
    best_N = found.probabilities_NC.argmax(axis=1)
    outcomes = [found.outcomes[at] for at in part]
    right_N = best_N[part] == labels_N[part]
    only_N = np.array([outcome is Outcome.IDENTIFIED for outcome in outcomes])
    return [
        float(right_N.mean()),
        float(np.mean([labels_N[at] in found.candidates[at] for at in part])),
        float(np.mean([len(found.candidates[at]) for at in part])),
        float((only_N & right_N).mean()),
        float(np.mean([outcome is Outcome.UNKNOWN for outcome in outcomes])),
    ]


def report(ten: Path, found: Sequence[Tested], real: Sequence[Tested]) -> str:
    """Return the page."""
    package = load_package(str(ten), weights=False)
    lines = [
        "# Implants added from a few images",
        "Made by `python -m benchmarks.enrolling.enrol --ten DIR --makers DIR --images DIR "
        f"--labels FILE` on {datetime.now(UTC):%Y-%m-%d}, {machine()}.",
        "`right`: the best candidate. `covered`: the implant is among the candidates, for a chosen "
        f"{package.coverage:g}. `candidates`: how many there are. `identified, right`: it is the "
        "only one, and the image is not called unknown. `unknown`: called unknown.",
        "## Phantoms",
        f"The package `{package.id}` (benchmarks/configs/enrol.toml) knows ten of OrthoNet's "
        f"twelve implants; {' and '.join(NEW)} were added by `jobs.enrol`, without training. Each "
        f"row is the mean of as many choices of the new images as {POOL_EACH} of each allow, which "
        "share none (8, 4 and 2 of 5, 10 and 20), on 50 phantoms of each implant that neither "
        "trained nor calibrated. Phantoms are no evidence about patients.",
        _table(found),
        "## Shoulders",
        "Real radiographs of four manufacturers (benchmarks/enrolling/held_out_makers.py): a "
        "package for each, without an outside image, that knows the other three, to which the "
        f"fourth was added. Each row is the mean over the four and {CHOICES} choices of the new "
        "images, which share none. The new manufacturer is tested on what is left of its "
        "radiographs, the others on a third of theirs that trained nothing (less the "
        f"{MAKER_EACH} of each where these calibrate).",
        _table(real),
    ]
    return "\n\n".join(lines) + "\n"


def _table(rows: Sequence[Tested]) -> str:
    columns = ("right", "covered", "candidates", "identified, right", "unknown")
    heads = [f"{part}: {name}" for part in ("known", "new") for name in columns]
    cells = [f"| {r.title} | {' | '.join(f'{cell:.3f}' for cell in r.cells)} |" for r in rows]
    return "\n".join(
        [f"| package | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", *cells]
    )


if __name__ == "__main__":
    run_command("enrol", main)
