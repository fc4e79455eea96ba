"""Shows that bad input costs no speed: 1 % of the torture set mixed into a clean batch.

    python -m benchmarks.torture_rate
    python -m benchmarks.torture_rate --images 500

One run of `jobs.classify` reads archives of 250 small pictures each, clean and mixed ones in turn;
a mixed one has the same pictures and cases of the torture set on top. So both meet the same machine
at the same time. Said are the pictures per second of CPU of the decoding, and per second of all
archives of a kind; the result goes to benchmarks/torture_rate.md. Exit codes: 0 the job ended well,
the sums agree and the rates are within 2 %; 3 not.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from implant_model import storage
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import ImplantError
from implant_model.limits import Limits
from implant_model.package.load import load_package
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.tables import delta
from jobs.tables.schema import ARCHIVES
from jobs.tables.verification import verify_output
from tests.support.archive_samples import tar_of
from tests.torture.cases import catalogue
from tests.torture.cases.files import png

ROOT = Path(__file__).parents[1]
SIDE_PX = 250
PER_ARCHIVE = 250
SHARE = 0.01
ACCEPTED = 0.02
Members = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Rates:
    """Pictures per second of a clean and of a mixed batch; bad members are not counted."""

    clean: float
    mixed: float

    @property
    def loss(self) -> float:
        """By what share the mixed one is slower; below 0: faster."""
        return 1 - self.mixed / self.clean


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="in the clean batch")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "phantom")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "torture_rate.md")
    options = parser.parse_args(arguments)
    clean = [(f"{i:03}.png", png(i, SIDE_PX, SIDE_PX)) for i in range(PER_ARCHIVE)]
    archives = options.images // PER_ARCHIVE
    bad = bad_members(round(options.images * SHARE))
    decoding = decode_rates(options.model, clean, bad, archives)
    with tempfile.TemporaryDirectory() as folder:
        job = job_rates(Path(folder), options.model, clean, bad, archives)
    text = report(options.images, len(bad), decoding, job)
    options.result.write_text(text, encoding="utf-8")
    print(text)
    return OK if decoding.loss <= ACCEPTED else INCOMPLETE


def bad_members(count: int) -> Members:
    """So many cases, evenly out of the torture set, in its order."""
    cases = catalogue.members(thorough=False)
    chosen = [cases[i * len(cases) // count] for i in range(count)]
    return [(f"{i:03}-{case.name}", case.make()) for i, case in enumerate(chosen)]


def mixed_archive(clean: Members, bad: Members, number: int, archives: int) -> Members:
    """Return the clean members with this archive's share of the bad ones among them."""
    share = bad[number::archives]
    step = max(len(clean) // (len(share) + 1), 1)
    mixed = list(clean)
    for place, member in enumerate(share):
        mixed.insert((place + 1) * step + place, member)
    return mixed


def decode_rates(model: Path, clean: Members, bad: Members, archives: int) -> Rates:
    """Return pictures per CPU second of one decoding process, clean and mixed archives in turn."""
    seconds = [0.0, 0.0]
    with DecodeProcess(load_package(str(model)).preprocessing, Limits()) as process:
        for _, data in clean:  # warm, the import that a foreign character set needs included
            process.prepare(data)
        for _, data in bad:
            process.prepare(data)
        for number in range(archives):
            batches = [clean, mixed_archive(clean, bad, number, archives)]
            for kind, batch in enumerate(batches):
                begun = cpu_seconds(process)
                for _, data in batch:
                    process.prepare(data)
                seconds[kind] += cpu_seconds(process) - begun
    images = archives * len(clean)
    return Rates(images / seconds[0], images / seconds[1])


def cpu_seconds(process: DecodeProcess) -> float:
    """Return CPU time of the decoding process so far; a member that ended it shows as an error.

    Raises:
        ImplantError: There is none: it crashed.
    """
    if process.pid is None:
        raise ImplantError("A member of the torture set ended the decoding process.")
    fields = Path(f"/proc/{process.pid}/schedstat").read_text(encoding="ascii").split()
    return int(fields[0]) / 1e9


def job_rates(folder: Path, model: Path, clean: Members, bad: Members, archives: int) -> Rates:
    """Return pictures per second of reading clean and mixed archives in one run of the whole job.

    Raises:
        ImplantError: The run did not end well, or the sums do not agree.
    """
    (folder / "in").mkdir()
    for number in range(archives):
        mixed = mixed_archive(clean, bad, number, archives)
        (folder / "in" / f"{number:03}-clean.tar").write_bytes(tar_of(clean))
        (folder / "in" / f"{number:03}-mixed.tar").write_bytes(tar_of(mixed))
    output = storage.normalise(str(folder / "out"))
    command = [sys.executable, "-m", "jobs.classify", str(folder / "in"), "--output", output]
    done = subprocess.run(
        [*command, "--model", str(model)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ImplantError(f"classify ended with {done.returncode}:\n{done.stderr[-2000:]}")
    verified = verify_output(output)
    if verified.findings or verified.rows != 2 * archives * len(clean) + len(bad):
        raise ImplantError(f"The sums do not agree: {verified}")
    table = delta.open_table(storage.join(output, ARCHIVES))
    rows = [] if table is None else delta.read_rows(table)
    images = archives * len(clean)
    return Rates(images / _seconds(rows, "clean"), images / _seconds(rows, "mixed"))


def _seconds(rows: Sequence[dict[str, Any]], kind: str) -> float:
    spans = [row["finished_at"] - row["started_at"] for row in rows if kind in row["archive"]]
    return float(sum(span.total_seconds() for span in spans))


def report(images: int, bad: int, decoding: Rates, job: Rates) -> str:
    """Return the result as Markdown."""
    lines = [
        "# What bad input costs",
        "",
        f"`python -m benchmarks.torture_rate --images {images}`, {datetime.now(UTC):%Y-%m-%d}: "
        f"{images:,} PNG of {SIDE_PX} x {SIDE_PX}, and the same with {bad} members of the torture "
        "set among them, in turn. The job ended with code 0, and `verify` found the sums right.",
        "",
        f"Machine: {machine()}.",
        "",
        "| rate | clean | mixed | loss |",
        "|---|---:|---:|---:|",
        _line("images per CPU second of the decoding", decoding),
        _line("images per second of all archives' reading, in the job", job),
        "",
        f"Accepted is a loss of {ACCEPTED:.0%} of the first, which other work on the machine does "
        "not touch; the second is as steady as the machine was.",
        "",
    ]
    return "\n".join(lines)


def _line(what: str, rates: Rates) -> str:
    return f"| {what} | {rates.clean:,.1f} | {rates.mixed:,.1f} | {rates.loss:+.1%} |"


if __name__ == "__main__":
    run_command("torture_rate", lambda: main(sys.argv[1:]))
