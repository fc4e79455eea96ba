"""What is read, and kept, together: one archive, or a few dozen small ones and loose radiographs.

A bundle's key is a hash of all that makes its prepared pictures: the objects with their versions,
the members that are wanted, preprocessing, limits and the decoder's version; not the labels. So a
set that has grown reads what is new, and another label costs nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import pyarrow as pa

from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION
from implant_model.limits import MIB, Limits
from implant_model.storage.uri import ObjectInfo
from training.data.label_rows import Label

FORMAT: Final = 7
"""Of index and shards; a change makes what is kept void."""
SMALL_BYTES: Final = 16 * MIB
"""A larger object is a bundle of its own."""
BUNDLE_BYTES: Final = 256 * MIB
BUNDLE_OBJECTS: Final = 1024
ENDS: Final = 256
"""One in so many small objects ends its bundle, by its name's hash: where one is added, only the
bundle that it falls into is another."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object, and what of it is wanted.

    Attributes:
        info: The object.
        name: Its path below --images.
        members: Those that a labels file names, "" for a loose radiograph; None: those in folders.
    """

    info: ObjectInfo
    name: str
    members: pa.Array | None = field(repr=False)

    def named(self) -> frozenset[str] | None:
        """Return `members` as a set, which takes five times as much memory."""
        return None if self.members is None else frozenset(self.members.to_pylist())


@dataclass(frozen=True)
class Bundle:
    """What one task reads, and one index describes.

    Attributes:
        key: Of what makes its prepared pictures, hexadecimal.
        objects: One or more.
    """

    key: str
    objects: tuple[Wanted, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of its objects."""
        return sum(wanted.info.size for wanted in self.objects)


def bundles_of(
    objects: Sequence[tuple[ObjectInfo, str]],
    rows: Mapping[str, Mapping[str, Label]] | None,
    spec: Preprocessing,
    limits: Limits,
) -> Iterator[Bundle]:
    """Yield all objects in bundles, in their order.

    Args:
        objects: With their paths below --images.
        rows: Of a labels file by URI, see `match_archives`; None: the folders are the classes.
        spec: How pixels are prepared.
        limits: Bounds on what is read.
    """
    recipe = json.dumps([FORMAT, DECODE_VERSION, spec.to_json(), asdict(limits)], sort_keys=True)
    for part in _parts(objects):
        wanted = tuple(
            Wanted(info, name, None if rows is None else _members(rows.get(info.uri, {})))
            for info, name in part
        )
        yield Bundle(_key(recipe, wanted), wanted)


_LOOSE = pa.array([""], pa.string())
"""Of all loose radiographs together."""


def _members(rows: Mapping[str, Label]) -> pa.Array:
    found = pa.array(list(rows), pa.string())
    return _LOOSE if found == _LOOSE else found


def _parts(
    objects: Sequence[tuple[ObjectInfo, str]],
) -> Iterator[Sequence[tuple[ObjectInfo, str]]]:
    part: list[tuple[ObjectInfo, str]] = []
    size = 0
    for info, name in objects:
        if part and (info.size > SMALL_BYTES or size + info.size > BUNDLE_BYTES):
            yield part
            part, size = [], 0
        part.append((info, name))
        size += info.size
        ends = hashlib.sha256(info.uri.encode()).digest()[0] % ENDS == 0
        if info.size > SMALL_BYTES or ends or len(part) >= BUNDLE_OBJECTS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _key(recipe: str, objects: Sequence[Wanted]) -> str:
    facts = hashlib.sha256(recipe.encode())
    for wanted in objects:
        members = None if wanted.members is None else sorted(wanted.members.to_pylist())
        line = [wanted.info.uri, wanted.info.version, wanted.name, members]
        facts.update(json.dumps(line).encode())
    return facts.hexdigest()[:32]
