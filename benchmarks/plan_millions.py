"""What a plan of millions of loose files costs where nearly all are done: seconds, peak memory.

    python -m benchmarks.plan_millions
    python -m benchmarks.plan_millions --files 10000000 --new 10000

Writes the tables of a run that has done all files but the new ones: rows of `archives` as a run
writes them, half a million a file as `jobs.compact` leaves them, and the list of the bundles that
hold their predictions (the bundles themselves are not written: a plan does not read them). The
objects are listed by a manifest in Parquet. The plan runs in a process of its own, whose peak
memory is what is told. Exit codes: 0 under 10 minutes and 4 GB; 3 not.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import apart, peak_bytes, tell
from implant_model import __version__, storage
from implant_model.privacy import IdentifierPolicy
from implant_model.storage import ObjectInfo
from implant_model.storage.object_list import ObjectList
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.pipeline.plan import make_plan
from jobs.tables import delta
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.file_statistics import statistics_of
from jobs.tables.loose_names import LooseNames
from jobs.tables.publish import Tables
from jobs.tables.schema import ARCHIVE_ROW, ARCHIVES, PREDICTIONS, bundle_id, unit_path

MODEL: Final = "bench@000000000000"
ROOT: Final = "s3://pacs/export"
IN_BUNDLE: Final = 256
IN_FILE: Final = 500_000
AT_ONCE: Final = 1 << 16
MAX_S: Final = 600.0
MAX_BYTES: Final = 4 * 10**9
BUNDLE_STATISTICS: Final = json.dumps(
    {
        "numRecords": 256,
        "minValues": {"archive": "loose-0", "archive_version": "0"},
        "maxValues": {"archive": "loose-f", "archive_version": "f"},
        "nullCount": {"archive": 0, "archive_version": 0},
    }
)
BUNDLES_IN_A_COMMIT: Final = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write, plan, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--new", type=int, default=10_000, help="of which this many are to do")
    parser.add_argument("--folder", help="where tables and manifest are written meanwhile")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    if options.plan:
        print(json.dumps(plan(options.plan)))
        return OK
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        begun = time.monotonic()
        write(folder, options.files, options.files - options.new)
        print(f"Written in {time.monotonic() - begun:.0f} s.", flush=True)
        found = apart("-m", "benchmarks.plan_millions", "--plan", folder)
    line = (
        f"{found['done']:,} of {options.files:,} loose files done, {found['todo']:,} to do: "
        f"{found['seconds']:.0f} s ({found['tables_s']:.0f} s of it to read the tables), "
        f"{found['cpu_s']:.0f} s of CPU, {found['bytes'] / 1e9:.2f} GB at the peak."
    )
    call = f"python -m benchmarks.plan_millions --files {options.files} --new {options.new}"
    tell(options.result, "A plan of millions", call, line)
    is_right = found["todo"] == options.new and found["done"] == options.files - options.new
    return (
        OK if is_right and found["seconds"] < MAX_S and found["bytes"] < MAX_BYTES else INCOMPLETE
    )


def plan(folder: str) -> dict[str, float]:
    """Do what a run does before it reads anything."""
    output = storage.normalise(f"{folder}/out")
    begun = time.monotonic()
    tables = Tables(output, RunIdentity(MODEL, "0" * 16, __version__, "bench"))
    records = tables.records()
    tables_s = time.monotonic() - begun
    names = LooseNames(output, IdentifierPolicy.DROP)
    manifest = ObjectList(storage.normalise(f"{folder}/manifest.parquet"))
    found = make_plan([ROOT], records, names=names, manifest=manifest)
    return {
        "done": len(found.done),
        "todo": len(found.todo),
        "seconds": time.monotonic() - begun,
        "tables_s": tables_s,
        "cpu_s": time.process_time(),
        "bytes": peak_bytes(),
    }


def write(folder: str, count: int, done: int) -> None:
    """Write the manifest of `count` files and the tables of a run over the first `done`."""
    output = storage.normalise(f"{folder}/out")
    Tables(output, RunIdentity(MODEL, "0" * 16, __version__, "bench")).create()
    names = LooseNames(output, IdentifierPolicy.DROP)
    schema = pa.schema([("key", pa.string()), ("size", pa.int64()), ("etag", pa.string())])
    with pq.ParquetWriter(f"{folder}/manifest.parquet", schema) as manifest:
        written: list[pa.Table] = []
        bundles: list[tuple[str, int]] = []
        for start in range(0, count, AT_ONCE):
            infos = list(objects(start, min(start + AT_ONCE, count)))
            keys = [info.uri.removeprefix("s3://pacs/") for info in infos]
            columns = [keys, [info.size for info in infos], [info.version for info in infos]]
            manifest.write_table(pa.table(columns, schema=schema))
            rows = archive_rows(names, infos[: max(done - start, 0)], bundles)
            written.append(rows)
            if sum(map(len, written)) >= IN_FILE or start + AT_ONCE >= count:
                enter_rows(output, pa.concat_tables(written))
                written.clear()
    names.keep_key()
    enter_bundles(output, bundles)


def objects(start: int, stop: int) -> Iterator[ObjectInfo]:
    """Yield what a PACS export holds: an image of a series of a study of a day."""
    for number in range(start, stop):
        day, study = number // 4000, number // 4
        uri = f"{ROOT}/{2001 + day // 365}/{day % 365:03}/1.2.840.{study:09}/{number:08}.dcm"
        yield ObjectInfo(uri, 8_000_000 + number % 5000, f"{number * 2654435761 % 2**128:032x}")


def archive_rows(
    names: LooseNames, infos: Sequence[ObjectInfo], bundles: list[tuple[str, int]]
) -> pa.Table:
    """Return rows of `archives` for files that are done, and add their bundles."""
    known = [names.planned(info, ROOT) for info in infos]
    paths = []
    for start in range(0, len(known), IN_BUNDLE):
        part = known[start : start + IN_BUNDLE]
        path = unit_path(MODEL, bundle_id(archive.name for archive in part))
        bundles.append((path, len(part)))
        paths += [path] * len(part)
    now = datetime.now(UTC)
    rows = [
        {
            "archive": archive.name, "archive_version": archive.known.version,
            "source": archive.known.uri, "bytes": archive.known.size, "members": 1,
            "identified": 1, "ambiguous": 0, "unknown": 0, "rejected": 0, "ignored": 0,
            "reasons": [], "status": "complete", "reason": None,
            "units": [{"path": path, "first_member": 0, "members": 1, "bytes": 30_000,
                       "sha256": f"{hash(path) % 2**64:064x}"}],
            "attempt": 0, "started_at": now, "finished_at": now, "model": MODEL, "run": "bench",
            "software_version": __version__, "configuration_hash": "0" * 16, "decode_version": 2,
            "key_id": None,
        }
        for archive, path in zip(known, paths, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ARCHIVE_ROW)


def enter_rows(output: str, rows: pa.Table) -> None:
    """Add one file to the table `archives`."""
    if not len(rows):
        return
    table = storage.join(output, ARCHIVES)
    path = f"model={MODEL}/part-{time.time_ns():032x}.parquet"
    place = Path(storage.uri.local_path(storage.join(table, path)))
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.drop_columns(["model"]), place, compression="zstd")
    statistics = statistics_of(rows.drop_columns(["model"]))
    add = delta.add_action(path, os.path.getsize(place), statistics, MODEL)
    enter(table, [add])


def enter(table: str, actions: list[delta.Action]) -> None:
    """Make one commit."""
    delta.commit(table, lambda opened: delta.replace_files(opened, actions))


def enter_bundles(output: str, bundles: Sequence[tuple[str, int]]) -> None:
    """Add the bundles to the table `predictions`, without writing them."""
    table = storage.join(output, PREDICTIONS)
    for start in range(0, len(bundles), BUNDLES_IN_A_COMMIT):
        part = bundles[start : start + BUNDLES_IN_A_COMMIT]
        actions: list[delta.Action] = [
            delta.add_action(path, 30_000, BUNDLE_STATISTICS.replace("256", str(rows)), MODEL)
            for path, rows in part
        ]
        enter(table, actions)


if __name__ == "__main__":
    run_command("plan_millions", lambda: main(sys.argv[1:]))
