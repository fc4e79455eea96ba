"""A training that runs, looked at from outside: its epochs, and the processes that fit."""

import contextlib
import json
from pathlib import Path

from tests.support.ray_cluster import descendants


def epochs_of(work: Path) -> list[int]:
    """The epochs that a training has written to its working folder, in their order."""
    curves = list(work.glob("*.jsonl"))
    lines = curves[0].read_text().split("\n")[:-1] if curves else []
    return [json.loads(line)["epoch"] for line in lines]


def train_workers(pid: int) -> list[int]:
    """Those descendants of a process that fit a network."""
    found = []
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{child}/cmdline").read_bytes()
            found += [child] if b"RayTrainWorker" in title else []
    return found
