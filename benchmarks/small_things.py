"""Small things: loose pictures and small archives against one tar of the same pictures.

    python -m benchmarks.small_things
    python -m benchmarks.small_things --pictures 4000 20000 --repeats 3 --stores disk moto
    python -m benchmarks.small_things --stores --files 1000 100000 1000000

The same small JPEGs lie loose, four to a tar, and in one tar, on disk and in moto's server (on this
machine, and slower than a store). The job reads each twice, in two sizes, on one cluster: the rate
is the slope between them, so that the start is not in it. Files and bytes are those below
`predictions`. Then: how long a commit of 100 archives takes in a table of so many files, and what a
year of nights leaves, compacted each night or never.
"""

import argparse
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.machine import machine
from benchmarks.plan_done import AT_ONCE, CONFIGURATION, MODEL, result
from benchmarks.process_memory import Peaks, look
from implant_model import __version__, storage
from implant_model.errors import ImplantError
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.picture_files import write_jpeg
from implant_model.phantoms.render import render
from implant_model.storage import ObjectInfo
from jobs.entry.command import OK, run_command
from jobs.tables import delta
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.compaction import compact
from jobs.tables.publish import Tables
from jobs.tables.receipts import Failure, Unit
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, PREDICTIONS, unit_id, unit_path
from jobs.tables.unit_files import publish_unit
from tests.support.object_store import ObjectStore, running_object_store
from tests.support.ray_cluster import RayCluster, running_cluster

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORMS: Final = ("loose", "archives of 4", "one tar")
HEIGHT_PX: Final = 250
NUM_DIFFERENT: Final = 40
A_NIGHT: Final = 20
MOTO_LOG: Final = "moto.log"
PUT: Final = 100
"""Archives in the commit that is timed."""


class Read(NamedTuple):
    """What reading one form took and left."""

    seconds: float
    files: int
    bytes: int
    requests: int
    """That moto's server answered, of listing and tables too; 0 on disk."""
    peak_bytes: int
    """Anonymous memory of all workers and decoding processes at one moment."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, nargs=2, default=(800, 4000))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--stores", nargs="*", choices=("disk", "moto"), default=("disk", "moto"))
    parser.add_argument("--files", type=int, nargs="*", default=(1_000, 100_000))
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--model", type=Path, default=Path("models/phantom"))
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    lines = [f"# Small things\n\n{datetime.now(UTC):%Y-%m-%d}. Machine: {machine()}.\n"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if options.stores:
            lines += rates(folder, options.pictures, options.repeats, options.stores, options.model)
        if options.nights:
            lines += nights(folder, options.nights)
        if options.files:
            lines += commits(folder, options.files)
    options.result.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return OK


def rates(
    folder: Path, sizes: Sequence[int], repeats: int, stores: Sequence[str], model: Path
) -> Iterator[str]:
    """Yield the lines of the table of rates."""
    small, large = sorted(sizes)
    with (
        running_object_store(folder / MOTO_LOG, MOTO_S3_DEFAULT_MAX_KEYS="1000") as store,
        running_cluster(folder / "ray.log", store.environment) as cluster,
    ):
        yield f"\nPictures: {small:,} and {large:,}; medians of {repeats}.\n"
        yield "| on | form | images/s | to one tar | files | MB | requests an image | workers, MB |"
        yield "|---|---|---|---|---|---|---|---|"
        for where in stores:
            read(cluster, store, folder, where, "one tar", small, model, -1)  # the first is slower
            found: dict[str, list[tuple[float, Read]]] = {form: [] for form in FORMS}
            for turn in range(repeats):
                for form in FORMS:
                    reads = [
                        read(cluster, store, folder, where, form, count, model, turn)
                        for count in (small, large)
                    ]
                    rate = (large - small) / max(reads[1].seconds - reads[0].seconds, 1e-9)
                    found[form].append((rate, reads[1]))
            tar = median(rate for rate, _ in found["one tar"])
            for form, turns in found.items():
                rate, last = median(rate for rate, _ in turns), turns[-1][1]
                yield (
                    f"| {where} | {form} | {rate:.0f} | {rate / tar:.2f} | {last.files:,} "
                    f"| {last.bytes / 1e6:.1f} | {last.requests / large:.2f} "
                    f"| {last.peak_bytes / 1e6:,.0f} |"
                )


def read(
    cluster: RayCluster,
    store: ObjectStore,
    folder: Path,
    where: str,
    form: str,
    count: int,
    model: Path,
    turn: int,
) -> Read:
    """Have the job read one form of so many pictures.

    Raises:
        ImplantError: The job did not end well.
    """
    name = f"{form.replace(' ', '-')}-{count}"
    if where == "disk":
        root = str(folder / name)
        if not Path(root).exists():
            write(form, count, lambda key, data: write_file(Path(root) / key, data))
    else:
        bucket = f"small-{name}"
        root = f"s3://{bucket}"
        client = store.client()
        if bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
            write(form, count, lambda key, data: put(client, bucket, f"in/{key}", data))
    output = f"{folder}/out-{name}-{turn}" if where == "disk" else f"{root}/out-{turn}"
    source = root if where == "disk" else f"{root}/in"
    command = ["jobs.classify", source, "--output", output, "--model", str(model.resolve())]
    peaks, asked, begun = Peaks(), answered(folder), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cluster.run, *command, timeout_s=7200)
        while not running.done():
            peaks.add(look(os.getpid()))
            wait([running], timeout=1)
    seconds, done = time.monotonic() - begun, running.result()
    requests = answered(folder) - asked
    if done.returncode:
        raise ImplantError(f"classify ended with {done.returncode}: {done.stderr[-1000:]}")
    os.environ.update(store.environment)
    listed = list(storage.list_objects(storage.normalise(f"{output}/{PREDICTIONS}")))
    files = [info for info in listed if info.uri.endswith(".parquet")]
    print(f"{where}, {form}, {count:,}: {seconds:.1f} s, {len(files):,} files", flush=True)
    size = sum(info.size for info in files)
    return Read(seconds, len(files), size, requests, peaks.total)


def answered(folder: Path) -> int:
    """Return how many requests moto's server has logged."""
    return (folder / MOTO_LOG).read_bytes().count(b" HTTP/1.1")


def write(form: str, count: int, keep: Callable[[str, bytes], object]) -> None:
    """Write a form of so many pictures."""
    random = np.random.default_rng(0)
    pictures = [
        write_jpeg(render(ORTHONET.implants[n % 12], random, HEIGHT_PX))
        for n in range(NUM_DIFFERENT)
    ]
    named = [(f"{n:06}.jpg", pictures[n % NUM_DIFFERENT]) for n in range(count)]
    if form == "loose":
        for key, data in named:
            keep(f"{key[:3]}/{key}", data)
        return
    each = 4 if form == "archives of 4" else count
    for start in range(0, count, each):
        keep(f"{start:06}.tar", tar_of(named[start : start + each]))


def tar_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a tar of files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put(client: "S3Client", bucket: str, key: str, data: bytes) -> None:
    """Put an object."""
    client.put_object(Bucket=bucket, Key=key, Body=data)


def commits(folder: Path, sizes: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the table of commits."""
    yield f"\nA commit of {PUT} archives of one file each, by files in the table:\n"
    yield "| files | seconds | of processor |"
    yield "|---|---|---|"
    for count in sizes:
        root = storage.normalise(str(folder / f"table-{count}"))
        tables = Tables(root, RunIdentity(MODEL, CONFIGURATION, __version__, "bench"))
        tables.create()
        for start in range(0, count, AT_ONCE):  # entered, not written
            numbers = range(start, min(start + AT_ONCE, count))
            tables.commit([result(planned(f"{n:09}")) for n in numbers])
        times = []
        for turn in range(3):
            new = [result(planned(f"new-{turn}-{n}")) for n in range(PUT)]
            begun, used = time.monotonic(), time.process_time()
            tables.commit(new)
            times.append((time.monotonic() - begun, time.process_time() - used))
        seconds, cpu_s = (median(column) for column in zip(*times, strict=True))
        print(f"{count:,} files: {seconds:.2f} s a commit", flush=True)
        yield f"| {count:,} | {seconds:.2f} | {cpu_s:.2f} |"


def nights(folder: Path, count: int) -> Iterator[str]:
    """Yield the lines of the table of nights: what the first ones and the last ones take."""
    yield f"\n{count} nights of {A_NIGHT} archives of one unit each, on disk:\n"
    yield "| compacted | files | MB of log | first night, s | last night, s |"
    yield "|---|---|---|---|---|"
    for is_compacted in (False, True):
        root = storage.normalise(str(folder / f"nights-{is_compacted}"))
        took = [night(root, number, is_compacted) for number in range(count)]
        logs = [i for i in storage.list_objects(root) if "/_delta_log/" in i.uri]
        table = delta.open_table(storage.join(root, PREDICTIONS))
        files = 0 if table is None else len(delta.file_columns(table))
        first, last = (median(part) for part in (took[:5], took[-5:]))
        yield (
            f"| {'each night' if is_compacted else 'never'} | {files:,} "
            f"| {sum(i.size for i in logs) / 1e6:.1f} | {first:.2f} | {last:.2f} |"
        )


def night(root: str, number: int, is_compacted: bool) -> float:
    """Plan, commit and compact one night's archives; return the seconds of plan and commit."""
    begun = time.monotonic()
    tables = Tables(root, RunIdentity(MODEL, CONFIGURATION, __version__, f"night-{number}"))
    held = tables.records()
    tables.create()
    seconds = time.monotonic() - begun
    archives = [planned(f"{number:04}-{n:02}") for n in range(A_NIGHT)]
    results = [published(root, archive) for archive in archives if archive.name not in held]
    begun = time.monotonic()
    tables.commit(results)
    seconds += time.monotonic() - begun
    if is_compacted:
        compact(root, nightly=True)
    return seconds


def published(root: str, archive: PlannedArchive) -> ArchiveResult:
    """Return the result of an archive whose unit is in the store."""
    row = {
        "archive": archive.name, "archive_version": archive.known.version, "member_index": 0,
        "frame": 0, "outcome": "rejected", "reason": "empty",
    }  # fmt: skip
    rows = PREDICTION_ROW.empty_table().from_pylist([row], schema=PREDICTION_ROW)
    path = unit_path(MODEL, unit_id(archive.name, "1", MODEL, CONFIGURATION, 0, 0))
    unit = Unit(0, archive.name, archive.known.version, 0, 1, 10, path)
    receipt = publish_unit(unit, rows, root)
    if isinstance(receipt, Failure):
        raise RuntimeError(receipt.message)
    return replace(result(archive), units=(receipt.file,))


def planned(name: str) -> PlannedArchive:
    """Return an archive that nobody reads."""
    return PlannedArchive(f"{name}.tar", ObjectInfo(f"file:///{name}.tar", 10, "1"))


if __name__ == "__main__":
    run_command("small_things", lambda: main(sys.argv[1:]))
