"""The page of an evaluation: what `Evaluation` holds as one HTML document that loads nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from implant_model import __version__
from implant_model.storage.local_files import write_whole
from jobs.entry.command import DISCLAIMER
from jobs.evaluating.assessment import Bin
from jobs.evaluating.evaluation import INTERVALS, Evaluation, to_json
from jobs.pages import wording
from jobs.pages.figures import Tick
from jobs.pages.page import (
    MAX_LISTED,
    TEMPLATES,
    csp_hash,
    data_uri,
    environment,
    interval,
    number,
    share,
)
from training.metrics import Figure

SIDE: Final = 300.0
LEFT, TOP, RIGHT, BOTTOM = 48.0, 10.0, 12.0, 44.0
"""Margins of the reliability diagram, in units of its view box of `SIDE` each way."""
_OWN: Final = Path(__file__).parent / "templates"
_SHADES: Final = 4
_TILES: Final = (
    ("top_1", "Best candidate right", "top-1 accuracy"),
    ("top_3", "Right one among the best three", "top-3 accuracy"),
    ("macro_f1", "Macro F1", "mean over the implants"),
    ("mean_auroc", "Mean AUROC", "each implant against the rest"),
)
_CALIBRATION: Final = (
    ("coverage", "Right one among the candidates", "realised coverage"),
    ("set_size", "Candidates an image", "mean"),
    ("calibration_error", "Calibration error", "10 bins of equal count"),
    ("identified", "One candidate left", "identified"),
    ("right_if_identified", "Right if identified", "of those with one candidate"),
)
_NOVELTY: Final = (
    ("called_unknown", "Known implants called unknown", "a false alarm"),
    ("unknown_found", "Other implants found unknown", "of those outside the catalogue"),
    ("novelty_auroc", "Novelty's AUROC", "other implants against known ones"),
)
_AS_NUMBER: Final = {"macro_f1", "mean_auroc", "set_size", "calibration_error", "novelty_auroc"}
_EXCLUSIONS: Final = {
    "no_label": "Nothing states what it shows, so it is not part of the set.",
    "not_in_archive": "It has a label, and its archive does not hold it, or could not be read.",
    "name_twice": "Another member of its archive before it has the same name.",
}


@dataclass(frozen=True)
class Tile:
    """One figure with its interval."""

    title: str
    value: str
    interval: str
    count: int
    meaning: str


@dataclass(frozen=True)
class Point:
    """One bin of the reliability diagram, in units of its view box."""

    x: float
    y: float
    low: float
    high: float


def render_evaluation(found: Evaluation) -> str:
    """Render the page; the saliency pictures of mistakes are in it if `found` has them."""
    files = ("style.css", "evaluation.css")
    style = "".join((TEMPLATES / file).read_text(encoding="utf-8") for file in files)
    page = environment(_OWN)
    page.filters |= {"share": share, "number": number, "interval": interval, "data_uri": data_uri}
    return page.get_template(
        "evaluation.html.j2"
    ).render(
        found=found,
        data=found.data,
        disclaimer=DISCLAIMER,
        style=Markup(style),  # noqa: S704  this project's own files, no data
        style_hash=csp_hash(style),
        has_pictures=any(mistake.picture for mistake in found.mistakes),
        tiles=_tiles(found.figures, [tile for tile in _TILES if tile[0] not in found.trivial]),
        calibration=_tiles(found.figures, _CALIBRATION),
        novelty=_tiles(found.figures, _NOVELTY),
        shades=[[_shade(n, sum(row)) for n in row] for row in found.comparison.counts],
        points=[_point(item) for item in found.reliability],
        box={"side": SIDE, "left": LEFT, "top": TOP, "right": RIGHT, "bottom": BOTTOM},
        x_ticks=[Tick(_x(v), f"{v:.2f}") for v in (0, 0.25, 0.5, 0.75, 1)],
        y_ticks=[Tick(_y(v), f"{v:.2f}") for v in (0, 0.25, 0.5, 0.75, 1)],
        distorted=list(found.robustness),
        outside=list(found.data.outside.items())[:MAX_LISTED],
        excluded=_excluded(found.data.excluded),
        intervals=INTERVALS,
        software=__version__,
    )


def _tiles(figures: Mapping[str, Figure], wanted: Sequence[tuple[str, str, str]]) -> list[Tile]:
    tiles = []
    for name, title, meaning in wanted:
        figure, plain = figures[name], name in _AS_NUMBER
        value = number(figure) if plain else share(figure)
        tiles.append(Tile(title, value, interval(figure, plain), figure.count, meaning))
    return tiles


def _excluded(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return reasons with their counts and what they mean, most first."""
    meanings = {str(reason): text for reason, text in wording.REASONS.items()}
    of_archives = {str(reason): text for reason, text in wording.ARCHIVE_REASONS.items()}
    known = {**of_archives, **meanings, **_EXCLUSIONS}
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(reason, count, known.get(reason, "")) for reason, count in ordered]


def _shade(count: int, total: int) -> int:
    return math.ceil(_SHADES * count / total) if count else 0


def _point(item: Bin) -> Point:
    return Point(_x(item.confidence), _y(item.right.value), _y(item.right.low), _y(item.right.high))


def _x(value: float) -> float:
    return LEFT + (SIDE - LEFT - RIGHT) * value


def _y(value: float) -> float:
    return SIDE - BOTTOM - (SIDE - TOP - BOTTOM) * value


DOCUMENT, PAGE, EXCLUDED = "evaluation.json", "evaluation.html", "excluded.csv"


def write_evaluation(folder: Path, found: Evaluation) -> None:
    """Write the document, the page and the list of what was left out, each whole or not at all."""
    write_whole(folder / DOCUMENT, to_json(found))
    write_whole(folder / PAGE, render_evaluation(found).encode())
