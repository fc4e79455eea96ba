"""A sample registry: a record for each phantom, a known share of them made wrong.

Names are written as registries write them, each in its own way. Records of implants outside the
catalogue name a product that the catalogue lacks, and phantoms that were saved as PNG or JPEG have
records that no image can be found for.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from implant_model.package.catalogue import ORTHONET, Implant
from implant_model.storage.local_files import write_whole
from jobs.samples.sample_archives import SEED, Truth
from training.metrics import Figure, wilson

WRONG_SHARE: Final = 0.05
"""Share of wrong records in the demo: enough of them for a worklist to be looked at."""
REGISTRIES_SHARE: Final = 0.005
"""Share in an arthroplasty registry: Tyrol's is right in 99.5 % (10.1186/s40634-022-00526-3)."""
COLUMNS: Final = ("CaseNo", "PatientID", "Side", "Joint", "Maker", "Product", "Hospital", "Date")
ASKED: Final = "record=CaseNo"
"""What the audit cannot find by the columns' names."""
_FIRST: Final = 1000
_MAKERS: Final[Mapping[str, Sequence[str]]] = {
    "Smith & Nephew": ("Smith & Nephew", "Smith and Nephew", "SMITH & NEPHEW Ltd."),
    "DePuy": ("DePuy", "DEPUY International Ltd"),
    "Stryker": ("Stryker", "Stryker GmbH"),
}
_OTHER: Final = ("Not In Catalogue Works", "Nameless")


@dataclass(frozen=True)
class SampleRegistry:
    """A registry's file and what is true of it.

    Attributes:
        path: CSV.
        wrong: Rows, from 1, that name another implant than the phantom's.
        visible: Rows of implants of the catalogue whose phantom states whose it is.
    """

    path: Path
    wrong: frozenset[int]
    visible: frozenset[int]


@dataclass(frozen=True)
class Finding:
    """How well the worklist finds the records that were made wrong.

    Attributes:
        precision: Share of the worklist that is wrong.
        recall: Share of the wrong records with a readable image that are on it.
        likely_precision: Precision of the part that is more likely wrong than right.
        true_rate: Share of wrong ones among the records that the audit's estimate rests on.
    """

    precision: Figure
    recall: Figure
    likely_precision: Figure
    true_rate: float


def make_registry(
    path: Path, truths: Sequence[Truth], wrong_share: float = WRONG_SHARE
) -> SampleRegistry:
    """Write the registry of the sample archives; the same truths give the same file.

    Args:
        path: CSV.
        truths: What is known of every member.
        wrong_share: Share of the records that name another implant, one of them at least.
    """
    rng = np.random.default_rng([SEED, 5])
    shown = [truth for truth in truths if truth.label]
    known = [i for i, truth in enumerate(shown) if truth.label in ORTHONET.names]
    visible = [i for i in known if shown[i].is_dicom]
    hidden = [i for i in known if not shown[i].is_dicom]
    wrong = {i for part in (visible, hidden) for i in _some(part, wrong_share, rng)}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    rows = [_row(i, truth, i in wrong, rng) for i, truth in enumerate(shown)]
    writer.writerows([*rows, rows[0]])  # one of them occurs twice
    write_whole(path, text.getvalue().encode())
    return SampleRegistry(path, frozenset(i + 1 for i in wrong), frozenset(i + 1 for i in visible))


def judge_worklist(
    registry: SampleRegistry, worklist: Mapping[int, float], decided: frozenset[int]
) -> Finding:
    """Set a worklist against what is known.

    Args:
        registry: The sample.
        worklist: Probability to be wrong, by row.
        decided: Rows that the audit's estimate rests on.
    """
    found = registry.wrong & worklist.keys()
    likely = {row for row, chance in worklist.items() if chance >= 0.5}
    there = registry.wrong & decided
    return Finding(
        precision=wilson(len(found), len(worklist)),
        recall=wilson(len(found & there), len(there)),
        likely_precision=wilson(len(likely & registry.wrong), len(likely)),
        true_rate=len(there) / max(len(decided), 1),
    )


def _some(rows: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    count = max(round(share * len(rows)), 1) if rows else 0
    return [rows[i] for i in rng.permutation(len(rows))[:count].tolist()]


def _row(number: int, truth: Truth, is_wrong: bool, rng: np.random.Generator) -> list[str]:
    year, day = int(rng.integers(2012, 2025)), int(rng.integers(1, 28))
    maker, product = _OTHER
    if truth.label in ORTHONET.names:
        implant = ORTHONET[ORTHONET.index(truth.label)]
        if is_wrong:
            implant = _another(implant, rng)
        maker = str(rng.choice(_MAKERS.get(implant.manufacturer, (implant.manufacturer,))))
        product = _spelled(str(implant.product), rng)
    hospital = truth.archive.partition("/")[0].replace("-", " ").title()
    side = {"L": "left", "R": "right"}[truth.side]
    date = f"{year}-03-{day:02d}"
    return [f"C{_FIRST + number}", truth.patient, side, truth.joint, maker, product, hospital, date]


def _another(implant: Implant, rng: np.random.Generator) -> Implant:
    others = [i for i in ORTHONET if i.joint == implant.joint and i.name != implant.name]
    return others[int(rng.integers(len(others)))]


def _spelled(product: str, rng: np.random.Generator) -> str:
    return [product, product.upper(), product.replace(", ", " - ")][int(rng.integers(3))]
