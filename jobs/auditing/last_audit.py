"""This audit against the one before, by the summaries that both wrote."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError
from jobs.auditing.findings import FORMAT, Change
from jobs.auditing.verdicts import Verdict
from training.metrics import Figure, wilson

MAX_BYTES: Final = 256 << 20
RATE: Final = "Rate of errors"
EXACT: Final = "error_rate_if_classifier_were_exactly_calibrated"


def read_previous(uri: str, *, is_asked: bool) -> Mapping[str, Any] | None:
    """Return the summary of an earlier audit.

    Args:
        uri: Of the document.
        is_asked: Whether the user named it; else it may be missing.

    Raises:
        UsageError: It is not there although it was named, or is no summary of an audit.
    """
    try:
        document = json.loads(storage.read_bytes(uri, MAX_BYTES))
        _check(document)
    except NotFoundError as error:
        if is_asked:
            raise UsageError(f"--previous cannot be read: {error}") from error
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{uri} is no summary of an audit by this software; name another by --previous, or "
            "write to another --report."
        ) from error
    found: Mapping[str, Any] = document
    return found


def before(previous: Mapping[str, Any] | None, data: str) -> Mapping[str, Any] | None:
    """Return the audit to compare with: an older one, where the last was of the very same data.

    An audit that is run again, for a mistake in its call, is no new one.

    Args:
        previous: The summary that the folder holds.
        data: Hash of what is audited now.
    """
    if previous is None or previous.get("data", "") != data:
        return previous
    older: dict[str, Any] = previous.get("compared_with") or {}
    try:
        _check(older)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return older


def kept(previous: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a later summary needs of an earlier one to be compared with it."""
    names = ("format", "made_at", "model", "error_rate", EXACT, "records", "verdicts", "data")
    return None if previous is None else {name: previous.get(name) for name in names}


def compare(
    previous: Mapping[str, Any] | None,
    verdicts: Mapping[Verdict, int],
    rate: Figure,
    sampling: Figure,
    model: str,
) -> list[Change]:
    """Share of the verdicts and the rate of errors, then and now; empty without an earlier one.

    What is not known of a model's accuracy lifts or lowers the rates of both audits alike. So where
    the model is the same, intervals without that are compared; of a model that nobody measured they
    are not shown, only whether the rate has changed.

    Args:
        previous: The summary of the audit before.
        verdicts: Records with each.
        rate: Of errors.
        sampling: The same, were the classifier's accuracy known exactly.
        model: `name@hash` of this audit's.
    """
    if previous is None:
        return []
    then, now = previous["verdicts"], sum(verdicts.values())
    changes = [
        _change(
            verdict.name.replace("_", " ").capitalize(),
            wilson(int(then[verdict.word]), int(previous["records"])),
            wilson(verdicts[verdict], now),
        )
        for verdict in Verdict
    ]
    return [_change_of_rate(previous, rate, sampling, model), *changes]


def _change_of_rate(
    previous: Mapping[str, Any], rate: Figure, sampling: Figure, model: str
) -> Change:
    before = _figure(previous["error_rate"])
    if previous["model"] != model:
        return _change(RATE, before, rate)
    exact = _change(RATE, _figure(previous[EXACT]), sampling)
    is_known = not (math.isnan(before.value) or math.isnan(rate.value))
    return exact if is_known else Change(RATE, before, rate, exact.is_apart)


def _change(name: str, before: Figure, now: Figure) -> Change:
    """Newcombe's interval of the difference of two shares, from the intervals of both (1998)."""
    gap = now.value - before.value
    if math.isnan(gap):
        return Change(name, before, now, is_apart=None)
    low = gap - math.hypot(now.value - now.low, before.high - before.value)
    high = gap + math.hypot(now.high - now.value, before.value - before.low)
    return Change(name, before, now, is_apart=low > 0 or high < 0)


def _figure(document: Mapping[str, Any]) -> Figure:
    numbers = [document[name] for name in ("value", "low", "high")]
    value, low, high = (math.nan if number is None else float(number) for number in numbers)
    return Figure(value, low, high, int(document["count"]))


def _check(document: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError where something is not as it must be."""
    if document["format"] != FORMAT:
        raise ValueError("another format")
    datetime.fromisoformat(document["made_at"])
    for name in ("error_rate", EXACT):
        _figure(document[name])
    str(document["model"])
    counts = [int(document["verdicts"][verdict.word]) for verdict in Verdict]
    if min(counts) < 0 or sum(counts) != document["records"]:
        raise ValueError("verdicts do not add up")
