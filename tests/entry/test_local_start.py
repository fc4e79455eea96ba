"""A Ray of the job's own: what keeps it from starting, and how that reads."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private import services

from jobs.entry import cluster
from tests.support.paths import ROOT


def test_a_folder_too_long_for_sockets_is_refused_before_ray_is_imported() -> None:
    program = (
        "import sys\n"
        "from jobs.entry.cluster import start_ray\n"
        "try: start_ray()\n"
        "except Exception as error: print(error)\n"
        "assert 'ray' not in sys.modules\n"
    )
    folder = "/tmp/" + "long" * 20
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"TMPDIR": folder, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"TMPDIR is {folder}, 85 bytes long; Ray's sockets leave room")
    assert done.stdout.endswith("Set RAY_TMPDIR to a short path, such as /tmp.\n")


def test_the_longest_folder_is_the_one_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray makes its sessions' names of date, time and process id."""
    from ray._private.utils import validate_socket_filepath

    for length in range(20, 80):
        folder = "/tmp/".ljust(length, "x")
        monkeypatch.setenv("RAY_TMPDIR", folder)
        session = f"{folder}/ray/session_2026-11-29_08-37-04_437064_{os.getpid()}"
        try:
            validate_socket_filepath(f"{session}/sockets/plasma_store")
        except OSError:
            assert cluster.check_sockets() is not None
        else:
            assert cluster.check_sockets() is None


def test_a_node_that_is_slow_to_register_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError(), RuntimeError(), {"node": 1}])

    def slow(*_: object) -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(services, "get_node", slow)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with cluster._patience():
        assert services.get_node("address", "id") == {"node": 1}
    assert services.get_node is slow


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda logs: None, "process gcs_server did not come up: its log in {logs} is not there"),
        (
            lambda logs: (logs / "gcs_server.err").write_text("x\nCannot bind.\n"),
            "process gcs_server did not come up: its log in {logs} has: 'Cannot bind.'",
        ),
        (
            lambda logs: [
                (logs / f"{name}.out").write_text("[I 1] well\n" + more)
                for name, more in (("gcs_server", ""), ("raylet", "[2026 E 7] no room\n"))
            ],
            "process raylet did not come up: its log in {logs} has: '[2026 E 7] no room'",
        ),
        (
            lambda logs: [
                (logs / "gcs_server.out").write_text("[I 1] well\n"),
                (logs / "raylet.err").write_text(
                    "[C 1] Check failed: no port\n*** frame\n frame\n"
                ),
            ],
            "process raylet did not come up: its log in {logs} has: '[C 1] Check failed: no port'",
        ),
        (
            lambda logs: [
                (logs / f"{name}.out").write_text("[I 1] well\n") for name in cluster._PROCESSES
            ],
            "Its logs are in {logs}",
        ),
    ],
)
def test_the_process_that_did_not_come_up_is_named(
    write: Callable[[Path], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "ray" / f"session_2026_{os.getpid()}" / "logs"
    logs.mkdir(parents=True)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    write(logs)
    assert words.format(logs=logs) in cluster._culprit()


def test_session_of_another_process_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray" / "session_2026_1" / "logs").mkdir(parents=True)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._culprit() == f" It left no logs in {tmp_path / 'ray'}."


def test_a_raylet_that_has_ended_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> object:
        raise RuntimeError

    (tmp_path / "raylet").symlink_to("/bin/true")
    monkeypatch.setattr(services, "get_node", gone)
    process = subprocess.Popen([tmp_path / "raylet"])
    try:
        with cluster._patience(), pytest.raises(RuntimeError):
            services.get_node("address", "id")
    finally:
        process.wait()


def test_agents_are_told_their_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def start_raylet(**ports: int) -> dict[str, int]:
        services.start_ray_process(["raylet", *map(str, ports.values())], "raylet", True)
        return ports

    commands: list[list[str]] = []
    monkeypatch.setattr(services, "start_raylet", start_raylet)
    monkeypatch.setattr(services, "start_ray_process", lambda command, *_: commands.append(command))
    with cluster._patience():
        start: Callable[..., dict[str, int]] = services.start_raylet
        ports = start(metrics_agent_port=0)
    assert len(set(ports.values()) - {0}) == 4
    assert (
        commands[0][-1] == f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"
    )
