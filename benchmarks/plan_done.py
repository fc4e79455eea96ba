"""How long a run takes to find that all is done: 100,000 archives that the output holds already.

    python -m benchmarks.plan_done
    python -m benchmarks.plan_done --archives 10000

Makes a folder of that many small files, enters each with one unit into the tables, in commits of
10,000 archives, and times what a run does before any work: to read the tables, to list the folder
and to compare. Exit codes: 0 under a minute; 3 not.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from benchmarks.machine import tell
from implant_model import __version__, storage
from implant_model.errors import ArchiveStatus
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.pipeline.plan import make_plan
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.file_statistics import statistics_of
from jobs.tables.publish import Tables
from jobs.tables.receipts import Counts, UnitFile
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import unit_id, unit_path
from jobs.tables.state.record_index import Records

MODEL: Final = "bench@000000000000"
CONFIGURATION: Final = "0" * 16
AT_ONCE: Final = 10_000
MAX_S: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, make, time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archives", type=int, default=100_000)
    parser.add_argument("--folder", help="where the files and tables are written meanwhile")
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "in"
        make_files(source, options.archives)
        tables = Tables(
            storage.normalise(f"{folder}/out"),
            RunIdentity(MODEL, CONFIGURATION, __version__, "bench"),
        )
        enter(list(make_plan([storage.normalise(str(source))], Records.of()).todo), tables)
        begun, used = time.monotonic(), time.process_time()
        records = tables.records()
        read_s = time.monotonic() - begun
        plan = make_plan([storage.normalise(str(source))], records)
        seconds, cpu_s = time.monotonic() - begun, time.process_time() - used
    found = (
        f"{len(plan.done):,} archives done, {len(plan.todo)} to do: {seconds:.1f} s "
        f"({read_s:.1f} s of it to read the tables), {cpu_s:.1f} s of CPU."
    )
    command = f"python -m benchmarks.plan_done --archives {options.archives}"
    tell(options.result, "A run that finds all done", command, found)
    return OK if not plan.todo and seconds < MAX_S else INCOMPLETE


def make_files(folder: Path, count: int) -> None:
    """Small files, a thousand in each folder."""
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number:07}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)


def enter(archives: Sequence[PlannedArchive], tables: Tables) -> None:
    """Enter archives as complete, each with one unit of one member; the units are not written."""
    tables.create()
    for start in range(0, len(archives), AT_ONCE):
        tables.commit([result(archive) for archive in archives[start : start + AT_ONCE]])


def result(archive: PlannedArchive) -> ArchiveResult:
    """Return what a run states of an archive of one radiograph."""
    now = datetime.now(UTC)
    unit = unit_id(archive.name, archive.info.version, MODEL, CONFIGURATION, 0, 0)
    path = unit_path(MODEL, unit)
    row = {"archive": archive.name, "archive_version": archive.info.version}
    statistics = statistics_of(pa.Table.from_pylist([row]))
    units = (UnitFile(path, 0, 1, 9, "0" * 64, statistics),)
    counts = Counts(Counter({"identified": 1}))
    return ArchiveResult(archive, ArchiveStatus.COMPLETE, None, "", units, counts, now, now)


if __name__ == "__main__":
    run_command("plan_done", lambda: main(sys.argv[1:]))
