"""The torture set through the whole job, with Ray, on any store: one row each, the right reason."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from implant_model import storage
from implant_model.errors import Outcome, Reason
from jobs.entry.command import INCOMPLETE, OK
from jobs.tables import delta
from jobs.tables.schema import ARCHIVES, PREDICTIONS
from tests.support.archive_samples import zip_of
from tests.support.paths import ROOT
from tests.torture.cases import catalogue
from tests.torture.cases.case import reason_in
from tests.torture.tally import Tally

VALUES: Final = re.compile(r"PAT-17|Secret|\bSam\b|ACC-5|1\.2\.3\.4|\.predicted|Traceback")
"""What the files say of patients and studies, and names of members: none belongs in a log."""
_MEMBERS, _SHIPPED = "members.zip", "pydicom.zip"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def run_here(*command: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m COMMAND` with a Ray cluster of its own."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def torture_job(root: str, model: str, run: Command = run_here, *, thorough: bool = False) -> Tally:
    """Writes the torture set below a URI, classifies it, and looks at every row.

    Args:
        root: URI of an empty folder or prefix; `in` and `out` are made below it.
        model: URI of a package.
        run: Runs a job as a user would.
        thorough: The heavy cases too.
    """
    tally = Tally("the set through the whole job, with Ray")
    for name, data in inputs(thorough=thorough).items():
        storage.put_if_absent(storage.join(root, "in", name), data)
    output = storage.join(root, "out")
    command = [storage.join(root, "in"), "--output", output, "--model", model]
    done = run("jobs.classify", *command, "--identifiers", "keep")
    said = done.stdout + done.stderr
    tally.check("exit code", done.returncode == INCOMPLETE, f"{done.returncode} {said[-1000:]}")
    tally.check("log", not VALUES.search(said), VALUES.findall(said))
    if done.returncode == INCOMPLETE:
        _check_members(tally, _rows(output, PREDICTIONS))
        _check_archives(tally, output, thorough=thorough)
    verified = run("jobs.verify", output)
    tally.check("verify", verified.returncode == OK, verified.stdout[-500:])
    return tally


def inputs(*, thorough: bool) -> dict[str, bytes]:
    """The objects: all members' cases in one zip, pydicom's files in another, each archive."""
    members = [(case.name, case.make()) for case in catalogue.members(thorough=thorough)]
    archives = {case.name: case.make() for case in catalogue.archives(thorough=thorough)}
    shipped = zip_of(list(catalogue.pydicom_files()))
    python = dict(catalogue.python_archives())
    return {_MEMBERS: zip_of(members), _SHIPPED: shipped, **archives, **python}


def _rows(output: str, table: str) -> list[dict[str, Any]]:
    opened = delta.open_table(storage.join(output, table))
    return [] if opened is None else delta.read_rows(opened)


def _check_members(tally: Tally, rows: list[dict[str, Any]]) -> None:
    found = {row["member"]: row for row in rows if row["archive"] == _MEMBERS}
    for case in catalogue.members(thorough=True):
        if case.name in found or not case.heavy:
            row = found.get(case.name, {})
            tally.equal(case.name, row.get("reason", "no row"), reason_in(case.name))
    for row in rows:
        if row["archive"] == _SHIPPED:
            tally.check(row["member"], _is_sound(row), row["reason"])


def _is_sound(row: Mapping[str, Any]) -> bool:
    """Whether there is a prediction or a reason, and no crash."""
    crash = (Reason.DECODER_CRASHED, Reason.DECODER_TIMEOUT)
    without = row["outcome"] in (Outcome.REJECTED, Outcome.IGNORED)
    return without == (row["reason"] is not None) and row["reason"] not in crash


def _check_archives(tally: Tally, output: str, *, thorough: bool) -> None:
    reasons: dict[str, list[tuple[int, str | None]]] = {}
    for row in _rows(output, PREDICTIONS):
        reasons.setdefault(row["archive"], []).append((row["member_index"], row["reason"]))
    rows = {row["archive"]: row for row in _rows(output, ARCHIVES)}
    for case in catalogue.archives(thorough=thorough):
        row = rows.get(case.name, {})
        tally.equal(case.name, (row.get("status"), row.get("reason")), (case.status, case.reason))
        found = [reason for _, reason in sorted(reasons.get(case.name, []))]
        tally.check(f"{case.name}, members", found == list(case.table_rows), found[:9])
    for name, row in rows.items():
        sums = row["members"], len(reasons.get(name, [])), sum(row[str(o)] for o in Outcome)
        tally.check(f"{name}, sums", len(set(sums)) == 1, sums)
