"""Workbenches under a test client and as servers of their own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.deciding.decisions import DecisionTable
from jobs.reviewing.cases import open_audit
from jobs.reviewing.endpoints import Endpoints
from jobs.reviewing.guard import CSRF_HEADER, Guard
from jobs.reviewing.heat import Heat
from jobs.reviewing.originals import Originals
from jobs.reviewing.serve import neighbours_of, preprocessing_of
from jobs.reviewing.workbench import Workbench
from tests.support.paths import ROOT
from tests.support.workbench.review_samples import Reviewed

ADDRESS = "http://127.0.0.1:8700"


@dataclass
class Opened:
    """A workbench and a client that has its cookie."""

    bench: Workbench
    guard: Guard
    client: TestClient

    @property
    def secret(self) -> dict[str, str]:
        return {CSRF_HEADER: self.guard.csrf}


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    """A command in the test's own process masks the files of the tests behind it, too."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def open_bench() -> Iterator[Callable[..., Opened]]:
    with contextlib.ExitStack() as stack:

        def opened(made: Reviewed, table: Path, reader: str = "Ann") -> Opened:
            audit = open_audit(made.folder, None, str(made.package), [])
            originals = stack.enter_context(Originals(preprocessing_of(audit)))
            bench, guard = Workbench(audit, DecisionTable(table), originals, reader), Guard()
            stack.callback(bench.close)
            heat = Heat(audit.package)
            neighbours = neighbours_of(audit.package, heat)
            application = Endpoints(bench, guard, heat, neighbours).application()
            client = TestClient(application, base_url=ADDRESS, raise_server_exceptions=True)
            client.get(f"/?token={guard.token}")
            return Opened(bench, guard, client)

        yield opened


@contextlib.contextmanager
def serving(
    made: Reviewed, reader: str, *more: str
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Runs `jobs.review` as a reader does; gives its address with the token, and its process."""
    with listening_to([*made.call, "--reviewer", reader, *more]) as found:
        yield found


@contextlib.contextmanager
def listening_to(call: list[str]) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Runs `jobs.review` of this call, likewise."""
    command = [sys.executable, "-m", "jobs.review", *call]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            address = next(m[0] for line in lines if (m := re.search(r"http://\S+", line)))
            yield address, process
        finally:
            process.terminate()
            process.wait(30)
