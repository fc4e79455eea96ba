"""Predictions against known labels: a confusion table, and shares with their intervals. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from implant_model.errors import Outcome
from training.metrics import Figure, wilson

NOT_IN_CATALOGUE = "not in the catalogue"


@dataclass(frozen=True)
class Judged:
    """One image whose implant is known.

    Attributes:
        label: Name of its implant.
        outcome: What became of it.
        implant: Best candidate; None where it was rejected.
        candidates: The prediction set.
    """

    label: str
    outcome: Outcome
    implant: str | None
    candidates: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """How predictions and labels agree.

    Attributes:
        rows: True implants, the catalogue's in its order, then `NOT_IN_CATALOGUE`.
        columns: What was said: the implants, `unknown`, and `rejected` if that came about.
        counts: Images by row and column.
        top_1: Share of the images of known implants whose best candidate is right.
        coverage: Share of these whose candidates hold the right implant.
        called_unknown: Share of these whose outcome is `unknown`.
        unknown_found: Share of the images of other implants whose outcome is `unknown`.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    top_1: Figure
    coverage: Figure
    called_unknown: Figure
    unknown_found: Figure


def compare(judged: Iterable[Judged], catalogue: Sequence[str]) -> Comparison:
    """Count agreement.

    Args:
        judged: Images with known labels.
        catalogue: Names of the model's implants; every other label is of no known implant.

    Returns:
        The counts. A best candidate counts for `top_1` whatever the outcome; the table has an image
        under `unknown` if that is its outcome.
    """
    images = list(judged)
    known = [image for image in images if image.label in catalogue]
    others = [image for image in images if image.label not in catalogue]
    rows = [*catalogue, NOT_IN_CATALOGUE]
    said = Counter((_row(image, catalogue), _column(image)) for image in images)
    columns = [*catalogue, str(Outcome.UNKNOWN)]
    columns += sorted({column for _, column in said} - set(columns))
    return Comparison(
        rows,
        columns,
        [[said[row, column] for column in columns] for row in rows],
        top_1=wilson(sum(i.implant == i.label for i in known), len(known)),
        coverage=wilson(sum(i.label in i.candidates for i in known), len(known)),
        called_unknown=wilson(_num_unknown(known), len(known)),
        unknown_found=wilson(_num_unknown(others), len(others)),
    )


def _row(image: Judged, catalogue: Sequence[str]) -> str:
    return image.label if image.label in catalogue else NOT_IN_CATALOGUE


def _column(image: Judged) -> str:
    if image.outcome in (Outcome.IDENTIFIED, Outcome.AMBIGUOUS) and image.implant is not None:
        return image.implant
    return str(image.outcome)


def _num_unknown(images: Iterable[Judged]) -> int:
    return sum(image.outcome is Outcome.UNKNOWN for image in images)
