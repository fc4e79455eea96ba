"""How well packages say 'unknown' of implants that they never saw, as AUROC of the novelty score.

    python -m benchmarks.novelty --hips /tmp/hips --phantoms /tmp/phantoms-2

Three measurements, each on images that did not train: knees shown to a package of hips (made as
benchmarks/configs/hips.toml states, as are the phantoms); real shoulders shown to `models/phantom`,
which knows hips and knees; phantoms of hips and knees shown to a package of shoulders, which is
fitted here to four of five radiographs of each manufacturer, the fifth being what it should know.
The result goes to benchmarks/novelty.md. Where known and unknown images are of two kinds, phantoms
and radiographs, that difference may be all that is found. Exit codes: 0 each area is at least what
is expected; 3 not.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.machine import machine
from implant_model.errors import ImplantError
from jobs.entry.command import INCOMPLETE, OK, run_command

ROOT: Final = Path(__file__).parents[1]
SHOULDERS: Final = ROOT.parent / "shared" / "data" / "shoulder"
KEPT_EACH: Final = 5
"""Every so many-th shoulder of a manufacturer trains nothing."""
Rows = list[tuple[str, str, str, str]]


@dataclass(frozen=True)
class Found:
    """One row of the table."""

    title: str
    area: dict[str, float]
    wanted: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hips", type=Path, required=True, help="a package that knows no knee")
    parser.add_argument("--phantoms", type=Path, required=True, help="that trained no package")
    parser.add_argument("--shoulders", type=Path, default=SHOULDERS)
    options = parser.parse_args(arguments)
    phantoms = read_rows(options.phantoms / "labels.csv")
    trains, kept = part_shoulders(options.shoulders / "labels.csv")
    images = [str(options.phantoms), str(options.shoulders / "images")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shoulder = train_shoulder(folder, images[1], trains)
        found = [
            Found(
                "phantom knees, to a package of phantom hips",
                area(folder / "a", options.hips, images[:1], phantoms),
                0.85,
            ),
            Found(
                "real shoulders, to `models/phantom`",
                area(folder / "b", ROOT / "models" / "phantom", images, phantoms + kept),
                0.95,
            ),
            Found(
                "phantom hips and knees, to a package of real shoulders",
                area(folder / "c", shoulder, images, phantoms + kept),
                0.95,
            ),
        ]
    text = report(found)
    (ROOT / "benchmarks" / "novelty.md").write_text(text, encoding="utf-8")
    print(text)
    return OK if all(each.area["value"] >= each.wanted for each in found) else INCOMPLETE


def read_rows(path: Path) -> Rows:
    """Return a labels file, as rows of archive, member, label, patient."""
    with path.open(newline="") as file:
        return [(r["archive"], r["member"], r["label"], r["patient"]) for r in csv.DictReader(file)]


def part_shoulders(path: Path) -> tuple[Rows, Rows]:
    """Return shoulders to train on, and every fifth of a manufacturer, to be known."""
    parts: tuple[Rows, Rows] = [], []
    seen: dict[str, int] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            maker = row["manufacturer"]
            seen[maker] = seen.get(maker, 0) + 1
            parts[seen[maker] % KEPT_EACH == 0].append((row["file"], "", maker, ""))
    return parts


def write_labels(path: Path, rows: Rows) -> str:
    """Write a labels file; return its path."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("archive", "member", "label", "patient"), *rows])
    return str(path)


def train_shoulder(folder: Path, images: str, rows: Rows) -> Path:
    """A package of shoulders by the recipe of `models/shoulder`, without its cross-validation."""
    settings = (ROOT / "benchmarks" / "configs" / "shoulder.toml").read_text(encoding="utf-8")
    config = folder / "shoulder.toml"
    config.write_text(settings.replace("[split]\nfolds = 10", "[split]\ntest = 0.05"))
    labels = write_labels(folder / "shoulder.csv", rows)
    call = ["--images", images, "--labels", labels, "--config", str(config)]
    run("train", [*call, "--output", str(folder / "shoulder")])
    return folder / "shoulder"


def area(folder: Path, model: Path, images: Sequence[str], rows: Rows) -> dict[str, float]:
    """Return AUROC of the novelty, with its interval and number of images, by `jobs.evaluate`."""
    folder.mkdir()
    labels = write_labels(folder / "labels.csv", rows)
    call = ["--model", str(model), "--images", *images, "--labels", labels, "--robustness", "0"]
    run("evaluate", [*call, "--report", str(folder / "report")])
    document = json.loads((folder / "report" / "evaluation.json").read_text())
    figure: dict[str, float] = document["figures"]["novelty_auroc"]
    return figure


def run(job: str, arguments: Sequence[str]) -> None:
    """Run a job.

    Raises:
        ImplantError: It failed.
    """
    command = [sys.executable, "-m", f"jobs.{job}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (OK, INCOMPLETE):
        raise ImplantError(f"{job} ended with {done.returncode}: {done.stderr[-2000:]}")


def report(found: Sequence[Found]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# Implants that a package never saw",
        "",
        f"`python -m benchmarks.novelty`, {datetime.now(UTC):%Y-%m-%d}: how often an unknown "
        "implant has a higher novelty than a known one (AUROC), on images that did not train. "
        "Where phantoms stand against radiographs, that they are drawn may be what is found: the "
        "figure shows that foreign pictures are noticed, and nothing of patients.",
        "",
        f"Machine: {machine()}.",
        "",
        "| unknown, and to which package | AUROC | 95 % interval | images | wanted |",
        "|---|---:|---|---:|---:|",
    ]
    for each in found:
        low, high = each.area["low"], each.area["high"]
        lines.append(
            f"| {each.title} | {each.area['value']:.3f} | {low:.3f} to {high:.3f} | "
            f"{each.area['count']:.0f} | {each.wanted} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_command("novelty", lambda: main(sys.argv[1:]))
