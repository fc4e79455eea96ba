"""Progress in images while a run goes on: a line that is rewritten on a terminal, else log lines.

How many images an archive holds is known only when it has been read, so the planned number is
estimated from the share of the planned bytes that has been read, and said with a tilde.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TextIO

from implant_model.errors import Outcome
from jobs.entry.ticker import StatusLine, beating
from jobs.tables.receipts import ArchiveReceipt, End, Published


class Progress:
    """Counts receipts and states how far the run is.

    Args:
        sizes: Stored bytes of each, by position in the plan.
        stream: Where to write; a terminal gets one line that is rewritten.
    """

    def __init__(self, sizes: Mapping[int, int], stream: TextIO | None = None) -> None:
        self._sizes = sizes
        self._total = sum(sizes.values())
        self._read = 0
        """Of the planned bytes."""
        self._line = StatusLine(stream)
        self._started = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._bytes_of: Counter[int] = Counter()
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self._beat = contextlib.ExitStack()
        self._beat.enter_context(beating(self._text, self._line))

    @property
    def num_images(self) -> int:
        """Return members whose rows are published."""
        return self._outcomes.total()

    def add(self, receipt: ArchiveReceipt) -> None:
        """Count one receipt."""
        with self._lock:
            if isinstance(receipt, Published):
                self._outcomes.update(receipt.counts.outcomes)
                self._count(receipt.position, receipt.read_bytes)
            elif isinstance(receipt, End) and receipt.position not in self._ended:
                self._count(receipt.position, self._sizes[receipt.position])
                self._ended.add(receipt.position)

    def _count(self, position: int, num_bytes: int) -> None:
        """Count bytes of an archive, up to its size."""
        if position in self._ended:
            return
        size, before = self._sizes[position], self._bytes_of[position]
        self._bytes_of[position] = before + num_bytes
        self._read += min(before + num_bytes, size) - min(before, size)

    def close(self) -> None:
        """State the last state, and end the line."""
        self._line.write(self._text())
        self._beat.close()

    def _text(self) -> str:
        with self._lock:
            return self.line(time.monotonic() - self._started)

    def line(self, elapsed_s: float) -> str:
        """Return the state as one line."""
        done, rate = self.num_images, self.num_images / max(elapsed_s, 1e-9)
        planned = self._estimate_images()
        parts = [f"{done:,} of {'~' if planned != done else ''}{planned:,} images"]
        parts.append(f"{len(self._ended):,} of {len(self._sizes):,} archives")
        parts.append(f"{rate:,.1f} images/s")
        if done:
            parts.append(f"{_duration((planned - done) / rate)} left")
        parts += [f"{self._outcomes[str(o)]:,} {o}" for o in Outcome if self._outcomes[str(o)]]
        return "  ".join(parts)

    def _estimate_images(self) -> int:
        """Return images in all archives, if the unread bytes hold as many as the read ones.

        Of an archive that is still being read, its members' bytes stand for its own: exact for a
        plain tar, too many for a compressed one, and put right when it ends. Each archive of
        which nothing has come holds one image, at least.
        """
        begun = self._ended | self._bytes_of.keys()
        least = self.num_images + len(self._sizes) - len(begun)
        if not self._read:
            return least
        return max(round(self.num_images * self._total / self._read), least)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
