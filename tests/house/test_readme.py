"""Every sentence of the README that can be run or looked up is true."""

import ast
import contextlib
import importlib
import inspect
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from statistics import median

import pytest
from ray.job_submission import JobDetails, JobSubmissionClient

from benchmarks.speed import read_result
from benchmarks.speed_archives import KINDS
from benchmarks.speed_table import RIVALS, ratios
from implant_model.errors import ArchiveReason, ArchiveStatus, Outcome, Reason
from implant_model.privacy import IdentifierPolicy
from jobs.entry import command
from jobs.pipeline.classify_options import parse_classify
from tests.support.sample_output import publish_sample
from training.config import from_document

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [
    line
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
]
PYTHON = [block for language, block in BLOCKS if language == "python"]
QUERIES = [block for block in PYTHON if "demo-output/tables" in block]


def job_of(line: str) -> tuple[str, list[str]] | None:
    """Name and arguments of a `python -m jobs.NAME` in a line of shell."""
    words = shlex.split(line)
    for place, word in enumerate(words):
        if word.startswith("jobs.") and words[place - 1] == "-m":
            return word.removeprefix("jobs."), words[place + 1 :]
    return None


def section(title: str) -> str:
    """The text below a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """The cells of a section's lines that are a table's, without its heading."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_code_block_is_of_a_kind_that_is_tested() -> None:
    assert README.count("```") == 2 * len(BLOCKS)
    assert {language for language, _ in BLOCKS} == {"bash", "python", "toml"}
    assert len(QUERIES) == len(PYTHON) - 1
    for line in SHELL:
        assert line.startswith("make ") or job_of(line), line


def test_set_up_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in SHELL if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}: \.venv/installed$", makefile, re.MULTILINE)
    assert "jobs.demo --output demo-output" in makefile


@pytest.mark.parametrize("line", [line for line in SHELL if job_of(line)])
def test_job_accepts_the_call(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = job_of(line)
    assert found is not None
    name, arguments = found
    if name == "classify":
        parse_classify(arguments, None)
        return
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{name}").main(["--help"])
    assert ended.value.code == 0
    flags = [word for word in arguments if word.startswith("--")]
    usage = capsys.readouterr().out
    assert all(flag in usage for flag in flags)


def test_flags_in_the_text_are_flags_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    texts = "".join(map(section, ("Classify", "Every night", "What comes out", "Identifiers")))
    said = set(re.findall(r"`(?:[^`]* )?(--[a-z-]+)", texts))
    with contextlib.suppress(SystemExit):
        parse_classify(["--help"], None)
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert said <= flags
    assert {"--dry-run", "--max-rejected", "--retry", "--key-file", "--identifiers"} <= said
    parse_classify(["a", "--output", "b", "--model", "c", "--retry", "truncated"], None)


def test_training_command_in_the_text_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = re.search(r"`python -m jobs\.train ([^`]*)`", README)
    assert said is not None
    with pytest.raises(SystemExit):
        importlib.import_module("jobs.train").main(["--help"])
    usage = capsys.readouterr().out
    assert all(flag in usage for flag in re.findall("--[a-z]+", said[1]))


def test_settings_in_the_text_are_settings() -> None:
    for block in [block for language, block in BLOCKS if language == "toml"]:
        config = from_document(tomllib.loads(block), "README.md")
        assert config.segmenter.width
        assert config.split.folds == 10


def test_ray_submits_jobs_in_this_form() -> None:
    line = next(line for line in SHELL if line.startswith("ray "))
    ours = shlex.split(line)
    flags = [word for word in ours[: ours.index("--")] if word.startswith("--")]
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [str(ray), "job", "submit", "--help"], capture_output=True, text=True, check=True
    )
    assert flags
    assert all(flag in done.stdout for flag in flags)


def test_exit_code_of_a_submitted_job_is_where_it_is_said_to_be() -> None:
    block = next(block for block in PYTHON if block not in QUERIES)
    compile(block, "README.md", "exec")
    inspect.signature(JobSubmissionClient.get_job_info).bind(None, "nightly-2026-01-31")
    assert "driver_exit_code" in JobDetails.model_fields
    submitted = next(line for line in SHELL if line.startswith("ray "))
    assert "--submission-id nightly-2026-01-31" in submitted
    assert '"nightly-2026-01-31"' in block


@pytest.mark.parametrize("block", QUERIES)
def test_query_runs_on_an_output(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_sample(tmp_path, place="demo-output/tables")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102  the text under test
    assert ("stem-a" if "polars" in block else "cut.tar") in printed.getvalue()


def test_closed_sets_are_complete() -> None:
    text = section("What comes out")
    for name in (*Outcome, *Reason, *ArchiveStatus, *ArchiveReason):
        assert f"`{name}`" in text, name
    rows = [row[0].strip("`") for row in table("What comes out")]
    assert rows == [str(outcome) for outcome in Outcome]
    policies = re.findall(r"^- `(\w+)`", section("Identifiers"), re.MULTILINE)
    assert policies == [str(policy) for policy in IdentifierPolicy]


def test_exit_codes_are_those_of_the_jobs() -> None:
    codes = [command.OK, command.USAGE, command.INCOMPLETE, command.BUSY]
    assert [int(row[0]) for row in table("Classify")] == codes


def test_readme_says_what_it_is_not_for() -> None:
    assert README.index(f"**{command.DISCLAIMER}**") < README.index("## Set-up")
    assert "Phantoms are no evidence about patients." in README


def test_file_map_is_of_this_tree() -> None:
    paths = [row[0].strip("`") for row in table("Files")]
    for path in paths:
        assert (ROOT / path).exists(), path
    listed = {path for path in paths if path.endswith(".py")}
    assert listed >= {"jobs/classify.py", "jobs/verify.py", "jobs/train.py", "jobs/demo.py"}


def test_models_are_those_that_ship() -> None:
    said = re.findall(r"^- `(models/\w+)`", section("Models"), re.MULTILINE)
    there = sorted(f"models/{path.parent.name}" for path in ROOT.glob("models/*/package.json"))
    assert said == there


BROUGHT_ALONG = {"markupsafe", "botocore", "urllib3", "mypy-boto3-s3"}
"""Parts of jinja2 and of boto3, and the types of the latter."""


def modules() -> Iterator[Path]:
    for folder in ("implant_model", "training", "jobs"):
        yield from (ROOT / folder).rglob("*.py")


def imported() -> set[str]:
    """Top names of all imports of the program."""
    names: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_dependencies_have_their_reasons() -> None:
    said = {name.strip() for row in table("Dependencies") for name in row[0].split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {re.split(r"[\[>=;]", line)[0] for line in project["project"]["dependencies"]}
    assert said <= declared
    known = packages_distributions()
    used = {known[name][0].lower() for name in imported() if name in known}
    assert used - BROUGHT_ALONG <= said
    developing = {re.split(r"[\[>=;]", line)[0] for line in project["dependency-groups"]["dev"]}
    assert all(re.search(rf"\b{name}\b", section("Dependencies")) for name in developing)


def test_figures_of_memory_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "benchmarks" / "memory.md").read_text(encoding="utf-8").splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    measured = [row for row in rows if row[0].replace(",", "").isdigit()]
    for said, row in zip(table("Memory"), measured, strict=True):
        assert [cell.removesuffix(" MB") for cell in said] == [*row[:2], *row[5:9]]
    assert "make bench" in section("Memory")


def test_figures_of_speed_are_those_of_the_benchmark() -> None:
    measured = read_result()
    for said, (name, kind) in zip(table("Speed"), KINDS.items(), strict=True):
        rates = measured[name]
        shares = [f"{median(ratios(rates, rival)):.2f}" for rival in RIVALS]
        jobs = [f"{median(rates[job]):.0f}" for job in ("job", "bfloat16")]
        assert said == [kind.title, jobs[0], *shares, jobs[1]]


def test_figures_of_a_gpu_are_those_of_the_benchmark() -> None:
    measured = json.loads((ROOT / "benchmarks" / "gpu.json").read_text(encoding="utf-8"))
    assert "H100" in measured["machine"]
    parts = {"phantom": ("alone", "actor", "stage"), "full-size": ("alone", "actor")}
    for name, rates in measured["tensors"].items():
        for part in parts[name.split(",")[0]]:
            assert f"{median(rates[part]):,.0f}" in section("Speed"), (name, part)
    for run in measured["job"].values():
        assert f"On {run['cores']} cores the whole job took {run['images_s']:.0f} " in section(
            "Speed"
        )


def test_promises_are_shown_by_tests_that_there_are() -> None:
    rows = table("What is promised")
    assert len(rows) >= 9
    for promise, tests in rows:
        shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert shown, promise
        for path, name in shown:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, name


def test_torture_commands_in_the_text_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ntorture: .venv/installed\n\t$(BIN)/python -m tests.torture\n" in makefile
    assert "`make torture`" in section("What is promised")
    with pytest.raises(SystemExit):
        importlib.import_module("tests.torture.__main__").main(["--help"])
    said = section("What is promised")
    usage = capsys.readouterr().out
    assert all(flag in usage for flag in re.findall(r"--[a-z]+", said))


def test_figures_of_the_audit_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "benchmarks" / "audit_million.md").read_text(encoding="utf-8").splitlines()
    measured = [line.rsplit("|", 2)[0].strip() for line in lines if line.endswith("| 0 |")]
    said = [line.removesuffix("|").strip() for line in section("Audit a registry").splitlines()]
    assert len(measured) == 2
    assert set(measured) <= set(said)
    assert "make bench" in section("Audit a registry")


def test_licence_is_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
