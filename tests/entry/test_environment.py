"""A Python that lacks the project's packages is told so in one sentence, by every command."""

import importlib.util
import subprocess
import sys

import jobs
from tests.support.paths import ROOT


def test_another_python_ends_with_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "jobs.classify", "--help"],  # without site-packages
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"This Python ({sys.executable}) lacks boto3, cv2, deltalake, ")
    assert "docs/operations.md" in sentence


def test_what_is_looked_for_is_here() -> None:
    assert all(importlib.util.find_spec(name) for name in jobs.NEEDED)
