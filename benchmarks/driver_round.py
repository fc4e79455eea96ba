"""What a driver takes for a round of loose radiographs: processor time of each, peak memory.

    python -m benchmarks.driver_round
    python -m benchmarks.driver_round --files 50000

Publishes files of a thousand rows as publishers do, keeps their receipts, and has them settled by a
process of its own as a driver does: into a ledger, and every 15 seconds into the tables. Ray, which
brings a driver its receipts, is left out. Exit codes: 0 all were published, under 2 GB; 3 not.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.machine import apart, peak_bytes, tell
from benchmarks.plan_done import CONFIGURATION, MODEL
from benchmarks.verify_millions import IN_FILE, archive_of, rows_of, unit_of
from implant_model import __version__, storage
from implant_model.errors import ArchiveStatus
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.pipeline.plan import ROUND
from jobs.pipeline.run import settle
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import ArchiveReceipt, End, Fault, dump_receipts, load_receipts
from jobs.tables.unit_files import publish_bundle

MAX_BYTES: Final = 2 * 10**9


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, publish, settle, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=ROUND)
    parser.add_argument("--settle", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    if options.settle:
        print(json.dumps(settle_all(Path(options.settle), options.files)))
        return OK
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), options.files)
        call = ["-m", "benchmarks.driver_round", "--files", str(options.files)]
        found = apart(*call, "--settle", folder)
    line = (
        f"{found['published']:,} loose radiographs: {found['cpu_ms']:.2f} ms of a core each, "
        f"{found['seconds']:.0f} s in all; {found['begun'] / 1e9:.2f} GB with the plan, "
        f"{found['peak'] / 1e9:.2f} GB at the peak."
    )
    tell(options.result, "The driver of a round", " ".join(["python", *call]), line)
    is_right = found["published"] == options.files and found["peak"] < MAX_BYTES
    return OK if is_right else INCOMPLETE


def publish(folder: Path, count: int) -> None:
    """Publish so many loose radiographs, and write their receipts, those of a block in a file."""
    output = storage.normalise(str(folder / "out"))
    Tables(output, RunIdentity(MODEL, CONFIGURATION, __version__, "bench")).create()
    for first in range(0, count, IN_FILE):
        numbers = range(first, min(first + IN_FILE, count))
        archives = [archive_of(number) for number in numbers]
        units = [unit_of(number, each) for number, each in zip(numbers, archives, strict=True)]
        published = publish_bundle(units, rows_of(archives), output)
        ends = [End(number, 1, ArchiveStatus.COMPLETE, None, "", 0.0) for number in numbers]
        (folder / f"{first:09}.json").write_text(dump_receipts([*published, *ends]))


def settle_all(folder: Path, count: int) -> dict[str, float]:
    """Settle receipts as a driver does."""
    todo = tuple(archive_of(number) for number in range(count))
    begun_bytes, begun_s, cpu_s = peak_bytes(), time.monotonic(), time.process_time()
    output = storage.normalise(str(folder / "out"))
    tables = Tables(output, RunIdentity(MODEL, CONFIGURATION, __version__, "bench"))
    with contextlib.redirect_stderr(io.StringIO()):  # the progress
        results = settle(todo, receipts(folder), tables)
    return {
        "published": sum(result.is_readable for result in results),
        "cpu_ms": (time.process_time() - cpu_s) / count * 1000,
        "seconds": time.monotonic() - begun_s,
        "begun": begun_bytes,
        "peak": peak_bytes(),
    }


def receipts(folder: Path) -> Iterator[ArchiveReceipt]:
    """Yield the receipts that `publish` wrote, block by block."""
    for file in sorted(folder.glob("*.json")):
        for receipt in load_receipts(file.read_text()):
            if not isinstance(receipt, Fault):
                yield receipt


if __name__ == "__main__":
    run_command("driver_round", lambda: main(sys.argv[1:]))
