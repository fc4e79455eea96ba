"""Where publication is attacked: archives in a bucket, a proxy that fails, runs, tables.

`a.tar` has two units, so that its files are its own; the small ones share a file, see `publisher`.
"""

import functools
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from implant_model import storage
from jobs.tables import delta
from jobs.tables.schema import ARCHIVES, PREDICTIONS
from jobs.tables.verification import verify_output
from tests.support.archive_samples import tar_of, zip_of
from tests.support.fault_proxy import FaultProxy, Request
from tests.support.object_store import ObjectStore
from tests.torture.attacks import runs
from tests.torture.cases.files import png
from tests.torture.tally import Tally

_OF_A_RUN = ("run", "started_at", "finished_at", "attempt")
"""Columns of `archives` that differ between runs that do the same: a second attempt at an archive
that failed before is the same rows in files of other names."""

_FLOATS = ("probability", "novelty")
"""Equal to 3 digits: a run that adopts units classifies the others in batches of another size, in
which a network's sums round otherwise."""

Tables = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@dataclass
class Stage:
    """A bucket with archives and a radiograph, and outputs beside them, one for each attack.

    Attributes:
        store: Holds the bucket.
        proxy: In front of it, for the runs; this process reaches the store itself.
        folder: For what the runs say.
        model: The package's folder.
        bucket: Its name.
    """

    store: ObjectStore
    proxy: FaultProxy
    folder: Path
    model: Path
    bucket: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.put("in/a.tar", first_archive())
        self.put("in/b.zip", zip_of([("z.png", png(9)), ("note.txt", b"no picture")]))
        self.put("in/c.png", png(12))

    def put(self, key: str, data: bytes) -> None:
        """Writes an object past the proxy."""
        self.store.client().put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Deletes an object past the proxy."""
        self.store.client().delete_object(Bucket=self.bucket, Key=key)

    def new_output(self) -> str:
        """An output that nobody has written to."""
        return f"s3://{self.bucket}/out-{next(self._numbers):05}"

    def start(self, output: str, *, lease: bool = True, **environment: str) -> runs.Run:
        """Starts the job on the archives, through the proxy."""
        log = self.folder / f"{next(self._numbers):05}.log"
        arguments = [f"s3://{self.bucket}/in", "--output", output, "--model", str(self.model)]
        variables = {**self.store.environment, "AWS_ENDPOINT_URL": self.proxy.endpoint}
        return runs.start(
            log, [*arguments, "--identifiers", "keep"], {**variables, **environment}, lease=lease
        )

    def run(self, output: str) -> runs.Ended:
        """Runs the job to its end, undisturbed."""
        self.proxy.reset()
        return self.start(output).end()

    def check_after(self, tally: Tally, case: str, output: str, expected: Tables) -> None:
        """Runs the job once more: it must end well and leave the tables as they should be."""
        ended = self.run(output)
        if ended.code != 0:
            tally.check(case, False, f"the next run ended with {ended.code}: {ended.said[-300:]}")
            return
        findings = verify_output(output).findings
        tally.check(case, not findings, "; ".join(findings))
        tally.check(f"{case}, tables", read_tables(output) == expected, "other rows")

    @functools.cached_property
    def alone(self) -> tuple[Tables, list[Request]]:
        """The tables of a run that was left alone, and the requests that it made."""
        output = self.new_output()
        ended = self.run(output)
        if ended.code != 0:
            raise RuntimeError(f"An undisturbed run ended with {ended.code}: {ended.said}")
        return read_tables(output), list(self.proxy.requests)


def first_archive(seed: int = 0) -> bytes:
    """A tar of two units."""
    return tar_of([(f"{n}.png", png(seed + n)) for n in range(4)])


def read_tables(output: str) -> Tables:
    """The rows of both tables, in order, without what differs between runs."""
    predictions, archives = (_rows(output, table) for table in (PREDICTIONS, ARCHIVES))
    for row in archives:
        for column in _OF_A_RUN:
            row.pop(column)
        row["units"] = [(unit["first_member"], unit["members"]) for unit in row["units"]]
    for row in predictions:
        for column in _FLOATS:
            row[column] = _rounded(row[column])
        row["top"] = [(t["implant"], _rounded(t["probability"])) for t in row["top"] or []]
    return predictions, archives


def _rows(output: str, table: str) -> list[dict[str, Any]]:
    opened = delta.open_table(storage.join(output, table))
    rows = [] if opened is None else delta.read_rows(opened)
    return sorted(rows, key=_key)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["archive"], row["archive_version"], row.get("member_index", 0)


def kill(run: list[runs.Run]) -> None:
    """Ends a run as `kill -9` does; for the proxy, which may be called before it is known."""
    if run and run[0].process.pid is not None:
        os.kill(run[0].process.pid, 9)
