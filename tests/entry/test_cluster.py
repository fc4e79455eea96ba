"""How a job comes to its cluster; whether it runs there, the other modules show."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.object_store import free_port
from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster, run_python

START = """
import sys
from jobs.entry.cluster import start_ray
from jobs.entry.command import run_command
assert "ray" not in sys.modules, "its settings would come too late"
run_command("try", lambda: start_ray() or 0)
"""


def start(**variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_settings_are_made_before_ray_reads_them() -> None:
    """Ray's native part takes its settings from the environment at import, and never after."""
    program = (
        "import os; os.environ['RAY_handler_warning_timeout_ms'] = '777'; import ray._raylet as r;"
        "os.environ['RAY_handler_warning_timeout_ms'] = '778';"
        "assert r.Config.handler_warning_timeout_ms() == 777;"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.cluster
def test_cluster_that_is_not_there_is_a_sentence() -> None:
    address = f"127.0.0.1:{free_port()}"
    done = start(RAY_ADDRESS=address)
    assert done.returncode == 2, done.stderr
    assert f"try: The Ray cluster {address} of RAY_ADDRESS cannot be joined: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.cluster
def test_cluster_that_is_there_is_joined(ray_cluster: RayCluster) -> None:
    done = start(RAY_ADDRESS=ray_cluster.address, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
def test_a_local_cluster_has_the_cores_that_its_driver_may_use() -> None:
    """As `taskset` and Slurm leave them; Ray counts those of the machine."""
    program = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]);"
        "from jobs.entry.cluster import possible_resources, start_ray; start_ray();"
        "print(possible_resources()['CPU'])"
    )
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1.0"


@pytest.mark.cluster
def test_a_local_cluster_has_no_agent_that_collects_metrics() -> None:
    """Ray's raylet wants one; what stands in for it ends with a driver that is killed."""
    program = (
        "import json, os, signal; from jobs.entry.cluster import start_ray; start_ray();"
        "from benchmarks.process_memory import descendants;"
        "from tests.entry.test_cluster import command_of;"
        "print(json.dumps({pid: command_of(pid) for pid in descendants(os.getpid())}), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        there: dict[str, str] = json.loads(driver.stdout.readline())
    assert not any("DashboardAgent" in command for command in there.values())
    (stand_in,) = (pid for pid, command in there.items() if command.startswith("/bin/sh"))
    deadline = time.monotonic() + 30
    while command_of(stand_in) == there[stand_in]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def command_of(pid: int | str) -> str | None:
    """Return a process' command line; None where it has ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode() or None
    except OSError:
        return None
