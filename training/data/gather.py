"""A labelled set from archives and labels: what is in the cache, and what must be read first.

What cannot be used is in `excluded`, image by image with its reason: nothing is left out unseen.
Memory follows the images by some two hundred bytes each; their pictures remain in the cache.

Shapes: N images, S side of the preprocessed image, B bytes, C cues.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

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
from training.data.bundles import FORMAT, Bundle, Wanted, bundles_of
from training.data.labelled import Excluded, LabelledSet, Rows, reason_counts, unread_archives
from training.data.labels import (
    Label,
    Labels,
    label_of_name,
    labels_of_names,
    match_archives,
    orthonet_label,
)
from training.data.reading import (
    INDEX,
    Recipe,
    Tick,
    hash_patient,
    index_uri,
    patient_key,
    read_here,
    read_index,
    shards_of,
)
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
        sizes_N2: Rows and columns as stored, int64; 0 where unknown.
        places: Where each lies.
        digests: Of each image's file, see `content_digest`.
        hashes_NB: See `duplicates`.
        cues_NC: See `shortcuts.cues_of`.
        excluded: What could not be used, and why.
    """

    images: Pictures
    labels: Sequence[str]
    patients_N: NDArray[np.int64]
    sizes_N2: NDArray[np.int64]
    places: Sequence[Place]
    digests: Sequence[str]
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
    if labels is None and all(orthonet_label(place.member) for place in gathered.places):
        named = labels_of_names([place.member for place in gathered.places])
        gathered = replace(gathered, labels=named or gathered.labels)
    return gathered


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
    excluded: list[Excluded] = []
    names = _Names(cache)
    objects: list[Wanted] = []
    shards: list[Shard] = []
    parts: list[pa.Table] = []
    object_N, shard_N = [], []
    indices.reverse()
    for bundle in bundles:
        index = indices.pop()
        left_out = index.filter(pc.is_valid(index["reason"])).select(["object", "member", "reason"])
        for row in left_out.to_pylist():
            name = bundle.objects[row["object"]].name
            excluded.append(Excluded(name, row["member"], row["reason"]))
        part = index.filter(pc.is_null(index["reason"]))
        names.add(bundle, part, rows)
        object_N.append(part["object"].to_numpy() + len(objects))
        shard_N.append(part["shard"].to_numpy() + len(shards))
        parts.append(part.select(_KEPT).replace_schema_metadata(None))
        objects.extend(bundle.objects)
        shards.extend(shards_of(index))
    table = pa.concat_tables([INDEX.empty_table().select(_KEPT), *parts]).combine_chunks()
    parts.clear()
    pa.default_memory_pool().release_unused()
    members, digests, index_N = table["member"], table["digest"], table["index"].to_numpy()
    where_N = np.concatenate([np.zeros(0, np.int32), *object_N])

    def place(at: int) -> Place:
        wanted = objects[where_N[at]]
        return Place(wanted.info.uri, wanted.name, members[at].as_py(), int(index_N[at]))

    count = table.num_rows
    return Gathered(
        StoredPictures(
            StoredRows(
                cache,
                tuple(shards),
                np.concatenate([np.zeros(0, np.int32), *shard_N]).astype(np.int32),
                table["row"].to_numpy(),
                table["crc"].to_numpy(),
                side**2,
            ),
            side,
        ),
        names.labels,
        np.array(names.patients, np.int64),
        np.column_stack([table["rows"].to_numpy(), table["columns"].to_numpy()]).astype(np.int64),
        Rows(count, place),
        Rows(count, lambda at: digests[at].as_py().hex()),
        _bytes_of(table["hash"]),
        np.column_stack([table["black"].to_numpy(), table["sharpness"].to_numpy()]),
        excluded,
    )


_KEPT = ["member", "index", "digest", "hash", "black", "sharpness", "rows", "columns", "row", "crc"]


def _bytes_of(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of binary values of one length: uint8 (N, B)."""
    width = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width :][: len(chunk) * width]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, width)


class _Names:
    """Labels and patients' numbers, image by image.

    Args:
        cache: Whose key hides the patients of headers.
    """

    def __init__(self, cache: str) -> None:
        self.labels: list[str] = []
        self.patients = array("q")
        self._cache, self._key = cache, b""
        self._numbers: dict[bytes, int] = {}

    def add(
        self, bundle: Bundle, part: pa.Table, rows: Mapping[str, Mapping[str, Label]] | None
    ) -> None:
        """Add the images of a bundle."""
        columns = (part[name].to_pylist() for name in ("object", "member", "patient"))
        for number, member, header_patient in zip(*columns, strict=True):
            wanted = bundle.objects[number]
            if rows is None:
                label, patient = label_of_name(wanted.name, member), header_patient
            else:
                row = rows[wanted.info.uri][member]
                label, patient = row.label, header_patient
                if row.patient:
                    patient = self._hash(row.patient)
            self.labels.append(sys.intern(str(label)))
            unknown = patient is None
            self.patients.append(
                -1 if unknown else self._numbers.setdefault(patient, len(self._numbers))
            )

    def _hash(self, patient: str) -> bytes:
        self._key = self._key or patient_key(self._cache)
        return hash_patient(patient, self._key)


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
    known = labels.names if labels is not None else tuple(sorted(set(gathered.labels)))
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
    labels_N = np.fromiter(map(index.__getitem__, gathered.labels), np.int64, len(gathered.labels))
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
        tuple(gathered.excluded),
        fingerprint,
        gathered.digests,
        gathered.hashes_NB,
        gathered.cues_NC,
        Rows(len(places), origin),
    )
