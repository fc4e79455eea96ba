"""All that one audit found, and the JSON document of it; the page is made of the same object."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from implant_model import __version__
from jobs.auditing.counting import Group
from jobs.auditing.joining import Use
from jobs.auditing.output import Output
from jobs.auditing.registry.claims import Unmatched
from jobs.auditing.registry.records import Exclusion
from jobs.auditing.registry.registry_file import RegistryFile
from jobs.auditing.safety import Gap
from jobs.auditing.verdicts import Doubt, Verdict
from jobs.deciding.verified_rate import VerifiedRate
from jobs.entry.command import DISCLAIMER
from jobs.pages.page import called
from training.metrics import Figure

FORMAT: Final = 1
INTERVALS: Final = (
    "95 %: Wilson's for shares; for the rate of errors the profile of the likelihood, over "
    "correlations of 0, 0.5 and 1 between radiographs of one joint, widened by what is not known "
    "of the classifier's accuracy"
)
MAX_GROUPS: Final = 1000
LIKELY: Final = 0.5
"""Probability from which a record is called more likely wrong than right."""


@dataclass(frozen=True)
class AuditSource:
    """What was audited against what.

    Attributes:
        predictions: URI of the output of `classify`.
        registry: URI of the registry's file.
        model: `name@hash`.
        key: The identifier that joins.
        columns: The file's column of each field.
        measured_on: What the model was measured on.
        accuracy: Its measured accuracy; NaN where it is not known.
        num_measured: On how many images.
        has_package: Whether thresholds, synonyms and notes were at hand.
        incomplete_archives: Archives that were not read to their ends.
        data: Hash of what was audited: the registry's file, and the state of the predictions.
        weaknesses: What the package's own figures say against the model, a sentence each.
        titles: Maker and product of each implant of the catalogue, by its name.
    """

    predictions: str
    registry: str
    model: str
    key: str
    columns: Mapping[str, str]
    measured_on: str
    accuracy: float
    num_measured: int
    has_package: bool
    incomplete_archives: int
    data: str = ""
    weaknesses: tuple[str, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)


def describe_source(registry: str, file: RegistryFile, output: Output) -> AuditSource:
    """Return what is audited against what, for the reader."""
    model = output.model
    return AuditSource(
        predictions=output.uri,
        registry=registry,
        model=model.id,
        key=file.key,
        columns=file.columns,
        measured_on=model.measured_on,
        accuracy=model.accuracy,
        num_measured=model.num_measured,
        has_package=model.package is not None,
        incomplete_archives=output.num_incomplete,
        data=sha256(f"{file.sha256} {output.uri} {output.version} {model.id}".encode()).hexdigest(),
        weaknesses=() if model.package is None else model.package.weaknesses,
        titles={i.name: called(i.name, i.manufacturer, i.product) for i in model.catalogue},
    )


@dataclass(frozen=True)
class Pair:
    """Records that claim one thing and whose images show another.

    Attributes:
        claimed: What the records mean.
        seen: The best implant by the images.
        records: How many.
        wrong: Sum of the probabilities that they are wrong.
    """

    claimed: str
    seen: str
    records: int
    wrong: float


@dataclass(frozen=True)
class Row:
    """One line of the worklist, for the page: no identifier, no number of the registry.

    Attributes:
        row: Number in the registry's file.
        hospital: As the registry writes it; empty where it does not say.
        year: Likewise.
        claimed: What the record means.
        seen: The best implant by the images.
        seen_probability: Its probability by the images alone.
        wrong: Probability that the record is wrong.
        images: Number of voting images.
        picture: PNG of radiograph and saliency; None unless asked for.
    """

    row: int
    hospital: str
    year: str
    claimed: str
    seen: str
    seen_probability: float
    wrong: float
    images: int
    picture: bytes | None = None


@dataclass(frozen=True)
class Change:
    """One share now and in the audit before.

    Attributes:
        name: Of what.
        before: Then.
        now: This time.
        is_apart: Whether the difference's 95 % interval leaves 0 out; None where that is not known.
    """

    name: str
    before: Figure
    now: Figure
    is_apart: bool | None


@dataclass(frozen=True)
class Findings:
    """Everything that is reported.

    Attributes:
        source: What was audited.
        made_at: When, UTC.
        verdicts: Records by verdict; add up to all rows of the file.
        doubts: Undecided records by reason.
        exclusions: Excluded records by reason.
        uses: Images by what became of them; add up to all rows of the predictions.
        image_reasons: Images that are no picture, by the reason of `predictions`.
        rate: The registry's rate of errors; NaN where it is not known.
        sampling: The same, were the classifier's accuracy and correlation known exactly.
        num_same_joint: Records whose joint counts with a record before them.
        contradicted: Share of contradictions among agreements and contradictions.
        likely_wrong: Contradictions that are more likely wrong than right.
        expected_wrong: Sum of the probabilities over the worklist.
        groups: Counts by hospital, maker, product, implant and year.
        pairs: Contradictions by claim and image, most first.
        unmatched: Texts that stand for nothing in the catalogue.
        worklist: Its first lines.
        notes: Sentences on columns that were read by a rule.
        cause: Why whole groups of records have no image; None where none has lost them.
        site_parts: Images of another side or joint, by their body part.
        safety_notes: Records with an image by MR-safety note and source.
        gaps: Those without one, by reason.
        drift: Against the audit before; empty without one.
        previous_at: When that was made; None without one.
        compared_with: What a later audit needs of it.
        sample: What was drawn to be looked at; None where nothing was.
        verified: The rate of errors by what people found; None without a sample and decisions.
    """

    source: AuditSource
    made_at: datetime
    verdicts: Mapping[Verdict, int]
    doubts: Mapping[Doubt, int]
    exclusions: Mapping[Exclusion, int]
    uses: Mapping[Use, int]
    image_reasons: Mapping[str, int]
    rate: Figure
    sampling: Figure
    num_same_joint: int
    contradicted: Figure
    likely_wrong: int
    expected_wrong: float
    groups: Mapping[str, Sequence[Group]]
    pairs: Sequence[Pair]
    unmatched: Sequence[Unmatched]
    worklist: Sequence[Row]
    notes: Sequence[str]
    cause: str | None
    site_parts: Counter[str]
    safety_notes: Sequence[tuple[str, str, int]]
    gaps: Mapping[Gap, int]
    drift: Sequence[Change]
    previous_at: str | None
    compared_with: Mapping[str, Any] | None = None
    sample: Mapping[str, Any] | None = None
    verified: VerifiedRate | None = None

    @property
    def num_records(self) -> int:
        """Return rows of the registry's file."""
        return sum(self.verdicts.values())

    @property
    def num_images(self) -> int:
        """Return rows of the predictions under the model."""
        return sum(self.uses.values())

    @property
    def why_no_rate(self) -> str | None:
        """Return why the rate of errors is not known, a sentence; None where it is."""
        if not math.isnan(self.rate.value):
            return None
        if not self.rate.count:
            return "No image spoke for or against any record."
        if not self.source.has_package:
            return "The model's package was not at hand, and with it no measured accuracy."
        return "The model's package has no measured accuracy."

    @property
    def num_missing(self) -> int:
        """Record that are not audited for a fault of the file.

        Repeated ones are, under the number of another. A revised joint is none: every registry has
        some, and no change of the file would tell its images apart. Neither is another component.
        """
        no_fault = (
            Exclusion.DUPLICATE,
            Exclusion.CONTINUED,
            Exclusion.SEVERAL_RECORDS,
            Exclusion.OTHER_COMPONENT,
        )
        return sum(count for why, count in self.exclusions.items() if why not in no_fault)


def to_json(found: Findings) -> bytes:
    """Return the document: strict JSON, null where the data cannot give a figure."""
    return json.dumps(_document(found), indent=1, allow_nan=False).encode() + b"\n"


def _document(found: Findings) -> dict[str, Any]:
    source = found.source
    return {
        "format": FORMAT,
        "notice": DISCLAIMER,
        "software": __version__,
        "made_at": found.made_at.isoformat(timespec="seconds"),
        "predictions": source.predictions,
        "registry": source.registry,
        "data": source.data,
        "model": source.model,
        "model_accuracy": {
            "value": None if math.isnan(source.accuracy) else source.accuracy,
            "images": source.num_measured,
            "measured_on": source.measured_on,
        },
        "joined_by": source.key,
        "columns": dict(source.columns),
        "intervals": INTERVALS,
        "records": found.num_records,
        "verdicts": {verdict.word: count for verdict, count in found.verdicts.items()},
        "undecided": {_word(doubt): count for doubt, count in found.doubts.items()},
        "excluded": {_word(why): count for why, count in found.exclusions.items()},
        "images": found.num_images,
        "image_uses": {_word(use): count for use, count in found.uses.items()},
        "image_reasons": dict(found.image_reasons),
        "incomplete_archives": source.incomplete_archives,
        "error_rate": {**found.rate.to_json(), "why_not_known": found.why_no_rate},
        "error_rate_if_classifier_were_exactly_calibrated": found.sampling.to_json(),
        "error_rate_verified": None if found.verified is None else found.verified.to_json(),
        "sample": found.sample,
        "records_whose_joint_counts_with_another": found.num_same_joint,
        "contradicted": found.contradicted.to_json(),
        "worklist": {
            "records": found.verdicts[Verdict.CONTRADICTS],
            "more_likely_wrong_than_right": found.likely_wrong,
            "expected_wrong": round(found.expected_wrong, 3),
        },
        "groups": {
            name: [_group(group) for group in groups[:MAX_GROUPS]]
            for name, groups in found.groups.items()
        },
        "groups_left_out": {
            name: max(len(groups) - MAX_GROUPS, 0) for name, groups in found.groups.items()
        },
        "contradictions": [
            {**vars(pair), "wrong": round(pair.wrong, 3)} for pair in found.pairs[:MAX_GROUPS]
        ],
        "readings": list(found.notes),
        "likeliest_cause": found.cause,
        "images_of_another_site": dict(found.site_parts),
        "unmatched": [vars(item) for item in found.unmatched[:MAX_GROUPS]],
        "mr_safety": {
            "notes": [{"note": n, "source": s, "records": c} for n, s, c in found.safety_notes],
            "not_known": {_word(gap): count for gap, count in found.gaps.items()},
        },
        "previous": found.previous_at,
        "compared_with": found.compared_with,
        "drift": [
            {
                "name": change.name,
                "before": change.before.to_json(),
                "now": change.now.to_json(),
                "apart": change.is_apart,
            }
            for change in found.drift
        ],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "records": group.records,
        **{verdict.word: count for verdict, count in group.verdicts.items() if count},
        "contradicted": group.contradicted.to_json(),
        "expected_wrong": round(group.wrong, 3),
        "with_votes": group.audited,
    }


def _word(code: Doubt | Exclusion | Use | Gap) -> str:
    return code.name.lower()
