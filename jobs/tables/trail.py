"""The audit trail of an output: what each run did, each record with the hash of the one before.

`OUTPUT/trail/00000000.json`, `00000001.json`, ... are put once each, in order: a run appends one
record when it begins to write and one when it ends, so that a run that was killed is seen by what
it lacks. A record that is changed, taken out or put in breaks the chain behind it; one that is cut
off at the end is missed by the rows of `archives`, which name their runs. Which archives a run
settled, by version, is in `OUTPUT/trail/RUN.parquet`, whose hash is in the record.
"""

import hashlib
import json
import os
import pwd
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import NotFoundError, StorageError
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult
from jobs.tables.schema import SCHEMA_VERSION

TRAIL: Final = "trail"
APPEND_ATTEMPTS: Final = 50
_FIRST: Final = "0" * 64
_MAX_RECORD: Final = 1 << 20
_SETTLED: Final = pa.schema(
    [
        pa.field("archive", pa.string(), nullable=False),
        pa.field("archive_version", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("members", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class RunFacts:
    """What a run is, as its records state it.

    Attributes:
        run: Its identity, as in the table `archives`.
        model: The package's `name@hash`.
        configuration_hash: Of all that decides what its rows say.
        software_version: Of this software.
        identifiers: What is done with them.
        key_id: Of the pseudonyms' key, or None.
        inputs: Normalised URIs.
        planned: Archives to read.
    """

    run: str
    model: str
    configuration_hash: str
    software_version: str
    identifiers: str
    key_id: str | None
    inputs: tuple[str, ...]
    planned: int


class Trail:
    """One run's part of an output's trail.

    Args:
        output: Normalised URI.
        facts: Of the run.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        self._output = output
        self._facts = facts
        self._begun = False

    @property
    def run(self) -> str:
        """Return the run's identity."""
        return self._facts.run

    def begin(self) -> None:
        """Append that the run begins to write.

        Raises:
            StorageError: The trail cannot be read or written.
        """
        _append(self._output, {"event": "begin", **_who(), **asdict(self._facts)})
        self._begun = True

    def end(self, results: Sequence[ArchiveResult], code: int) -> None:
        """Append what the run has settled, and its exit code.

        Raises:
            StorageError: The trail cannot be read or written.
        """
        settled = _settled_file(results)
        name = f"{self._facts.run}.parquet"
        if results:
            storage.put_if_absent(storage.join(self._output, TRAIL, name), settled)
        counts = Counts.total(result.counts for result in results)
        record = {
            "exit_code": code,
            "archives": dict(Counter(str(result.status) for result in results)),
            "members": {str(outcome): count for outcome, count in counts.outcomes.items()},
            "settled": {"file": name, "sha256": _hash(settled)} if results else None,
        }
        _append(self._output, {"event": "end", **_who(), **asdict(self._facts), **record})

    def break_off(self, error: BaseException) -> None:
        """Append that a run which had begun ended by an error, named by its kind alone."""
        if not self._begun:
            return
        record = {"exit_code": None, "error": type(error).__name__}
        try:
            _append(self._output, {"event": "end", **_who(), **asdict(self._facts), **record})
        except StorageError:
            return  # the record of its begin shows that it has no end


def check_trail(output: str, begun: Mapping[str, datetime]) -> list[str]:
    """Check the chain, the files that it names, and that each later row's run is in it.

    Args:
        output: Normalised URI.
        begun: When each run that wrote rows of `archives` began the last of them.

    Returns:
        A sentence for each finding.

    Raises:
        StorageError: The store does not answer.
    """
    numbers = _numbers(output)
    findings: list[str] = []
    expected = _FIRST
    runs: dict[str, str] = {}
    since = None
    for number in range(max(numbers, default=-1) + 1):
        where = f"{TRAIL}/{_name(number)}"
        data = _read(output, number) if number in numbers else None
        record = None if data is None else _load(data)
        if data is None or record is None:
            findings.append(f"{where}: it is gone." if data is None else f"{where}: no record.")
            expected = ""
            continue
        if expected and record.get("previous") != expected:
            findings.append(f"{where}: the record before it is not the one that it followed.")
        expected = _hash(data)
        since = since or str(record.get("at"))
        runs[str(record.get("run"))] = where
        findings += _check_settled(output, where, record)
    for run in sorted(_runs_since(begun, since) - runs.keys()):
        findings.append(f"{TRAIL}: the run {run} wrote rows of archives and has no record.")
    return findings


def _runs_since(begun: Mapping[str, datetime], since: str | None) -> set[str]:
    """Return the runs that are younger than the trail: older outputs have none."""
    if since is None:
        return set()
    return {run for run, moment in begun.items() if moment >= datetime.fromisoformat(since)}


def _check_settled(output: str, where: str, record: Mapping[str, Any]) -> Iterable[str]:
    settled = record.get("settled")
    if not settled:
        return
    file = f"{TRAIL}/{settled['file']}"
    try:
        data = storage.read_bytes(storage.join(output, file))
    except NotFoundError:
        yield f"{file}: it is gone; {where} names it."
        return
    if _hash(data) != settled["sha256"]:
        yield f"{file}: its bytes are not those that {where} recorded (SHA-256 differs)."


def _append(output: str, record: Mapping[str, Any]) -> None:
    number = max(_numbers(output), default=-1)
    for _ in range(APPEND_ATTEMPTS):
        previous = _FIRST if number < 0 else _hash(_read(output, number) or b"")
        data = json.dumps({**record, "previous": previous}, sort_keys=True).encode() + b"\n"
        number += 1
        uri = storage.join(output, TRAIL, _name(number))
        if storage.put_if_absent(uri, data) or _read(output, number) == data:
            return
    raise StorageError(f"{APPEND_ATTEMPTS} other records came first in {output}/{TRAIL}.")


def _numbers(output: str) -> set[int]:
    root = storage.join(output, TRAIL)
    try:
        names = [storage.relative(info.uri, root) for info in storage.list_objects(root + "/")]
    except NotFoundError:
        return set()
    return {int(name[:8]) for name in names if name[8:] == ".json" and name[:8].isdigit()}


def _read(output: str, number: int) -> bytes | None:
    try:
        return storage.read_bytes(storage.join(output, TRAIL, _name(number)), _MAX_RECORD)
    except NotFoundError:
        return None


def _load(data: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(data)
        datetime.fromisoformat(record["at"])
    except (ValueError, KeyError, TypeError):
        return None
    return dict(record)


def _name(number: int) -> str:
    return f"{number:08}.json"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _settled_file(results: Sequence[ArchiveResult]) -> bytes:
    rows = [
        {
            "archive": result.archive.name,
            "archive_version": result.archive.known.version,
            "status": str(result.status),
            "members": result.members,
        }
        for result in results
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SETTLED), sink, compression="zstd")
    return bytes(sink.getvalue())


def _who() -> dict[str, object]:
    """Return who runs this, where and when, by which submission, and under which versions."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account of a container
        user = str(os.getuid())
    metadata = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {})
    return {
        "at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "user": user,
        "host": os.uname().nodename,
        "submission": metadata.get("job_submission_id"),
        "decode_version": DECODE_VERSION,
        "schema_version": SCHEMA_VERSION,
    }
