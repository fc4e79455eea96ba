"""The benchmark's look at the memory of processes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from benchmarks.process_memory import Peaks, _store, descendants, look, role_of

CHILD = """
import sys
block = b"x" * int(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""
PARENT = """
import subprocess, sys
block = b"x" * int(sys.argv[1])
command = [sys.executable, "-c", sys.argv[2], sys.argv[1], "implant_model.decode.sandbox"]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    print(child.stdout.readline(), flush=True)
    sys.stdin.read()
"""
SIZE = 40_000_000


@pytest.fixture
def family() -> Iterator[int]:
    """A process of 40 MB with a child of 40 MB that looks like a decoding process; the parent."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(SIZE), CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_memory_of_a_process_and_its_child_is_seen(family: int) -> None:
    sample = look(family)
    assert [len(sample[role]) for role in ("driver", "decoder", "worker", "store")] == [1, 1, 0, 0]
    for role in ("driver", "decoder"):
        assert SIZE < sample[role][0] < 2 * SIZE


def test_descendants_are_all_below_and_no_others(family: int) -> None:
    assert len(list(descendants(family))) == 2
    assert set(descendants(family)) < set(descendants(os.getpid()))


def test_process_that_has_gone_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert look(process.pid) == {"driver": [], "worker": [], "decoder": [], "store": []}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (b"ray::ReadArchiveSource\0\0", "worker"),
        (b"ray::IDLE\0", "worker"),
        (b"/x/python\0/x/ray/_private/workers/default_worker.py\0--node-ip-address=", "worker"),
        (b"/x/python\0-m\0implant_model.decode.sandbox\015", "decoder"),
        (b"/x/ray/core/src/ray/raylet/raylet\0--raylet_socket_name=", "store"),
        (b"/x/ray/core/src/ray/gcs/gcs_server\0--log_dir=", None),
        (b"", None),
    ],
)
def test_role_follows_from_the_command_line(command: bytes, role: str | None) -> None:
    assert role_of(command) == role


def test_object_store_is_measured_by_its_used_pages() -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as store:
        store.truncate(1 << 30)
        before = _store(os.getpid())
        store.write(b"x" * SIZE)
        store.flush()
        assert SIZE <= _store(os.getpid()) - before < SIZE + 100_000


def test_peaks_are_of_one_moment() -> None:
    peaks = Peaks()
    peaks.add({"driver": [5], "worker": [10, 20], "decoder": [1], "store": [7]})
    peaks.add({"driver": [6], "worker": [25], "decoder": [], "store": [9]})
    assert (peaks.total, peaks.largest, peaks.processes, peaks.samples) == (31, 25, 3, 2)
    assert peaks.by_role == {"driver": 6, "worker": 30, "decoder": 1, "store": 9}
