"""The days of an analyst, an engineer and a researcher, as their pages have them."""

from pathlib import Path

import pytest

from tests.days.played import DAYS, PLAYERS
from tests.days.transcript import comparable, steps
from tests.support.browser import lay_out

DESKTOP, PHONE = 1280, 390


def test_each_day_has_its_player() -> None:
    assert set(DAYS) == set(PLAYERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("day", "page"),
    [
        ("analyst", "audit/audit.html"),
        ("engineer", "report/report.html"),
        ("researcher", "evaluation/evaluation.html"),
    ],
)
@pytest.mark.timeout(2400)
def test_commands_of_the_day_print_what_its_page_has(day: str, page: str, tmp_path: Path) -> None:
    same = day != "researcher"  # a fit's last digits decide some images, and differ by processor
    played = PLAYERS[day](tmp_path)
    for found, written in zip(played, steps(DAYS[day]), strict=True):
        assert comparable(found, same) == comparable(written, same)
    for width in (DESKTOP, PHONE):
        (tmp_path / str(width)).mkdir()
        text = (tmp_path / page).read_text(encoding="utf-8")
        layout = lay_out(text, width, tmp_path / str(width))
        assert layout.needed <= layout.given
