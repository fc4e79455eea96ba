"""Shows that memory does not grow with the archive, nor with the number of archives.

    python -m benchmarks.memory
    python -m benchmarks.memory --images 30 --folder /var/tmp

It writes tars of uncompressed 16-bit DICOM phantoms of a detector's size, with 1, 4 and 16 times as
many radiographs, then 10, 100 and 1,000 tars of a few small JPEG, runs `jobs.classify` on each in
processes of its own, and looks at the memory of all of them several times a second. The result goes
to benchmarks/memory.md. It needs Linux, and as much disk as the largest tar: 30 images make 0.3 GB,
480 make 5 GB. Exit codes: 0 flat; 3 not flat, or a run that did not end well.
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
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.files import write_dicom
from implant_model.phantoms.picture_files import write_jpeg
from implant_model.phantoms.render import render
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.pages.run_facts import read_facts

ROOT = Path(__file__).parents[1]
FACTORS = (1, 4, 16)
HEIGHT_PX = 2500
NUM_DIFFERENT = 6
"""Pictures that differ; a tar repeats them, since to draw one takes a second."""
ARCHIVES = (10, 100, 1000)
PER_ARCHIVE = 32
"""Radiographs of a small archive: enough that every actor has full batches with 100 archives, and
what more of them take is growth and not a beginning."""
SMALL_PX = 250
LOOK_EVERY_S = 0.25
FLAT = 1.1
"""Largest ratio of the peak at 16 times the images to that at 4 times that counts as flat."""


@dataclass(frozen=True)
class Run:
    """One input and what its classification took."""

    archives: int
    images: int
    num_bytes: int
    seconds: float
    peaks: Peaks


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
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
            archive = Path(folder) / "in" / "radiographs.tar"
            archive.parent.mkdir()
            write_tar(archive, pictures, factor * options.images)
            runs.append(measure([archive], factor * options.images, options.model, model))
        print(describe(runs[-1]), flush=True)
    many = []
    for count in ARCHIVES:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            archives = write_many(Path(folder) / "in", count)
            many.append(measure(archives, count * PER_ARCHIVE, options.model, model))
        print(describe(many[-1]), flush=True)
    text = report(runs, many, model, pictures, options.images)
    options.result.write_text(text, encoding="utf-8")
    print(text)
    return OK if is_flat(runs) and is_flat(many) else INCOMPLETE


def radiographs() -> list[bytes]:
    """Return Phantoms as uncompressed 16-bit DICOM files of some 10 MB."""
    implants = ORTHONET.implants[:: len(ORTHONET) // NUM_DIFFERENT]
    return [
        write_dicom(render(implant, np.random.default_rng(i), HEIGHT_PX), np.random.default_rng(i))
        for i, implant in enumerate(implants)
    ]


def write_tar(path: Path, pictures: Sequence[bytes], count: int) -> None:
    """Write a tar of so many members."""
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            data = pictures[i % len(pictures)]
            header = tarfile.TarInfo(f"{i:06}.dcm")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def write_many(folder: Path, count: int) -> list[Path]:
    """Write so many tars of small JPEG."""
    implants = ORTHONET.implants[:NUM_DIFFERENT]
    phantoms = [
        render(implant, np.random.default_rng(i), SMALL_PX) for i, implant in enumerate(implants)
    ]
    pictures = [write_jpeg(phantom) for phantom in phantoms]
    folder.mkdir()
    paths = [folder / f"{number:05}.tar" for number in range(count)]
    for path in paths:
        write_tar(path, pictures, PER_ARCHIVE)
    return paths


def measure(archives: Sequence[Path], images: int, model: Path, model_id: str) -> Run:
    """Classify archives of one folder in fresh processes, looking at their memory meanwhile.

    Raises:
        ImplantError: The run did not end well, or rows are missing.
    """
    folder = archives[0].parent
    output, size = folder.parent / "out", sum(archive.stat().st_size for archive in archives)
    command = [sys.executable, "-m", "jobs.classify", str(folder)]
    command += ["--output", str(output), "--model", str(model)]
    peaks, begun = Peaks(), time.monotonic()
    with (folder.parent / "log").open("w+b") as log:
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
    return Run(len(archives), images, size, seconds, peaks)


def is_flat(runs: Sequence[Run]) -> bool:
    """Return whether the processes' memory at the largest size is that at the one before."""
    before, after = runs[-2].peaks, runs[-1].peaks
    pairs = [
        (before.total, after.total),
        (before.largest, after.largest),
        (before.by_role["driver"], after.by_role["driver"]),
    ]
    return all(last <= FLAT * first for first, last in pairs)


def describe(run: Run) -> str:
    """Return one run as a line of the log."""
    size = f"{run.images} images, {run.num_bytes / 1e9:.2f} GB"
    return f"{run.archives} archives, {size}: {run.seconds:.0f} s"


COLUMNS = (
    "archives", "images", "GB", "seconds", "more seconds for one more image",
    "all workers and decoders", "largest of them", "driver", "object store", "processes",
)  # fmt: skip


def report(
    runs: Sequence[Run], many: Sequence[Run], model: str, pictures: Sequence[bytes], images: int
) -> str:
    """Return the result as Markdown."""
    size = sum(map(len, pictures)) / len(pictures) / 1e6
    lines = [
        "# Memory and time of a run as its input grows",
        "",
        f"`python -m benchmarks.memory --images {images}`, {datetime.now(UTC):%Y-%m-%d}: one tar "
        f"of uncompressed 16-bit DICOM phantoms ({size:.1f} MB each on average), then tars of "
        f"{PER_ARCHIVE} JPEG of {SMALL_PX} x {SMALL_PX}; model `{model}`. Peaks in MB: anonymous "
        "memory of the processes, sums at one moment; touched pages of Ray's object store.",
        "",
        f"Machine: {machine()}.",
        "",
        *_table(runs),
        *_table(many),
        f"Accepted as flat is {FLAT} times the peak of the size before, of all processes together, "
        "of the largest, and of the driver.",
        "",
    ]
    return "\n".join(lines)


def _table(runs: Sequence[Run]) -> list[str]:
    before = [None, *runs[:-1]]
    return [
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---:|' * len(COLUMNS)}",
        *(_line(run, smaller) for run, smaller in zip(runs, before, strict=True)),
        _ratios(runs[-2], runs[-1]),
        "",
        "Flat." if is_flat(runs) else "NOT flat.",
        "",
    ]


def _peaks(run: Run) -> list[int]:
    peaks = run.peaks
    return [peaks.total, peaks.largest, peaks.by_role["driver"], peaks.by_role["store"]]


def _line(run: Run, smaller: Run | None) -> str:
    values = [f"{value / 1e6:,.0f}" for value in _peaks(run)]
    slope = ""
    if smaller is not None:
        slope = f"{(run.seconds - smaller.seconds) / (run.images - smaller.images):.4f}"
    first = [f"{run.archives:,}", f"{run.images:,}", f"{run.num_bytes / 1e9:.2f}"]
    cells = [*first, f"{run.seconds:.0f}", slope, *values, str(run.peaks.processes)]
    return f"| {' | '.join(cells)} |"


def _ratios(first: Run, last: Run) -> str:
    pairs = zip(_peaks(first), _peaks(last), strict=True)
    ratios = [f"{after / max(before, 1):.2f}" for before, after in pairs]
    grown = f"{last.images / first.images:.0f} times"
    return f"| | {grown} | {last.num_bytes / first.num_bytes:.1f} | | | {' | '.join(ratios)} | |"


if __name__ == "__main__":
    run_command("memory", lambda: main(sys.argv[1:]))
