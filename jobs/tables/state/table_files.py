"""The files of one table: which archives each holds, kept up by the log entries that come after.

A run opens a table once, by deltalake, at a cost that grows with the table. From then on it reads
the entries that are new and writes its own, so that a commit costs what it changes: an entry is a
small JSON object with the next version in its name, put if it is absent, as Delta's protocol has it
(PROTOCOL.md, "Delta Log Entries"). Who comes second works its commit out once more.
"""

import json
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from implant_model import __version__, storage
from implant_model.errors import NotFoundError, StorageError, UsageError
from jobs.tables import delta
from jobs.tables.delta import Action, Table
from jobs.tables.state.hash_index import HashIndex, Ints, hash_column, hash_names

File = Mapping[str, Any]
"""One of `delta.active_files`."""
NamesOf = Callable[[File], pa.ChunkedArray]
"""Reads which archives a file holds."""

CHECKPOINT_EVERY: Final = 100
"""Entries, as deltalake has it where the table does not ask for another number."""
_LOG: Final = "_delta_log"
_STATISTICS: Final = (("min", "minValues"), ("max", "maxValues"))
_VERSION_DIGITS: Final = 20


def is_of_one_archive(file: File) -> bool:
    """Whether all rows of a file are of one archive in one version; False: they may not be.

    By its statistics, of which another tool may leave out any (`delta.dataSkippingNumIndexedCols`).
    """
    return all(
        file.get(f"min.{name}") is not None and file[f"min.{name}"] == file.get(f"max.{name}")
        for name in ("archive", "archive_version")
    )


class TableFiles:
    """The active files of one model in one table.

    Args:
        uri: Of the table.
        table: The same as deltalake has opened it.
        model: Name of the partition.
        names_of: Called for a file that may hold several archives, and of which nothing is known.

    Raises:
        UsageError: Another tool has made the table one that asks more of its writers than this
            software knows.
    """

    def __init__(self, uri: str, table: Table, model: str, names_of: NamesOf) -> None:
        _check_writable(uri, table)
        self._uri = uri
        self._model = model
        self._names_of = names_of
        self._version = table.version()
        self._checkpoint_every = delta.number_property(
            table, "delta.checkpointInterval", CHECKPOINT_EVERY
        )
        self._transaction = table.transaction_version(delta.APPLICATION) or 0
        self.listed = delta.file_columns(table, model)
        """As they were when the table was opened: `delta.active_files`, as columns."""
        self._by_path, self._by_archive = HashIndex(), HashIndex()
        self._by_path.add(hash_column(self.listed["path"]), np.arange(len(self.listed)))
        self._new: list[File] = []
        self._gone: set[int] = set()
        self._known: set[int] = set()

    def find(self, path: str) -> int | None:
        """Return the number of the active file of that path; None where there is none."""
        _, numbers = self._by_path.find(hash_names([path]))
        for number in reversed(numbers.tolist()):
            if number not in self._gone and self.file(number)["path"] == path:
                return int(number)
        return None

    def file(self, number: int) -> File:
        """Return a file by its number: those of `listed` come first."""
        if number >= len(self.listed):
            return self._new[number - len(self.listed)]
        row: dict[str, Any] = self.listed.slice(number, 1).to_pylist()[0]
        return row

    def learn(self, hash_N: Ints, number_N: Ints) -> None:
        """Enter which archives, by their hashes, files hold; all of those of each file."""
        self._by_archive.add(hash_N, number_N)
        self._known.update(np.unique(number_N).tolist())

    def learn_the_rest(self) -> None:
        """Enter the archives of listed files of which nothing is known, read where need be."""
        names = {"min.archive", "max.archive"} <= set(self.listed.column_names)
        unknown = [n for n in range(len(self.listed)) if n not in self._known]
        if names and unknown:
            part = self.listed.take(pa.array(unknown))
            least, greatest = (part[f"{end}.archive"] for end in ("min", "max"))
            is_one = np.asarray(pc.fill_null(pc.equal(least, greatest), False).to_numpy())
            number_N = np.asarray(unknown, np.int64)
            self.learn(hash_column(least.filter(pa.array(is_one))), number_N[is_one])
            unknown = number_N[~is_one].tolist()
        for number in unknown:
            self._learn_by_reading(number)

    def _learn_by_reading(self, number: int) -> None:
        found = hash_column(self._names_of(self.file(number)))
        self.learn(found, np.full(len(found), number))
        self._known.add(number)

    def holding(self, archives: Collection[str]) -> list[File]:
        """Return the active files that hold rows of any of some archives; perhaps one too many."""
        _, numbers = self._by_archive.find(hash_names(archives))
        return [self.file(n) for n in np.unique(numbers).tolist() if n not in self._gone]

    def commit(self, work: Callable[[], Sequence[Action]]) -> None:
        """Make one commit, worked out anew until it is not overtaken.

        Args:
            work: Returns what to add and remove, by the files as they are; nothing: no commit.

        Raises:
            StorageError: It cannot be written, or others came first each time.
        """
        for attempt in range(delta.COMMIT_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(0.1 * 2**attempt, 5.0)))
            self.follow()
            actions = work()
            if not actions or self._append(actions):
                return
        raise StorageError(
            f"The table {self._uri} could not be written in {delta.COMMIT_ATTEMPTS} attempts: each "
            "time another commit came first."
        )

    def follow(self) -> None:
        """Read the entries that others have put since.

        Raises:
            StorageError: An entry is gone or damaged, or the store does not answer.
            UsageError: Another tool has made the table one that this software does not write.
        """
        while True:
            versions = self._newer()
            for version in versions:
                if version != self._version + 1:
                    raise StorageError(
                        f"The table {self._uri} lacks the entry {self._version + 1} of its log."
                    )
                self._apply(_parse(self._uri, storage.read_bytes(self._entry(version))))
                self._version = version
            if not versions:
                return

    def _newer(self) -> list[int]:
        log = storage.join(self._uri, _LOG)
        try:
            names = [
                storage.relative(info.uri, log)
                for info in storage.list_objects(log, after=_name(self._version))
            ]
        except NotFoundError as error:
            raise StorageError(f"The table {self._uri} is not there any more.") from error
        return sorted(
            int(name[:_VERSION_DIGITS])
            for name in names
            if name[_VERSION_DIGITS:] == ".json" and name[:_VERSION_DIGITS].isdigit()
        )

    def _append(self, actions: Sequence[Action]) -> bool:
        """Put the next entry; return False if there is one already that is not this one."""
        entry = [self._commit_info(), *map(delta.entry_of, actions), self._next_transaction()]
        data = "\n".join(json.dumps(action) for action in entry).encode()
        uri = self._entry(self._version + 1)
        if not storage.put_if_absent(uri, data) and storage.read_bytes(uri) != data:
            return False  # had only the reply been lost, it would be this one
        self._version += 1
        self._apply(entry)
        if self._version % self._checkpoint_every == 0:
            delta.checkpoint(self._uri)
        return True

    def _commit_info(self) -> dict[str, Any]:
        return {
            "commitInfo": {
                "timestamp": int(time.time() * 1000),
                "operation": "WRITE",
                "operationParameters": {"mode": "Append", "partitionBy": '["model"]'},
                "engineInfo": f"{delta.APPLICATION}/{__version__}",
                "txnId": f"{random.getrandbits(128):032x}",
            }
        }

    def _next_transaction(self) -> dict[str, Any]:
        number = self._transaction + 1
        return {"txn": {"appId": delta.APPLICATION, "version": number}}

    def _apply(self, entry: Iterable[Mapping[str, Any]]) -> None:
        for action in entry:
            if "remove" in action:
                number = self.find(action["remove"]["path"])
                if number is not None:
                    self._gone.add(number)
            elif "add" in action:
                self._enter(action["add"])
            elif "txn" in action and action["txn"]["appId"] == delta.APPLICATION:
                self._transaction = action["txn"]["version"]
            elif "protocol" in action or "metaData" in action:
                table = delta.open_table(self._uri)
                if table is not None:
                    _check_writable(self._uri, table)

    def _enter(self, add: Mapping[str, Any]) -> None:
        if add["partitionValues"].get("model") != self._model:
            return
        before = self.find(add["path"])
        if before is not None:  # of new statistics, as another tool may write them
            self._gone.add(before)
        number = len(self.listed) + len(self._new)
        self._new.append(_file_of(add))
        self._by_path.add(hash_names([add["path"]]), np.array([number]))
        if is_of_one_archive(self._new[-1]):
            self.learn(hash_names([self._new[-1]["min.archive"]]), np.array([number]))
        else:
            self._learn_by_reading(number)

    def _entry(self, version: int) -> str:
        return storage.join(self._uri, _LOG, _name(version))


def _name(version: int) -> str:
    return f"{version:0{_VERSION_DIGITS}}.json"


def _check_writable(uri: str, table: Table) -> None:
    delta.check_protocol(uri, table, is_written=True)
    if table.metadata().configuration.get("delta.appendOnly", "").lower() == "true":
        raise UsageError(
            f"Another tool has made the table {uri} append-only (delta.appendOnly), so that rows "
            "of a new version cannot replace those before it. Set it to false, or use another "
            "output."
        )


def _parse(uri: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError as error:
            raise StorageError(
                f"An entry of the log of {uri} is damaged; jobs.verify names it."
            ) from error


def _file_of(add: Mapping[str, Any]) -> File:
    """Return what `delta.active_files` would have of an entry's file."""
    stats = json.loads(add.get("stats") or "{}")
    bounds = {
        f"{end}.{column}": stats[name][column]
        for end, name in _STATISTICS
        for column in ("archive", "archive_version")
        if column in stats.get(name, {})
    }
    return {
        "path": add["path"],
        "size_bytes": add["size"],
        "num_records": stats.get("numRecords"),
        "partition.model": add["partitionValues"]["model"],
        **bounds,
    }
