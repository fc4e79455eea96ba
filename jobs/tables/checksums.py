"""Checksums: hashes of every entry of the tables' logs, and of the files that only the log names.

A Delta log has no checksums: a flipped bit in it, or in a data file of the table `archives`, may
change what a reader gets without an error. So each commit is followed by a checksum file, a small
object that is put once, `OUTPUT/_seals/TABLE/<version>.json`. The units' files of `predictions`
need none, since the table `archives` has their hashes; files that units were put together in have
theirs there. A run that dies between a commit and its checksum file leaves the entry without one;
the next run on the output sets it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from implant_model import storage
from implant_model.errors import NotFoundError, StorageError
from jobs.tables import delta
from jobs.tables.schema import ARCHIVES, BUNDLE, PREDICTIONS

TABLES: Final = (PREDICTIONS, ARCHIVES)
READINGS: Final = 4
_FOLDER: Final = "_seals"  # kept for the outputs that there are
_LOG: Final = "_delta_log"
_UNIT: Final = re.compile(rf"/(?:{BUNDLE})?[0-9a-f]{{32}}\.parquet$")
_LAST_CHECKPOINT: Final = "_delta_log/_last_checkpoint"


class Checksums:
    """Writes the checksum files that both tables' logs lack.

    Args:
        output: Normalised URI.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._last = dict.fromkeys(TABLES, -1)  # up to here none is missing

    def write(self) -> None:
        """Write what is missing, the oldest first: also of a run that died before it did.

        Raises:
            StorageError: The store does not answer.
        """
        for table, last in self._last.items():
            entries = _entries(self._output, table, last)
            unrecorded = []
            for version in sorted(entries, reverse=True):
                if storage.exists(_checksum_uri(self._output, table, version)) is not None:
                    break  # checksums are set in order, so all before it are there
                unrecorded.append(version)
            for version in reversed(unrecorded):
                hashes = _hashes_of(self._output, table, version)
                storage.put_if_absent(_checksum_uri(self._output, table, version), _dump(hashes))
            self._last[table] = max(entries, default=last)


@dataclass(frozen=True)
class ChecksumReport:
    """What the checksums show, a sentence for each file.

    Attributes:
        damaged: Files that are gone or other than they were recorded.
        unrecorded: Entries that have no whole checksum file.
    """

    damaged: tuple[str, ...]
    unrecorded: tuple[str, ...]


def check_checksums(output: str) -> ChecksumReport:
    """Compare the tables' logs with their checksums.

    Raises:
        StorageError: The store does not answer.
    """
    damaged: list[str] = []
    unrecorded: list[str] = []
    for table in TABLES:
        last_checkpoints: dict[int, str] = {}
        without: list[int] = []
        last = -1
        active = _active(output, table)
        log = _Log(output, table)
        for version in range(log.end):
            recorded = _read_checksums(output, table, version)
            if recorded is None:
                without += [version] if version >= log.begin else []
                continue
            last = version
            if _LAST_CHECKPOINT in recorded:
                last_checkpoints[version] = recorded.pop(_LAST_CHECKPOINT)
            for name, expected in recorded.items():
                is_log = name.startswith(_LOG)
                if version >= log.begin if is_log else active is None or name in active:
                    damaged += _compare(output, table, name, expected)
        unrecorded += [_without_checksums(table, v, is_amid=v < last) for v in without]
        if last_checkpoints:
            damaged += _compare_last_checkpoint(output, table, last_checkpoints)
    return ChecksumReport(tuple(damaged), tuple(unrecorded))


class _Log:
    """The entries that a table's log is to have.

    Attributes:
        begin: The first one. Delta's clean-up deletes entries and checkpoints before the checkpoint
            that it leaves; where there is none to start from, an entry that is gone is missed.
        end: Behind the last one.
    """

    def __init__(self, output: str, table: str) -> None:
        names = _log_names(output, table)
        entries = _versions(names, ".json")
        checkpoints = _versions(names, ".checkpoint.parquet")
        first = min(entries, default=0)
        self.begin = first if any(version >= first - 1 for version in checkpoints) else 0
        self.end = max(entries, default=-1) + 1


def _active(output: str, table: str) -> frozenset[str] | None:
    """Return the data files of a table: those that left it may have been vacuumed since.

    None where its log is damaged, which is what the checksums are to show.
    """
    try:
        found = delta.open_table(storage.join(output, table))
        files = [] if found is None else delta.active_files(found)
    except StorageError:
        return None
    return frozenset(unquote(file["path"]) for file in files)


def _without_checksums(table: str, version: int, *, is_amid: bool) -> str:
    remedy = "running classify again sets one that is missing, as after a run that died."
    if is_amid:  # they are set in order
        remedy = (
            f"later entries have theirs, so it was removed or damaged. Restore it, or move "
            f"{_FOLDER} away: the next run of classify then records the logs as they are."
        )
    return (
        f"{_FOLDER}/{table}/{version:020}.json: there is no whole checksum file of "
        f"{table}/{_entry_name(version)}; {remedy}"
    )


def _compare(output: str, table: str, name: str, expected: str) -> Iterator[str]:
    try:
        found = _hash(output, table, name)
    except NotFoundError:
        yield f"{table}/{name}: it is gone."
        return
    if found != expected:
        yield f"{table}/{name}: its bytes are not those that were recorded (SHA-256 differs)."


def _compare_last_checkpoint(output: str, table: str, expected: dict[int, str]) -> Iterator[str]:
    """Compare the pointer to the last checkpoint, which any tool that makes one writes anew.

    Args:
        output: Normalised URI.
        table: Name of the table.
        expected: Hashes that were recorded, by the version that the pointer named.
    """
    uri = storage.join(output, table, _LAST_CHECKPOINT)
    try:
        version = int(json.loads(storage.read_bytes(uri))["version"])
    except NotFoundError:
        yield f"{table}/{_LAST_CHECKPOINT}: it is gone."
        return
    except (ValueError, KeyError, TypeError):
        version = max(expected)
    is_others = storage.exists(_checkpoint_uri(output, table, version)) is not None
    if version in expected or not is_others:
        known = expected.get(version, expected[max(expected)])
        yield from _compare(output, table, _LAST_CHECKPOINT, known)


def _hashes_of(output: str, table: str, version: int) -> dict[str, str]:
    """Return the hashes of what the checksum file of one version speaks of, by name.

    A data file that is gone has none: another commit may have taken it out and a vacuum deleted it
    before this one was recorded. Of one that the table still names, whoever reads it learns.
    """
    hashes: dict[str, str] = {}
    for name in _recorded(output, table, version):
        try:
            hashes[name] = _agreed_hash(output, table, name)
        except NotFoundError:
            if name.startswith(_LOG):
                raise
    return hashes


def _recorded(output: str, table: str, version: int) -> Iterator[str]:
    """Yield the names, below the table, of what the checksum file of one version speaks of."""
    entry = _entry_name(version)
    yield entry
    if storage.exists(_checkpoint_uri(output, table, version)) is not None:
        yield _checkpoint_name(version)
        yield _LAST_CHECKPOINT
    lines = storage.read_bytes(storage.join(output, table, entry)).splitlines()
    actions = [json.loads(line) for line in lines]
    for path in (unquote(action["add"]["path"]) for action in actions if "add" in action):
        if not (table == PREDICTIONS and _UNIT.search(path)):
            yield path


def _entries(output: str, table: str, after: int = -1) -> set[int]:
    """Return the versions after one whose entries the log has."""
    begin = "" if after < 0 else _entry_name(after).rpartition("/")[2]
    return _versions(_log_names(output, table, begin), ".json")


def _log_names(output: str, table: str, begin: str = "") -> list[str]:
    root = storage.join(output, table, _LOG)
    try:
        return [storage.relative(info.uri, root) for info in storage.list_objects(root, begin)]
    except NotFoundError:
        return []


def _versions(names: Iterable[str], ending: str) -> set[int]:
    return {int(name[:20]) for name in names if name[20:] == ending and name[:20].isdigit()}


def _dump(hashes: dict[str, str]) -> bytes:
    """Return a checksum file, which ends with a hash of itself."""
    text = json.dumps(hashes, sort_keys=True).encode() + b"\n"
    return text + hashlib.sha256(text).hexdigest().encode()


def _read_checksums(output: str, table: str, version: int) -> dict[str, str] | None:
    """Return a checksum file's hashes by name; None where it is missing or damaged."""
    try:
        data = storage.read_bytes(_checksum_uri(output, table, version))
        hashes: dict[str, str] = json.loads(data.partition(b"\n")[0])
    except (ValueError, NotFoundError):
        return None
    return hashes if _dump(hashes) == data else None


def _agreed_hash(output: str, table: str, name: str) -> str:
    """Return the hash that two readings one after the other give.

    A bit that flips on the way from the store would else be recorded, and the whole file be called
    damaged ever after.

    Raises:
        StorageError: No two of them agree.
    """
    before = None
    for _ in range(READINGS):
        found = _hash(output, table, name)
        if found == before:
            return found
        before = found
    raise StorageError(
        f"{table}/{name} reads differently each time; it is not recorded. Run again."
    )


def _hash(output: str, table: str, name: str) -> str:
    data = storage.read_bytes(storage.join(output, table, name))
    return hashlib.sha256(data).hexdigest()


def _entry_name(version: int) -> str:
    return f"{_LOG}/{version:020}.json"


def _checkpoint_name(version: int) -> str:
    return f"{_LOG}/{version:020}.checkpoint.parquet"


def _checkpoint_uri(output: str, table: str, version: int) -> str:
    return storage.join(output, table, _checkpoint_name(version))


def _checksum_uri(output: str, table: str, version: int) -> str:
    return storage.join(output, _FOLDER, table, f"{version:020}.json")
