"""The folder that an evaluation is written to."""

import os
from pathlib import Path

from jobs.evaluating.evaluation import Evaluation, to_json
from jobs.evaluating.evaluation_page import render_evaluation
from training.data.gather import Gathered
from training.data.labelled import write_excluded

DOCUMENT, PAGE, EXCLUDED = "evaluation.json", "evaluation.html", "excluded.csv"


def write_evaluation(folder: Path, found: Evaluation, held: Gathered) -> None:
    """Writes the document, the page and the list of what was left out, each whole or not at all."""
    own = os.getpid()
    parts = {name: folder / f".{name}.{own}.part" for name in (DOCUMENT, PAGE, EXCLUDED)}
    parts[DOCUMENT].write_bytes(to_json(found))
    parts[PAGE].write_text(render_evaluation(found), encoding="utf-8")
    write_excluded(held, parts[EXCLUDED])
    for name, part in parts.items():
        part.replace(folder / name)
