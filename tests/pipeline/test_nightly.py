"""The nightly batch where it has nothing to do, and where two nights overlap."""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import ArchiveStatus
from implant_model.package.load import load_package
from jobs.pipeline.plan import make_plan
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.lease import Lease
from jobs.tables.publish import Tables
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult
from tests.support.archive_samples import tar_of
from tests.support.pictures import noise_png
from tests.support.ray_cluster import without_cluster

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def call(tmp_path: Path, small_package: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.tar").write_bytes(tar_of({"1.png": noise_png(1)}))
    output = str(tmp_path / "out")
    return [
        "jobs.classify",
        str(tmp_path / "in"),
        "--output",
        output,
        "--model",
        str(small_package),
    ]


def finish(folder: Path, model: str) -> None:
    """Enters the archives as done, without members, as another night would have."""
    output = storage.normalise(str(folder / "out"))
    tables = Tables(output, RunIdentity(model, "c0", "0.1.0", "last-night"))
    tables.create()
    done = [
        ArchiveResult(archive, ArchiveStatus.COMPLETE, None, "", (), Counts(), NOW, NOW)
        for archive in make_plan([storage.normalise(str(folder / "in"))], tables.records()).todo
    ]
    tables.commit(done)


def test_night_with_nothing_new_ends_in_seconds_and_needs_no_ray(
    tmp_path: Path, small_package: Path, call: list[str]
) -> None:
    finish(tmp_path, load_package(str(small_package)).id)
    before = sorted((tmp_path / "out").rglob("*"))
    metrics = tmp_path / "implant.prom"
    started = time.monotonic()
    more = ["--metrics-file", str(metrics), "--report", str(tmp_path / "report")]
    done = without_cluster(*call, *more)  # no cluster would be found
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert "Nothing to do." in done.stdout
    assert f"Report: {tmp_path / 'report' / 'report.html'}" in done.stdout
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert re.search(r"^implant_run_exit_code\{.*\} 0$", metrics.read_text(), re.MULTILINE)
    assert seconds < 30, "a night with nothing new took long"  # 2 s on an idle machine


def test_nothing_new_imports_neither_ray_nor_torch(
    tmp_path: Path, small_package: Path, call: list[str]
) -> None:
    finish(tmp_path, load_package(str(small_package)).id)
    program = (
        "import sys; from jobs.classify import main; "
        f"code = main({call[1:]!r}); "
        "print(code, sorted({'ray', 'torch'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_second_night_ends_with_75_and_changes_nothing(tmp_path: Path, call: list[str]) -> None:
    output = storage.normalise(str(tmp_path / "out"))
    with Lease(output, "the first night"):
        done = without_cluster(*call)
    assert done.returncode == 75, done.stderr
    assert "Another run (the first night on " in done.stderr
    assert "try again when it has ended" in done.stderr
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written <= {"_lease", "_probe"}
