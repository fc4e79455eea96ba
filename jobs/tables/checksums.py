"""Seals: hashes of every entry of the tables' logs, and of the files that only the log names.

A Delta log has no check sums: a flipped bit in it, or in a data file of the table `archives`, may
change what a reader gets without an error. So each commit is followed by a seal, a small object
that is put once, `OUTPUT/_seals/TABLE/<version>.json`. The files of `predictions` need none: the
table `archives` has their hashes. A run that dies between a commit and its seal leaves the entry
without one; the next run on the output sets it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from implant_model import storage
from implant_model.errors import NotFoundError, StorageError
from jobs.tables.schema import ARCHIVES, PREDICTIONS

TABLES: Final = (PREDICTIONS, ARCHIVES)
READINGS: Final = 4
_SEALS: Final = "_seals"
_LOG: Final = "_delta_log"
_LAST_CHECKPOINT: Final = "_delta_log/_last_checkpoint"


def seal(output: str) -> None:
    """Seal the entries of both tables' logs that have no seal, the oldest first.

    Raises:
        StorageError: The store does not answer.
    """
    for table in TABLES:
        entries = _entries(output, table)
        unsealed = []
        for version in sorted(entries, reverse=True):
            if storage.exists(_seal_uri(output, table, version)) is not None:
                break  # seals are set in order, so all before it are there
            unsealed.append(version)
        for version in reversed(unsealed):
            names = _sealed(output, table, version)
            hashes = {name: _agreed_hash(output, table, name) for name in names}
            storage.put_if_absent(_seal_uri(output, table, version), _dump(hashes))


@dataclass(frozen=True)
class SealReport:
    """What the seals show, a sentence for each file.

    Attributes:
        damaged: Files that are gone or other than they were sealed.
        unsealed: Entries that have no whole seal.
    """

    damaged: tuple[str, ...]
    unsealed: tuple[str, ...]


def check_seals(output: str) -> SealReport:
    """Compare the tables' logs with their seals.

    Raises:
        StorageError: The store does not answer.
    """
    damaged: list[str] = []
    unsealed: list[str] = []
    for table in TABLES:
        last_checkpoints: set[str] = set()
        for version in range(max(_entries(output, table), default=-1) + 1):
            sealed = _read_seal(output, table, version)
            if sealed is None:
                unsealed.append(_without_seal(table, version))
                continue
            if _LAST_CHECKPOINT in sealed:
                last_checkpoints.add(sealed.pop(_LAST_CHECKPOINT))
            for name, expected in sealed.items():
                damaged += _compare(output, table, name, {expected})
        if last_checkpoints:
            damaged += _compare(output, table, _LAST_CHECKPOINT, last_checkpoints)
    return SealReport(tuple(damaged), tuple(unsealed))


def _without_seal(table: str, version: int) -> str:
    return (
        f"{_SEALS}/{table}/{version:020}.json: there is no whole seal of "
        f"{table}/{_entry_name(version)}; running classify again sets one that is missing, as "
        "after a run that died."
    )


def _compare(output: str, table: str, name: str, expected: set[str]) -> Iterator[str]:
    try:
        found = _hash(output, table, name)
    except NotFoundError:
        yield f"{table}/{name}: it is gone."
        return
    if found not in expected:
        yield f"{table}/{name}: its bytes are not those that were sealed (SHA-256 differs)."


def _sealed(output: str, table: str, version: int) -> Iterator[str]:
    """Name, below the table, of what the seal of one version speaks of."""
    entry = _entry_name(version)
    yield entry
    checkpoint = f"{_LOG}/{version:020}.checkpoint.parquet"
    if storage.exists(storage.join(output, table, checkpoint)) is not None:
        yield checkpoint
        yield _LAST_CHECKPOINT
    if table == ARCHIVES:
        lines = storage.read_bytes(storage.join(output, table, entry)).splitlines()
        actions = [json.loads(line) for line in lines]
        yield from (unquote(action["add"]["path"]) for action in actions if "add" in action)


def _entries(output: str, table: str) -> set[int]:
    """Return the versions whose entries the log has."""
    root = storage.join(output, table, _LOG)
    try:
        names = [storage.relative(info.uri, root) for info in storage.list_objects(root)]
    except NotFoundError:
        return set()
    return {int(name[:20]) for name in names if name[20:] == ".json" and name[:20].isdigit()}


def _dump(hashes: dict[str, str]) -> bytes:
    """Return a seal, which ends with a hash of itself."""
    text = json.dumps(hashes, sort_keys=True).encode() + b"\n"
    return text + hashlib.sha256(text).hexdigest().encode()


def _read_seal(output: str, table: str, version: int) -> dict[str, str] | None:
    """Return a seal's hashes by name; None where it is missing or damaged."""
    try:
        data = storage.read_bytes(_seal_uri(output, table, version))
        hashes: dict[str, str] = json.loads(data.partition(b"\n")[0])
    except (ValueError, NotFoundError):
        return None
    return hashes if _dump(hashes) == data else None


def _agreed_hash(output: str, table: str, name: str) -> str:
    """Return the hash that two readings one after the other give.

    A bit that flips on the way from the store would else be sealed, and the whole file be called
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
    raise StorageError(f"{table}/{name} reads differently each time; it is not sealed. Run again.")


def _hash(output: str, table: str, name: str) -> str:
    data = storage.read_bytes(storage.join(output, table, name))
    return hashlib.sha256(data).hexdigest()


def _entry_name(version: int) -> str:
    return f"{_LOG}/{version:020}.json"


def _seal_uri(output: str, table: str, version: int) -> str:
    return storage.join(output, _SEALS, table, f"{version:020}.json")
