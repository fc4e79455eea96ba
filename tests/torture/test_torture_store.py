"""Attacks on publication: the store fails, the job is killed, archives change; `tests.torture`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import AccessDeniedError, ArchiveReason, ChangedError, StorageError
from jobs.pipeline.plan import make_plan
from jobs.tables.state.record_index import Records
from tests.support.fault_proxy import Answer, Fault, FaultProxy, Flip
from tests.support.object_store import ObjectStore
from tests.support.paths import ROOT
from tests.torture.attacks import kills, store_faults, system
from tests.torture.attacks.stage import Stage, first_archive
from tests.torture.cases.classes import SITUATIONS
from tests.torture.tally import Tally


@pytest.fixture(scope="module")
def stage(
    object_store: ObjectStore,
    shared_fault_proxy: FaultProxy,
    small_package: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stage:
    folder = tmp_path_factory.mktemp("stage")
    bucket = object_store.new_bucket()
    return Stage(object_store, shared_fault_proxy, folder, small_package, bucket)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(kills.kill_at_each_request, marks=pytest.mark.long),
        pytest.param(store_faults.fault_on_each_kind, marks=pytest.mark.long),
        pytest.param(store_faults.runs_at_once, marks=pytest.mark.slow),
        store_faults.second_run_is_refused,
        pytest.param(store_faults.archive_changes, marks=pytest.mark.slow),
        store_faults.store_that_overwrites,
        pytest.param(system.terminate_at_requests, marks=pytest.mark.slow),
    ],
)
def test_tables_are_those_of_a_run_that_was_left_alone(
    stage: Stage, attack: Callable[[Stage], Tally]
) -> None:
    tally = attack(stage)
    assert tally.tried >= 3
    assert tally.failures == []


@pytest.mark.slow
def test_full_disk_leaves_whole_units_or_none(tmp_path: Path, small_package: Path) -> None:
    tally = system.full_disk(tmp_path, small_package)
    assert tally.tried >= 8
    assert tally.failures == []


def test_job_needs_no_temporary_folder(tmp_path: Path, small_package: Path) -> None:
    assert system.no_temporary_folder(tmp_path, small_package).failures == []


def test_ray_without_a_folder_is_a_sentence(tmp_path: Path, small_package: Path) -> None:
    (tmp_path / "a.tar").write_bytes(first_archive())
    environment = {**os.environ, "RAY_TMPDIR": "/dev/null/none"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jobs.classify", str(tmp_path / "a.tar")),
            *("--output", str(tmp_path / "out"), "--model", str(small_package)),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "set RAY_TMPDIR to a folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "predictions").exists()


# --- classes 108 and 110 to 112: what a store shows ----------------------------------------------


def test_108_archive_replaced_while_it_is_read(stage: Stage) -> None:
    info = storage.stat(f"s3://{stage.bucket}/in/a.tar")
    stage.put("in/a.tar", first_archive(70))
    with storage.open_object(info) as reader, pytest.raises(ChangedError):
        list(reader.stream())
    stage.put("in/a.tar", first_archive())


@pytest.mark.parametrize(
    "key", ["a b.tar", "ü.tar", "a+b.tar", "a%2Fb.tar", "a//b.tar", "a?b#.tar"]
)
def test_110_odd_keys(stage: Stage, key: str) -> None:
    stage.put(f"odd/{key}", b"an archive")
    stage.put("odd/folder/", b"")
    (planned,) = [
        a for a in make_plan([f"s3://{stage.bucket}/odd"], Records.of()).todo if a.name == key
    ]
    with storage.open_object(planned.info) as reader:
        assert b"".join(reader.stream()) == b"an archive"
    assert all(
        not a.name.endswith("/") for a in make_plan([f"s3://{stage.bucket}/odd"], Records.of()).todo
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (403, "InvalidObjectState"), (400, "KMS.DisabledException")],
)
def test_111_access_denied(stage: Stage, fault_proxy: FaultProxy, status: int, code: str) -> None:
    info = storage.stat(f"s3://{stage.bucket}/in/a.tar")
    fault_proxy.add(Fault("GET", "in/a.tar", Answer(status, code)))
    with storage.open_object(info) as reader, pytest.raises(AccessDeniedError) as caught:
        list(reader.stream())
    assert caught.value.reason is ArchiveReason.ACCESS_DENIED


def test_112_wrong_check_sum(stage: Stage, fault_proxy: FaultProxy) -> None:
    stage.store.client().put_object(
        Bucket=stage.bucket, Key="summed", Body=b"content" * 9, ChecksumAlgorithm="SHA256"
    )
    info = storage.stat(f"s3://{stage.bucket}/summed")
    fault_proxy.add(Fault("GET", "summed", Flip(3), times=100))
    with storage.open_object(info) as reader, pytest.raises(StorageError, match="broken"):
        list(reader.stream())


def test_each_situation_has_its_test() -> None:
    tested = {int(name.split("_")[1]) for name in globals() if name.startswith("test_1")}
    assert tested == set(SITUATIONS)
