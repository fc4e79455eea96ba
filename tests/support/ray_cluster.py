"""A Ray cluster of the tests' own, with its job server, and jobs run on it as a user would."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.object_store import ObjectStore, free_port
from tests.support.paths import ROOT

_START_S = 120


@dataclass(frozen=True)
class RayCluster:
    """A running head node.

    Attributes:
        address: Of the cluster.
        jobs: URL of its job server.
        environment: What a driver needs besides, to reach the tests' object store.
        folder: Of its sessions, logs and spilled objects.
    """

    address: str
    jobs: str
    environment: dict[str, str]
    folder: Path

    @property
    def driver_environment(self) -> dict[str, str]:
        """The variables of a driver on this cluster."""
        return {**os.environ, **self.environment, "RAY_ADDRESS": self.address}

    def run(self, *command: str, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
        """Runs `python -m COMMAND` as a driver on this cluster."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.driver_environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Starts `python -m COMMAND` as a driver on this cluster; what it logs can be read."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.driver_environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self, *command: str, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
        """Runs `ray job submit ... -- python -m COMMAND`, the working tree as its working_dir."""
        submit = ["job", "submit", "--address", self.jobs, "--working-dir", str(ROOT)]
        return subprocess.run(
            [_ray(), *submit, "--", "python", "-m", *command],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def run_python(*arguments: str, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
    """Runs Python as a driver that has no cluster yet."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _ray() -> str:
    return str(Path(sys.executable).with_name("ray"))


@contextlib.contextmanager
def running_cluster(
    log: Path, environment: dict[str, str], num_cpus: int = 2
) -> Iterator[RayCluster]:
    """Starts a head node, waits until its job server answers, ends it and what it started.

    It has a temporary folder of its own, of a short name for the sake of its sockets: a submitted
    job looks there for its cluster's address, and under /tmp/ray it finds that of the cluster which
    any other process of the machine started last.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    port, dashboard = free_port(), free_port()
    others = ("ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
    command = [
        *(_ray(), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", "127.0.0.1", f"--port={port}", f"--num-cpus={num_cpus}"),
        *("--dashboard-host", "127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--{name}={free_port()}" for name in others),
        *("--object-store-memory", str(500_000_000), "--temp-dir", folder),
    ]
    variables = {"RAY_AUTH_MODE": "disabled", **environment}
    patience = {"RAY_raylet_start_wait_time_s": str(_START_S)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **variables, **patience, "PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait_until_it_answers(process, f"{url}/api/version", log)
        _wait_until_it_says(process, "Ray runtime started", log)
        yield RayCluster(f"127.0.0.1:{port}", url, variables, Path(folder))
    finally:
        kill_with_descendants(process.pid)  # on SIGTERM it waits half a minute for its node
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except HTTPError:
            return  # it asks for the token
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"Ray did not come up at {url}: {log.read_text()[-2000:]}")


def _wait_until_it_says(process: "subprocess.Popen[bytes]", words: str, log: Path) -> None:
    """The job server answers before the node has a raylet, or has failed to start one."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if words in log.read_text():
            return
        time.sleep(0.2)
    raise RuntimeError(f"Ray did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def ray_cluster(
    object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayCluster]:
    """The session's Ray cluster; its workers reach the session's object store."""
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with running_cluster(log, object_store.environment) as cluster:
        yield cluster


def without_cluster(*command: str) -> "subprocess.CompletedProcess[str]":
    """A command whose mistake is to be found before any cluster is needed."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def descendants(pid: int) -> list[int]:
    """The process's children, and theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(stat.parent.name)
                found += [child, *descendants(child)]
    return found


def kill_with_descendants(pid: int) -> None:
    """Ends a process and all below it at once, as a lost machine would."""
    for each in [pid, *descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
