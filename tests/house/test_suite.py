"""How the suite runs: which tests share a process, and what its summary names as not tried."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import parallel
from tests.support.not_tried import LEFT_OUT, sentence
from tests.support.parallel import SHARED_CLUSTER, processes, scope_of
from tests.support.paths import ROOT

SMALL_SUITE = """
import pytest

@pytest.mark.gpu
def test_gpu(): raise AssertionError

@pytest.mark.slow
@pytest.mark.gpu
def test_both(): raise AssertionError

@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_slow(times): raise AssertionError

@pytest.mark.parametrize("width", [1, 2, 3])
def test_page(width): pytest.skip("chromium is not installed; the page is not printed here")

def test_fine(): pass
"""
SETTINGS = """
[pytest]
addopts = -q -p tests.support.not_tried -m "not gpu and not slow"
markers =
    gpu: needs a GPU
    slow: is slow
"""
LINE = (
    "Not tried here: without Chromium 3 tests of pages (apt-get install chromium); "
    "without a GPU 2 tests (make test-gpu); 2 tests that are slow (make test-slow)."
)


@pytest.mark.parametrize("processes", ["0", "2"])
def test_summary_has_one_line_of_what_was_not_tried(tmp_path: Path, processes: str) -> None:
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_small.py").write_text(SMALL_SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", processes, "--rootdir", tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if "Not tried" in line] == [LINE]


def test_nothing_is_said_where_all_was_tried() -> None:
    assert sentence(["a reason of the test's own"], {}) == ""


def test_each_mark_that_leaves_tests_out_has_its_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for text in LEFT_OUT.values():
        assert f"\n{text.split('(make ')[1].rstrip(')')}: " in makefile


def test_modules_on_the_shared_cluster_run_in_one_process() -> None:
    scopes = {
        path.relative_to(ROOT).as_posix(): scope_of(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    shared = {path for path, scope in scopes.items() if scope == SHARED_CLUSTER}
    assert {"tests/pipeline/test_classify.py", "tests/torture/test_torture_job.py"} <= shared
    assert all(scope in (path, SHARED_CLUSTER) for path, scope in scopes.items())


@pytest.mark.parametrize(
    ("cores", "gigabytes", "number"), [(1, 64, 1), (2, 7, 2), (4, 7, 2), (64, 256, 4), (4, 2, 1)]
)
def test_no_more_processes_than_cores_and_memory_allow(
    cores: int, gigabytes: int, number: int
) -> None:
    assert processes(cores, gigabytes << 30) == number


def test_auto_is_counted_for_this_machine() -> None:
    assert 1 <= parallel.pytest_xdist_auto_num_workers() <= 4
