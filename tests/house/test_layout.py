"""The rules of the layout: who imports whom, what has its place, and that imports do nothing."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.import_graph import (
    PACKAGES,
    circles,
    files_of,
    graph,
    imports,
    modules,
    reachable,
    sibling_circles,
)
from tests.support.paths import ROOT

MAY_IMPORT = {
    "implant_model": {"implant_model"},
    "training": {"implant_model", "training"},
    "jobs": {"implant_model", "training", "jobs"},
}
ONLY_IN = {
    "boto3": ("implant_model/storage/",),
    "botocore": ("implant_model/storage/",),
    "pydicom": ("implant_model/decode/", "implant_model/phantoms/", "jobs/exporting/"),
    "highdicom": ("jobs/exporting/",),
    "deltalake": ("jobs/tables/delta",),
    "ray": ("jobs/", "training/"),
    "torch": ("implant_model/", "training/"),
    "openvino": ("implant_model/networks/engine",),
    "pickle": (),
}
MAX_MODULES = 17
"""Of one folder, so that its list is read at a glance."""
FOLDERS_IN_A_CIRCLE: dict[str, set[frozenset[str]]] = {}
MAY_DRAW_PHANTOMS = ("jobs/samples/", "implant_model/phantoms/")
SAME_NAME = {
    "files": "a sample's files, and the files of an audit's folder",
    "records": "of a registry, and of the table of archives",
}
"""Names of more than one module, and what the modules are about."""


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in files_of(package):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ("tests", "benchmarks"), f"{path} imports {name}"
            if top in PACKAGES:
                assert top in MAY_IMPORT[package], f"{path} imports {name}"


def test_no_modules_import_each_other() -> None:
    assert circles(graph()) == set()


@pytest.mark.parametrize("parent", ["implant_model", "training", "jobs", "jobs.auditing"])
def test_no_folders_side_by_side_import_each_other(parent: str) -> None:
    assert sibling_circles(parent) == FOLDERS_IN_A_CIRCLE.get(parent, set())


def test_a_circle_is_found_however_long() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set[str](), "f": {"f"}}
    assert circles(edges) == {frozenset("abc")}
    assert circles({**edges, "e": {"d"}}) == {frozenset("abc"), frozenset("de")}


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_has_its_place(library: str) -> None:
    for path in modules().values():
        if any(name.split(".")[0] == library for name in imports(path)):
            assert place(path).startswith(ONLY_IN[library] or ("nowhere",)), f"{path}: {library}"


def test_phantoms_are_for_samples_and_tests() -> None:
    for path in modules().values():
        if any(name.startswith("implant_model.phantoms") for name in imports(path)):
            assert place(path).startswith(MAY_DRAW_PHANTOMS), f"{path} imports the phantoms"


def test_a_folder_fits_a_screen() -> None:
    folders: dict[Path, list[str]] = defaultdict(list)
    for package in (*PACKAGES, "tests", "benchmarks"):
        for path in files_of(package):
            if path.name != "__init__.py":
                folders[path.parent].append(path.stem)
    for folder, names in folders.items():
        assert len(names) <= MAX_MODULES, place(folder)


def test_no_name_twice() -> None:
    named: dict[str, list[str]] = defaultdict(list)
    for name, path in modules().items():
        if path.name != "__init__.py":
            named[path.stem].append(name)
    twice = {stem: names for stem, names in named.items() if len(names) > 1}
    assert set(twice) <= set(SAME_NAME), twice


def test_image_holds_what_the_jobs_import() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = dict(re.findall(r"^COPY --chown=ray (\S+) (\S+)$", lines, re.MULTILINE))
    jobs = {name for name in modules() if name.split(".")[0] == "jobs"}
    needed = {name.split(".")[0] for name in reachable(jobs, graph())}
    assert needed == set(PACKAGES)
    for folder in (*needed, "models"):
        assert copied.get(folder) == folder


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_says_what_it_is(package: str) -> None:
    for path in files_of(package):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_nothing_happens_at_import() -> None:
    names = [
        name
        for name, path in modules().items()
        if name.startswith("implant_model.") and path.name != "__init__.py"
    ]
    program = (
        "import sys, threading, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert 'ray' not in sys.modules, 'ray'\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_no_grammar_is_built_when_ray_is_imported() -> None:
    """jsonschema does with its extra `format-nongpl`: 1.2 s of a core in each process of Ray."""
    assert importlib.util.find_spec("rfc3987_syntax") is None
