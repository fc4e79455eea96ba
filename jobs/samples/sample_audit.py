"""The demo's audit: its call, and what it found set against what is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs import audit
from jobs.auditing import files, last_audit
from jobs.entry.command import OK
from jobs.samples.sample_archives import Truth
from jobs.samples.sample_registry import (
    ASKED,
    WRONG_SHARE,
    Finding,
    SampleRegistry,
    judge_worklist,
    make_registry,
)
from training.metrics import Figure


@dataclass(frozen=True)
class DemoAudit:
    """What came of it.

    Attributes:
        code: Exit code.
        registry: The sample.
        finding: How well the worklist did.
        summary: The audit's own document.
        page: Its page.
    """

    code: int
    registry: SampleRegistry
    finding: Finding
    summary: dict[str, Any]
    page: Path

    @property
    def is_covered(self) -> bool:
        """Return whether the true rate of errors lies in the reported interval."""
        rate = self.summary["error_rate"]
        return bool(rate["low"] <= self.finding.true_rate <= rate["high"])


def audit_samples(
    folder: Path,
    truths: Sequence[Truth],
    output: str,
    key: str,
    model: str,
    wrong_share: float = WRONG_SHARE,
) -> DemoAudit:
    """Write the sample registry, audit it as a user would, and judge the result."""
    registry = make_registry(folder / "registry.csv", truths, wrong_share)
    report = folder / "audit"
    call = ["--predictions", output, "--registry", str(registry.path), "--report", str(report)]
    call += ["--columns", ASKED, "--key", "patient", "--key-file", key, "--model", model]
    code = audit.main(call)
    return judge(registry, report, code)


def judge(registry: SampleRegistry, report: Path, code: int) -> DemoAudit:
    """Read what an audit wrote and set it against the sample."""
    rows = pq.read_table(report / files.VERDICTS).to_pylist()
    chances = {row["row"]: row["wrong_probability"] for row in rows if row["images"]}
    worklist = pq.read_table(report / f"{files.WORKLIST}.parquet").to_pylist()
    listed = {row["row"]: row["wrong_probability"] for row in worklist}
    finding = judge_worklist(registry, listed, frozenset(chances))
    uri = (report / files.SUMMARY).as_uri()
    summary = dict(last_audit.read_previous(uri, is_asked=True) or {})
    return DemoAudit(code, registry, finding, summary, report / files.PAGE)


def describe(done: DemoAudit) -> str:
    """One paragraph: how many were made wrong, what was found, whether the interval holds."""
    finding, rate = done.finding, done.summary["error_rate"]
    return (
        f"Of the sample registry's {done.summary['records']:,} records {len(done.registry.wrong)} "
        f"were made wrong, {finding.recall.count} of them with an image that the model could "
        f"judge. The worklist's recall is {_share(finding.recall)}, its precision "
        f"{_share(finding.precision)}, and where an error is more likely than not "
        f"{_share(finding.likely_precision)}. The audit estimates {100 * rate['value']:.1f} % of "
        f"records to be wrong, 95 % interval {100 * rate['low']:.1f} to {100 * rate['high']:.1f} "
        f"%; the true rate, {100 * finding.true_rate:.1f} %, "
        f"{'lies in it' if done.is_covered else 'DOES NOT lie in it'}."
    )


def find_faults(done: DemoAudit) -> list[str]:
    """Return what is not as the sample must make it, a sentence each."""
    faults = []
    if done.code != OK:
        faults.append(f"audit ended with {done.code}; {OK} is right.")
    if not done.is_covered:
        faults.append("The true rate of the registry's errors is outside the reported interval.")
    if sum(done.summary["verdicts"].values()) != done.summary["records"]:
        faults.append("The audit's verdicts do not add up to the registry's records.")
    return faults


def _share(figure: Figure) -> str:
    if not figure.count:
        return "not defined"
    return f"{round(figure.value * figure.count)} of {figure.count} ({100 * figure.value:.0f} %)"
