"""A page whose console blocks are played in a shell: what a reader would type, and what he sees.

A block of the kind `console` has commands, after `$ ` and continued after `> `, and below each what
it prints. All commands of a page run in one bash, one after the other.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.support.paths import ROOT
from tests.support.ray_cluster import kill_with_descendants

HOME: Final = "/home/me/implants"
"""The folder of the reader in the pages, in place of that in which they were played."""
_MARK: Final = "=== played, exit code"
_BLOCK: Final = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_STATUS: Final = re.compile(r"^.* images/s .*\n", re.MULTILINE)
_TICK: Final = re.compile(
    r"^(?:(?:Pictures|(?:Images|Predictions) read): \d.*|[A-Z][\w' ]+ (?:are|is) [\w ]+: \d+ s)\n",
    re.MULTILINE,
)
"""Comes where something takes more than 5 s."""
_OF_RAY_JOB: Final = re.compile(
    r"^[\d-]+ [\d:,]+\t(?:INFO .* Status message: (?:.|\n)*?\n\n|(?:INFO|SUCC|WARNING|ERR) .*\n)",
    re.MULTILINE,
)
"""What `ray job submit` prints of itself, with the end of a failed job's log that it repeats."""
_VARY: Final = (
    (re.compile(r"/tmp/[\w./-]+"), "FILE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|\+00:00)?)?"), "DATE"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "HASH"),
    (re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)? (s|ms|MB|GB)\b"), r"N \1"),
    (re.compile(r"\d*\.\d+(?:e[+-]?\d+)?\b"), "0.0"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs from one run or machine to the next: names of temporary files, dates, hashes, times,
sizes, and fractions, of which the last digits depend on the processor."""


@dataclass(frozen=True)
class Step:
    """A command of a page, and what it prints."""

    command: str
    printed: str


def steps(page: Path) -> Iterator[Step]:
    """The commands of a page in their order."""
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        yield from _steps_of(block)


def play(
    page: Path,
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> list[Step]:
    """Runs a page's commands in a folder.

    Args:
        page: It.
        folder: Where; it gets links to what of the repository the commands name.
        environment: Of the shell.
        timeout_s: Of all of them together.
        instead: What takes the place of a text of the commands, and is undone in what they print.
    """
    for name in (".venv", "implant_model", "jobs", "training"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "models").mkdir()
    (folder / "models" / "phantom").symlink_to(ROOT / "models" / "phantom")
    shutil.copy(ROOT / ".gitignore", folder)
    commands = [step.command for step in steps(page)]
    script = "".join(f"{command}\necho '{_MARK}' $?\n" for command in commands)
    for said, meant in instead.items():
        script = script.replace(said, meant)
    with subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        try:
            everything, _ = shell.communicate(script, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            kill_with_descendants(shell.pid)
            raise
    for said, meant in instead.items():
        everything = everything.replace(meant, said)
    printed = re.split(rf"^{_MARK} \d+\n", everything, flags=re.MULTILINE)
    assert len(printed) == len(commands) + 1, everything
    return [
        Step(command, _for_the_page(text, folder))
        for command, text in zip(commands, printed, strict=False)
    ]


def comparable(step: Step, are_counts_same: bool = True) -> Step:
    """The step without what differs between two runs, or two processors."""
    printed = _TICK.sub("", _STATUS.sub("", step.printed))
    for pattern, instead in _VARY:
        printed = pattern.sub(instead, printed)
    if not are_counts_same:
        printed = re.sub(r"\d+", "0", printed)
    return Step(step.command, printed)


def rewrite(page: Path, played: list[Step]) -> None:
    """Puts what was printed below the commands of a page."""
    left = iter(played)

    def block(found: "re.Match[str]") -> str:
        shown = [next(left) for _ in _steps_of(found.group())]
        return "".join(f"$ {_continued(step.command)}\n{step.printed}" for step in shown)

    text = page.read_text(encoding="utf-8")
    page.write_text(_BLOCK.sub(block, text), encoding="utf-8")


def _steps_of(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = 1 + next(
            (n for n, line in enumerate(lines[1:]) if not line.startswith("> ")), len(lines) - 1
        )
        command = "".join([lines[0], *(line.removeprefix("> ") for line in lines[1:count])])
        yield Step(command.rstrip("\n"), "".join(lines[count:]))


def _continued(command: str) -> str:
    return command.replace("\n", "\n> ")


def _for_the_page(printed: str, folder: Path) -> str:
    """What the jobs print: of lines of progress the last alone, and the reader's folder."""
    lines = _OF_RAY_JOB.sub("", printed).replace(str(folder), HOME).splitlines(keepends=True)
    last = [n for n, line in enumerate(lines) if _STATUS.match(line)][-1:]
    return "".join(line for n, line in enumerate(lines) if n in last or not _STATUS.match(line))
