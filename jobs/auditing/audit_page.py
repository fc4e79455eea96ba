"""The page of an audit: what `Findings` hold as one HTML document that loads nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from markupsafe import Markup

from implant_model import __version__
from jobs.auditing.assemble import MAX_ROWS
from jobs.auditing.findings import INTERVALS, LIKELY, Findings
from jobs.auditing.joining import USES, Use
from jobs.auditing.registry.records import EXCLUSIONS
from jobs.auditing.safety import GAPS
from jobs.auditing.verdicts import DOUBTS, VERDICTS, Verdict
from jobs.entry.command import DISCLAIMER, shown
from jobs.pages import wording
from jobs.pages.page import TEMPLATES, csp_hash, data_uri, environment, interval, number, share

MAX_LINES: Final = 40
"""Lines of each table of counts; summary.json has more."""
_OWN: Final = Path(__file__).parent / "templates"
_STYLES: Final = (TEMPLATES / "style.css", TEMPLATES / "evaluation.css", _OWN / "audit.css")
_TITLES: Final = {
    "hospital": "By hospital",
    "manufacturer": "By maker",
    "product": "By product",
    "implant": "By implant",
    "year": "By year",
}
_COLOURS: Final = {
    Verdict.AGREES: "identified",
    Verdict.CONTRADICTS: "rejected",
    Verdict.UNDECIDED: "ambiguous",
    Verdict.NOT_IN_CATALOGUE: "unknown",
}


def render_audit(found: Findings) -> str:
    """Render the page; it holds pictures if `found` does, and never an identifier."""
    style = "".join(file.read_text(encoding="utf-8") for file in _STYLES)
    script = (_OWN / "audit.js").read_text(encoding="utf-8")
    page = environment(_OWN)
    page.filters |= {
        "expected": expected,
        "share": share,
        "number": number,
        "interval": interval,
        "data_uri": data_uri,
        "sentence": shown,
        "called": partial(called_implants, found.source.titles),
    }
    return page.get_template(
        "audit.html.j2"
    ).render(
        found=found,
        previous_at=found.previous_at and datetime.fromisoformat(found.previous_at),
        source=found.source,
        disclaimer=DISCLAIMER,
        style=Markup(style),  # noqa: S704  this project's own files, no data
        style_hash=csp_hash(style),
        script=Markup(script),  # noqa: S704
        script_hash=csp_hash(script),
        num_pictures=sum(row.picture is not None for row in found.worklist),
        verdicts=_verdicts(found.verdicts),
        against=found.verdicts[Verdict.CONTRADICTS],
        agreeing=found.verdicts[Verdict.AGREES],
        doubts=[(_words(d.name), n, DOUBTS[d]) for d, n in found.doubts.items() if n],
        exclusions=[(_words(e.name), n, EXCLUSIONS[e]) for e, n in found.exclusions.items()],
        uses=[(_words(u.name), n, USES[u]) for u, n in found.uses.items() if n],
        used=found.uses[Use.USED],
        site_parts=found.site_parts.most_common(MAX_LINES),
        image_reasons=_image_reasons(found.image_reasons),
        gaps=[(GAPS[gap], n) for gap, n in found.gaps.items() if n],
        groups=[
            (name, _TITLES[name], groups[:MAX_LINES], max(len(groups) - MAX_LINES, 0))
            for name, groups in found.groups.items()
        ],
        pairs=found.pairs[:MAX_LINES],
        unmatched=found.unmatched[:MAX_LINES],
        most=MAX_LINES,
        most_rows=MAX_ROWS,
        likely=LIKELY,
        intervals=INTERVALS,
        software=__version__,
        contradicts=Verdict.CONTRADICTS,
    )


def called_implants(titles: Mapping[str, str], label: str) -> str:
    """Return what people call the implants of a claim: makers and products.

    Args:
        titles: By the catalogue's name.
        label: One name or several, as `claims.describe` has them.
    """
    return " or ".join(titles.get(name, name) for name in label.split(" or "))


def expected(number: float) -> str:
    """Return an expected number of records: with one decimal where these are few."""
    return f"{number:,.0f}" if number >= 100 else f"{number:,.1f}"


def _verdicts(counts: Mapping[Verdict, int]) -> Sequence[Mapping[str, object]]:
    total, most = max(sum(counts.values()), 1), max(*counts.values(), 1)
    return [
        {
            "name": _words(verdict.name),
            "count": count,
            "share": count / total,
            "length": count / most,
            "kind": _COLOURS.get(verdict, "ignored"),
            "meaning": VERDICTS[verdict],
        }
        for verdict, count in counts.items()
    ]


def _image_reasons(counts: Mapping[str, int]) -> Sequence[tuple[str, int, str]]:
    meanings = {str(reason): text for reason, text in wording.REASONS.items()}
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(reason, count, meanings.get(reason, "")) for reason, count in ordered]


def _words(name: str) -> str:
    return name.replace("_", " ").lower()
