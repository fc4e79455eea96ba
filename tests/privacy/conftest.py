"""One table at the end of `make privacy`: what was planted or tried, and what was found."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

Tell = Callable[[str, int, int], None]
_COUNT = "privacy"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Records a line of the table: what, how many were tried, how many were found."""

    def record(what: str, tried: int, found: int) -> None:
        record_property(_COUNT, [what, tried, found])

    return record


def modes(folder: Path) -> set[tuple[str, int]]:
    """Kind and rights of a folder and of all below it."""
    found = {("folder", stat.S_IMODE(folder.stat().st_mode))}
    for path in folder.rglob("*"):
        kind = "folder" if path.is_dir() else "file"
        found.add((kind, stat.S_IMODE(path.stat().st_mode)))
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, of a run that was given this folder."""
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    lines: dict[str, list[int]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == _COUNT:
                counts = lines.setdefault(value[0], [0, 0])
                counts[0] += value[1]
                counts[1] += value[2]
    if not lines:
        return
    terminalreporter.write_line(f"{'tried':<58} {'cases':>7} {'found':>7}")
    for what, (tried, found) in lines.items():
        terminalreporter.write_line(f"{what:<58} {tried:>7,} {found:>7,}")
