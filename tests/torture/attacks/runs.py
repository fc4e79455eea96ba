"""Runs of `direct` in processes of their own, forked from one that has the libraries loaded."""

import io
import multiprocessing
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

_JOIN_S: Final = 400


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: the signal that killed it), and what it said."""

    code: int | None
    said: str


@dataclass(frozen=True)
class Run:
    """A run of the job in a process of its own.

    Attributes:
        process: The child.
        log: Takes what it states.
    """

    process: BaseProcess
    log: Path

    def end(self) -> Ended:
        """Waits for its end."""
        self.process.join(_JOIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return Ended(None, self.log.read_text())
        return Ended(self.process.exitcode, self.log.read_text())


def start(
    log: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    lease: bool = True,
    file_bytes: int | None = None,
) -> Run:
    """Starts a run.

    Args:
        log: File for what it states.
        arguments: Those of `classify`.
        environment: Variables for the run, beside those of this process's AWS settings.
        lease: Whether it respects and holds the lease of the output.
        file_bytes: Longest file that it may write; None for any.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.attacks.direct"])
    process = context.Process(
        target=_child,
        args=(str(log), list(arguments), dict(environment), lease, file_bytes),
        daemon=True,
    )
    process.start()
    return Run(process, log)


def _child(
    log: str,
    arguments: list[str],
    environment: dict[str, str],
    lease: bool,
    file_bytes: int | None,
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", buffering=0), write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", buffering=0), write_through=True)
    os.environ.update(environment)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    from tests.torture.attacks import direct

    direct.run(arguments, lease=lease)
