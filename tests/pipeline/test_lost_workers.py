"""Nodes and processes that are lost in mid-run: the job ends, and nothing is lost or doubled."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from ray.cluster_utils import Cluster

from jobs.pipeline.stages import TASK_RETRIES
from tests.support.archive_samples import tar_of
from tests.support.deadly_members import KILLS_READER, TALLY, kills_classifier
from tests.support.paths import ROOT
from tests.support.pictures import encoded, noise_png

DEATHS = (TASK_RETRIES + 1) + (TASK_RETRIES // 2 + 1)
"""Of the processes that one deadly archive kills: in the first round, and in the one alone."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head that offers nothing, and two nodes of two cores, as `cluster.yaml` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
            yield cluster
        finally:
            cluster.shutdown()


def start(cluster: Cluster, *command: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.classify", *command],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def predictions(output: Path) -> pl.DataFrame:
    return pl.read_delta(str(output / "predictions")).sort("archive", "member_index")


def wait_for_a_unit(output: Path, job: "subprocess.Popen[str]") -> None:
    while job.poll() is None and not list(output.glob("predictions/model=*/*.parquet")):
        time.sleep(0.1)


@pytest.mark.cluster
@pytest.mark.slow
def test_lost_node_changes_nothing(nodes: Cluster, tmp_path: Path, small_package: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = noise_png(1)
    for archive in range(8):
        members = {f"{n}.png": noise_png(n) if n % 50 == 0 else picture for n in range(300)}
        (tmp_path / "in" / f"{archive}.tar").write_bytes(tar_of(members))
    call = [str(tmp_path / "in"), "--model", str(small_package), "--batch-size", "4"]
    lost = nodes.list_all_nodes()[-1]

    with start(nodes, *call, "--output", str(tmp_path / "torn")) as job:
        wait_for_a_unit(tmp_path / "torn", job)
        assert job.poll() is None, "the run was over before the node was lost"
        nodes.remove_node(lost, allow_graceful=False)
        said, complained = job.communicate(timeout=300)
    assert job.returncode == 0, complained + said
    with start(nodes, *call, "--output", str(tmp_path / "alone")) as job:
        said, complained = job.communicate(timeout=300)
    assert job.returncode == 0, complained + said
    torn, alone = predictions(tmp_path / "torn"), predictions(tmp_path / "alone")
    assert torn.height == 8 * 300
    assert torn.equals(alone)
    statuses = pl.read_delta(str(tmp_path / "torn" / "archives"))["status"]
    assert statuses.to_list() == ["complete"] * 8


@pytest.mark.cluster
@pytest.mark.long
def test_archive_that_kills_its_workers_fails_alone(
    nodes: Cluster, tmp_path: Path, small_package: Path
) -> None:
    (tmp_path / "in").mkdir()
    for archive in range(8):
        members = {f"{n}.png": noise_png(10 * archive + n) for n in range(4)}
        if archive == 3:
            members["deadly"] = KILLS_READER
        if archive == 5:
            members["deadly.png"] = encoded(kills_classifier())
        (tmp_path / "in" / f"{archive}.tar").write_bytes(tar_of(members))
    output, tally = tmp_path / "out", tmp_path / "tally"
    call = [str(tmp_path / "in"), "--model", str(small_package), "--output", str(output)]

    hook = {"RAY_RUNTIME_ENV_HOOK": "tests.support.deadly_members.deadly", TALLY: str(tally)}
    with start(nodes, *call, **hook) as job:
        said, complained = job.communicate(timeout=400)
    assert job.returncode == 3, complained + said
    archives = pl.read_delta(str(output / "archives")).sort("archive")
    failed = {f"{n}.tar" for n in (3, 5)}
    for row in archives.iter_rows(named=True):
        lost = row["archive"] in failed
        assert row["status"] == ("failed" if lost else "complete")
        assert row["reason"] == ("storage_error" if lost else None)
    assert predictions(output).height == 6 * 4
    for name in failed:
        assert f"{name}: failed (storage_error), 0 members. The processes that worked" in said
    assert tally.stat().st_size <= 2 * DEATHS + 2  # of two deaths at once, one is one's neighbour

    with start(nodes, *call) as job:  # where nothing is deadly, the next run makes it good
        said, complained = job.communicate(timeout=300)
    assert job.returncode == 0, complained + said
    assert predictions(output).height == 8 * 4 + 2
