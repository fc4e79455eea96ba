"""What a library writes to the standard error goes to a file; what the job says does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.entry import ray_lines
from tests.support.paths import ROOT

PROGRAM = """
import os, sys, warnings
from jobs.entry.command import run_command
from jobs.entry.ray_lines import divert, visible

def work():
    sys.stderr.write("before\\n")
    divert()
    divert()
    os.write(2, b"[E 1 1] a native line\\n")
    sys.stderr.write("a library's line\\n")
    warnings.warn("a warning")
    visible().write("progress\\n")
    {end}

run_command("try", work)
"""


def run(end: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        cwd=ROOT,
        env={"TMPDIR": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    (log,) = folder.glob("implant-ray-*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    return done.returncode, done.stderr, log.read_text()


def test_a_user_reads_the_jobs_lines_alone(tmp_path: Path) -> None:
    code, said, log = run("return 3", tmp_path)
    lines = [re.sub(r"implant-ray-\S+", "FILE", line) for line in said.splitlines()]
    assert lines == [
        *("before", f"Ray's own messages are in {tmp_path}/FILE", "progress"),
        "try: exit code 3",
    ]
    assert code == 3
    assert "a native line" in log
    assert "a library's line" in log
    assert "a warning" in log


def test_a_mistake_and_a_traceback_are_seen(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    mistake = "from implant_model.errors import UsageError; raise UsageError('A mistake.')"
    code, said, _ = run(mistake, tmp_path / "1")
    assert (code, said.splitlines()[-2:]) == (2, ["try: A mistake.", "try: exit code 2"])
    code, said, log = run("raise ZeroDivisionError", tmp_path / "2")
    assert (code, said.splitlines()[-1]) == (1, "ZeroDivisionError")
    assert "Traceback" not in log


def test_a_stream_that_is_not_the_process_own_stays(capsys: pytest.CaptureFixture[str]) -> None:
    ray_lines.divert()
    assert ray_lines.visible() is sys.stderr
