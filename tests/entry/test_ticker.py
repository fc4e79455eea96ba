"""Progress of what takes long: nothing at first, then not too often, one line on a terminal."""

import io
import time

import pytest

from jobs.entry import ticker
from jobs.entry.ticker import alive, ticking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def run(stream: io.StringIO, clock: list[float], total: int | None, seconds: int) -> str:
    with ticking("Images read", total, stream) as tick:
        for done in range(seconds):
            clock[0] += 1
            tick(1000 * done)
    return stream.getvalue()


def test_what_is_soon_over_is_not_spoken_of(clock: list[float]) -> None:
    assert run(io.StringIO(), clock, 10, 4) == ""
    assert run(Terminal(), clock, 10, 4) == ""


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    said = run(io.StringIO(), clock, 30_000, 26)
    assert said.splitlines() == [f"Images read: {n},000 of 30,000" for n in (4, 14, 24)]
    assert run(io.StringIO(), clock, None, 6) == "Images read: 4,000\n"


def test_a_terminal_gets_one_line(clock: list[float]) -> None:
    said = run(Terminal(), clock, 30_000, 7)
    assert said == (
        "\r\x1b[2KImages read: 4,000 of 30,000"
        "\r\x1b[2KImages read: 5,000 of 30,000"
        "\r\x1b[2KImages read: 6,000 of 30,000\n"
    )


def test_what_cannot_say_how_far_it_is_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticker, "FIRST_S", 0.05)
    monkeypatch.setattr(ticker, "REDRAW_EVERY_S", 0.02)
    stream = io.StringIO()
    with alive("Ray is starting", stream):
        deadline = time.monotonic() + 30
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue() == "Ray is starting: 0 s\n"
