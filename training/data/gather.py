"""A labelled set from archives and labels: what is in the cache, and what must be read first.

What cannot be used is in `excluded`, image by image with its reason: nothing is left out unseen.
Memory follows the images by some two hundred bytes each; their pictures remain in the cache.

Shapes: N images, S side of the preprocessed image, B bytes, C cues.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import NotFoundError, UsageError
from implant_model.limits import Limits
from implant_model.storage.local_files import make_private
from implant_model.storage.uri import ObjectInfo, local_path
from training.data.bundles import FORMAT, Bundle, bundles_of
from training.data.label_rows import Label
from training.data.labelled import (
    DIGEST_BYTES,
    Excluded,
    LabelledSet,
    LeftOut,
    reason_counts,
    unread_archives,
)
from training.data.labels import Labels, labels_of_names, match_archives
from training.data.patients import SetPatients
from training.data.reading import (
    INDEX,
    Recipe,
    Tick,
    index_uri,
    read_here,
    read_index,
    shards_of,
)
from training.data.set_columns import CodedTexts, HexDigests, Rows, Texts, bytes_of
from training.data.shards import Pictures, Shard, StoredPictures, StoredRows

Read = Callable[[Sequence[Bundle], Recipe, Tick], Iterator[tuple[int, pa.Table]]]
"""Reads bundles into the cache and yields the index of each, with its position, in any order."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies.

    Attributes:
        uri: Of the archive or loose radiograph.
        archive: Its path below --images.
        member: Name inside, as a labels file has it: "" for a loose radiograph.
        index: Position in the archive, as in the table `predictions`.
    """

    uri: str
    archive: str
    member: str = field(repr=False)
    index: int


@dataclass(frozen=True)
class Gathered:
    """Images as they were read, and what could not be used.

    Attributes:
        images: Preprocessed, uint8 (N, S, S); read where they are asked for.
        labels: Of each.
        patients_N: Number of each image's patient, int64; -1 where unknown.
        sizes_N2: Rows and columns as stored, int32; 0 where unknown.
        places: Where each lies.
        digests: Of each image's file, see `content_digest`.
        hashes_NB: See `duplicates`.
        cues_NC: See `shortcuts.cues_of`.
        excluded: What could not be used, and why.
    """

    images: Pictures
    labels: CodedTexts
    patients_N: NDArray[np.int64]
    sizes_N2: NDArray[np.int32]
    places: Sequence[Place]
    digests: HexDigests
    hashes_NB: NDArray[np.uint8]
    cues_NC: NDArray[np.float32]
    excluded: Sequence[Excluded]


def list_images(
    roots: Sequence[str], besides: Collection[str] = ()
) -> list[tuple[ObjectInfo, str]]:
    """List what may hold images, each object once, with its path below the root it was found at.

    Args:
        roots: Archives, radiographs, folders or prefixes.
        besides: URIs of labels files that may lie among them.

    Raises:
        UsageError: There is nothing.
        StorageError: What is there cannot be listed.
    """
    objects = [
        (info, storage.relative(info.uri, root))
        for root, info in _listed(roots)
        if info.uri not in besides
    ]
    if not objects:
        raise UsageError(f"There is nothing at {', '.join(roots)} that may hold images.")
    return objects


def gather(
    objects: Sequence[tuple[ObjectInfo, str]],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
    cache: str,
    tick: Tick = lambda _: None,
    read: Read = read_here,
) -> Gathered:
    """Take what `list_images` found from the cache, and read what is not there, see `load_set`.

    Args:
        objects: What may hold images.
        labels: Rows of a labels file; None: the folders are the classes.
        spec: How pixels are prepared.
        limits: Bounds on what is read.
        cache: URI of a folder for prepared images; made if it is not there.
        tick: Called with the number of images that are read, as they are.
        read: Reads what is not in the cache.

    Raises:
        UsageError: The labels speak of an archive that is not there, or the cache is not usable.
        StorageError: The cache cannot be read or written after all.
    """
    by_uri = {info.uri: name for info, name in objects}
    rows = match_archives(labels, by_uri) if labels is not None else None
    cache = _usable(cache)
    bundles = [*bundles_of(objects, rows, spec, limits)]
    indices = _indices(bundles, Recipe(spec, limits, cache), tick, read)
    gathered = _assemble(bundles, indices, rows, cache, spec.size_px)
    named = labels_of_names(place.member for place in gathered.places) if labels is None else None
    return gathered if named is None else replace(gathered, labels=named)


def _usable(cache: str) -> str:
    """Return the URI of a cache, whose folder is there then."""
    uri = storage.normalise(cache)
    if storage.is_remote(uri):
        storage.check_output(uri)
        return uri
    try:
        make_private(Path(local_path(uri)))
    except OSError as error:
        raise UsageError(
            f"The folder {cache} for prepared images cannot be made: {error.strerror}."
        ) from error
    return uri


def _indices(bundles: Sequence[Bundle], recipe: Recipe, tick: Tick, read: Read) -> list[pa.Table]:
    """Return the index of each bundle, in their order."""
    kept = {info.uri for info in storage.list_objects(recipe.cache + "/")}
    found: dict[int, pa.Table] = {}
    todo = []
    for position, bundle in enumerate(bundles):
        if index_uri(recipe.cache, bundle.key) in kept:
            found[position] = read_index(recipe.cache, bundle.key)
        else:
            todo.append(position)
    if todo:
        for position, index in read([bundles[position] for position in todo], recipe, tick):
            found[todo[position]] = index
    return [found[position] for position in range(len(bundles))]


def _assemble(
    bundles: Sequence[Bundle],
    indices: list[pa.Table],
    rows: Mapping[str, Mapping[str, Label]] | None,
    cache: str,
    side: int,
) -> Gathered:
    """Join indices, which are emptied, with labels."""
    joined = _Joined(cache)
    indices.reverse()
    for bundle in bundles:
        joined.add(bundle, indices.pop(), rows)
    pa.default_memory_pool().release_unused()
    return joined.gathered(side)


_NUMBERS = ("index", "rows", "columns", "black", "sharpness", "row", "crc")
_BYTES = ("digest", "hash")


class _Joined:
    """The columns of a set as they grow, index by index: numbers, bytes and texts, no objects.

    Args:
        cache: URI of the prepared images; its key hides patients.
    """

    def __init__(self, cache: str) -> None:
        self._cache, self._names = cache, SetPatients(cache)
        self._uris: list[str] = []
        self._archives: list[str] = []
        self._shards: list[Shard] = []
        self._parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in (*_NUMBERS, *_BYTES, "object", "shard", "left_out")
        }
        self._members: list[pa.Array] = []
        self._left_out: list[pa.Array] = []
        self._reasons: list[pa.Array] = []

    def add(
        self, bundle: Bundle, index: pa.Table, rows: Mapping[str, Mapping[str, Label]] | None
    ) -> None:
        """Add the members of a bundle."""
        if index["reason"].null_count < index.num_rows:
            self._leave_out(index.filter(pc.is_valid(index["reason"])))
        part = index.filter(pc.is_null(index["reason"]))  # a copy: what Ray sent can go
        self._names.add(bundle, part, rows)
        parts = self._parts
        for name in _NUMBERS:
            parts[name].append(part[name].to_numpy())
        for name in _BYTES:
            parts[name].append(bytes_of(part[name]))
        parts["object"].append(part["object"].to_numpy() + len(self._uris))
        parts["shard"].append(part["shard"].to_numpy() + len(self._shards))
        self._members += part["member"].chunks
        self._uris += (wanted.info.uri for wanted in bundle.objects)
        self._archives += (wanted.name for wanted in bundle.objects)
        self._shards += shards_of(index)

    def _leave_out(self, left_out: pa.Table) -> None:
        self._parts["left_out"].append(left_out["object"].to_numpy() + len(self._uris))
        self._left_out += left_out["member"].chunks
        self._reasons += left_out["reason"].dictionary_encode().chunks

    def _column(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        """Return a column whole; its parts are let go."""
        parts = self._parts.pop(name)
        shape = parts[0].shape[1:] if parts else ()
        return np.concatenate([np.zeros((0, *shape), kind), *parts]).astype(kind, copy=False)

    def gathered(self, side: int) -> Gathered:
        """Return all of it, once."""
        uris, archives = Texts(self._uris), Texts(self._archives)
        members = pa.chunked_array(self._members, pa.string())
        object_N, index_N = self._column("object", np.int32), self._column("index", np.int64)

        def place(at: int) -> Place:
            here = int(object_N[at])
            return Place(uris[here], archives[here], members[at].as_py(), int(index_N[at]))

        digest_NB = self._column("digest", np.uint8).reshape(-1, DIGEST_BYTES)
        excluded = LeftOut(
            archives,
            self._column("left_out", np.int32),
            pa.chunked_array(self._left_out, pa.string()),
            pa.chunked_array(self._reasons, pa.dictionary(pa.int32(), pa.string())),
        )
        stored = StoredRows(
            self._cache,
            tuple(self._shards),
            self._column("shard", np.int32),
            self._column("row", np.int32),
            self._column("crc", np.uint32),
            side**2,
        )
        sizes = [self._column(name, np.int32) for name in ("rows", "columns")]
        cues = [self._column(name, np.float32) for name in ("black", "sharpness")]
        return Gathered(
            StoredPictures(stored, side),
            self._names.labels.coded(),
            self._names.patients_N(),
            np.column_stack(sizes),
            Rows(len(object_N), place),
            HexDigests(digest_NB.view(">u8").ravel().astype(np.uint64)),
            self._column("hash", np.uint8).reshape(-1, INDEX.field("hash").type.byte_width),
            np.column_stack(cues),
            excluded,
        )


def check_roots(roots: Sequence[str]) -> None:
    """Find without listing all of it that nothing is where images are expected.

    Raises:
        UsageError: There is nothing at one of the roots.
    """
    for root in map(storage.normalise, roots):
        try:
            next(iter(storage.list_objects(root)), None)
        except NotFoundError as error:
            raise storage.nothing_there(root, "--images") from error


def _listed(roots: Sequence[str]) -> Iterator[tuple[str, ObjectInfo]]:
    seen: set[str] = set()
    for root in map(storage.normalise, roots):
        is_there = False
        try:
            for info in storage.list_objects(root):
                is_there = True
                if info.uri not in seen:
                    seen.add(info.uri)
                    yield root, info
        except NotFoundError as error:
            if is_there:
                raise
            raise storage.nothing_there(root, "--images") from error


def load_set(
    roots: Sequence[str],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
    cache: str,
    tick: Tick = lambda _: None,
    read: Read = read_here,
) -> LabelledSet:
    """Read a labelled set, or take it from the cache where nothing has changed.

    Args:
        roots: Archives, radiographs, folders or prefixes.
        labels: Rows of a labels file; None: the folders are the classes.
        spec: How pixels are prepared; the package's own.
        limits: Bounds on what is read.
        cache: URI of a folder for prepared images; made if it is not there. Several trainings may
            share one.
        tick: Called with the number of images that are read, as they are.
        read: Reads what is not in the cache.

    Raises:
        UsageError: No image, an archive that is not there, or a class without a readable image.
        StorageError: An archive that is there cannot be listed, or the cache cannot be used.
    """
    objects = list_images(roots, () if labels is None else (labels.uri,))
    fingerprint = _fingerprint(objects, labels, spec, limits)
    gathered = gather(objects, labels, spec, limits, cache, tick, read)
    known = labels.names if labels is not None else tuple(sorted(gathered.labels.names))
    unread = unread_archives(gathered)
    if unread:
        fingerprint = _without(fingerprint, unread)
    return _labelled(gathered, known, fingerprint)


def _without(fingerprint: str, unread: Sequence[str]) -> str:
    """Of a set that lacks archives, so that nothing fitted to it passes for the whole set's."""
    return hashlib.sha256(json.dumps([fingerprint, *unread]).encode()).hexdigest()


def _fingerprint(
    objects: Sequence[tuple[ObjectInfo, str]],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
) -> str:
    recipe = [FORMAT, DECODE_VERSION, spec.to_json(), asdict(limits), labels is None]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for info, name in objects:
        digest.update(json.dumps([info.uri, info.version, name]).encode())
    for members in () if labels is None else labels.by_archive.values():
        for row in members.values():
            digest.update(json.dumps([row.archive, row.member, row.label, row.patient]).encode())
    return digest.hexdigest()


def _labelled(gathered: Gathered, names: tuple[str, ...], fingerprint: str) -> LabelledSet:
    index = {name: place for place, name in enumerate(names)}
    class_of = np.array([index[name] for name in gathered.labels.names], np.int64)
    labels_N = class_of[gathered.labels.code_N]
    counts = np.bincount(labels_N, minlength=len(names))
    empty = [name for name, count in zip(names, counts.tolist(), strict=True) if count == 0]
    if len(names) < 2 or empty:
        fault = f"the class {empty[0]!r} has no readable image" if empty else "fewer than two"
        left_out = reason_counts(gathered)
        raise UsageError(
            f"A training needs two classes or more with readable images, here {fault} "
            f"({len(gathered.labels)} images were read, {len(gathered.excluded)} left out"
            f"{f': {left_out}' if left_out else ''})."
        )
    places = gathered.places

    def place(at: int) -> tuple[str, str]:
        here = places[at]
        return here.archive, here.member

    def origin(at: int) -> tuple[str, int]:
        here = places[at]
        return here.uri, here.index

    return LabelledSet(
        gathered.images,
        labels_N,
        gathered.patients_N,
        gathered.sizes_N2,
        Rows(len(places), place),
        names,
        gathered.excluded,
        fingerprint,
        gathered.digests,
        gathered.hashes_NB,
        gathered.cues_NC,
        Rows(len(places), origin),
    )
