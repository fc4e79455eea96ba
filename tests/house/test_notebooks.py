"""The notebooks of the documentation run, cell by cell, on what the jobs leave."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from implant_model import storage
from jobs import audit
from tests.support.audit_samples import sure, write_output, write_registry
from tests.support.paths import ROOT

EXETER, OXFORD = "stryker-exeter", "zimmer-biomet-oxford"
QUICK = 'ARCHITECTURE, EPOCHS, SIZE_PX, EACH = "mobilenet_v3_small", 1, 64, 6'
SHOWN_AT_THE_END = """
shown = {"codes": [code, evaluated], "implants": len(by_implant), "outcome": answer.outcome}
print(json.dumps({**shown, "elsewhere": elsewhere["top_1"]["count"]}))
"""
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells_of(notebook: Path, kind: str = "code") -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean_and_says_what_it_is_for(notebook: Path) -> None:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    outputs = [cell["outputs"] for cell in document["cells"] if cell["cell_type"] == "code"]
    assert not any(outputs), "no output is stored: it may hold what is not to be published"
    assert "Not a medical device" in cells_of(notebook, "markdown")[0]
    for cell in cells_of(notebook):
        compile(cell, notebook.name, "exec")


def test_the_analysts_notebook_answers_its_questions(tmp_path: Path) -> None:
    images = [sure(EXETER, study=f"S{n}") for n in range(40)]
    images += [{"outcome": "rejected", "reason": "truncated"}]
    images += [sure(OXFORD, study="U") | {"outcome": "unknown", "novelty": 99.0}]
    output = write_output(tmp_path / "out", images)
    (tmp_path / "out" / "health").mkdir()
    night = {"finished_at": "2026-01-31T06:00:00Z", "outcomes": {"identified": 40}, "warnings": []}
    (tmp_path / "out" / "health" / "1.json").write_text(json.dumps(night))
    rows = [
        {"study": f"S{n}", "implant": OXFORD if n < 4 else EXETER, "hospital": "AB"[n % 2],
         "date": f"20{10 + n % 3}-05-01"}
        for n in range(40)
    ]  # fmt: skip
    registry = write_registry(tmp_path / "registry.csv", rows)
    report = tmp_path / "audit"
    audit.main(["--predictions", output, "--registry", registry, "--report", str(report)])

    names: dict[str, Any] = {}
    _, *cells = cells_of(ROOT / "docs" / "notebooks" / "analyst.ipynb")
    names |= {"OUTPUT": storage.uri.local_path(output), "AUDIT": str(report)}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for cell in cells:
            exec(compile(cell, "analyst.ipynb", "exec"), names)  # noqa: S102  this project's own
    finally:
        os.chdir(before)
    assert names["rate"].row(1, named=True)["count"] == 40
    assert names["by_hospital"]["records"].to_list() == [20, 20]
    assert names["by_year"]["records"].sum() == 40
    assert names["by_year"]["contradicted"].sum() == 4
    assert names["rejected"].select("reason", "images").rows() == [("truncated", 1)]
    assert names["uncertain"]["outcome"].to_list() == ["unknown"]
    assert names["drift"].row(0, named=True)["members"] == 40
    assert (names["check"]["members"] == names["check"]["rows"]).all()


@pytest.mark.slow
def test_the_researchers_notebook_makes_a_model(tmp_path: Path) -> None:
    first, *others = cells_of(ROOT / "docs" / "notebooks" / "researcher.ipynb")
    program = "\n".join([first, QUICK, *others, SHOWN_AT_THE_END])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["codes"] == [0, 0]
    assert shown["implants"] == 4
    assert shown["elsewhere"] == 12
    assert shown["outcome"] in {"identified", "ambiguous", "unknown"}
    assert (tmp_path / "why.png").exists()
