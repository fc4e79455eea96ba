"""How well implants are told that were added to a package from 5, 10 and 20 images each.

    python -m benchmarks.enrolling.enrol --ten /tmp/ten --makers /tmp/makers \
        --images ../shared/data/shoulder/images --labels /tmp/shoulder.csv

The package knows ten of OrthoNet's twelve implants and is made as benchmarks/configs/enrol.toml
states; the other two are added as `jobs.enrol` does it, for each number of images as often as 40
of each allow, with and without calibration images of the ten. What is measured on is neither: 50
phantoms of each implant. Everything is drawn here, by seeds that trained nothing, one image a
patient. Phantoms are no evidence about patients. Then the same for real radiographs of shoulders:
four packages, each without one manufacturer (`benchmarks.enrolling.held_out_makers`). The result
goes to benchmarks/enrolling/enrol.md.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.enrolling.held_out_makers import CHOICES, Radiographs, read_radiographs
from benchmarks.machine import machine
from implant_model.calibration import softmax
from implant_model.limits import Limits
from implant_model.networks.weights import load_networks
from implant_model.package.load import ModelPackage, load_package
from implant_model.phantoms.files import Sample, sample_archives
from jobs.enrolling.few_images import enrol_images, judge
from jobs.entry.command import OK, run_command
from training.data.gather import Gathered, gather, list_images
from training.data.labels import read_labels
from training.enrolment.embedded import Embedded, embed
from training.enrolment.promises import Judged, make_promises

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
    real = list(measure_makers(options.makers, radiographs))
    text = report(options.ten, found, real)
    (ROOT / "benchmarks" / "enrolling" / "enrol.md").write_text(text, encoding="utf-8")
    print(text)
    return OK


def measure(folder: Path, ten: Path) -> Iterator[Tested]:
    """Yield a row for the package as it is, and one for each way of adding to it."""
    sample = Sample(images_per_patient=1, height_px=384)
    package = load_package(str(ten))
    parts = {}
    for part, drawn in (("pool", POOL), ("test", TEST)):
        (folder / part).mkdir()
        sample_archives(folder / part, *drawn, sample)
        labels = read_labels(str(folder / part / "labels.csv"))
        objects = list_images([str(folder / part)], (labels.uri,))
        held = gather(objects, labels, package.preprocessing, Limits(), str(folder / "cache"))
        groups_N = np.arange(len(held.labels))
        parts[part] = embedded(package, held, NEW, groups_N, groups_N)
    pool, test = parts["pool"], parts["test"]
    yield Tested("before", before(package, test))
    num_known = len(package.catalogue)
    for with_known in (False, True):
        for count in COUNTS:
            rows = []
            for draw in range(POOL_EACH // count):
                new = chosen(pool, range(num_known, num_known + len(NEW)), draw * count, count)
                known = chosen(pool, range(num_known), 0, KNOWN_EACH if with_known else 0)
                rows.append(added(package, pool.at(new), pool.at(known), test))
            kind = f"{count} images each" + (f", {KNOWN_EACH} of each known" * with_known)
            yield Tested(kind, np.mean(rows, axis=0).tolist())


def measure_makers(makers: Path, radiographs: Radiographs) -> Iterator[Tested]:
    """Yield the same rows for real radiographs, means over the manufacturers left out."""
    held, rows = radiographs.held, defaultdict(list)
    for maker in radiographs.makers:
        package = load_package(str(makers / maker))
        at_N = np.arange(len(held.labels))
        whole = embedded(package, held, (maker,), at_N, radiographs.groups_N)
        tested = np.isin(at_N, radiographs.tested(maker))
        rows["before"].append(before(package, whole.at(tested)))
        for each in (0, MAKER_EACH):
            known = np.isin(at_N, radiographs.calibration(maker, each))
            for count in COUNTS:
                kind = f"{count} images" + (f", {each} of each known" if each else "")
                for choice in range(CHOICES):
                    new = np.isin(at_N, radiographs.pool(maker, choice)[:count])
                    test = whole.at(tested & ~known)
                    rows[kind].append(added(package, whole.at(new), whole.at(known), test))
    for kind, found in rows.items():
        yield Tested(kind, np.mean(found, axis=0).tolist())


def embedded(
    package: ModelPackage,
    held: Gathered,
    new: Sequence[str],
    at_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
) -> Embedded:
    """Return images as the package's networks see them, which enrolment does not change."""
    names = [*package.catalogue.names, *new]
    labels_N = np.array([names.index(held.labels[at]) for at in at_N.tolist()], np.int64)
    networks = load_networks(package.networks, len(package.catalogue), package.files)
    return Embedded(embed(networks, held.images, at_N), labels_N, groups_N)


def chosen(pool: Embedded, labels: Iterable[int], first: int, count: int) -> NDArray[np.bool_]:
    """Return which images of a pool are so many of each of these implants."""
    found_N = np.zeros(len(pool.labels_N), np.bool_)
    for label in labels:
        found_N[np.flatnonzero(pool.labels_N == label)[first : first + count]] = True
    return found_N


def before(package: ModelPackage, test: Embedded) -> list[float]:
    """Return the shares of a package that knows the old implants alone."""
    networks = load_networks(package.networks, len(package.catalogue), package.files)
    found = judge(networks, package.novelty_reference(), test)
    return both(package, found, package.quantiles_C, package.novelty.threshold)


def added(package: ModelPackage, new: Embedded, known: Embedded, test: Embedded) -> list[float]:
    """Return the shares of a package with new implants, made as `jobs.enrol` makes it."""
    networks = load_networks(package.networks, len(package.catalogue), package.files)
    enrolment = enrol_images(package, networks, new, known)
    judged = Judged(enrolment.logs_NC, new.labels_N, new.groups_N, enrolment.novelty_N)
    others = judge(networks, enrolment.reference, known)
    promises = make_promises(package, judged, others, enrolment.drawn_logs_PC)
    quantiles = np.array([promise.quantile for promise in promises.implants])
    found = judge(networks, enrolment.reference, test)
    return both(package, found, quantiles, promises.threshold)


def both(
    package: ModelPackage, found: Judged, quantiles: NDArray[np.float64], threshold: float
) -> list[float]:
    """Return the shares among known implants, and among new ones."""
    probabilities = softmax(found.logs_NC, package.temperature)
    is_new_N = found.labels_N >= len(package.catalogue)
    cells = []
    for part_N in (~is_new_N, is_new_N):
        is_strange_N = found.novelty_N[part_N] > threshold
        cells += shares(probabilities[part_N], found.labels_N[part_N], quantiles, is_strange_N)
    return cells


def shares(
    probabilities: NDArray[np.float64],
    labels_N: NDArray[np.int64],
    quantiles: NDArray[np.float64],
    is_strange_N: NDArray[np.bool_],
) -> list[float]:
    """Return best candidate right, covered, candidates, identified and right, called unknown."""
    is_candidate = 1 - probabilities <= quantiles
    counts_N = is_candidate.sum(axis=1)
    right_N = probabilities.argmax(axis=1) == labels_N
    is_unknown_N = is_strange_N | (counts_N == 0)
    covered = [
        label < is_candidate.shape[1] and bool(row[label])
        for row, label in zip(is_candidate, labels_N.tolist(), strict=True)
    ]
    return [
        float(right_N.mean()),
        float(np.mean(covered)),
        float(counts_N.mean()),
        float((right_N & (counts_N == 1) & ~is_unknown_N).mean()),
        float(is_unknown_N.mean()),
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
        f"twelve implants; {' and '.join(NEW)} were added as `jobs.enrol` does, without training. "
        f"Each row is the mean of as many choices of the new images as {POOL_EACH} of each allow, "
        "which share none (8, 4 and 2 of 5, 10 and 20), on 50 phantoms of each implant that "
        "neither trained nor calibrated. Phantoms are no evidence about patients.",
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
