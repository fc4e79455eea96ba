"""All that one evaluation found, and the JSON document of it.

The page is made of the same object, so that both say the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from implant_model import __version__
from implant_model.errors import Outcome
from implant_model.package.weakness import weaknesses
from jobs.entry.command import DISCLAIMER
from jobs.evaluating.assessment import Bin, ClassFigures, UnderDistortion
from jobs.evaluating.paired import Paired
from jobs.pages.comparison import Comparison
from training.metrics import Figure

FORMAT: Final = 1
INTERVALS: Final = (
    "95 %: Wilson's for shares, widened where images of one patient are right or wrong together; "
    "percentile bootstrap over groups (a patient with all near duplicates) for the others, "
    "joined with what groups may do of which none was seen"
)


@dataclass(frozen=True)
class DataFacts:
    """What an evaluation was made on.

    Attributes:
        name: How people call it; is beside every figure.
        images: URIs as they were given.
        labels: URI of the labels file; None where folders are the classes.
        num_images: Images that were examined.
        num_groups: Patients, with near duplicates joined.
        num_patients_known: Images of which the patient is known.
        outside: Labels that the catalogue lacks, with their images.
        excluded: What could not be used, by reason.
        missing: Labelled images among these: their figures are not in.
        trained_on: Images that the package's networks were fitted to, so that all figures are too
            good; None where it keeps no record of these.
    """

    name: str
    images: Sequence[str]
    labels: str | None
    num_images: int
    num_groups: int
    num_patients_known: int
    outside: Mapping[str, int]
    excluded: Mapping[str, int]
    missing: int
    trained_on: int | None = None


@dataclass(frozen=True)
class Mistake:
    """An image that was named wrongly.

    Archive and position find it; its member's name is not here, since it may hold a patient's.

    Attributes:
        archive: Path below --images.
        index: Position in the archive, as in the table `predictions`.
        label: What it shows.
        said: Best candidate.
        probability: Of `said`.
        label_probability: Of the label; None where the catalogue lacks it.
        outcome: What the image's row would say.
        novelty: Its score.
        picture: PNG of radiograph and saliency for `said`; None unless pictures were asked for.
    """

    archive: str
    index: int
    label: str
    said: str
    probability: float
    label_probability: float | None
    outcome: Outcome
    novelty: float
    picture: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported; see `jobs.evaluating.assessment` for what the figures are."""

    model: str
    coverage_asked: float
    novelty_threshold: float
    data: DataFacts
    figures: Mapping[str, Figure]
    classes: Sequence[ClassFigures]
    reliability: Sequence[Bin]
    comparison: Comparison
    robustness: Sequence[UnderDistortion]
    opponent: str | None
    paired: Paired | None
    mistakes: Sequence[Mistake]
    num_mistakes: int

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Return what the figures say against the model, a sentence each."""
        sensitivities = {f"sensitivity: {each.name}": each.sensitivity for each in self.classes}
        measured = {name: asdict(f) for name, f in {**self.figures, **sensitivities}.items()}
        return tuple(weaknesses(measured))

    @property
    def trivial(self) -> frozenset[str]:
        """Return figures that tell nothing: the best three of three classes hold the right one."""
        return frozenset({"top_3"} if len(self.classes) <= 3 else ())


def to_json(found: Evaluation) -> bytes:
    """Return the document: strict JSON, null where the data cannot give a figure."""
    return json.dumps(_document(found), indent=1, allow_nan=False).encode() + b"\n"


def _document(found: Evaluation) -> dict[str, object]:
    data = found.data
    return {
        "format": FORMAT,
        "notice": DISCLAIMER,
        "software": __version__,
        "model": found.model,
        "data": {
            "name": data.name,
            "images": list(data.images),
            "labels": data.labels,
            "num_images": data.num_images,
            "num_groups": data.num_groups,
            "num_patients_known": data.num_patients_known,
            "labels_outside_the_catalogue": dict(data.outside),
            "excluded": dict(data.excluded),
            "missing": data.missing,
            "trained_on": data.trained_on,
        },
        "intervals": INTERVALS,
        "coverage_asked": found.coverage_asked,
        "novelty_threshold": found.novelty_threshold,
        "figures": {name: figure.to_json() for name, figure in found.figures.items()},
        "classes": [
            {
                "implant": item.name,
                "sensitivity": item.sensitivity.to_json(),
                "auroc": item.auroc.to_json(),
            }
            for item in found.classes
        ],
        "confusion": {
            "rows": list(found.comparison.rows),
            "columns": list(found.comparison.columns),
            "counts": [list(row) for row in found.comparison.counts],
        },
        "reliability": [
            {"confidence": round(item.confidence, 6), "right": item.right.to_json()}
            for item in found.reliability
        ],
        "robustness": [_distorted(item) for item in found.robustness],
        "against": _against(found),
        "num_mistakes": found.num_mistakes,
        "worst_mistakes": [_mistake(item) for item in found.mistakes],
    }


def _distorted(item: UnderDistortion) -> dict[str, object]:
    return {
        "kind": item.kind,
        "strength": item.strength,
        "top_1": item.top_1.to_json(),
        "loss": item.loss.to_json(),
        "called_unknown": item.called_unknown.to_json(),
        "right_if_answered": item.right_if_answered.to_json(),
        "coverage": item.coverage.to_json(),
    }


def _against(found: Evaluation) -> dict[str, object] | None:
    paired = found.paired
    if paired is None:
        return None
    return {
        "name": found.opponent,
        "images": paired.count,
        "both_right": paired.both,
        "only_this_right": paired.only_first,
        "only_other_right": paired.only_second,
        "neither_right": paired.neither,
        "mcnemar_exact_p": paired.p_value,
        "difference": paired.difference.to_json(),
    }


def _mistake(item: Mistake) -> dict[str, object]:
    return {
        "archive": item.archive,
        "member_index": item.index,
        "label": item.label,
        "said": item.said,
        "probability": round(item.probability, 6),
        "label_probability": None
        if item.label_probability is None
        else round(item.label_probability, 6),
        "outcome": str(item.outcome),
        "novelty": round(item.novelty, 6),
    }
