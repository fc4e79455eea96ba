"""The rules of the layout: who imports whom, and that nothing happens at import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("implant_model", "training", "jobs")
MAY_IMPORT = {
    "implant_model": {"implant_model"},
    "training": {"implant_model", "training"},
    "jobs": {"implant_model", "training", "jobs"},
}
ONLY_IN = {
    "boto3": ("implant_model/storage",),
    "botocore": ("implant_model/storage",),
    "pydicom": ("implant_model/decode", "implant_model/phantoms"),
    "deltalake": ("jobs/tables/publish", "jobs/tables/delta"),
    "ray": ("jobs/", "training/"),
    "torch": ("implant_model/", "training/"),
    "pickle": (),
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in modules(package):
        for name in imports(path):
            top = name.split(".")[0]
            if top in PACKAGES:
                assert top in MAY_IMPORT[package], f"{path} imports {name}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_has_its_place(library: str) -> None:
    for path in (path for package in PACKAGES for path in modules(package)):
        if any(name.split(".")[0] == library for name in imports(path)):
            place = path.relative_to(ROOT).as_posix()
            assert place.startswith(ONLY_IN[library] or ("nowhere",)), f"{place}: {library}"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_says_what_it_is(package: str) -> None:
    for path in modules(package):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_nothing_happens_at_import() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules("implant_model")
        if path.name != "__init__.py"
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
