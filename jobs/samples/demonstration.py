"""The demo in order: samples, classify, verify, report, audit, and what was seen."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from implant_model import storage
from implant_model.errors import Outcome
from implant_model.package.load import ModelPackage, load_package
from implant_model.storage.local_files import write_whole
from jobs import classify, keys, verify
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.pages.comparison import Comparison, compare
from jobs.pages.page import render_run
from jobs.pages.run_facts import RunFacts, read_facts
from jobs.samples import sample_audit
from jobs.samples.sample_archives import CUT, Samples, make_samples
from jobs.samples.sample_check import find_faults, judge, read_predictions
from jobs.tables.schema import ARCHIVES, PREDICTIONS
from training.metrics import Figure

MODEL: Final = Path(__file__).parents[2] / "models" / "phantom"
NUM_EACH: Final = 10
"""Phantoms of each implant of the catalogue."""
NO_EVIDENCE: Final = (
    "All pictures are phantoms, synthetic radiographs: they show the pipeline at work and are no "
    "evidence about patients."
)


def run(folder: Path, model: Path = MODEL, num_each: int = NUM_EACH) -> int:
    """Make samples, classify and verify them, write the report and state what was seen."""
    package = load_package(str(model))
    samples = make_samples(folder, num_each)
    print(describe(samples), flush=True)
    output = storage.normalise(str(folder / "tables"))
    key = make_key(folder / "pseudonyms.key")
    call = [str(samples.archives), "--output", output, "--model", str(model), "--key-file", key]
    code = classify.main(call)
    findings = verify.main([output])
    rows = read_predictions(output, package.id, storage.normalise(str(samples.archives)))
    facts = read_facts(output, package.id)
    comparison = compare(judge(rows, samples.truths), package.catalogue.names)
    page = write_report(folder / "report.html", facts, comparison, package, findings == OK)
    faults = find_faults(rows, samples.truths, facts, code, findings)
    print(summarise(facts, comparison), flush=True)
    done = sample_audit.audit_samples(folder, samples.truths, output, key, str(model))
    faults += sample_audit.find_faults(done)
    print(conclude(facts, done, faults, page), flush=True)
    return INCOMPLETE if faults else OK


def make_key(path: Path) -> str:
    """Return the file of a random key, made on the first run; only its owner may read it."""
    return str(path if path.exists() else keys.make_key(path))


def describe(samples: Samples) -> str:
    """Return what there is to classify."""
    made = "Made" if samples.are_new else "Found"
    phantoms = sum(bool(truth.label) for truth in samples.truths)
    return (
        f"{made} {samples.num_archives} sample archives and loose radiographs with "
        f"{len(samples.truths):,} members, {phantoms:,} of them readable phantoms: "
        f"{samples.archives}"
    )


def write_report(
    path: Path, facts: RunFacts, comparison: Comparison, package: ModelPackage, is_whole: bool
) -> Path:
    """Write the page of the run, in place of an older one."""
    verified = "Every published row is whole and accounted for (jobs.verify)."
    page = render_run(
        facts,
        title="Demo: implants named on phantoms",
        notes=[NO_EVIDENCE],
        novelty_threshold=package.novelty.threshold,
        comparison=comparison,
        verified=verified if is_whole else "jobs.verify found rows that are not whole.",
    )
    write_whole(path, page.encode())
    return path


def summarise(facts: RunFacts, comparison: Comparison) -> str:
    """Return one paragraph of what was seen."""
    left_out = sum(facts.outcomes.get(o, 0) for o in (Outcome.REJECTED, Outcome.IGNORED))
    seen = [
        f"What was seen: {facts.members:,} members, one row each.",
        f"The best candidate is right on {_share(comparison.top_1)} of the phantoms whose implant "
        "is in the catalogue,",
        f"and {_share(comparison.unknown_found)} of those whose implant is not are found to be "
        "unknown.",
        f"{left_out} members are no whole radiographs and were rejected or ignored, each with its "
        "reason.",
        f"{CUT} is cut on purpose: its whole members were read, its status is salvaged, and so "
        "classify ends with exit code 3.",
    ]
    return "\n".join(["", *textwrap.wrap(" ".join(seen), 100), ""])


def conclude(
    facts: RunFacts, done: sample_audit.DemoAudit, faults: Sequence[str], report: Path
) -> str:
    """Return what the audit found, what went wrong, and where everything lies."""
    sentences = [sample_audit.describe(done), NO_EVIDENCE, DISCLAIMER]
    lines = ["", *textwrap.wrap(" ".join(sentences), 100), ""]
    lines += [f"Not as it should be: {fault}" for fault in faults]
    lines += [
        f"Predictions: {storage.join(facts.output, PREDICTIONS)}",
        f"Archives: {storage.join(facts.output, ARCHIVES)}",
        f"Audit: {done.page}",
        f"Look at its cases: .venv/bin/python -m jobs.review --audit {done.page.parent}",
        f"Report: {report}",
    ]
    return "\n".join(lines)


def _share(figure: Figure) -> str:
    return (
        f"{round(figure.value * figure.count)} of {figure.count} "
        f"({100 * figure.value:.1f} %, 95 % interval {100 * figure.low:.1f} to "
        f"{100 * figure.high:.1f} %)"
    )
