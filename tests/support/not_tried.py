"""One line at the end of a run: what was not tried on this machine, and how to try it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

NEEDS = {
    "chromium": "without Chromium {} of pages (apt-get install chromium)",
    "the real radiographs": "without the real radiographs {} (in ../shared/data/shoulder)",
    "command is not installed": "without a command {} (apt-get install tar zip)",
    "this Python comes without its tests": "without Python's own tests {}",
    "no user namespaces": "without user namespaces {}",
}
"""By words of the reason for which a test is skipped."""
LEFT_OUT = {
    "gpu": "without a GPU {} (make test-gpu)",
    "slow": "{} that are slow (make test-slow)",
    "long": "{} that are long (make check)",
}
"""By the mark for which a test is not selected; one of several marks counts as the first."""
_counts: pytest.StashKey[Counter[str]] = pytest.StashKey()


def sentence(skipped: Iterable[str], left_out: Mapping[str, int]) -> str:
    """Return what was not tried; empty where all was.

    Args:
        skipped: The reason of each test that was skipped.
        left_out: How many tests were not selected, by mark.
    """
    counts = Counter(words for reason in skipped for words in NEEDS if words in reason)
    counts.update(left_out)
    texts = {**NEEDS, **LEFT_OUT}.items()
    parts = [text.format(_tests(counts[key])) for key, text in texts if counts[key]]
    return f"Not tried here: {'; '.join(parts)}." if parts else ""


def _tests(count: int) -> str:
    return f"{count} test" if count == 1 else f"{count} tests"


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    counts: Counter[str] = Counter()
    config.stash[_counts] = counts


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what the marks leave out; with `-n`, in each process alike."""
    for item in items:
        marks = [mark for mark in LEFT_OUT if item.get_closest_marker(mark)]
        if marks and re.search(rf"\bnot {marks[0]}\b", item.config.option.markexpr):
            item.config.stash[_counts][marks[0]] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a process's counts to the one that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        counts: Counter[str] = session.config.stash[_counts]
        output["left_out"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over the counts of a process; all have seen the same tests."""
    left_out = getattr(node, "workeroutput", {}).get("left_out", {})
    counts: Counter[str] = node.config.stash[_counts]  # type: ignore[attr-defined]
    for mark, count in left_out.items():
        counts[mark] = count


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write the line."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    counts: Counter[str] = config.stash[_counts]
    line = sentence(reasons, counts)
    if line:
        terminalreporter.write_line(line)
