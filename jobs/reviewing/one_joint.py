"""Several radiographs of one joint: what they say together, combined as the audit combines them.

The answers come from the page, which has them from this server: it keeps none, so each field is
checked again.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from implant_model.errors import Outcome, UsageError
from implant_model.identification import Identification
from jobs.auditing.evidence import combine, lapse
from jobs.auditing.images import TOP, columns_of, read_images
from jobs.auditing.joining import Joined
from jobs.auditing.package_facts import PackageFacts
from jobs.auditing.verdicts import is_candidate
from jobs.tables.schema import PREDICTION_ROW

MAX_RADIOGRAPHS: Final = 50
VOTE: Final = (Outcome.IDENTIFIED, Outcome.AMBIGUOUS)
"""Outcomes that speak for an implant, as in the audit."""
_KEY: Final = "study"


@dataclass(frozen=True)
class JointAnswer:
    """What several radiographs say together.

    Attributes:
        num_used: Radiographs that speak for an implant.
        num_unknown: Those that look like none of the model's.
        num_same: Those that are another one once more.
        num_no_picture: Those that the model may not see.
        top: The most probable implants with their probabilities, best first.
        candidates: Those that are left, best first.
    """

    num_used: int
    num_unknown: int
    num_same: int
    num_no_picture: int
    top: tuple[tuple[str, float], ...]
    candidates: tuple[str, ...]


def to_text(answer: Identification, digest: str) -> str:
    """Return what the page keeps of one answer, for `parse`."""
    return json.dumps(
        {
            "outcome": str(answer.outcome),
            "top": [[name, share] for name, share in answer.top],
            "candidates": list(answer.candidates),
            "content": digest,
        }
    )


def parse(body: object, names: Sequence[str]) -> list[dict[str, Any]]:
    """Read what a page sends, answers as `to_text` wrote them.

    Args:
        body: Whoever sends it may send anything.
        names: Of the catalogue.

    Returns:
        Rows of the table `predictions`, as far as the audit reads them.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(body, list) or not 1 <= len(body) <= MAX_RADIOGRAPHS:
        raise UsageError(f"1 to {MAX_RADIOGRAPHS} answers of one joint are accepted.")
    try:
        return [_row(answer, place, names) for place, answer in enumerate(body)]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise UsageError("An answer of the joint is none.") from error


def _row(answer: Any, place: int, names: Sequence[str]) -> dict[str, Any]:
    top = [(str(name), float(share)) for name, share in answer["top"]]
    candidates, content = [str(name) for name in answer["candidates"]], answer["content"]
    named = [*(name for name, _ in top), *candidates]
    shares = [share for _, share in top]
    is_fit = len(top) <= TOP and len({*candidates}) == len(candidates)
    is_fit = is_fit and isinstance(content, str) and content.isascii()
    is_fit = is_fit and all(math.isfinite(share) and 0 <= share <= 1 for share in shares)
    if not is_fit or not set(named) <= set(names) or sum(shares) > 1.001:
        raise ValueError
    return {
        "archive": "",
        "member_index": place,
        "outcome": str(Outcome(answer["outcome"])),
        "top": [{"implant": name, "probability": share} for name, share in top],
        "candidates": candidates,
        "content": content,
    }


def answer_together(rows: Sequence[dict[str, Any]], facts: PackageFacts) -> JointAnswer:
    """Combine radiographs of one joint.

    Args:
        rows: As `parse` gives them.
        facts: Of the model.
    """
    names = facts.catalogue.names
    speaks = [Outcome(row["outcome"]) in VOTE for row in rows]
    first = {row["content"]: at for at, row in reversed(list(enumerate(rows))) if speaks[at]}
    votes_P = np.array([first.get(row["content"]) == at for at, row in enumerate(rows)], bool)
    batch = pa.RecordBatch.from_pylist(list(rows), PREDICTION_ROW).select(columns_of(_KEY))
    codes = {name: at for at, name in enumerate(names)}
    images = read_images([batch], _KEY, pa.array([], pa.string()), codes)
    place_P, use_N = np.arange(len(rows)), np.zeros(len(rows), np.int8)
    joined = Joined(np.zeros(len(rows), np.int64), place_P, votes_P, use_N)
    found = combine(images, joined, 1, facts.shares_K, lapse(facts.num_measured))
    is_left_E = is_candidate(found, facts.quantiles_K)
    order = np.lexsort((found.implant_E, -found.probability_E)).tolist()
    num_used, outcomes = int(votes_P.sum()), [row["outcome"] for row in rows]
    num_unknown = outcomes.count(Outcome.UNKNOWN)
    return JointAnswer(
        num_used,
        num_unknown,
        sum(speaks) - num_used,
        len(rows) - sum(speaks) - num_unknown,
        tuple((names[found.implant_E[e]], float(found.probability_E[e])) for e in order[:TOP]),
        tuple(names[found.implant_E[e]] for e in order if is_left_E[e]),
    )
