"""How a job ends: SIGTERM while its driver waits for a task on the cluster."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster

WAITING = """
import time
from pathlib import Path
import ray
from jobs.entry.cluster import start_ray
from jobs.entry.command import run_command

def work():
    start_ray()
    task = ray.remote(lambda: time.sleep(600)).remote()
    Path({mark!r}).touch()
    ray.get(task)

run_command("train", work, resume="the same command with --resume goes on")
"""


@pytest.mark.cluster
def test_a_driver_that_waits_in_ray_get_ends_on_sigterm(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    mark = tmp_path / "waiting"
    job = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(mark=str(mark))],
        cwd=ROOT,
        env=ray_cluster.driver_environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not mark.exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        job.send_signal(signal.SIGTERM)
        _, err = job.communicate(timeout=30)
    finally:
        job.kill()
    assert job.returncode == 3, err
    assert "Stopped before the end; the same command with --resume goes on." in err
    assert "Traceback" not in err
