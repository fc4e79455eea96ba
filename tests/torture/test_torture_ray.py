"""A worker, a classifier actor or the Ray head is killed during a run; then the job runs again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.support.archive_samples import tar_of
from tests.support.ray_cluster import RayCluster, running_cluster
from tests.torture.cases.files import png

ARCHIVES, MEMBERS = 4, 600
READER, ACTOR = "ReadArchiveSource", "ClassifyBlock"


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for archive in range(ARCHIVES):
        members = [(f"{n}.png", png(archive)) for n in range(MEMBERS)]
        (folder / f"{archive}.tar").write_bytes(tar_of(members))
    return folder


def command(archives: Path, model: Path) -> list[str]:
    output = str(archives.parent / "out")
    return ["jobs.classify", str(archives), "--output", output, "--model", str(model)]


def processes_of(cluster: RayCluster, words: str) -> Iterator[int]:
    """Workers of this very cluster whose title has these words.

    By the port alone: Ray calls this machine by another address where it has one.
    """
    metadata = f":{cluster.address.rpartition(':')[2]}"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            if words not in folder.joinpath("cmdline").read_text(errors="replace"):
                continue
            variables = folder.joinpath("environ").read_text(errors="replace").split("\0")
            raylet = next(v for v in variables if v.startswith("RAY_RAYLET_PID=")).split("=")[1]
            if metadata in Path("/proc", raylet, "cmdline").read_text(errors="replace"):
                yield int(folder.name)


def daemons_of(cluster: RayCluster) -> list[int]:
    """The processes of the head: its store of metadata, then its scheduler."""
    found = []
    for name in ("gcs_server", "raylet"):
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                said = folder.joinpath("cmdline").read_text(errors="replace")
                if name in said.split("\0")[0] and cluster.address.split(":")[1] in said:
                    found.append(int(folder.name))
    return found


def wait_for(cluster: RayCluster, words: str, job: "subprocess.Popen[str]") -> int:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and job.poll() is None:
        for pid in processes_of(cluster, words):
            return pid
        time.sleep(0.1)
    raise AssertionError(f"no process {words!r} was seen; the job's code is {job.poll()}")


def check(archives: Path) -> None:
    """Every member once, and all whole."""
    rows = pl.read_delta(str(archives.parent / "out" / "predictions"))
    assert rows.height == rows.unique(["archive", "member_index"]).height == ARCHIVES * MEMBERS
    verify = [sys.executable, "-m", "jobs.verify", str(archives.parent / "out")]
    assert subprocess.run(verify, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("words", [READER, ACTOR])
def test_killed_worker_costs_no_row(
    ray_cluster: RayCluster, archives: Path, small_package: Path, words: str
) -> None:
    with ray_cluster.start(*command(archives, small_package)) as job:
        os.kill(wait_for(ray_cluster, words, job), signal.SIGKILL)
        assert job.stderr is not None
        said = job.stderr.read()
        assert job.wait(300) in (0, 3), said
    assert "Traceback" not in said
    assert ray_cluster.run(*command(archives, small_package)).returncode == 0
    check(archives)


@pytest.mark.slow
@pytest.mark.cluster
def test_killed_head_costs_no_row(
    tmp_path: Path, archives: Path, small_package: Path, ray_cluster: RayCluster
) -> None:
    with (
        running_cluster(tmp_path / "head.log", {}) as doomed,
        doomed.start(*command(archives, small_package)) as job,
    ):
        wait_for(doomed, ACTOR, job)
        for pid in daemons_of(doomed):
            os.kill(pid, signal.SIGKILL)
        assert job.wait(300) != 0
    assert ray_cluster.run(*command(archives, small_package)).returncode == 0
    check(archives)
