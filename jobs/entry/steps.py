"""A sign of life while a step without a count of its own takes more than a few seconds."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from jobs.entry.ray_lines import visible
from jobs.entry.ticker import FIRST_S, LINE_EVERY_S, REDRAW_EVERY_S, StatusLine


@contextlib.contextmanager
def step(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Write `WHAT: SECONDS s` from the fifth second on, until the work below it ends.

    Args:
        what: Is done, such as `The registry's file is read`.
        stream: Where to write; None for what a person reads.
    """
    place = visible() if stream is None else stream
    line, over, begun = StatusLine(place, FIRST_S), threading.Event(), time.monotonic()
    every_s = REDRAW_EVERY_S if place.isatty() else LINE_EVERY_S

    def tell() -> None:
        wait_s = FIRST_S
        while not over.wait(wait_s):
            line.write(f"{what}: {time.monotonic() - begun:.0f} s")
            wait_s = every_s

    teller = threading.Thread(target=tell, name="step", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        line.close()
