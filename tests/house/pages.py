"""The pages of the repository as text, code blocks, tables and names, for the tests of them."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
README: Final = "README.md"
ARCHITECTURE: Final = "ARCHITECTURE.md"
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
DECISIONS: Final = [page for page in PAGES if re.match(r"docs/decisions/\d", page)]


class Fenced(NamedTuple):
    """A block of code in a page."""

    page: str
    language: str
    text: str


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def fenced(page: str) -> list[Fenced]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
    return [Fenced(page, language, code) for language, code in found]


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)


def quoted(page: str) -> list[str]:
    """What stands between backticks in the page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def shell_lines(page: str) -> list[str]:
    """The commands of the page's blocks of shell, one each."""
    blocks = [block.text for block in fenced(page) if block.language == "bash"]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def section(page: str, title: str) -> str:
    """The text below a heading of the second level."""
    return text(page).split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of all tables in a text, without their headings."""
    rows: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n)+", markdown + "\n", re.MULTILINE):
        for line in table.splitlines()[2:]:
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def module_call(line: str) -> tuple[str, list[str]] | None:
    """Name and arguments of a `python -m NAME` of this repository in a line of shell."""
    words = shlex.split(line)
    for place, word in enumerate(words[:-1]):
        if word == "-m" and re.match(r"(jobs|benchmarks|tests)(\.|$)", words[place + 1]):
            return words[place + 1], words[place + 2 :]
    return None


def top_names(path: Path) -> set[str]:
    """Functions, classes and variables that a module defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def anchors(page: str) -> set[str]:
    """The fragments by which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}
