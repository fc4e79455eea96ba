"""Progress of what takes long: nothing at first, then not too often, one line on a terminal."""

import io
import time

import pytest

from jobs.entry import ticker
from jobs.entry.ticker import StatusLine, ticking, waiting


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
    assert said.splitlines() == [f"Images read: {n},000 of 30,000" for n in (4, 14, 24, 25)]
    assert run(io.StringIO(), clock, None, 5) == "Images read: 4,000\n"


def test_the_last_count_is_said_after_a_first_one(clock: list[float]) -> None:
    stream = io.StringIO()
    with ticking("Images read", None, stream) as tick:
        clock[0] += 6  # the reader starts slowly, and is then done in no time
        for done in range(1, 81):
            tick(done)
    assert stream.getvalue() == "Images read: 1\nImages read: 80\n"


def test_a_count_that_breaks_off_is_not_said_to_be_the_last(clock: list[float]) -> None:
    stream = io.StringIO()

    def break_off() -> None:
        with ticking("Images read", None, stream) as tick:
            clock[0] += 6
            tick(1)
            tick(2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        break_off()
    assert stream.getvalue() == "Images read: 1\n"


def test_lines_of_a_step_without_counts_come_later_and_later(clock: list[float]) -> None:
    line, due = StatusLine(io.StringIO(), 5.0, is_slowing=True), []
    for _ in range(200):
        clock[0] += 1
        due += [clock[0] - 100] if line.is_due() else []
    assert due == [5, 15, 35, 75, 135, 195]


def test_a_step_without_counts_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "FIRST_S", 0.05)
    monkeypatch.setattr(ticker, "LOOK_EVERY_S", 0.01)
    stream = io.StringIO()
    with waiting("Loading torch", stream):
        time.sleep(0.3)
    assert stream.getvalue() == "Loading torch: 0 s\n"
    with waiting("Loading torch", stream):
        pass
    assert stream.getvalue() == "Loading torch: 0 s\n"


def test_a_terminal_gets_one_line(clock: list[float]) -> None:
    said = run(Terminal(), clock, 30_000, 7)
    assert said == (
        "\r\x1b[2KImages read: 4,000 of 30,000"
        "\r\x1b[2KImages read: 5,000 of 30,000"
        "\r\x1b[2KImages read: 6,000 of 30,000\n"
    )
