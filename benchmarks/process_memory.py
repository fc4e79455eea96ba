"""Memory of a job's processes while it runs, from Linux's /proc: anonymous bytes, and shared ones.

Anonymous memory (`Pss_Anon` and `SwapPss` of `smaps_rollup`) is what processes have allocated, and
what only their end gives back. Pages of libraries are no part of it: Linux drops them at need, and
whether a process has them to itself changes as others come and go (the unique set of a classifier
rose by 150 MB in two minutes, while what it had allocated stayed the same). Ray's object store is
counted by the pages of its file in /dev/shm: those that were ever used, so that the figure only
grows, and is never less than what is in use.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
ROLES: Final = ("driver", "worker", "decoder", "store")
_ANONYMOUS: Final = re.compile(rb"^(?:Pss_Anon|SwapPss): +(\d+) kB$", re.MULTILINE)
_KIB: Final = 1024
_BLOCK: Final = 512  # the unit of st_blocks


@dataclass
class Peaks:
    """Largest values seen, in bytes.

    Attributes:
        total: Sum over the workers and decoding processes at one moment.
        largest: One worker or decoding process.
        by_role: Sum over the processes of each role at one moment; `store` is the object store.
        processes: Workers and decoding processes at one moment.
        samples: How often was looked.
    """

    total: int = 0
    largest: int = 0
    by_role: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    processes: int = 0
    samples: int = 0

    def add(self, sample: dict[str, list[int]]) -> None:
        """Take in one look at all processes: bytes of each, by role."""
        tasks = [*sample["worker"], *sample["decoder"]]
        self.total = max(self.total, sum(tasks))
        self.largest = max([self.largest, *tasks])
        self.processes = max(self.processes, len(tasks))
        self.samples += 1
        for role, values in sample.items():
            self.by_role[role] = max(self.by_role[role], sum(values))


def look(driver: int) -> dict[str, list[int]]:
    """Return bytes of a job's processes at this moment, by role.

    Args:
        driver: Process id of the job; its Ray cluster is below it.
    """
    sample: dict[str, list[int]] = {role: [] for role in ROLES}
    for pid in descendants(driver):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            role = (
                "driver" if pid == driver else role_of((PROC / str(pid) / "cmdline").read_bytes())
            )
            if role is not None:
                measure = _store if role == "store" else _anonymous
                sample[role].append(measure(pid))
    return sample


def role_of(command: bytes) -> str | None:
    """Return what a process of the job is by its command line; None for Ray's own services.

    Ray's agent for environments and its actors have names as workers have, and count as such.
    """
    if command.startswith(b"ray::"):
        return "worker"
    if b"implant_model.decode.sandbox" in command:
        return "decoder"
    if command.split(b"\0")[0].endswith(b"/raylet"):
        return "store"
    # A worker before its first task still bears the name of the script that it was started by.
    return "worker" if b"default_worker.py" in command else None


def descendants(root: int) -> Iterator[int]:
    """Yield the process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (name) state ppid ...", and the name may hold anything.
                after_name = (entry / "stat").read_bytes().rpartition(b")")[2]
                children.setdefault(int(after_name.split()[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _anonymous(pid: int) -> int:
    rollup = (PROC / str(pid) / "smaps_rollup").read_bytes()
    return _KIB * sum(map(int, _ANONYMOUS.findall(rollup)))


def _store(pid: int) -> int:
    """Pages of the shared memory files that a raylet holds open; a file in /dev/shm is sparse."""
    held = 0
    for link in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(link).startswith("/dev/shm/"):
                held += _BLOCK * link.stat().st_blocks
    return held
