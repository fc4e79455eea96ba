"""The demo, as a user runs it, on a smaller sample."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from implant_model.errors import UsageError
from jobs.demo import main
from jobs.entry.command import DISCLAIMER
from jobs.samples.demonstration import MODEL, NO_EVIDENCE, make_key
from tests.support.paths import ROOT

PROGRAM = """
import sys
from pathlib import Path
from jobs.samples.demonstration import run
from jobs.entry.command import run_command
run_command("demo", lambda: run(Path(sys.argv[1]), num_each=1))
"""


def demo(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.cluster
@pytest.mark.long
def test_demo_ends_well_and_has_nothing_to_do_the_second_time(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    first = demo(folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "demo: exit code 0" in first.stderr
    said = " ".join(first.stdout.split())
    for text in (NO_EVIDENCE, DISCLAIMER, "95 % interval", "all whole.", "salvaged"):
        assert text in said
    assert "Not as it should be" not in said
    places = dict(line.split(": ", 1) for line in first.stdout.splitlines()[-3:])
    assert places["Report"] == str(folder / "report.html")
    rows = pl.read_delta(str(folder / "tables" / "predictions"))
    assert f"{len(rows)} members, one row each" in said
    assert {"rejected", "ignored"} < set(rows["outcome"])
    assert rows["patient"].drop_nulls().str.len_chars().unique().to_list() == [32]
    page = (folder / "report.html").read_text()
    assert NO_EVIDENCE in page
    assert "Against the known labels" in page

    second = demo(folder)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Nothing to do." in second.stdout
    assert pl.read_delta(str(folder / "tables" / "predictions")).equals(rows)


def test_model_of_the_demo_ships_with_the_repository() -> None:
    assert (MODEL / "package.json").is_file()


@pytest.mark.parametrize("output", ["s3://bucket/demo", "file:///tmp/demo", "pyproject.toml"])
def test_demo_writes_to_a_folder_only(output: str) -> None:
    with pytest.raises(UsageError, match=f"--output .*{output}"):
        main(["--output", output])


def test_key_is_random_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = Path(make_key(path)).read_text()
    assert len(key) == 45  # 32 bytes in base64, and a line end
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(make_key(path)).read_text() == key
    assert Path(make_key(tmp_path / "other")).read_text() != key
