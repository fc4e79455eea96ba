"""What an attack tried and what failed: a line of the table of `python -m tests.torture`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_LISTED: Final = 20


@dataclass
class Tally:
    """One attack.

    Attributes:
        what: In a few words.
        tried: Cases so far.
        failures: A sentence for each case that went wrong.
        note: A figure worth knowing, such as the largest memory seen.
    """

    what: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def check(self, case: object, is_right: bool, found: object = "") -> None:
        """Counts one case; `found` is said of it if it failed."""
        self.tried += 1
        if not is_right:
            self.failures.append(f"{self.what}: {case}: {found}".removesuffix(": "))

    def equal(self, case: object, found: object, expected: object) -> None:
        """Counts one case that went well if it gave what was expected."""
        self.check(case, found == expected, f"{found}; expected: {expected}")


def table(tallies: Sequence[Tally]) -> str:
    """Attacks, cases tried, faults survived, failed; then the failures, some of each attack."""
    lines = [f"{'attack':<58} {'tried':>7} {'survived':>8} {'failed':>7}  note"]
    for tally in tallies:
        failed = len(tally.failures)
        counts = f"{tally.tried:>7,} {tally.tried - failed:>8,} {failed:>7,}"
        lines.append(f"{tally.what:<58} {counts}  {tally.note}".rstrip())
    tried, failed = sum(t.tried for t in tallies), sum(len(t.failures) for t in tallies)
    lines.append(f"{'all':<58} {tried:>7,} {tried - failed:>8,} {failed:>7,}")
    for tally in tallies:
        lines += tally.failures[:MAX_LISTED]
        if len(tally.failures) > MAX_LISTED:
            lines.append(f"{tally.what}: ... {len(tally.failures) - MAX_LISTED:,} more.")
    return "\n".join(lines)
