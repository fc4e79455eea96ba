"""Small archives, fetched while those before them are decoded.

A radiograph that lies alone in a bucket keeps a core busy for 10 ms and a store for 100. It is
under way here with the next ones, in threads; what is large is read by ranges ahead of use anyway,
see `storage`. Whether its unit is published is not asked: it goes into a file with others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from implant_model import storage
from implant_model.limits import MIB
from jobs.pipeline.recipe import Recipe
from jobs.tables.loose_names import is_archive_name
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTIONS, unit_id, unit_path

AHEAD: Final = 16
UNASKED_BYTES: Final = MIB
"""Archives so small, and radiographs that lie alone, are read without asking for their units."""
MAX_AHEAD_BYTES: Final = 16 * MIB
"""Of one archive; larger ones are read by ranges."""
MAX_UNDER_WAY_BYTES: Final = 64 * MIB
"""Of all that a reader has under way."""
Group = Sequence[tuple[int, PlannedArchive]]
"""Archives that one task reads, each with its position in the plan."""


@dataclass(frozen=True)
class Opening:
    """An archive about to be read.

    Attributes:
        reader: Of its planned version.
        unit_path: Of its first unit's file, below the predictions.
        adopted: The output has that file already.
    """

    reader: storage.ObjectReader
    unit_path: str
    adopted: bool


Open = Callable[[], Opening]
"""Gives the opening, or raises the StorageError that is in its way."""


def open_archive(archive: PlannedArchive, recipe: Recipe, whole: bool = False) -> Opening:
    """Open an archive.

    Args:
        archive: What to read, and in which version.
        recipe: Where its units go.
        whole: Fetch all of it at once, by one request.

    Raises:
        StorageError: It cannot be read, is another version, or the output cannot be asked.
    """
    path, adopted = unit_of(archive, recipe, 0), False
    if is_archive_name(archive.info.uri) and archive.info.size > UNASKED_BYTES:
        adopted = is_published(path, recipe)
    return Opening(storage.open_object(archive.info, whole=whole), path, adopted)


def find_unit(archive: PlannedArchive, recipe: Recipe, first: int) -> tuple[str, bool]:
    """Return the path of the unit that begins at a member, and whether its file is there."""
    path = unit_of(archive, recipe, first)
    return path, is_published(path, recipe)


def unit_of(archive: PlannedArchive, recipe: Recipe, first: int) -> str:
    """Return the path of the unit that begins at a member, below the predictions."""
    version, model = archive.known.version, recipe.model
    unit = unit_id(archive.name, version, model, recipe.configuration_hash, archive.attempt, first)
    return unit_path(model, unit)


def is_published(path: str, recipe: Recipe) -> bool:
    """Return whether the file of a unit is there."""
    return storage.exists(storage.join(recipe.output, PREDICTIONS, path)) is not None


def read_ahead(
    group: Group, recipe: Recipe, ahead: int = AHEAD
) -> Iterator[tuple[int, PlannedArchive, Open]]:
    """Go through a group, the next few small archives of a bucket being on their way.

    Args:
        group: The archives.
        recipe: Where their units go.
        ahead: How many at most; 0: each is asked for when it is its turn.
    """
    waiting: deque[tuple[int, PlannedArchive, Open]] = deque()
    under_way = 0
    with ThreadPoolExecutor(max(ahead, 1), thread_name_prefix="read-ahead") as pool:
        for position, archive in group:
            get: Open = partial(open_archive, archive, recipe)
            if ahead and archive.unreachable is None and _is_small(archive):
                get = pool.submit(open_archive, archive, recipe, whole=True).result
            waiting.append((position, archive, get))
            under_way += _held_bytes(archive)
            while len(waiting) > ahead or (len(waiting) > 1 and under_way > MAX_UNDER_WAY_BYTES):
                under_way -= _held_bytes(waiting[0][1])
                yield waiting.popleft()
        yield from waiting


def _held_bytes(archive: PlannedArchive) -> int:
    return archive.info.size if _is_small(archive) else 0


def _is_small(archive: PlannedArchive) -> bool:
    return storage.is_remote(archive.info.uri) and archive.info.size <= MAX_AHEAD_BYTES
