"""The Ray cluster of a job: the one it was submitted to, or one of its own.

Ray's native part reads its settings from the environment when it is imported. So they are set here
before that, and this module does not import Ray at its top; a job that has imported Ray before it
calls `start_ray` goes without them.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from implant_model.errors import UsageError
from implant_model.limits import MIB
from implant_model.storage.endpoint import ALLOW_HTTP, KMS_KEY
from jobs.entry.ray_lines import divert, visible
from jobs.entry.ticker import waiting

START_ATTEMPTS: Final = 2
"""The second time, Ray's programs are in the page cache."""
START_S: Final = 150.0
LONGEST_SOCKET: Final = 107
"""Bytes of a socket's path, at most."""
_PROCESSES: Final = ("gcs_server", "raylet", "runtime_env_agent", "dashboard_agent")
_AGENT_PORTS: Final = (
    *("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"),
    "runtime_env_agent_port",
)
_AGENT: Final = "--dashboard_agent_command="
_STAND_IN: Final = "/bin/sh -c 'while kill -0 $PPID 2>/dev/null; do sleep 2; done'"
"""Does nothing as long as its raylet is there, which wants an agent and ends with it."""
_FAULT: Final = re.compile(r" [EF] \d|Check failed|Traceback|Error:")
REACH_S: Final = 10.0
OOM_RETRIES: Final = 3
"""How often a task is repeated that was killed for want of memory; Ray's default is for ever."""
SHARED_VARIABLES: Final = (ALLOW_HTTP, KMS_KEY)
"""Set by options of the driver, and to hold on every node; a local cluster inherits them."""
NODE: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(256 * MIB),
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Settings of the processes of a local cluster; deploy/Dockerfile makes them for others.

The C library keeps the memory of a batch for the next one, since to get it anew from the system
takes a fifth of a small network's time; and in one arena, since each of a worker's many threads
would keep its own. A reader that waits for room in the object store is not ended after a second,
as is Ray's default: the next one takes 2.5 s of a core to start. And no cluster reports its use to
Ray's makers, as one of `ray start` does by default.
"""


def start_ray() -> None:
    """Join the cluster of `RAY_ADDRESS` (`ray job submit` sets it), or start a local one.

    Raises:
        UsageError: The cluster does not answer or does not let this driver in, or no local one
            could be started.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address and (fault := check_sockets()):
        raise UsageError(fault)
    divert()
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_task_oom_retries", str(OOM_RETRIES))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in NODE.items():
        os.environ.setdefault(name, value)
    if not address:
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
    import ray

    if ray.is_initialized():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address:
        _join(address)
    else:
        _start_local()
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, on_sigterm)  # ray.init has put one there that only exits


def possible_resources() -> dict[str, float]:
    """Return what the cluster has, or may have when its autoscaler has added all that it may.

    Of a cluster whose groups of nodes start at none, the first alone is nothing.
    """
    import ray

    there: dict[str, float] = ray.cluster_resources()
    # Ray Data and Ray Train ask the same; there is no public way.
    may_be = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {name: max(there.get(name, 0), may_be.get(name, 0)) for name in {*there, *may_be}}


def may_grow() -> bool:
    """Return whether this cluster may grow: then what it lacks now may still come."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _join(address: str) -> None:
    import ray

    try:
        _reach(address)
        given = {name: os.environ[name] for name in SHARED_VARIABLES if name in os.environ}
        ray.init(
            logging_level=logging.WARNING,
            log_to_driver=False,
            runtime_env={"env_vars": given} if given else None,
        )
    except Exception as error:
        raise UsageError(
            f"The Ray cluster {address} of RAY_ADDRESS cannot be joined: {_first_line(error)} "
            "Check that it runs and that RAY_AUTH_MODE and the token are its own."
        ) from error


def _reach(address: str) -> None:
    """Find in seconds that nothing answers at HOST:PORT, for which Ray takes minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()


def _start_local() -> None:
    import ray

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with _patience(), waiting("Starting Ray"):
                ray.init(address="local", **_cores(), **_LOCAL)
            return
        except Exception as error:  # Ray raises just this if a node takes too long
            ray.shutdown()
            if isinstance(error, OSError) and error.strerror:
                raise UsageError(
                    f"Ray cannot keep its files in {temporary_folder()} ({error.strerror}); set "
                    "RAY_TMPDIR to a folder with room that can be written."
                ) from error
            if attempt == START_ATTEMPTS:
                raise UsageError(
                    f"Ray did not start on this machine in {attempt} attempts: "
                    f"{_first_line(error)}{_culprit()} End what else keeps it busy, and try again."
                ) from error
            visible().write("Ray did not start; once more.\n")


def temporary_folder() -> str:
    """Return the folder below which Ray keeps sessions, sockets and spilled objects."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108


def check_sockets() -> str | None:
    """Return why Ray's sockets cannot be made in its folder, whose path is too long; or None."""
    folder = temporary_folder()
    session = f"/ray/session_2026-11-29_08-37-04_437064_{os.getpid()}"
    room = LONGEST_SOCKET - len(f"{session}/sockets/plasma_store")
    if len(os.fsencode(folder)) <= room:
        return None
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    return (
        f"{name} is {folder}, {len(os.fsencode(folder))} bytes long; Ray's sockets leave room for "
        f"{room}. Set RAY_TMPDIR to a short path, such as /tmp."
    )


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Have Ray start on a busy machine: no part of it waits for another for a fixed time.

    The driver waits START_S for its node, for 30 s in Ray. The raylet ends itself where agents have
    not told it their ports within 15 s each, so they are told theirs beforehand, and it does not
    wait. What a cluster for one job has no use for is left out, 5 s of CPU at the start and 0.4 GB:
    the autoscaler's monitor, the one of logs, which are not sent to the driver, the dashboard's
    server, and its agent, which would collect metrics for nobody.
    """
    from ray._private import services, utils
    from ray._private.node import Node

    get_node: Callable[..., Any] = services.get_node
    start_raylet: Callable[..., Any] = services.start_raylet
    start_process: Callable[..., Any] = services.start_ray_process
    deadline = time.monotonic() + START_S

    def get_node_when_it_is_there(*where: Any) -> Any:
        while True:
            try:
                return get_node(*where)
            except RuntimeError:
                if time.monotonic() > deadline or _raylet_died():
                    raise
                time.sleep(0.5)

    def start_raylet_with_ports(*where: Any, **options: Any) -> Any:
        ports = dict(zip(_AGENT_PORTS, _free_ports(len(_AGENT_PORTS)), strict=True))
        listen = f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"

        def start(command: list[str], *rest: Any, **how: Any) -> Any:
            kept = [part for part in command if not part.startswith(_AGENT)]
            return start_process([*kept, _AGENT + _STAND_IN, listen], *rest, **how)

        with _replaced(services, "start_ray_process", start):
            return start_raylet(*where, **{**options, **ports})

    with (
        _replaced(services, "get_node", get_node_when_it_is_there),
        _replaced(services, "start_raylet", start_raylet_with_ports),
        _replaced(utils, "set_sigterm_handler", lambda handler: None),  # run_command has one
        _replaced(Node, "start_monitor", lambda node: None),
        _replaced(Node, "start_log_monitor", lambda node: None),
        _replaced(Node, "start_api_server", lambda node, **options: None),
    ):
        yield


@contextlib.contextmanager
def _replaced(module: object, name: str, other: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, before)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _raylet_died() -> bool:
    """Whether a raylet that this process started has ended: it comes up no more."""
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            with contextlib.suppress(OSError):
                name, _, state = Path(f"/proc/{child}/stat").read_text().rpartition(")")
                if name.endswith("(raylet") and state.split()[0] == "Z":
                    return True
    return False


def _culprit() -> str:
    """Return which of Ray's processes left a fault in its log, and the log's last line."""
    folder = Path(temporary_folder()) / "ray"
    sessions = sorted(folder.glob(f"session_*_{os.getpid()}"))  # session_latest is anybody's
    if not sessions:
        return f" It left no logs in {folder}."
    logs = sessions[-1] / "logs"
    for name in _PROCESSES:
        faults = [line for file in (f"{name}.err", f"{name}.out") for line in _faults(logs / file)]
        if faults or not any(logs.glob(f"{name}.*")):
            told = next((line for line in faults if _FAULT.search(line)), "".join(faults[-1:]))
            said = f"has: {told!r}" if faults else "is not there"
            return f" Its process {name} did not come up: its log in {logs} {said}."
    return f" Its logs are in {logs}."


def _faults(log: Path) -> list[str]:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    is_errors = log.suffix == ".err"
    return [line.strip()[:300] for line in lines if line and (is_errors or _FAULT.search(line))]


def _cores() -> dict[str, Any]:
    """Ray counts the machine's cores, those too that this process may not use (taskset, Slurm)."""
    may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {} if may_use in (None, os.cpu_count()) else {"num_cpus": may_use}


_LOCAL: Final[dict[str, Any]] = {
    "include_dashboard": False,
    "logging_level": logging.WARNING,
    "log_to_driver": False,
}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."


def place_workers(workers: int, say: Callable[[str], None]) -> bool:
    """Find room for workers, each of which holds one GPU or one CPU from beginning to end.

    Args:
        workers: Of one training, at least.
        say: Gets a line where the cluster must grow first: Ray waits for that without end.

    Returns:
        Whether they hold GPUs: where the cluster has one for each.

    Raises:
        UsageError: There is no room for them, nor will there be.
    """
    import ray

    if ray.cluster_resources().get("GPU", 0) >= workers:
        return True
    cpus = possible_resources().get("CPU", 0)
    if cpus >= workers:
        return False
    if not may_grow():
        raise UsageError(
            f"--workers {workers} ask for a CPU each, and this machine has {cpus:g}; ask for no "
            "more than that, or submit the training to a cluster."
        )
    say(
        f"--workers {workers} ask for a CPU each, and the cluster has {cpus:g}: nothing is trained "
        "until it has grown; if it cannot, stop this and ask for fewer."
    )
    return False
