"""Attacks by the system: SIGTERM, a full disk, files that may not grow, no temporary folder."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from jobs.entry.command import INCOMPLETE, OK, USAGE
from jobs.tables.verification import verify_output
from tests.support.fault_proxy import Fault, First
from tests.torture.attacks import runs
from tests.torture.attacks.kills import spread
from tests.torture.attacks.runs import Run
from tests.torture.attacks.stage import Stage, first_archive, read_tables
from tests.torture.tally import Tally

GRACE_S: Final = 30
"""What schedulers give between SIGTERM and SIGKILL."""


def terminate_at_requests(stage: Stage, *, thorough: bool = False) -> Tally:
    """SIGTERM at requests to the store: code 3 within the grace, and the next run goes on."""
    tally = Tally("SIGTERM at requests to the store")
    expected, requests = stage.alone
    longest = 0.0
    for number in spread(len(requests), len(requests) // 3 if thorough else 3):
        run: list[Run] = []
        output = stage.new_output()
        stage.proxy.reset()
        stage.proxy.add(Fault("*", "", First(partial(_terminate, run)), skip=number))
        begun = time.monotonic()
        run.append(stage.start(output))
        ended = run[0].end()
        longest = max(longest, time.monotonic() - begun)
        case = f"request {number}"
        tally.check(f"{case}, exit code", ended.code in (OK, INCOMPLETE), ended)
        tally.check(f"{case}, message", "Traceback" not in ended.said, ended.said[-400:])
        stage.check_after(tally, case, output, expected)
    tally.check("grace", longest < GRACE_S, f"{longest:.0f} s")
    tally.note = f"{longest:.1f} s at most, the run before it included"
    return tally


def _terminate(run: list[Run]) -> None:
    if run and run[0].process.pid is not None:
        os.kill(run[0].process.pid, signal.SIGTERM)


def full_disk(folder: Path, model: Path, *, thorough: bool = False) -> Tally:
    """Disks of several sizes; whole units or none, and all of it once there is room.

    Where this user may mount, a disk is a tmpfs; else the process may write no longer files.
    """
    tally = Tally("full disk")
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.tar").write_bytes(first_archive())
    whole = _run(folder, model, folder / "whole")
    tally.equal("with room", whole.code, OK)
    expected = read_tables((folder / "whole").as_uri())
    for kilobytes in (20, 44, 60, 72, 84, 100) if thorough else (44, 72):
        place = folder / f"disk-{kilobytes}"
        with _disk(place, kilobytes) as may_mount:
            most = None if may_mount else 100 * kilobytes
            ended = _run(folder, model, place / "out", most)
            case = f"{kilobytes} kB" if may_mount else f"files of {most} bytes"
            tally.check(f"{case}, exit code", ended.code in (OK, USAGE, INCOMPLETE), ended)
            tally.check(f"{case}, message", "Traceback" not in ended.said, ended.said[-600:])
            if may_mount:
                subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
            again = _run(folder, model, place / "out")
            tally.check(f"{case}, with room", again.code == OK, again)
            if again.code == OK:
                output = (place / "out").as_uri()
                tally.equal(f"{case}, verify", verify_output(output).findings, ())
                tally.check(f"{case}, tables", read_tables(output) == expected, "other rows")
    return tally


def no_temporary_folder(folder: Path, model: Path) -> Tally:
    """A temporary folder in which nothing can be made."""
    tally = Tally("temporary folder that may not be written")
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.tar").write_bytes(first_archive())
    ended = _run(folder, model, folder / "out", TMPDIR="/proc/none", TEMP="/proc/none")
    tally.equal("exit code", (ended.code, "Traceback" in ended.said), (OK, False))
    tally.equal("verify", verify_output((folder / "out").as_uri()).findings, ())
    return tally


def _run(
    folder: Path, model: Path, output: Path, file_bytes: int | None = None, **environment: str
) -> runs.Ended:
    log = folder / f"{time.monotonic_ns()}.log"
    arguments = [str(folder / "in"), "--output", str(output), "--model", str(model)]
    return runs.start(log, arguments, environment, file_bytes=file_bytes).end()


@contextlib.contextmanager
def _disk(place: Path, kilobytes: int) -> Iterator[bool]:
    """A disk of that size at a folder; False where this user may not mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
