"""deltalake has a storage client of its own: `delta_options` must take it to the same store."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from implant_model.storage.store import delta_options, list_objects
from implant_model.storage.uri import join, normalise, relative
from tests.support.fault_proxy import Action, Answer, Fault, FaultProxy, Lose

_MODEL = "implants@0123456789ab"
_APPENDS = 5


def _append(uri: str, number: int) -> None:
    rows = pa.table({"number": [number], "model": [_MODEL]})
    write_deltalake(
        uri, rows, mode="append", partition_by=["model"], storage_options=delta_options(uri)
    )


def _rows(uri: str) -> list[int]:
    table = DeltaTable(uri, storage_options=delta_options(uri))
    return sorted(table.to_pyarrow_table()["number"].to_pylist())


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty output on disk, and in a bucket behind the fault proxy."""
    if request.param == "disk":
        return normalise(str(tmp_path / "an output"))
    # The proxy lets one write through at a time: moto's conditional PUT is two steps.
    request.getfixturevalue("fault_proxy")
    return f"s3://{request.getfixturevalue('bucket')}/an output"


def test_a_table_is_made_appended_to_by_two_writers_and_read(output: str) -> None:
    uri = join(output, "predictions")
    _append(uri, -1)

    def write(first: int) -> None:
        for number in range(first, first + _APPENDS):
            _append(uri, number)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [0, 100]))
    expected = [-1, *range(_APPENDS), *range(100, 100 + _APPENDS)]
    assert _rows(uri) == expected
    assert DeltaTable(uri, storage_options=delta_options(uri)).version() == 2 * _APPENDS
    names = [relative(info.uri, uri) for info in list_objects(uri)]
    logs = [f"_delta_log/{version:020}.json" for version in range(2 * _APPENDS + 1)]
    assert [name for name in names if name.startswith("_delta_log/0")] == logs
    assert sum(name.endswith(".parquet") for name in names) == len(expected)


@pytest.mark.parametrize(
    "action",
    [
        Lose(after=True),
        Lose(after=False),
        Answer(500, "InternalError", after=True),
        Answer(503, "SlowDown"),
        Answer(409, "ConditionalRequestConflict"),
    ],
)
def test_a_commit_whose_reply_is_lost_or_bad_neither_loses_nor_doubles_a_row(
    bucket: str, fault_proxy: FaultProxy, action: Action
) -> None:
    uri = f"s3://{bucket}/out/predictions"
    _append(uri, 0)
    fault_proxy.add(Fault("PUT", r"_delta_log/0+1\.json", action))
    _append(uri, 1)
    assert fault_proxy.unused() == []
    assert _rows(uri) == [0, 1]
    commits = fault_proxy.sent("PUT", "_delta_log")
    assert {commit.headers.get("if-none-match") for commit in commits} == {"*"}


def test_wrong_rights_are_an_error_and_no_wait(bucket: str, fault_proxy: FaultProxy) -> None:
    for method in ("PUT", "GET", "HEAD"):
        fault_proxy.add(Fault(method, bucket, Answer(403, "AccessDenied"), times=100))
    with pytest.raises(OSError, match="403|AccessDenied|denied"):
        _append(f"s3://{bucket}/out/predictions", 0)
    assert len(fault_proxy.requests) < 10
