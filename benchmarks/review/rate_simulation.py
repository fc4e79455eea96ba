"""Coverage of the verified rate of errors, and the reviews that its sample saves.

    python -m benchmarks.review.rate_simulation --registries 1000

Draws registries whose errors are known, audits them by a simulated classifier, draws the sample of
`jobs.audit --sample`, verifies it without fault and estimates the rate. Writes
benchmarks/review/rate_simulation.md.

The classifier's confidence is calibrated for itself; the audit's probability that a record is wrong
is made from it with an error rate that is always 2 %, as the audit has no better one at first. With
`dependent` errors half of the wrong records name the look-alike of what was implanted, which is
also what half of the classifier's mistakes name: it then often agrees with a wrong record.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.deciding.sample import draw
from jobs.deciding.verified_rate import Sampled, rates

NUM_RECORDS = 20_000
NUM_IMPLANTS = 12
RATES = (0.005, 0.02, 0.05, 0.20)
ACCURACIES = (0.75, 0.95, 0.99)
SIZES = (500,)
ASSUMED_RATE = 0.02
PAGE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Registry:
    """A registry and its audit.

    Attributes:
        is_wrong_M: Which records are wrong.
        verdicts: The audit's.
        predicted_M: Its probability that each is wrong.
    """

    is_wrong_M: npt.NDArray[np.bool_]
    verdicts: npt.NDArray[np.str_]
    predicted_M: npt.NDArray[np.float64]


def make_registry(
    rng: np.random.Generator, rate: float, accuracy: float, *, dependent: bool
) -> Registry:
    """Draw a registry and what a classifier of this accuracy makes of it."""
    truth_M = rng.integers(0, NUM_IMPLANTS, NUM_RECORDS)
    alike_M = truth_M ^ 1  # implants look alike in pairs
    is_wrong_M = rng.random(NUM_RECORDS) < rate
    claim_M = np.where(is_wrong_M, _mistake(rng, truth_M, alike_M, dependent), truth_M)
    sure_M = rng.beta(4 * accuracy, 4 * (1 - accuracy), NUM_RECORDS)  # mean: the accuracy
    is_right_M = rng.random(NUM_RECORDS) < sure_M
    seen_M = np.where(is_right_M, truth_M, _mistake(rng, truth_M, alike_M, dependent))
    agrees_M = seen_M == claim_M
    chance_M = np.where(agrees_M, sure_M, (1 - sure_M) / (NUM_IMPLANTS - 1))
    other_M = (1 - chance_M) / (NUM_IMPLANTS - 1)
    wrong_M = ASSUMED_RATE * other_M
    predicted_M = wrong_M / (wrong_M + (1 - ASSUMED_RATE) * chance_M)
    words = np.where(agrees_M, "agrees", "contradicts")
    return Registry(is_wrong_M, np.where(sure_M < 0.5, "undecided", words), predicted_M)


def _mistake(
    rng: np.random.Generator,
    truth_M: npt.NDArray[np.int64],
    alike_M: npt.NDArray[np.int64],
    dependent: bool,
) -> npt.NDArray[np.int64]:
    any_M = (truth_M + rng.integers(1, NUM_IMPLANTS, NUM_RECORDS)) % NUM_IMPLANTS
    return np.where(dependent & (rng.random(NUM_RECORDS) < 0.5), alike_M, any_M)


@dataclass(frozen=True)
class Outcome:
    """What came of one registry: the errors of three estimates, and whether intervals held."""

    truth: float
    design: float
    powered: float
    simple: float
    covers_design: bool
    covers_powered: bool
    covers_simple: bool
    width_powered: float
    width_simple: float


def verify(registry: Registry, size: int, seed: int) -> Outcome:
    """Draw, verify and estimate; beside a simple random sample of the same size."""
    drawn = draw(registry.verdicts.tolist(), registry.predicted_M, size, seed)
    strata = [
        Sampled(
            stratum.records / NUM_RECORDS,
            stratum.records,
            registry.is_wrong_M[drawn.places[drawn.stratum_S == h]],
            registry.predicted_M[drawn.places[drawn.stratum_S == h]],
            stratum.predicted,
        )
        for h, stratum in enumerate(drawn.strata)
    ]
    design, powered, _ = rates(strata)
    at = np.random.default_rng(seed + 1).choice(NUM_RECORDS, size, replace=False)
    flat = Sampled(1.0, NUM_RECORDS, registry.is_wrong_M[at], registry.predicted_M[at], 0.0)
    simple, _, _ = rates([flat])
    truth = float(registry.is_wrong_M.mean())
    return Outcome(
        truth,
        design.value - truth,
        powered.value - truth,
        simple.value - truth,
        design.low <= truth <= design.high,
        powered.low <= truth <= powered.high,
        simple.low <= truth <= simple.high,
        powered.high - powered.low,
        simple.high - simple.low,
    )


def cells() -> Iterator[tuple[bool, float, float, int]]:
    """Yield the settings: dependent errors, rate, accuracy, reviews."""
    for dependent in (False, True):
        for rate in RATES:
            for accuracy in ACCURACIES:
                for size in SIZES:
                    yield dependent, rate, accuracy, size


def measure(
    dependent: bool, rate: float, accuracy: float, size: int, registries: int
) -> list[Outcome]:
    """Return the outcomes of one cell; the same registries in each run."""
    seeds = np.random.SeedSequence([int(dependent), int(1000 * rate), int(100 * accuracy), size])
    found = []
    for number, child in enumerate(seeds.spawn(registries)):
        rng = np.random.default_rng(child)
        registry = make_registry(rng, rate, accuracy, dependent=dependent)
        found.append(verify(registry, size, 7919 * number + size))
    return found


def line_of(setting: tuple[bool, float, float, int], found: list[Outcome]) -> str:
    """Return one line of the table."""
    dependent, rate, accuracy, size = setting

    def mean_square(name: str) -> float:
        return float(np.mean([getattr(one, name) ** 2 for one in found]))

    def share(name: str) -> str:
        return f"{100 * np.mean([getattr(one, name) for one in found]):.1f}"

    saved = 1 - mean_square("powered") / mean_square("simple")
    bias = 100 * float(np.mean([one.powered for one in found]))
    widths = [
        50 * float(np.mean([getattr(one, name) for one in found]))
        for name in ("width_powered", "width_simple")
    ]
    cells = [
        "dependent" if dependent else "independent",
        f"{100 * rate:g}",
        f"{100 * accuracy:g}",
        f"{size:,}",
        share("covers_design"),
        share("covers_powered"),
        share("covers_simple"),
        f"{bias:+.3f}",
        f"{widths[0]:.2f}",
        f"{widths[1]:.2f}",
        f"{100 * saved:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


COLUMNS = (
    *("errors", "wrong, %", "classifier right, %", "reviews", "coverage, design", "powered"),
    *("simple sample", "bias", "half width", "simple", "reviews saved, %"),
)
HEAD = """# Verified rate of errors, simulated

`python -m benchmarks.review.rate_simulation --registries {registries}`: {registries:,} registries
of {records:,} records in each line, {seconds:.0f} s on a machine that did other work, too.

Coverage is of 95 % intervals, in % of the registries, by design, prediction-powered and of a simple
random sample; with {registries:,} registries a coverage of 95 is measured to within {noise:.1f}.
Bias is of the prediction-powered estimate; half widths are of the mean 95 % interval of the
prediction-powered estimate and of a simple random sample; all three in points. Reviews saved is by
how much the sample may be smaller than a simple random one for the same mean square error.

"""


def page_of(lines: list[str], registries: int, seconds: float) -> str:
    """Return the page."""
    noise = 196 * (0.95 * 0.05 / registries) ** 0.5
    head = HEAD.format(registries=registries, records=NUM_RECORDS, seconds=seconds, noise=noise)
    rows = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), *lines]
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """Simulate all cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registries", type=int, default=1000)
    registries = parser.parse_args().registries
    begun, lines = time.monotonic(), []
    for setting in cells():
        lines.append(line_of(setting, measure(*setting, registries)))
        print(lines[-1], flush=True)
    PAGE.write_text(page_of(lines, registries, time.monotonic() - begun), encoding="utf-8")


if __name__ == "__main__":
    main()
