"""What two packages make of poor films: blur, noise, exposure, turn, crop, JPEG, lost resolution.

    git worktree add /tmp/before 9c3b06d
    python -m benchmarks.films.poor_films --before /tmp/before/models/phantom --after models/phantom

Phantoms are drawn by a seed that trained nothing, a quarter of them of implants that the packages
do not know, and `jobs.evaluate` measures both packages on them, as they are and as poor scans would
show them. The result goes to benchmarks/films/poor_films.md. Phantoms are no evidence about
patients. Exit codes: 0 done, 2 the call is wrong.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import machine
from implant_model.errors import ImplantError
from implant_model.phantoms.files import Sample, sample_archives
from jobs.entry.command import OK, run_command

ROOT: Final = Path(__file__).parents[2]
SAMPLE: Final = Sample(unknown_rate=0.25)
SEED: Final = 2030
Document = Mapping[str, Any]
WHOLE: Final = {
    "top_1": "best candidate right",
    "calibration_error": "calibration error",
    "coverage": "candidates hold it",
    "set_size": "candidates an image",
    "called_unknown": "known implants called unknown",
    "unknown_found": "other implants found unknown",
    "novelty_auroc": "novelty's AUROC",
}
"""Figures of the images as they are."""
SCANS: Final = {
    "top_1": "right",
    "called_unknown": "called unknown",
    "right_if_answered": "right if not",
    "coverage": "candidates hold it",
}
"""Figures of each kind of film, before and after."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a package")
    parser.add_argument("--after", type=Path, required=True, help="another, of the same implants")
    parser.add_argument("--images", type=int, default=480)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = sample_archives(folder / "images", options.images, SEED, SAMPLE)
        before, after = (evaluate(folder, model) for model in (options.before, options.after))
    known = sum(not row["label"].startswith("other-") for row in rows)
    text = report(before, after, known, len(rows) - known)
    (ROOT / "benchmarks" / "films" / "poor_films.md").write_text(text, encoding="utf-8")
    print(text)
    return OK


def evaluate(folder: Path, model: Path) -> Document:
    """Return what `jobs.evaluate` measures of a package on the phantoms in a folder.

    Raises:
        ImplantError: It failed.
    """
    images, labels = str(folder / "images"), str(folder / "images" / "labels.csv")
    call = ["--model", str(model), "--images", images, "--labels", labels]
    call += ["--cache", str(folder / "cache"), "--robustness", "100000"]
    report = folder / f"report-{len([*folder.iterdir()])}"
    command = [sys.executable, "-m", "jobs.evaluate", *call, "--report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImplantError(f"evaluate ended with {done.returncode}: {done.stderr[-2000:]}")
    document: Document = json.loads((report / "evaluation.json").read_text())
    return document


def report(before: Document, after: Document, known: int, unknown: int) -> str:
    """Return the result as Markdown."""
    return "\n".join(
        [
            "# Poor films",
            "",
            f"`python -m benchmarks.films.poor_films`, {datetime.now(UTC):%Y-%m-%d}: "
            f"`{before['model']}` (before) and `{after['model']}` (after) on {known} phantoms of "
            f"implants that both know and {unknown} of others, none of which trained either. "
            "Phantoms are no evidence about patients.",
            "",
            f"Machine: {machine()}.",
            "",
            "As they are, with 95 % intervals:",
            "",
            "| figure | before | after |",
            "|---|---:|---:|",
            *_whole(before, after),
            "",
            "The known ones as poor films would show them (`jobs/evaluating/robustness.py`), "
            "before and after:",
            "",
            "| film | " + " | ".join(f"{title} | " for title in SCANS.values()) + " |",
            "|---|" + "---:|" * (2 * len(SCANS)),
            *_scans(before, after),
            "",
        ]
    )


def _whole(before: Document, after: Document) -> list[str]:
    def cell(document: Document, name: str) -> str:
        figure = document["figures"][name]
        return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"

    return [
        f"| {title} | {cell(before, name)} | {cell(after, name)} |" for name, title in WHOLE.items()
    ]


def _scans(before: Document, after: Document) -> list[str]:
    rows = []
    for old, new in zip(before["robustness"], after["robustness"], strict=True):
        title = ", ".join(part for part in (old["kind"], old["strength"]) if part)
        cells = [_value(scan[name]) for name in SCANS for scan in (old, new)]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def _value(figure: Mapping[str, float | None]) -> str:
    return "none" if figure["value"] is None else f"{figure['value']:.3f}"


if __name__ == "__main__":
    run_command("poor_films", lambda: main(sys.argv[1:]))
