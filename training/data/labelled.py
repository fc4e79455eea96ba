"""A labelled tensor set, and the one file that keeps it.

Nothing in the file is executed when it is read. Patients are numbers in it; archives and members
have their names, by which masks are found and exclusions are listed.

Shapes: N images, S side of the preprocessed image.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from implant_model.errors import TRANSIENT
from implant_model.storage.local_files import write_whole
from implant_model.storage.spreadsheets import write_csv

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
        images_NSS: Preprocessed, uint8.
        labels_N: Class of each, int64, an index into `names`.
        patients_N: Number of each image's patient, int64; -1 where unknown.
        sizes_N2: Rows and columns as stored, int64; 0 where unknown.
        places_N: Of each image its archive's path below --images, and its name inside.
        names: The classes, sorted.
        excluded: What could not be used, and why.
        fingerprint: SHA-256 of all that made the set, hexadecimal.
        digests: Of each image's file, see `content_digest`; () of a set that was not read.
    """

    images_NSS: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    patients_N: NDArray[np.int64]
    sizes_N2: NDArray[np.int64]
    places_N: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    fingerprint: str
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)


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


def to_file(file: Path, labelled: LabelledSet) -> None:
    """Write a set whole or not at all."""
    facts = {
        "names": labelled.names,
        "places": labelled.places_N,
        "digests": labelled.digests,
        "excluded": [asdict(item) for item in labelled.excluded],
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=labelled.images_NSS,
        labels=labelled.labels_N,
        patients=labelled.patients_N,
        sizes=labelled.sizes_N2,
        facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
    )
    write_whole(file, buffer.getvalue())


def from_file(file: Path, fingerprint: str) -> LabelledSet:
    """Read what `to_file` wrote under this fingerprint."""
    with np.load(file, allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        return LabelledSet(
            arrays["images"],
            arrays["labels"],
            arrays["patients"],
            arrays["sizes"],
            tuple((archive, member) for archive, member in facts["places"]),
            tuple(facts["names"]),
            tuple(Excluded(**item) for item in facts["excluded"]),
            fingerprint,
            tuple(facts["digests"]),
        )
