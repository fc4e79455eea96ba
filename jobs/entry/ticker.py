"""How far something is that takes more than a few seconds: a rewritten line, or lines of a log."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from jobs.entry.ray_lines import visible

FIRST_S: Final = 5.0
LINE_EVERY_S: Final = 10.0
REDRAW_EVERY_S: Final = 0.5
MAX_EVERY_S: Final = 60.0
LOOK_EVERY_S: Final = 0.2


class StatusLine:
    """A line that is rewritten on a terminal, else a line of a log, and not too often.

    Args:
        stream: Where to write; None for what a person reads.
        first_s: Seconds before the first one; None for the usual time between two.
        is_slowing: Whether lines of a log come twice as late each time, up to a minute.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        first_s: float | None = None,
        *,
        is_slowing: bool = False,
    ) -> None:
        self._given = stream
        self._is_terminal = self._stream.isatty()
        self._every_s = REDRAW_EVERY_S if self._is_terminal else LINE_EVERY_S
        self._is_slowing = is_slowing and not self._is_terminal
        self._next = time.monotonic() + (self._every_s if first_s is None else first_s)
        self._is_open = False

    @property
    def _stream(self) -> TextIO:
        return visible() if self._given is None else self._given  # Ray's start moves it

    def is_due(self) -> bool:
        """Return whether it is time for one; then the next is due a while later."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every_s
        if self._is_slowing:
            self._every_s = min(2 * self._every_s, MAX_EVERY_S)
        return True

    def write(self, text: str) -> None:
        """Write one, in the place of the last where that can be."""
        self._stream.write(f"\r\x1b[2K{text}" if self._is_terminal else f"{text}\n")
        self._stream.flush()
        self._is_open = self._is_terminal

    def close(self) -> None:
        """End the line of a terminal."""
        if self._is_open:
            self._stream.write("\n")


@contextlib.contextmanager
def ticking(
    what: str, total: int | None = None, stream: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """Say `WHAT: DONE of TOTAL` from the fifth second on, by calls with how many are done.

    Where a line was said, the last count is said at the end, too: else the first would stand there
    as if it were all.

    Args:
        what: Is counted, such as `Images read`.
        total: How many there will be; None where nobody knows.
        stream: Where to write; None for what a person reads.
    """
    line = StatusLine(stream, FIRST_S)
    of = "" if total is None else f" of {total:,}"
    said, last = -1, -1

    def tick(done: int) -> None:
        nonlocal said, last
        last = done
        if line.is_due():
            said = done
            line.write(f"{what}: {done:,}{of}")

    try:
        yield tick
        if -1 < said < last:
            line.write(f"{what}: {last:,}{of}")
    finally:
        line.close()


@contextlib.contextmanager
def waiting(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Say `WHAT: SECONDS s` from the fifth second on, of a step that cannot count.

    Args:
        what: Is done, such as `Loading torch`.
        stream: Where to write; None for what a person reads.
    """
    begun, line = time.monotonic(), StatusLine(stream, FIRST_S, is_slowing=True)
    with beating(lambda: f"{what}: {time.monotonic() - begun:.0f} s", line):
        yield


@contextlib.contextmanager
def beating(text: Callable[[], str], line: StatusLine) -> Iterator[None]:
    """Write a line whenever it is due, by a thread, and close it at the end."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(LOOK_EVERY_S):
            if line.is_due():
                line.write(text())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        line.close()
