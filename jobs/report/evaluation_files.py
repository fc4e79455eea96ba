"""The folder that an evaluation is written to."""

import os
from pathlib import Path

from implant_model.errors import UsageError
from jobs.report.evaluation import Evaluation, to_json
from jobs.report.evaluation_page import render_evaluation
from training.gather import Gathered
from training.labelled import write_excluded

DOCUMENT, PAGE, EXCLUDED = "evaluation.json", "evaluation.html", "excluded.csv"


def make_folder(report: str) -> Path:
    """The folder to write to.

    Raises:
        UsageError: It is no folder of this machine, or may not be written to.
    """
    folder = Path(report).absolute()
    if "://" in report:
        raise UsageError(f"--report is {report}; a folder of this machine is wanted.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--report {folder} cannot be written: {error.strerror}.") from error
    return folder


def write_evaluation(folder: Path, found: Evaluation, held: Gathered) -> None:
    """Writes the document, the page and the list of what was left out, each whole or not at all."""
    own = os.getpid()
    parts = {name: folder / f".{name}.{own}.part" for name in (DOCUMENT, PAGE, EXCLUDED)}
    parts[DOCUMENT].write_bytes(to_json(found))
    parts[PAGE].write_text(render_evaluation(found), encoding="utf-8")
    write_excluded(held, parts[EXCLUDED])
    for name, part in parts.items():
        part.replace(folder / name)
