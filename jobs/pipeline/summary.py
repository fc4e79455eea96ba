"""What a run states at its begin and its end, and the exit code that follows from it."""

from collections.abc import Iterator, Sequence

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION, FIRST_DECODE_VERSION
from implant_model.errors import ArchiveStatus, Outcome
from jobs.entry.command import INCOMPLETE, OK, shown
from jobs.pipeline.health import Health
from jobs.pipeline.plan import ROUND, Plan
from jobs.pipeline.recipe import Recipe
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult
from jobs.tables.schema import ARCHIVES, PREDICTIONS

MAX_LISTED = 20
"""Incomplete archives that the log names; the table `archives` has all of them."""


def describe_plan(plan: Plan, recipe: Recipe, calibrated_on: int = DECODE_VERSION) -> str:
    """Describe what there is to do and what is done, a line each.

    Args:
        plan: Of the run.
        recipe: Of its rows.
        calibrated_on: Version of the decode whose pictures the model was calibrated on.
    """
    archives, num_bytes, units, loose = len(plan.todo), 0, 0, 0
    for archive in plan.todo:
        num_bytes += archive.info.size
        units += -(-max(archive.info.size, 1) // recipe.unit_bytes)
        loose += archive.pseudonym is not None
    lines = [
        f"Model {recipe.model}, identifiers: {recipe.protector.policy}.",
        f"To do: {archives:,} archives, {_size(num_bytes)}, at least {units:,} units "
        f"of at most {recipe.unit_members:,} members.",
        f"Already done: {len(plan.done):,} archives, {plan.done.members:,} members.",
        *_older(plan),
    ]
    if archives > ROUND:
        lines.append(f"They are read in {-(-archives // ROUND):,} rounds, a run each.")
    if loose:
        lines.append(
            f"{loose:,} of them lie loose: the tables key their names; "
            "`jobs.keys names OUTPUT INPUT` lists them."
        )
    if FIRST_DECODE_VERSION < calibrated_on != DECODE_VERSION:
        lines.append(
            "Warning: the model was calibrated on pictures of decode version "
            f"{calibrated_on}; this software makes those of version {DECODE_VERSION}. Evaluate it "
            "anew before its probabilities are relied on."
        )
    if not plan.todo:
        lines.append("Nothing to do.")
    return "\n".join(lines)


def _older(plan: Plan) -> Iterator[str]:
    """Yield a line for each older version of the decode that has read what is done."""
    for version, count in sorted(plan.done.older().items()):
        yield (
            f"{count:,} archives were read by decode version {version} (this is version "
            f"{DECODE_VERSION}); --redo-older reads them again."
        )


def summarise(
    plan: Plan, results: Sequence[ArchiveResult], output: str, health: Health | None = None
) -> str:
    """Count of this run, what is not whole, what is not as usual, and where the tables are."""
    lines = []
    if results:
        total = Counts.total(result.counts for result in results)
        outcomes, reasons = total.outcomes, total.reasons
        counts = ", ".join(f"{outcomes[str(o)]:,} {o}" for o in Outcome)
        lines.append(f"{outcomes.total():,} images in {len(results):,} archives: {counts}.")
        if reasons:
            listed = ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common())
            lines.append(f"Reasons: {listed}.")
    lines += _incomplete(plan, results)
    lines += [f"Warning: {warning}" for warning in health.warnings] if health else []
    lines.append(f"Predictions: {storage.join(output, PREDICTIONS)}")
    lines.append(f"Archives: {storage.join(output, ARCHIVES)}")
    return "\n".join(lines)


def exit_code(
    plan: Plan,
    results: Sequence[ArchiveResult],
    max_rejected: float,
    health: Health | None = None,
) -> int:
    """Return 0 if all archives of the inputs are complete and the run is past no threshold, else 3.

    Archives of earlier runs count: what was missing then is missing still. The share of rejected
    members is that of this run, or of all if it had nothing to do.
    """
    if any(result.status is not ArchiveStatus.COMPLETE for result in results):
        return INCOMPLETE
    if plan.done.num_incomplete or (health is not None and health.warnings):
        return INCOMPLETE
    rejected, members = plan.done.rejected, plan.done.members
    if results:
        rejected = sum(result.outcomes.get(Outcome.REJECTED, 0) for result in results)
        members = sum(result.members for result in results)
    return INCOMPLETE if rejected > max_rejected * members else OK


def _incomplete(plan: Plan, results: Sequence[ArchiveResult]) -> list[str]:
    others = [result for result in results if result.status is not ArchiveStatus.COMPLETE]
    lines = [
        f"{result.archive.name}: {result.status} ({result.reason}), {result.members:,} members. "
        f"{result.message}".rstrip()
        for result in others[:MAX_LISTED]
    ]
    lines += [
        f"{record.archive}: {record.status} ({record.reason}) in an earlier run, "
        f"{record.members:,} members; --retry {record.reason} reads it again."
        for record in plan.done.incomplete(MAX_LISTED - len(lines))
    ]
    lines = [shown(line) for line in lines]
    if rest := len(others) + plan.done.num_incomplete - len(lines):
        lines.append(f"... and {rest:,} more; see the table {ARCHIVES}.")
    return lines


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "bytes" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
