"""Arrays of an audit > the `Findings` that document and page are made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.auditing import last_audit
from jobs.auditing.confusion import Confusion
from jobs.auditing.counting import NOT_SAID, count_groups
from jobs.auditing.findings import LIKELY, AuditSource, Findings, Pair, Row
from jobs.auditing.images import Images
from jobs.auditing.joining import Joined, Use, is_seen
from jobs.auditing.registry.claims import Claims, Unmatched
from jobs.auditing.registry.records import Records
from jobs.auditing.registry.synonyms import Meanings
from jobs.auditing.safety import Gap, Safety
from jobs.auditing.verdicts import Doubt, Verdict, Verdicts
from jobs.deciding.sample import Drawn, draw, seed_of
from jobs.deciding.verified_rate import VerifiedRate
from training.metrics import wilson

MAX_ROWS: Final = 300
"""Lines of the worklist in the page; the files have all."""


@dataclass(frozen=True)
class Reading:
    """How the registry's file was read.

    Attributes:
        unmatched: Texts that mean nothing in the catalogue.
        notes: Sentences on columns that were read by a rule.
        cause: Why whole groups of records have no image; None where none has lost them.
        meanings: What the user said that texts mean.
    """

    unmatched: Sequence[Unmatched] = ()
    notes: Sequence[str] = ()
    cause: str | None = None
    meanings: Meanings = field(default_factory=Meanings)


@dataclass(frozen=True)
class Audited:
    """The arrays of one audit.

    Attributes:
        names: Of the catalogue's implants.
        counted: Texts that the records are counted by.
        miss_M: Why each audited record has no image, see `causes.Miss`.
        first_M: Place of the first record of each one's joint, see `rate.first_of_joint`.
        order: Places of the contradictions, the likeliest to be wrong first.
    """

    names: tuple[str, ...]
    records: Records
    counted: Mapping[str, pa.DictionaryArray]
    claims: Claims
    reading: Reading
    images: Images
    joined: Joined
    miss_M: npt.NDArray[np.int8]
    verdicts: Verdicts
    confusion: Confusion
    safety: Safety
    first_M: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


def draw_sample(audited: Audited, num: int, data: str) -> tuple[npt.NDArray[np.int64], Drawn]:
    """Draw records for people to look at.

    Drawn from are those of all verdicts that have a picture, each joint once.

    Args:
        audited: The arrays.
        num: How many.
        data: Hash of what is audited, which the seed follows from.

    Returns:
        Places of the records that were drawn from, and the sample of these.
    """
    joined, verdicts = audited.joined, audited.verdicts
    has_picture_M = np.zeros(len(audited.records), bool)
    has_picture_M[joined.record_P[is_seen(audited.images, joined.image_P)]] = True
    is_own_M = audited.first_M == np.arange(len(audited.first_M))
    at = np.flatnonzero(has_picture_M & is_own_M & (verdicts.verdict_M != Verdict.EXCLUDED))
    words = [Verdict(code).word for code in verdicts.verdict_M[at].tolist()]
    return at, draw(words, audited.confusion.wrong_M[at], num, seed_of(data))


def worklist_order(verdicts: Verdicts, confusion: Confusion) -> npt.NDArray[np.int64]:
    """Place of the contradictions, the likeliest to be wrong first, then as in the file."""
    at = np.flatnonzero(verdicts.verdict_M == Verdict.CONTRADICTS)
    return at[np.argsort(-confusion.wrong_M[at], kind="stable")]


def assemble(
    source: AuditSource,
    audited: Audited,
    previous: Mapping[str, Any] | None,
    pictures: Mapping[int, bytes],
    sample: Mapping[str, Any] | None = None,
    verified: VerifiedRate | None = None,
) -> Findings:
    """Count what was found.

    Args:
        source: What was audited.
        audited: The arrays.
        previous: The summary of the audit before, or None.
        pictures: PNGs by place of the record.
        sample: What was drawn to be looked at.
        verified: The rate of errors by what people found in it.
    """
    verdicts, confusion = audited.verdicts, audited.confusion
    counts, doubts = count_verdicts(verdicts)
    uses, reasons = count_images(audited.images, audited.joined.use_N)
    notes, gaps = count_notes(audited.safety)
    wrong = confusion.wrong_M[audited.order]
    against = counts[Verdict.CONTRADICTS]
    return Findings(
        source=source,
        made_at=datetime.now(UTC),
        verdicts=counts,
        doubts=doubts,
        exclusions=audited.records.num_excluded(),
        uses=uses,
        image_reasons=reasons,
        rate=confusion.rate,
        sampling=confusion.sampling,
        num_same_joint=int((audited.first_M < np.arange(len(audited.first_M))).sum()),
        contradicted=wilson(against, against + counts[Verdict.AGREES]),
        likely_wrong=int((wrong >= LIKELY).sum()),
        expected_wrong=float(wrong.sum()),
        groups=count_groups(audited.counted, verdicts.verdict_M, confusion.wrong_M),
        pairs=count_pairs(audited),
        unmatched=audited.reading.unmatched,
        notes=audited.reading.notes,
        cause=audited.reading.cause,
        site_parts=count_parts(audited.images, audited.joined.use_N),
        worklist=first_rows(audited, pictures),
        safety_notes=notes,
        gaps=gaps,
        drift=last_audit.compare(
            previous, counts, confusion.rate, confusion.sampling, source.model
        ),
        previous_at=None if previous is None else str(previous["made_at"]),
        compared_with=last_audit.kept(previous),
        sample=sample,
        verified=verified,
    )


def count_verdicts(verdicts: Verdicts) -> tuple[dict[Verdict, int], dict[Doubt, int]]:
    """Record by verdict, all of them, and undecided ones by reason."""
    counts = np.bincount(verdicts.verdict_M, minlength=len(Verdict)).tolist()
    doubts = np.bincount(verdicts.doubt_M, minlength=len(Doubt)).tolist()
    return {v: counts[v] for v in Verdict}, {d: doubts[d] for d in Doubt if d}


def count_images(
    images: Images, use_N: npt.NDArray[np.int8]
) -> tuple[dict[Use, int], Counter[str]]:
    """Return images by what became of them, and those that are no picture by the reason."""
    counts = np.bincount(use_N, minlength=len(Use)).tolist()
    reasons = images.texts["reason"].filter(pa.array(use_N == Use.NO_PICTURE))
    listed = pc.value_counts(reasons.cast(pa.string())).to_pylist()
    by_reason = Counter({str(item["values"]): int(item["counts"]) for item in listed})
    return {use: counts[use] for use in Use}, by_reason


def count_parts(images: Images, use_N: npt.NDArray[np.int8]) -> Counter[str]:
    """Return the images of another site by the body part that they state."""
    parts = images.texts["body_part"].filter(pa.array(use_N == Use.OTHER_SITE))
    listed = pc.value_counts(parts.cast(pa.string())).to_pylist()
    return Counter({str(item["values"] or NOT_SAID): int(item["counts"]) for item in listed})


def count_pairs(audited: Audited) -> list[Pair]:
    """Return contradictions by what is claimed and what is seen, most first."""
    claims, names, order = audited.claims, audited.names, audited.order
    code = claims.claim_M[order].astype(np.int64) * len(names) + audited.verdicts.seen_M[order]
    codes, at, counts = np.unique(code, return_inverse=True, return_counts=True)
    wrong = np.bincount(at, audited.confusion.wrong_M[order], len(codes))
    pairs = [
        Pair(claims.labels[code // len(names)], names[code % len(names)], count, total)
        for code, count, total in zip(codes.tolist(), counts.tolist(), wrong.tolist(), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.records, pair.claimed, pair.seen))


def first_rows(audited: Audited, pictures: Mapping[int, bytes]) -> list[Row]:
    """Return the first lines of the worklist, without any identifier."""
    records, verdicts = audited.records, audited.verdicts

    def text(field: str, place: int) -> str:
        column = records.texts.get(field)
        return "" if column is None else column[place].as_py() or ""

    return [
        Row(
            row=int(records.row_M[m]),
            hospital=text("hospital", m),
            year=text("year", m),
            claimed=audited.claims.labels[audited.claims.claim_M[m]],
            seen=audited.names[verdicts.seen_M[m]],
            seen_probability=float(verdicts.seen_probability_M[m]),
            wrong=float(audited.confusion.wrong_M[m]),
            images=int(verdicts.num_images_M[m]),
            picture=pictures.get(m),
        )
        for m in audited.order[:MAX_ROWS].tolist()
    ]


def count_notes(safety: Safety) -> tuple[list[tuple[str, str, int]], dict[Gap, int]]:
    """Record with an image by note and source, most first, and those without a note by reason."""
    at = safety.has_image_M
    counts = np.bincount(safety.note_M[at & (safety.note_M >= 0)], minlength=len(safety.notes))
    notes = [(*safety.notes[place], count) for place, count in enumerate(counts.tolist())]
    gaps = np.bincount(safety.gap_M[at], minlength=len(Gap)).tolist()
    return sorted(notes, key=lambda note: (-note[2], note[0])), {g: gaps[g] for g in Gap if g}
