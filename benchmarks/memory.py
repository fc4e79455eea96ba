"""Shows that memory does not grow with the archive: 1, 4 and 16 times as many radiographs.

    python -m benchmarks.memory
    python -m benchmarks.memory --images 30 --folder /var/tmp

It writes tars of uncompressed 16-bit DICOM phantoms of a detector's size, runs `jobs.classify` on
each in processes of its own, and looks at the memory of all of them several times a second. The
result goes to benchmarks/memory.md. It needs Linux, and as much disk as the largest tar: 30 images
make 0.3 GB, 480 make 4.5 GB. Exit codes: 0 flat; 3 not flat, or a run that did not end well.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from benchmarks.process_memory import Peaks, look
from implant_model import storage
from implant_model.errors import ImplantError
from implant_model.package import load_package
from implant_model.phantom import ORTHONET, render
from implant_model.phantom_files import write_dicom
from jobs.pipeline.command import INCOMPLETE, OK, run_command
from jobs.report.facts import read_facts

ROOT = Path(__file__).parents[1]
FACTORS = (1, 4, 16)
HEIGHT_PX = 2500
NUM_DIFFERENT = 6
"""Pictures that differ; a tar repeats them, since to draw one takes a second."""
ROOM = 32_000_000
"""Bytes that any peak may grow besides: a parcel of 256 pictures is 13 MB at 224 px, and the least
archive does not fill one."""
LOOK_EVERY_S = 0.25
FLAT = 1.25
"""Largest ratio of the peak at 16 times the images to that at once that counts as flat: the sum
holds a worker that publishes and comes and goes, of 30 to 130 MB, and Ray Data's statistics actor,
which grows with the time that a run takes."""


@dataclass(frozen=True)
class Run:
    """One archive and what its classification took."""

    images: int
    num_bytes: int
    seconds: float
    peaks: Peaks


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30, help="in the smallest archive")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "phantom")
    parser.add_argument("--folder", help="where the archives are written meanwhile")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "memory.md")
    options = parser.parse_args(arguments)
    model = load_package(str(options.model)).id
    pictures = radiographs()
    runs = []
    for factor in FACTORS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            archive = Path(folder) / "radiographs.tar"
            write_tar(archive, pictures, factor * options.images)
            runs.append(measure(archive, factor * options.images, options.model, model))
        print(describe(runs[-1]), flush=True)
    text = report(runs, model, pictures, options.images)
    options.result.write_text(text, encoding="utf-8")
    print(text)
    return OK if is_flat(runs) else INCOMPLETE


def radiographs() -> list[bytes]:
    """Phantoms as uncompressed 16-bit DICOM files of some 10 MB."""
    implants = ORTHONET.implants[:: len(ORTHONET) // NUM_DIFFERENT]
    return [
        write_dicom(render(implant, np.random.default_rng(i), HEIGHT_PX), np.random.default_rng(i))
        for i, implant in enumerate(implants)
    ]


def write_tar(path: Path, pictures: Sequence[bytes], count: int) -> None:
    """Writes a tar of so many members."""
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            data = pictures[i % len(pictures)]
            header = tarfile.TarInfo(f"{i:06}.dcm")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def measure(archive: Path, images: int, model: Path, model_id: str) -> Run:
    """Classifies one archive in fresh processes, looking at their memory all the while.

    Raises:
        ImplantError: The run did not end well, or rows are missing.
    """
    output, size = archive.with_name("out"), archive.stat().st_size
    command = [sys.executable, "-m", "jobs.classify", str(archive)]
    command += ["--output", str(output), "--model", str(model)]
    peaks, begun = Peaks(), time.monotonic()
    with (archive.parent / "log").open("w+b") as log:
        job = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        while job.poll() is None:
            peaks.add(look(job.pid))
            time.sleep(LOOK_EVERY_S)
        seconds = time.monotonic() - begun
        log.seek(0)
        said = log.read().decode(errors="replace")
    if job.returncode:
        raise ImplantError(f"classify ended with {job.returncode}:\n{said}")
    facts = read_facts(storage.normalise(str(output)), model_id)
    if facts.classified != images:
        raise ImplantError(f"{facts.classified} of {images} images were classified:\n{said}")
    return Run(images, size, seconds, peaks)


def is_flat(runs: Sequence[Run]) -> bool:
    """Whether neither the processes nor the object store grow with the archive."""
    first, last = runs[0].peaks, runs[-1].peaks
    pairs = [
        (first.total, last.total),
        (first.largest, last.largest),
        (first.by_role["store"], last.by_role["store"]),
        (first.by_role["driver"], last.by_role["driver"]),
    ]
    return all(after <= FLAT * before + ROOM for before, after in pairs)


def describe(run: Run) -> str:
    """One run as a line of the log."""
    return f"{run.images} images, {run.num_bytes / 1e9:.2f} GB: {run.seconds:.0f} s"


COLUMNS = (
    "images", "tar, GB", "seconds", "all workers and decoders", "largest of them", "driver",
    "object store", "processes",
)  # fmt: skip


def report(runs: Sequence[Run], model: str, pictures: Sequence[bytes], images: int) -> str:
    """The result as Markdown."""
    size = sum(map(len, pictures)) / len(pictures) / 1e6
    lines = [
        "# Memory of a run as the archive grows",
        "",
        f"`python -m benchmarks.memory --images {images}`, {datetime.now(UTC):%Y-%m-%d}: one tar "
        f"of uncompressed 16-bit DICOM phantoms ({size:.1f} MB each on average), model `{model}`. "
        "Peaks in MB: unique set size (USS) of the processes, sums at one moment; "
        "touched pages of Ray's object store.",
        "",
        f"Machine: {machine()}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---:|' * len(COLUMNS)}",
        *(_line(run) for run in runs),
        _ratios(runs[0], runs[-1]),
        "",
        f"{'Flat' if is_flat(runs) else 'NOT flat'}: accepted at {FACTORS[-1]} times the images is "
        f"{FLAT} times the peak and {ROOM / 1e6:.0f} MB.",
        "",
    ]
    return "\n".join(lines)


def _peaks(run: Run) -> list[int]:
    peaks = run.peaks
    return [peaks.total, peaks.largest, peaks.by_role["driver"], peaks.by_role["store"]]


def _line(run: Run) -> str:
    values = [f"{value / 1e6:,.0f}" for value in _peaks(run)]
    first = [f"{run.images:,}", f"{run.num_bytes / 1e9:.2f}", f"{run.seconds:.0f}"]
    return f"| {' | '.join([*first, *values, str(run.peaks.processes)])} |"


def _ratios(first: Run, last: Run) -> str:
    pairs = zip(_peaks(first), _peaks(last), strict=True)
    ratios = [f"{after / max(before, 1):.2f}" for before, after in pairs]
    grown = f"{last.images / first.images:.0f} times"
    return f"| {grown} | {last.num_bytes / first.num_bytes:.1f} | | {' | '.join(ratios)} | |"


if __name__ == "__main__":
    run_command("memory", lambda: main(sys.argv[1:]))
