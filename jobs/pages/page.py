"""The page of a run: facts, and where labels are known a comparison, as one HTML document."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import jinja2
from markupsafe import Markup

from implant_model.errors import Outcome
from jobs.entry.command import DISCLAIMER, shown
from jobs.pages import figures, wording
from jobs.pages.comparison import Comparison
from jobs.pages.run_facts import RunFacts
from training.metrics import Figure

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_LISTED: Final = 200
"""Incomplete archives on a page; the table `archives` has all of them."""
LONGEST_NAME: Final = 160
_SHADES: Final = 4
_NONE: Final[Mapping[str, str]] = {}
_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True)
class Line:
    """One line of a table of counts.

    Attributes:
        name: What is counted.
        count: How many.
        share: Of all.
        length: Of its bar, in 0..1: the largest count has 1.
        kind: Outcome that colours the bar.
        meaning: One sentence, or nothing.
    """

    name: str
    count: int
    share: float
    length: float
    kind: Outcome
    meaning: str = ""


def render_run(
    facts: RunFacts,
    *,
    title: str,
    notes: Sequence[str] = (),
    novelty_threshold: float | None = None,
    comparison: Comparison | None = None,
    verified: str = "",
) -> str:
    """Render the page of a run.

    Args:
        facts: What the tables hold.
        title: The page's heading.
        notes: Sentences that stand beside the disclaimer at the top.
        novelty_threshold: The package's own, drawn into the histogram of novelty.
        comparison: With known labels, where there are any.
        verified: What `jobs.verify` said.

    Returns:
        A whole HTML document that loads nothing.
    """
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = environment().get_template("run.html.j2")
    return page.render(
        facts=facts,
        title=title,
        notes=notes,
        verified=verified,
        disclaimer=DISCLAIMER,
        style=Markup(style),  # noqa: S704  this project's own file, no data
        style_hash=csp_hash(style),
        **_tables(facts),
        **_histograms(facts, novelty_threshold),
        **_compared(comparison),
    )


def _tables(facts: RunFacts) -> dict[str, object]:
    """Return the counts as lines, most first; outcomes in the order of their definition."""
    by_count = {
        kind: _most_first(facts.implants[kind]) for kind in (Outcome.IDENTIFIED, Outcome.AMBIGUOUS)
    }
    reasons = _most_first(facts.reasons)
    return {
        "num_archives": sum(facts.archives.values()),
        "statuses": _most_first(facts.archives),
        "incomplete": facts.incomplete[:MAX_LISTED],
        "num_unlisted": max(len(facts.incomplete) - MAX_LISTED, 0),
        "archive_statuses": wording.STATUSES,
        "archive_reasons": wording.ARCHIVE_REASONS,
        "outcomes": _lines([(o, facts.outcomes.get(o, 0)) for o in Outcome], None, _OUTCOMES),
        "reasons": _lines(reasons, Outcome.REJECTED, _REASONS),
        "identified": _named(by_count[Outcome.IDENTIFIED], Outcome.IDENTIFIED, facts),
        "ambiguous": _named(by_count[Outcome.AMBIGUOUS], Outcome.AMBIGUOUS, facts),
        "poor": facts.poor,
        "shifts": [] if facts.last_run is None else [*facts.last_run.shifts.items()],
        "warnings": () if facts.last_run is None else facts.last_run.warnings,
    }


def _named(counts: Sequence[tuple[str, int]], kind: Outcome, facts: RunFacts) -> list[Line]:
    """Return lines that are called by maker and product, with the catalogue's own name beside."""
    return [
        replace(line, name=called(line.name, *facts.products.get(line.name, (None, None))),
                meaning=line.name)
        for line in _lines(counts, kind)
    ]  # fmt: skip


def called(name: str, manufacturer: str | None, product: str | None) -> str:
    """Return what people call an implant: its maker and product, where both are known."""
    return f"{manufacturer} {product}" if manufacturer and product else name


_OUTCOMES: Final = {str(outcome): text for outcome, text in wording.OUTCOMES.items()}
_REASONS: Final = {
    str(reason): f"{text} {wording.REMEDIES.get(reason, '')}".rstrip()
    for reason, text in wording.REASONS.items()
}


def _most_first(counts: Mapping[_Name, int]) -> list[tuple[_Name, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _lines(
    counts: Sequence[tuple[str, int]], kind: Outcome | None, meanings: Mapping[str, str] = _NONE
) -> list[Line]:
    """Return lines of a table; without a `kind` each line's name is its own."""
    total = max(sum(count for _, count in counts), 1)
    most = max((count for _, count in counts), default=0) or 1
    return [
        Line(
            str(name),
            count,
            count / total,
            count / most,
            kind or Outcome(name),
            meanings.get(str(name), ""),
        )
        for name, count in counts
    ]


def _histograms(facts: RunFacts, threshold: float | None) -> dict[str, object]:
    novelty, is_share = facts.novelty, threshold is not None and threshold > 0
    if threshold is not None and is_share:  # the score itself has no scale
        novelty, threshold = {kind: v / threshold for kind, v in novelty.items()}, 1.0
    return {
        "box": _BOX,
        "probability": figures.histogram(facts.probability, limits=(0.0, 1.0)),
        "novelty": figures.histogram(novelty, mark=threshold),
        "is_share": is_share,
    }


_BOX: Final = {
    "width": figures.WIDTH,
    "height": figures.HEIGHT,
    "left": figures.LEFT,
    "right": figures.RIGHT,
    "top": figures.TOP,
    "bottom": figures.BOTTOM,
}


def _compared(comparison: Comparison | None) -> dict[str, object]:
    if comparison is None:
        return {"comparison": None}
    tiles = [
        ("Best candidate right", comparison.top_1, "images of implants in the catalogue"),
        ("Right one among the candidates", comparison.coverage, "the same images"),
        ("Known implants called unknown", comparison.called_unknown, "the same images"),
        ("Unknown implants found", comparison.unknown_found, "images of other implants"),
    ]
    return {
        "comparison": comparison,
        "shares": tiles,
        "shades": [[_shade(count, sum(row)) for count in row] for row in comparison.counts],
    }


def _shade(count: int, total: int) -> int:
    """Return 0 for none, then 1 to 4 by the share of the row."""
    return math.ceil(_SHADES * count / total) if count else 0


def environment(*folders: Path) -> jinja2.Environment:
    """Return what all pages are rendered by: everything that comes from data is escaped.

    Args:
        folders: Of the page's own templates; those that pages share are found, too.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "thousands": "{:,}".format,
        "percent": percent,
        "place": "{:.2f}".format,
        "size": size,
        "moment": moment,
        "on_scale": wording.novelty_on_scale,
    }
    return environment


def csp_hash(text: str) -> str:
    """The source expression that allows exactly this style element (CSP level 2, section 4.2.5)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def plain(text: str) -> str:
    """Return text of foreign origin with what is not printable as escapes, and of bearable length.

    Direction marks, controls and half surrogates could hide or forge what is beside them.
    """
    line = shown(text)
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}\u2026"


def percent(share: float) -> str:
    """Return a share for reading; a dash where there is none."""
    return "\u2013" if math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def size(num_bytes: float) -> str:
    """Return bytes for reading, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def moment(when: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


MINUS: Final = "\u2212"


def share(figure: Figure) -> str:
    """Return the value as a percentage."""
    return percent(figure.value).replace("-", MINUS)


def number(figure: Figure) -> str:
    """Return the value as a number; a dash where there is none."""
    return "\u2013" if math.isnan(figure.value) else f"{figure.value:.3f}"


def interval(figure: Figure, as_number: bool = False) -> str:
    """Return the interval for reading, or nothing where there is no figure."""
    if math.isnan(figure.value):
        return "not known" if figure.count else "no such images"
    if math.isnan(figure.low):
        return "no interval"
    if as_number:
        return f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{100 * figure.low:.1f} to {percent(figure.high)}".replace("-", MINUS)


def data_uri(png: bytes) -> str:
    """Return a picture as the page holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
