"""How far something is that takes more than a few seconds: a rewritten line, or lines of a log."""

import time
from types import TracebackType
from typing import Final, Self, TextIO

from jobs.entry.ray_lines import visible

FIRST_S: Final = 5.0
LINE_EVERY_S: Final = 10.0
REDRAW_EVERY_S: Final = 0.5


class Ticker:
    """Says `WHAT: DONE of TOTAL` from the fifth second on, not too often; a context manager.

    Args:
        what: Is counted, such as `Images read`.
        total: How many there will be; None where nobody knows.
        stream: Where to write; a terminal gets one line that is rewritten.
    """

    def __init__(self, what: str, total: int | None = None, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = total
        self._stream = visible() if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._next = time.monotonic() + FIRST_S
        self._has_spoken = False

    def __call__(self, done: int) -> None:
        """Say how many are done, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (REDRAW_EVERY_S if self._is_terminal else LINE_EVERY_S)
        self._has_spoken = True
        of = "" if self._total is None else f" of {self._total:,}"
        start, end = ("\r\x1b[2K", "") if self._is_terminal else ("", "\n")
        self._stream.write(f"{start}{self._what}: {done:,}{of}{end}")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._has_spoken and self._is_terminal:
            self._stream.write("\n")
