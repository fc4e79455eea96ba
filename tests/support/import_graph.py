"""Which module of the repository imports which, read from the source; nothing is imported."""

import ast
import functools
from collections.abc import Mapping, Set
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("implant_model", "training", "jobs")


def files_of(package: str) -> list[Path]:
    """The modules of a package, with the `__init__.py` of its folders."""
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """`jobs.pages.page` of `jobs/pages/page.py`; `jobs.pages` of its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    """The production modules by name."""
    return {name_of(path): path for package in PACKAGES for path in files_of(package)}


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """What a module imports, at its top and inside functions alike, as `package.module`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if _is_module(name) else node.module for name in whole]
    return tuple(found)


def _is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.joinpath("__init__.py").is_file()


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """The production modules that each production module imports."""
    return {
        name: frozenset(set(imports(path)) & set(modules()) - {name})
        for name, path in modules().items()
    }


def reachable(start: Set[str], edges: Mapping[str, Set[str]]) -> set[str]:
    """The nodes that can be reached, with those at the start."""
    found, waiting = set(start), list(start)
    while waiting:
        new = edges.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return found


def circles(edges: Mapping[str, Set[str]]) -> set[frozenset[str]]:
    """The strongly connected components of two nodes and more."""
    beyond = {node: reachable(edges[node], edges) for node in edges}
    found = {
        frozenset(other for other in beyond[node] if node in beyond.get(other, ()))
        for node in edges
        if node in beyond[node]
    }
    return {component for component in found if len(component) > 1}


def sibling_circles(parent: str) -> set[frozenset[str]]:
    """The circles among the folders that lie side by side in a folder, with all below them."""
    depth = parent.count(".") + 1

    def folder(name: str) -> str | None:
        path = modules()[name]
        parts = name_of(path.parent / "__init__.py").split(".")
        inside = parts[:depth] == parent.split(".") and len(parts) > depth
        return parts[depth] if inside else None

    edges: dict[str, set[str]] = {}
    for name, imported in graph().items():
        if (own := folder(name)) is not None:
            others = {folder(other) for other in imported} - {None, own}
            edges.setdefault(own, set()).update(other for other in others if other)
    return circles(edges)
