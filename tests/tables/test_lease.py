import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import BusyError
from jobs.tables import lease
from jobs.tables.lease import Lease


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "WATCH_S", 1.0)
    return storage.normalise(str(tmp_path))


def held(output: str, **changes: object) -> None:
    """Writes the lease of some other run."""
    found = {"state": "held", "run": "other", "beat": 1, "host": "elsewhere", "pid": 1, **changes}
    storage.overwrite(storage.join(output, "_lease"), json.dumps(found).encode())


def state(output: str) -> str:
    found: str = json.loads(storage.read_bytes(storage.join(output, "_lease")))["state"]
    return found


def test_lease_is_renewed_while_it_is_held_and_free_afterwards(output: str) -> None:
    with Lease(output, "run-1"):
        first = storage.read_bytes(storage.join(output, "_lease"))
        time.sleep(0.5)
        assert storage.read_bytes(storage.join(output, "_lease")) != first
        assert state(output) == "held"
    assert state(output) == "free"


def test_second_run_is_told_which_run_holds_the_output(output: str) -> None:
    with Lease(output, "run-1"), pytest.raises(BusyError, match=r"run-1 .* is writing"):
        Lease(output, "run-2").__enter__()


def test_lease_that_does_not_change_is_that_of_a_dead_run(output: str) -> None:
    held(output)
    started = time.monotonic()
    with Lease(output, "run-2"):
        assert time.monotonic() - started >= lease.WATCH_S
        assert state(output) == "held"


def test_lease_of_a_dead_process_of_this_host_is_taken_at_once(output: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    held(output, host=os.uname().nodename, pid=process.pid)
    started = time.monotonic()
    with Lease(output, "run-2"):
        assert time.monotonic() - started < lease.WATCH_S


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"state": "held"}'])
def test_damaged_lease_protects_nothing(output: str, damage: bytes) -> None:
    storage.overwrite(storage.join(output, "_lease"), damage)
    with Lease(output, "run-2"):
        assert state(output) == "held"
