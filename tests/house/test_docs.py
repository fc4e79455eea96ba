"""What the pages state can be run or looked up: links, paths, names, commands, options, figures."""

import ast
import contextlib
import importlib
import io
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from statistics import median

import pytest

from benchmarks.rivals.speed_archives import KINDS
from benchmarks.rivals.speed_table import RIVALS, ratios
from benchmarks.speed import read_result
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import TRANSIENT, ArchiveReason, ArchiveStatus, Outcome, Reason
from implant_model.limits import MIB, Limits
from implant_model.package.catalogue import Implant
from implant_model.package.manifest import FORMAT, FORMAT_VERSION, READABLE_VERSIONS
from implant_model.privacy import IdentifierPolicy
from implant_model.pseudonym_key import MAX_KEY, MIN_KEY
from jobs.entry.cluster import OOM_RETRIES
from jobs.pipeline.classify_options import parse_classify
from jobs.pipeline.recipe import UNIT_BYTES
from jobs.pipeline.run import COMMIT_EVERY_S
from jobs.pipeline.source import BLOCK_MEMBERS
from jobs.pipeline.stages import TASK_RETRIES, WAITING_PER_CPU
from jobs.tables.lease import RENEW_S, WATCH_S
from jobs.tables.schema import (
    ARCHIVE_ROW,
    PREDICTION_ROW,
    SCHEMA_PROPERTY,
    SCHEMA_VERSION,
    UNIT_MEMBERS,
)
from tests.house import test_layout
from tests.house.pages import (
    ARCHITECTURE,
    DECISIONS,
    PAGES,
    ROOT,
    anchors,
    fenced,
    module_call,
    prose,
    quoted,
    rows_of,
    section,
    shell_lines,
    text,
    top_names,
)
from tests.support.import_graph import PACKAGES
from training.config import TrainConfig, from_document

TOPS = "implant_model|training|jobs|models|deploy|benchmarks|docs|tests|\\.ci"
NOT_OF_THE_TREE = {"models/mine", "jobs/NAME.py", "train.toml", "MODEL_CARD.md"}
"""Paths in the pages that are the reader's own, a pattern, or files of every package."""
LANGUAGES = {"bash", "console", "python", "toml", "mermaid"}


@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_is_of_a_kind_that_is_tested(page: str) -> None:
    assert text(page).count("```") == 2 * len(fenced(page))
    assert {block.language for block in fenced(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES)
def test_no_relative_link_is_dead(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if fragment:
            assert fragment in anchors(target.relative_to(ROOT).as_posix()), f"{page}: {link}"


def named_paths(page: str) -> Iterator[tuple[str, str]]:
    """Paths of the tree that a page names, with the name within them or ''."""
    diagrams = [block.text for block in fenced(page) if block.language == "mermaid"]
    for name in [*quoted(page), *re.findall(rf"(?:{TOPS})/[\w/.-]+", "\n".join(diagrams))]:
        path, _, symbol = name.partition("::")
        in_tree = re.fullmatch(rf"(?:{TOPS})/[\w/.-]*", path)
        at_root = re.fullmatch(r"(?:Makefile|LICENSE|[\w.-]+\.(?:toml|lock|yaml|md))", path)
        if (in_tree or at_root) and path not in NOT_OF_THE_TREE:
            yield path, symbol


@pytest.mark.parametrize("page", PAGES)
def test_named_paths_and_names_are_of_this_tree(page: str) -> None:
    for path, symbol in named_paths(page):
        assert (ROOT / path).exists(), f"{page}: {path}"
        if symbol:
            assert symbol in top_names(ROOT / path), f"{page}: {path}::{symbol}"


def test_many_paths_are_named() -> None:
    assert len(list(named_paths(ARCHITECTURE))) > 80


@cache
def usage(module: str) -> str:
    """What `--help` of a job prints, or the source of another module that takes options."""
    name = module.removeprefix("jobs.")
    if name != module:
        main, printed = importlib.import_module(module).main, io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        return printed.getvalue()
    path = ROOT / Path(*module.split("."))
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


RAYS_OWN = (
    "export RAY_AUTH_MODE=token",
    "ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token",
    "ray start --head --dashboard-host 127.0.0.1",
)
"""As `tests/operations/test_doctor.py::test_closed_cluster_is_well` has them."""
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("[a-z]*.py"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def calls() -> list[tuple[str, str]]:
    """Each call of a module of this repository in a page: in blocks and within sentences."""
    found = []
    for page in PAGES:
        lines = [*shell_lines(page), *(name for name in quoted(page) if "python -m" in name)]
        found += [(page, line) for line in lines if module_call(line)]
    return found


@pytest.mark.parametrize(("page", "line"), calls())
def test_module_accepts_the_call(page: str, line: str) -> None:
    found = module_call(line)
    assert found is not None
    module, arguments = found
    if module == "jobs.classify":
        parse_classify(arguments, None)
    flags = [word for word in arguments if word.startswith("--")]
    assert set(flags) <= set(re.findall(r"--[a-z-]+", usage(module))), line


@pytest.mark.parametrize("page", PAGES)
def test_each_line_of_shell_is_of_a_kind_that_is_tested(page: str) -> None:
    for line in shell_lines(page):
        is_pytest = ".venv/bin/python -m pytest " in line
        if is_pytest:
            assert (ROOT / line.split()[-1]).exists()
        is_known = is_pytest or line in RAYS_OWN
        assert line.startswith("make ") or is_known or module_call(line), line


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_are_those_of_the_makefile(page: str) -> None:
    lines = [*shell_lines(page), *quoted(page)]
    for line in [line for line in lines if line.startswith("make ")]:
        (target,) = re.findall(r"^make (?:PYTHON=\S+ )?([\w-]+)(?: BENCH=\"[^\"]*\")?$", line)
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), line
        for flag in re.findall(r"--[a-z]+", line):
            assert f'"{flag}"' in usage("benchmarks.speed"), line


def test_every_make_target_is_described() -> None:
    described = {row[0].strip("`") for row in rows_of(section("CONTRIBUTING.md", "Set-up"))}
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert described == {f"make {target}" for target in targets.split()}


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_are_options(page: str) -> None:
    known = "".join(usage(f"jobs.{job}") for job in JOBS) + usage("benchmarks.speed")
    known += usage("tests.torture")
    for flag in re.findall(r"--[a-z][a-z-]+", " ".join(quoted(page))):
        assert re.search(rf"{flag}(?![a-z-])", known), f"{page}: {flag}"


@pytest.mark.parametrize(
    ("page", "title"),
    [("README.md", "Classify"), ("docs/operations.md", "Every night"),
     ("docs/operations.md", "Health and drift"), ("docs/operations.md", "Metrics")],
)  # fmt: skip
def test_options_of_the_main_job_are_its_own(page: str, title: str) -> None:
    own = set(re.findall(r"--[a-z-]+", usage("jobs.classify")))
    said = set(re.findall(r"`(?:[^`\n]* )?(--[a-z-]+)", section(page, title)))
    assert said
    assert said <= own


def test_every_command_is_in_the_table_of_folders() -> None:
    (row,) = (row for row in rows_of(section(ARCHITECTURE, "Folders")) if row[0] == "`jobs/`")
    assert re.findall(r"`(\w+)`", row[1]) == JOBS


def test_every_folder_of_code_is_in_the_table_of_folders() -> None:
    named = " ".join(row[0] for row in rows_of(section(ARCHITECTURE, "Folders")))
    for package in PACKAGES:
        folders = {path.parent for path in (ROOT / package).glob("*/__init__.py")}
        for folder in (ROOT / package, *folders):
            assert f"`{folder.relative_to(ROOT).as_posix()}/`" in named, folder


def test_libraries_have_the_places_that_the_layout_keeps() -> None:
    allowed: dict[str, set[str]] = {}
    for row in rows_of(section(ARCHITECTURE, "Folders")):
        libraries = row[0].split(", ")
        if set(libraries) <= set(test_layout.ONLY_IN):
            places = {
                path.removesuffix(".py").rstrip("/") for path in re.findall("`(.*?)`", row[1])
            }
            allowed |= dict.fromkeys(libraries, places)
    kept = {
        library: {place.removesuffix(".py").rstrip("/") for place in places}
        for library, places in test_layout.ONLY_IN.items()
    }
    assert allowed == kept


def test_ten_changes_have_their_files_tests_and_versions() -> None:
    rows = rows_of(section(ARCHITECTURE, "Where to make a change"))
    assert len(rows) == 10
    for change, edit, fails, version in rows:
        assert re.search(rf"`(?:(?:{TOPS})/|pyproject)", edit), change
        assert "`tests/" in fails, change
        assert version, change


def test_diagram_joins_nodes_that_it_declares() -> None:
    (diagram,) = (block.text for block in fenced(ARCHITECTURE) if block.language == "mermaid")
    declared = set(re.findall(r"(\w+)(?:\[|\[\()", diagram))
    joined = re.findall(r"^ *(\w+)\b.*?(?:-->|-\.->|<-->) (\w+)", diagram, re.MULTILINE)
    assert len(joined) >= 9
    assert {name for pair in joined for name in pair} <= declared
    assert diagram.count("subgraph") == len(re.findall(r"^ *end$", diagram, re.MULTILINE))


def test_five_decisions_are_recorded() -> None:
    assert len(DECISIONS) >= 5
    index = text("docs/decisions/README.md")
    for page in DECISIONS:
        assert f"]({Path(page).name})" in index
        headings = re.findall(r"^## (\w+)$", text(page), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequence"]
        assert "::test_" in section(page, "Consequence"), page


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_english_is_plain(page: str) -> None:
    private = r"\b(says|told|stands|is wanted|parcels?|seals|without a word)\b"
    assert not re.findall(private, prose(page)), page


def test_pages_are_short() -> None:
    assert len(text(ARCHITECTURE).split()) <= 1500
    assert all(len(text(page).split()) <= 260 for page in DECISIONS)


def test_changelog_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(project['version'])}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_facts_are_those_of_the_code() -> None:
    limits = Limits()
    facts = {
        ARCHITECTURE: [
            f"at most {UNIT_MEMBERS:,} members of one archive version",
            f"(or {UNIT_BYTES // MIB} MiB of them)",
            f"share one: {BLOCK_MEMBERS} members",
            f"rewrites every {RENEW_S:.0f} seconds",
            f"does not change for {WATCH_S:.0f} seconds",
            f"made every {COMMIT_EVERY_S:.0f} seconds at most",
        ],
        "docs/memory.md": [
            f"at most {limits.member_bytes // MIB} MiB",
            f"may map {limits.decode_bytes >> 30} GiB",
            f"as it has {BLOCK_MEMBERS} members",
            f"unit of up to {UNIT_MEMBERS:,}",
            f"({WAITING_PER_CPU} blocks of {BLOCK_MEMBERS} pictures",
        ],
        "docs/operations.md": [
            f"{TASK_RETRIES} repetitions for a lost process or node, {OOM_RETRIES} for lack",
        ],
        "docs/models.md": [f"`format_version` is {FORMAT_VERSION} ", f"is `{FORMAT}`"],
        "docs/outputs.md": [f"property `{SCHEMA_PROPERTY}`", f"this is version {DECODE_VERSION}"],
        "CHANGELOG.md": [
            f"Schema version {SCHEMA_VERSION}, decode version {DECODE_VERSION}, "
            f"package format {FORMAT_VERSION}."
        ],
    }
    for page, sentences in facts.items():
        for sentence in sentences:
            assert sentence in text(page), f"{page}: {sentence}"
    assert set(READABLE_VERSIONS) == {1, FORMAT_VERSION}


def test_health_is_compared_as_the_page_states() -> None:
    from jobs.pipeline import health

    numbers = [value for name, value in vars(health).items() if name.endswith(("_RUNS", "_NOW"))]
    page = section("docs/operations.md", "Health and drift")
    assert f"last {health.WEEKS} weeks" in page
    assert len(numbers) == 2
    assert all(f" {number} " in page for number in numbers)
    assert "default 0.25" in usage("jobs.classify")
    assert "(0.25 by default)" in page


def test_key_has_the_size_that_is_stated() -> None:
    assert f"{MIN_KEY} to {MAX_KEY:,} random bytes" in text("docs/identifiers.md")


def test_closed_sets_are_complete() -> None:
    page = text("docs/outputs.md")
    for name in (*Outcome, *Reason, *ArchiveStatus, *ArchiveReason):
        assert f"`{name}`" in page, name
    (members,) = re.findall(r"^Reasons of a member: (.*)\.$", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", members) == [str(reason) for reason in Reason]
    transient = re.findall(r"lie outside the archive's bytes \((.*?)\)", page)
    assert set(re.findall(r"`(\w+)`", transient[0])) == set(map(str, TRANSIENT))
    policies = re.findall(r"^- `(\w+)`", text("docs/identifiers.md"), re.MULTILINE)
    assert policies == [str(policy) for policy in IdentifierPolicy]


@pytest.mark.parametrize(
    ("title", "columns"), [("Predictions", PREDICTION_ROW.names), ("Archives", ARCHIVE_ROW.names)]
)
def test_columns_are_those_of_the_tables(title: str, columns: list[str]) -> None:
    rows = rows_of(section("docs/outputs.md", title).split("\n\n| outcome")[0])
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted({*columns} - {"model"})


def test_models_are_those_that_ship() -> None:
    said = re.findall(r"^- `(models/\w+)`", text("docs/models.md"), re.MULTILINE)
    there = sorted(f"models/{path.parent.name}" for path in ROOT.glob("models/*/package.json"))
    assert said == there


def test_figures_of_the_shoulders_are_those_of_the_package() -> None:
    package = json.loads((ROOT / "models" / "shoulder" / "package.json").read_text())
    figures = package["metrics"]["figures"]
    top, page = figures["top_1"], text("docs/models.md")
    chosen = package["calibration"]["coverage"]
    for sentence in (
        f"trained on {top['count']} real radiographs",
        f"right in {top['value']:.3f} of the images "
        f"(95 % interval {top['low']:.3f} to {top['high']:.3f}, "
        f"macro F1 {figures['macro_f1']['value']:.3f}, "
        f"calibration error {figures['calibration_error']['value']:.3f}, ",
        f"in {figures['coverage']['value']:.3f} for a chosen {chosen:.2f}",
    ):
        assert sentence in page, sentence
    counts = {name: f["count"] for name, f in figures.items() if name.startswith("sensitivity")}
    commonest = max(counts.values()) / top["count"]
    assert f"always naming the commonest manufacturer is right in {commonest:.3f}" in page


def test_settings_in_the_text_are_settings() -> None:
    (block,) = (block for page in PAGES for block in fenced(page) if block.language == "toml")
    config = from_document(tomllib.loads(block.text), block.page)
    assert config.segmenter.width
    assert config.split.folds == 10


def test_every_setting_is_in_the_table_with_its_default() -> None:
    defaults = TrainConfig()
    document = {**defaults.to_json(), "preprocessing": defaults.pixels.to_json()}
    del document["implants"]
    expected: dict[str, object] = {}
    for name, value in document.items():
        below = value.items() if isinstance(value, dict) else ()
        expected |= {f"{name}.{key}": value for key, value in below} or {name: value}
    rows = rows_of(section("docs/training.md", "All settings"))
    cells = [
        (setting.strip("`"), default.strip("`"), meaning) for setting, default, meaning in rows
    ]
    stated = {name: json.loads(of) for name, of, _ in cells if not name.startswith("implants.")}
    assert stated == expected
    implant = {name.rsplit(".")[-1] for name, _, _ in cells if name.startswith("implants.LABEL.")}
    assert implant == {field.name for field in fields(Implant)} - {"name"}
    assert all(meaning for _, _, meaning in cells)


def test_deploy_files_are_listed() -> None:
    listed = set(re.findall(r"`(deploy/[\w.-]+)`", text("docs/operations.md")))
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deploy").iterdir()}
    assert listed == {path for path in there if not path.endswith("__pycache__")}


BROUGHT_ALONG = {"markupsafe", "botocore", "urllib3", "mypy-boto3-s3"}
"""Parts of jinja2 and of boto3, and the types of the latter."""


BY_USERS = {"h5py", "timm"}
"""What a user installs who needs it, and an import of which may fail."""


def imported() -> set[str]:
    """Top names of all imports of the program."""
    names: set[str] = set()
    paths = (p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_dependencies_have_their_reasons() -> None:
    page = text("docs/dependencies.md")
    said = {name.strip() for row in rows_of(page) for name in row[0].split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = {re.split(r"[\[>=;]", line)[0] for line in project["project"]["dependencies"]}
    assert said == declared
    known = packages_distributions()
    used = {known[name][0].lower() for name in imported() if name in known}
    assert used - BROUGHT_ALONG - BY_USERS <= said
    assert all(
        f"`{name}`" in section("docs/dependencies.md", "Installed by users") for name in BY_USERS
    )
    developing = {re.split(r"[\[>=;]", line)[0] for line in project["dependency-groups"]["dev"]}
    assert all(re.search(rf"\b{name}\b", page) for name in developing)


def test_figures_of_memory_are_those_of_the_benchmark() -> None:
    measured = rows_of((ROOT / "benchmarks" / "memory.md").read_text(encoding="utf-8"))
    measured = [row for row in measured if row[0].replace(",", "").isdigit()]
    for said, row in zip(rows_of(text("docs/memory.md")), measured, strict=True):
        assert [cell.removesuffix(" MB") for cell in said] == [*row[:2], *row[5:9]]
    assert "`make bench`" in text("docs/memory.md")


def test_figures_of_speed_are_those_of_the_benchmark() -> None:
    measured, page = read_result(), text("docs/speed.md")
    for said, (name, kind) in zip(rows_of(page), KINDS.items(), strict=True):
        rates = measured[name]
        shares = [
            f"{median(ratios(rates, rival)):.2f}" if rates.get(rival) else "" for rival in RIVALS
        ]
        jobs = [f"{median(rates[job]):.0f}" for job in ("job", "bfloat16")]
        assert said == [kind.title, jobs[0], *shares, jobs[1]]
    cold, warm = (f"{median(measured['start'][name]):.0f} s" for name in ("cold", "warm"))
    assert f"took {cold} with a cluster of its own and {warm} on one" in page


def test_figures_of_poor_films_are_those_of_the_benchmark() -> None:
    page = section("docs/models.md", "Poor films")
    rows = rows_of((ROOT / "benchmarks" / "films" / "poor_films.md").read_text(encoding="utf-8"))
    by_name = {row[0]: row[1:] for row in rows}
    noise = [f"{float(cell):.2f}" for cell in by_name["noise, 12 % of white"]]
    right_before, right, unknown_before, unknown, _, right_if_not, *_ = noise
    assert (
        f"calls {unknown} of known implants unknown, of {unknown_before} before, names {right} "
        f"rightly, of {right_before} before, and {right_if_not} of those that it answers"
    ) in page
    before, after = (cell.split(" ")[0] for cell in by_name["other implants found unknown"])
    assert before == after
    assert f"({after})" in page
    turned = float(by_name["rotation, 15 degrees clockwise"][3])
    cut = float(by_name["crop, 25 % of each side"][3])
    assert f"unknown in {turned:.2f} and {cut:.2f}." in page


def test_figure_of_a_plan_that_is_done_is_that_of_the_benchmark() -> None:
    done = (ROOT / "benchmarks" / "plan_done.md").read_text(encoding="utf-8")
    ((count, seconds),) = re.findall(r"([\d,]+) archives done, 0 to do: ([\d.]+) s", done)
    page = text("docs/speed.md")
    assert f"a run that found {count} archives done took {float(seconds):.0f} s" in page


def test_figures_of_a_gpu_are_those_of_the_benchmark() -> None:
    measured = json.loads((ROOT / "benchmarks" / "gpu.json").read_text(encoding="utf-8"))
    page = section("docs/speed.md", "On a GPU")
    assert "H100" in measured["machine"]
    parts = {"phantom": ("alone", "actor", "stage"), "full-size": ("alone", "actor")}
    for name, rates in measured["tensors"].items():
        for part in parts[name.split(",")[0]]:
            assert f"{median(rates[part]):,.0f}" in page, (name, part)
    for run in measured["job"].values():
        assert f"On {run['cores']} cores the whole job took {run['images_s']:.0f} " in page


def test_figures_of_the_audit_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "benchmarks" / "audit_million.md").read_text(encoding="utf-8").splitlines()
    measured = [line.rsplit("|", 2)[0].strip() for line in lines if line.endswith("| 0 |")]
    page = text("docs/audit.md")
    said = [line.removesuffix("|").strip() for line in page.splitlines()]
    assert len(measured) == 2
    assert set(measured) <= set(said)
    assert "`make bench`" in page


def test_promises_are_shown_by_tests_that_there_are() -> None:
    rows = rows_of(text("docs/promises.md"))
    assert len(rows) >= 13
    for promise, tests in rows:
        shown = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert shown, promise
        for path, name in shown:
            assert name in top_names(ROOT / path), name
    assert "`make torture`" in text("docs/promises.md")
    assert "\ntorture: .venv/installed\n\t$(BIN)/python -m tests.torture\n" in MAKEFILE
