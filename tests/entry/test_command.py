"""How a job ends: SIGTERM while its driver waits for a task, or within a finalizer."""

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


IN_A_FINALIZER = """
import os, signal, time, weakref
from jobs.entry.command import run_command

class Thing: pass

def work():
    def finalise(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    thing = Thing()
    reference = weakref.ref(thing, finalise)
    del thing
    print("went on", flush=True)
    time.sleep(30)
    return 0

run_command("classify", work)
"""


def test_a_stop_that_comes_within_a_finalizer_is_not_lost() -> None:
    """Python reports what is raised there and goes on; the run must end all the same."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FINALIZER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == "went on\n"
    assert done.stderr.splitlines() == [
        "classify: Stopped before the end; the same command goes on.",
        "classify: exit code 3",
    ]
