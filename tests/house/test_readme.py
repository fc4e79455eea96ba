"""The README is short, and what it states can be run or looked up."""

import contextlib
import inspect
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from benchmarks.rivals.speed_table import ratios
from benchmarks.speed import read_result
from implant_model.errors import Outcome
from jobs.entry import command
from jobs.pipeline.classify_options import parse_classify
from tests.house.pages import PAGES, README, ROOT, fenced, quoted, rows_of, section, shell_lines
from tests.house.pages import text as page_text
from tests.support.sample_output import publish_sample

MAX_WORDS = 1800
TEXT = page_text(README)


def test_readme_is_read_in_ten_minutes() -> None:
    assert len(TEXT.split()) <= MAX_WORDS


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[str](), [README]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page_text(page)):
            target = (ROOT / page).parent.joinpath(link).resolve()
            target = target / "README.md" if target.is_dir() else target
            todo.append(target.relative_to(ROOT).as_posix())
    notebooks = {path for path in reached if path.endswith(".ipynb")}
    assert notebooks == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.ipynb")}
    assert reached - notebooks == set(PAGES)


def test_set_up_commands_are_the_makefile_s() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert section(README, "Set-up").startswith("\nLinux, Python 3.11 or newer, git and make.")
    assert [line for line in shell_lines(README) if line.startswith("make ")] == [
        "make demo",
        "make test",
    ]
    assert "jobs.demo --output demo-output" in makefile
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11"' in project


def test_options_of_the_main_job_are_named() -> None:
    said = set(re.findall(r"--[a-z-]+", " ".join(quoted(README))))
    wanted = {"--dry-run", "--max-rejected", "--retry", "--redo-older", "--key-file", "--max-drift"}
    assert wanted <= said
    for option in re.findall(r"^- `(--[^`]+)`", section(README, "Classify"), re.MULTILINE):
        parse_classify(["a", "--output", "b", "--model", "c", *shlex.split(option)], None)


def test_exit_codes_are_those_of_the_jobs() -> None:
    codes = [command.OK, command.USAGE, command.INCOMPLETE, command.BUSY]
    assert [int(row[0]) for row in rows_of(section(README, "Classify"))] == codes


def test_outcomes_are_all_of_them() -> None:
    rows = [row[0].strip("`") for row in rows_of(section(README, "Outputs"))]
    assert rows == [str(outcome) for outcome in Outcome]


def test_readme_names_what_it_is_not_for() -> None:
    assert TEXT.index(f"**{command.DISCLAIMER}**") < TEXT.index("## Set-up")
    assert "Phantoms are no evidence about patients." in TEXT


def test_submitted_job_is_in_the_form_of_ray() -> None:
    line = next(line for line in shell_lines(README) if line.startswith("ray "))
    ours = shlex.split(line)
    flags = [word for word in ours[: ours.index("--")] if word.startswith("--")]
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [str(ray), "job", "submit", "--help"], capture_output=True, text=True, check=True
    )
    assert flags
    assert all(flag in done.stdout for flag in flags)


def test_exit_code_of_a_submitted_job_is_in_its_job_info() -> None:
    from ray.job_submission import JobDetails, JobSubmissionClient

    (block,) = (code for _, kind, code in fenced("docs/operations.md") if kind == "python")
    compile(block, "operations.md", "exec")
    inspect.signature(JobSubmissionClient.get_job_info).bind(None, "nightly-2026-01-31")
    assert "driver_exit_code" in JobDetails.model_fields
    submitted = next(line for line in shell_lines(README) if line.startswith("ray "))
    assert "--submission-id nightly-2026-01-31" in submitted
    assert '"nightly-2026-01-31"' in block


def python_block(page: str, part: str) -> str:
    (code,) = (code for _, kind, code in fenced(page) if kind == "python" and part in code)
    return code


@pytest.mark.parametrize(
    ("page", "part", "shown"),
    [
        (README, "polars", "stem-a"),
        ("docs/outputs.md", "duckdb", "cut.tar"),
        ("docs/outputs.md", "pandas", "cut.tar"),
    ],
)
def test_query_runs_on_an_output(
    page: str, part: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_sample(tmp_path, place="demo-output/tables")
    monkeypatch.chdir(tmp_path)
    assert shown in run(page, part)


def test_notebook_call_gives_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = ROOT / "tests" / "decode" / "golden" / "1.2.840.10008.1.2.1.dcm"
    shutil.copy(golden, tmp_path / "radiograph.dcm")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    printed = run(README, "identify")
    assert printed.split()[0] in set(map(str, Outcome))
    assert "Implant(" in printed


def run(page: str, part: str) -> str:
    """What a page's block of Python prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(python_block(page, part), page, "exec"), {})  # noqa: S102  the text under test
    return printed.getvalue()


def test_figures_are_those_of_the_benchmarks() -> None:
    rates = read_result()
    dicom, jpeg = rates["dicom"], rates["jpeg"]
    loader, ray = (f"{median(ratios(dicom, rival)):.2f}" for rival in ("loader", "ray"))
    speed = section(README, "Speed and memory")
    assert f"took {median(dicom['job']):.0f} uncompressed 16-bit DICOM a second" in speed
    assert f"{loader} times what a plain PyTorch DataLoader loop took and {ray} times" in speed
    assert f"2500 x 2048 pixels, {median(jpeg['job']):.0f}." in speed
    memory = rows_of((ROOT / "benchmarks" / "memory.md").read_text(encoding="utf-8"))
    least, most = (next(row[5] for row in memory if row[0] == count) for count in ("100", "1,000"))
    assert f"rose from {least} to {most} MB" in speed


def test_figures_of_unknown_implants_are_those_of_the_benchmark() -> None:
    measured = rows_of((ROOT / "benchmarks" / "novelty.md").read_text(encoding="utf-8"))
    knees, _, shoulders = (float(row[1]) for row in measured)
    assert f"{knees:.2f} of the pairs for phantom knees" in TEXT
    assert f"{shoulders:.2f} for phantoms and a package of shoulders" in TEXT


def test_figures_of_the_shoulders_are_those_of_the_package() -> None:
    package = json.loads((ROOT / "models" / "shoulder" / "package.json").read_text())
    top = package["metrics"]["figures"]["top_1"]
    assert f"{top['count']} real radiographs" in TEXT
    assert f"right in {top['value']:.3f} of the images" in TEXT


def test_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
