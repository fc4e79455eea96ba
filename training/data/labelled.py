"""A labelled set: its pictures, by position, and what is known of each of them.

Patients are numbers in it; archives and members have their names, by which masks are found and
exclusions are listed.

Shapes: N images, S side of the preprocessed image, B bytes, C cues.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from implant_model.errors import TRANSIENT
from implant_model.storage.spreadsheets import write_csv
from training.data.duplicates import perceptual_hashes
from training.data.shards import Pictures, in_parts
from training.data.shortcuts import cues_of

Item = TypeVar("Item", covariant=True)
UNLABELLED: Final = frozenset({"no_label", "clutter"})
"""Reasons of members that nobody asked to use."""
DIGEST_BYTES: Final = 8
"""Of an image's file: enough that among millions of files no two of different content agree."""


def content_digest(data: bytes | memoryview) -> str:
    """Name the content of an image's file: the first 64 bits of its SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()[: 2 * DIGEST_BYTES]


@dataclass(frozen=True)
class Excluded:
    """One image that is not in the set.

    Attributes:
        archive: The archive's path below --images.
        member: Name inside; "" for the archive itself.
        reason: A member's or archive's reason, or `no_label`, `not_in_archive`, `name_twice`.
    """

    archive: str
    member: str
    reason: str


@dataclass(frozen=True)
class LabelledSet:
    """Images with what is known of them.

    Attributes:
        images_NSS: Preprocessed, uint8; read where they are asked for.
        labels_N: Class of each, int64, an index into `names`.
        patients_N: Number of each image's patient, int64; -1 where unknown.
        sizes_N2: Rows and columns as stored, int64; 0 where unknown.
        places_N: Of each image its archive's path below --images, and its name inside.
        names: The classes, sorted.
        excluded: What could not be used, and why.
        fingerprint: SHA-256 of all that made the set, hexadecimal.
        digests: Of each image's file, see `content_digest`; () of a set that was not read.
        hashes_NB: See `duplicates`; None of a set that was not read.
        cues_NC: See `shortcuts.cues_of`; None of a set that was not read.
        origins_N: Of each image the URI of its archive, or its own, and its position in that; () of
            a set that was not read.
    """

    images_NSS: Pictures
    labels_N: NDArray[np.int64]
    patients_N: NDArray[np.int64]
    sizes_N2: NDArray[np.int64]
    places_N: Sequence[tuple[str, str]]
    names: tuple[str, ...]
    excluded: Sequence[Excluded]
    fingerprint: str
    digests: Sequence[str] = ()
    hashes_NB: NDArray[np.uint8] | None = None
    cues_NC: NDArray[np.float32] | None = None
    origins_N: Sequence[tuple[str, int]] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def hashes(self) -> NDArray[np.uint8]:
        """Return the pictures' perceptual hashes, uint8 (N, 32)."""
        if self.hashes_NB is not None:
            return self.hashes_NB
        return np.concatenate([perceptual_hashes(part) for part in in_parts(self.images_NSS)])

    def cues(self) -> NDArray[np.float32]:
        """Return what preprocessing leaves of the files' facts, see `shortcuts.cues_of`."""
        if self.cues_NC is not None:
            return self.cues_NC
        return np.concatenate([cues_of(part) for part in in_parts(self.images_NSS)])


class HasExcluded(Protocol):
    """What was read, with what could not be used."""

    @property
    def excluded(self) -> Sequence[Excluded]:
        """Return image by image."""


def num_missing(held: HasExcluded) -> int:
    """How many labelled images could not be used, archives that could not be read among them."""
    return sum(item.reason not in UNLABELLED for item in held.excluded)


def unread_archives(held: HasExcluded) -> tuple[str, ...]:
    """Return archives that could not be read for the store's sake."""
    return tuple(item.archive for item in held.excluded if item.reason in TRANSIENT)


def reason_counts(labelled: HasExcluded) -> str:
    """Return how many images were left out for which reason, the commonest first; no names."""
    counts = Counter(item.reason for item in labelled.excluded).most_common()
    return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def write_excluded(labelled: HasExcluded, file: Path) -> None:
    """Write what could not be used as CSV, one row an image: archive, member, reason."""
    columns = ("archive", "member", "reason")
    texts = {name: [getattr(item, name) for item in labelled.excluded] for name in columns}
    write_csv(file, pa.table(texts, schema=pa.schema([(name, pa.string()) for name in columns])))


class Rows(Sequence[Item]):
    """Rows that are made when they are asked for, so that columns are all that is held.

    Args:
        count: How many.
        row: Makes one from its position.
    """

    def __init__(self, count: int, row: Callable[[int], Item]) -> None:
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Item: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...

    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        """Return one row, or some."""
        if isinstance(at, slice):
            return [self._row(place) for place in range(*at.indices(self._count))]
        return self._row(range(self._count)[at])

    def __iter__(self) -> Iterator[Item]:
        return map(self._row, range(self._count))
