"""A labelled set: its pictures, by position, and what is known of each of them.

Patients are numbers in it; archives and members have their names, by which masks are found and
exclusions are listed.

Shapes: N images, S side of the preprocessed image, B bytes, C cues.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from implant_model.errors import TRANSIENT
from implant_model.storage.spreadsheets import write_csv
from training.data.duplicates import perceptual_hashes
from training.data.set_columns import Rows
from training.data.shards import Pictures, in_parts
from training.data.shortcuts import cues_of

UNLABELLED: Final = frozenset({"no_label", "clutter"})
"""Reasons of members that nobody asked to use."""
WRITTEN_AT_ONCE: Final = 1 << 14
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


class LeftOut(Rows[Excluded]):
    """What is not in a set, as columns: of archives of which little is labelled it is most.

    Args:
        archives: Paths of all archives.
        archive_M: Of each image, int32, a position in `archives`.
        member_M: Names inside, string.
        reason_M: Reasons, dictionary of string.
    """

    def __init__(
        self,
        archives: Sequence[str],
        archive_M: NDArray[np.int32],
        member_M: pa.ChunkedArray,
        reason_M: pa.ChunkedArray,
    ) -> None:
        self.reason_M = reason_M

        def row(at: int) -> Excluded:
            archive = archives[int(archive_M[at])]
            return Excluded(archive, member_M[at].as_py(), reason_M[at].as_py())

        super().__init__(len(archive_M), row)


@dataclass(frozen=True)
class LabelledSet:
    """Images with what is known of them.

    Attributes:
        images_NSS: Preprocessed, uint8; read where they are asked for.
        labels_N: Class of each, int64, an index into `names`.
        patients_N: Number of each image's patient, int64; -1 where unknown.
        sizes_N2: Rows and columns as stored, int32 or int64; 0 where unknown.
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
    sizes_N2: NDArray[np.signedinteger]
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


def as_numbers(sizes_N2: NDArray[np.signedinteger]) -> NDArray[np.int64]:
    """Return one number for each size, in the sizes' own order; see `as_size`."""
    return (sizes_N2[:, 0].astype(np.int64) << 32) | sizes_N2[:, 1].astype(np.int64)


def as_size(number: int) -> tuple[int, int]:
    """Return rows and columns of a number of `as_numbers`."""
    return int(number) >> 32, int(number) & 0xFFFFFFFF


class HasExcluded(Protocol):
    """What was read, with what could not be used."""

    @property
    def excluded(self) -> Sequence[Excluded]:
        """Return image by image."""


def num_missing(held: HasExcluded) -> int:
    """How many labelled images could not be used, archives that could not be read among them."""
    counts = reasons_of(held.excluded)
    return sum(count for reason, count in counts.items() if reason not in UNLABELLED)


def unread_archives(held: HasExcluded) -> tuple[str, ...]:
    """Return archives that could not be read for the store's sake."""
    return tuple(item.archive for item in of_reasons(held.excluded, TRANSIENT))


def reason_counts(labelled: HasExcluded) -> str:
    """Return how many images were left out for which reason, the commonest first; no names."""
    counts = reasons_of(labelled.excluded).most_common()
    return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def reasons_of(excluded: Sequence[Excluded]) -> Counter[str]:
    """Return how many images were left out for which reason, in the order in which they came."""
    if not isinstance(excluded, LeftOut):
        return Counter(item.reason for item in excluded)
    counts = pc.value_counts(excluded.reason_M.cast(pa.string())).to_pylist()
    return Counter({item["values"]: item["counts"] for item in counts})


def of_reasons(excluded: Sequence[Excluded], reasons: Collection[str]) -> Iterator[Excluded]:
    """Yield what was left out for some reasons."""
    if not isinstance(excluded, LeftOut):
        yield from (item for item in excluded if item.reason in reasons)
        return
    wanted = pa.array([str(reason) for reason in reasons], pa.string())
    found_M = pc.is_in(excluded.reason_M.cast(pa.string()), wanted)
    yield from (excluded[at] for at in np.flatnonzero(found_M.to_numpy()).tolist())


def write_excluded(labelled: HasExcluded, file: Path) -> None:
    """Write what could not be used as CSV, one row an image: archive, member, reason."""
    columns = ("archive", "member", "reason")
    schema = pa.schema([(name, pa.string()) for name in columns])
    tables = [schema.empty_table()]
    for start in range(0, len(labelled.excluded), WRITTEN_AT_ONCE):
        part = labelled.excluded[start : start + WRITTEN_AT_ONCE]
        texts = {name: [getattr(item, name) for item in part] for name in columns}
        tables.append(pa.table(texts, schema=schema))
    write_csv(file, pa.concat_tables(tables))
