"""A sign of life of a step that counts nothing."""

import io
import time

import pytest

from jobs.entry import steps
from jobs.entry.steps import step


def test_a_step_that_takes_long_gives_signs_and_ends_with_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "FIRST_S", 0.05)
    monkeypatch.setattr(steps, "LINE_EVERY_S", 0.05)
    stream = io.StringIO()

    def work() -> None:
        with step("The file is read", stream):
            while stream.getvalue().count("\n") < 2:
                time.sleep(0.01)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    said = stream.getvalue()
    time.sleep(0.2)
    assert stream.getvalue() == said
    assert {line.rpartition(":")[0] for line in said.splitlines()} == {"The file is read"}


def test_a_step_that_is_soon_over_is_not_spoken_of() -> None:
    stream = io.StringIO()
    with step("The file is read", stream):
        pass
    assert stream.getvalue() == ""
