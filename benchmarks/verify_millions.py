"""What `jobs.verify` takes for millions of loose radiographs: seconds, peak memory.

    python -m benchmarks.verify_millions
    python -m benchmarks.verify_millions --files 10000000 --moved

Writes the output of a run over so many loose radiographs: files of a thousand rows, as readers
publish them, and the rows of `archives`. With --moved Delta's own `optimize.compact` puts the rows
into other files, which no row of `archives` names. `jobs.verify` runs in a process of its own.
Exit codes: 0 all is whole, under 4 GB; 3 not.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.machine import apart, tell
from benchmarks.plan_done import CONFIGURATION, MODEL
from implant_model import __version__, storage
from implant_model.errors import ArchiveStatus, ImplantError
from implant_model.storage import ObjectInfo
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import Failure, Unit
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, PREDICTIONS, unit_id, unit_path
from jobs.tables.unit_files import publish_bundle

IN_FILE: Final = 1000
FILES_IN_A_COMMIT: Final = 50
MAX_BYTES: Final = 4 * 10**9
VERIFY: Final = """
import json, sys, time
from benchmarks.machine import peak_bytes
from jobs.tables.verification import verify_output
begun = time.monotonic()
report = verify_output(sys.argv[1])
print(json.dumps([time.monotonic() - begun, peak_bytes(), report.archives, report.rows,
                  report.files, len(report.findings)]))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write, verify, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--moved", action="store_true")
    parser.add_argument("--folder", help="where the output is written meanwhile")
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        output = storage.normalise(folder)
        write(output, options.files)
        if options.moved:
            DeltaTable(storage.join(output, PREDICTIONS)).optimize.compact()
        seconds, peak, archives, rows, files, findings = apart("-c", VERIFY, output)
    moved = ", put together by `optimize.compact`" if options.moved else ""
    line = (
        f"{archives:,} loose radiographs, {rows:,} rows in {files:,} files{moved}: {seconds:.0f} s,"
        f" {peak / 1e9:.2f} GB at the peak, {findings:,} findings."
    )
    call = f"python -m benchmarks.verify_millions --files {options.files}"
    call += " --moved" if options.moved else ""
    tell(options.result, "Verification of millions", call, line)
    is_right = archives == rows == options.files and not findings and peak < MAX_BYTES
    return OK if is_right else INCOMPLETE


def write(output: str, count: int) -> None:
    """Write the output of a run over so many loose radiographs."""
    tables = Tables(output, RunIdentity(MODEL, CONFIGURATION, __version__, "bench"))
    tables.create()
    numbers = iter(range(count))
    begun = time.monotonic()
    while results := list(_results(output, islice(numbers, IN_FILE * FILES_IN_A_COMMIT))):
        tables.commit(results)
    tables.write_checksums()
    print(f"Written in {time.monotonic() - begun:.0f} s.", flush=True)


def _results(output: str, numbers: Iterator[int]) -> Iterator[ArchiveResult]:
    while some := list(islice(numbers, IN_FILE)):
        archives = [archive_of(number) for number in some]
        units = [unit_of(place, archive) for place, archive in enumerate(archives)]
        now = datetime.now(UTC)
        receipts = publish_bundle(units, rows_of(archives), output)
        for archive, receipt in zip(archives, receipts, strict=True):
            if isinstance(receipt, Failure):
                raise ImplantError(receipt.message)
            yield ArchiveResult(
                archive, ArchiveStatus.COMPLETE, None, "", (receipt.file,), receipt.counts, now, now
            )


def archive_of(number: int) -> PlannedArchive:
    """Return a loose radiograph as the tables know it."""
    return PlannedArchive(
        f"loose-{number:032x}", ObjectInfo(f"s3://pacs/{number:09}.dcm", 9, f"{number:032x}")
    )


def unit_of(place: int, archive: PlannedArchive) -> Unit:
    """Return its one unit; `place`: in the plan."""
    name, version = archive.name, archive.info.version
    path = unit_path(MODEL, unit_id(name, version, MODEL, CONFIGURATION, 0, 0))
    return Unit(place, name, version, 0, 1, 9, path)


def rows_of(archives: Sequence[PlannedArchive]) -> pa.Table:
    """Return rows of identified radiographs."""
    same = {"member_index": 0, "outcome": "identified", "implant": "exeter", "probability": 0.9}
    row = {name: None for name in PREDICTION_ROW.names} | same
    row |= {"frame": 0, "candidates": ["exeter"], "top": [], "novelty": 1.0}
    names = ({"archive": a.name, "archive_version": a.info.version} for a in archives)
    return pa.Table.from_pylist([row | own for own in names], PREDICTION_ROW)


if __name__ == "__main__":
    run_command("verify_millions", lambda: main(sys.argv[1:]))
