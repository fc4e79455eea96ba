"""Reads bundles by the very loop that the main job reads with, into a cache of shards.

Archives -> `read_radiographs` (members, a child process that decodes) -> uint8 (S, S) -> shards,
and an index of every member that was met, with the reason of each that has no picture. The index is
put last, whole: a bundle that has one is done. What could not be read for the store's sake has none
and is read again.

A patient of a file's header is in the index as a keyed hash, which tells only whether two images
are of one patient; the key is made with the cache and lies in it.
"""

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import TRANSIENT, ArchiveError, Reason, StorageError
from implant_model.limits import Limits
from implant_model.radiographs import Radiograph, read_radiographs
from training.data.bundles import Bundle, Wanted
from training.data.duplicates import BITS, perceptual_hash
from training.data.labelled import DIGEST_BYTES, content_digest
from training.data.labels import Spellings, label_of_name
from training.data.shards import SHARD_BYTES, Shard, keep, put_shard
from training.data.shortcuts import black_share, sharpness

PATIENT_BYTES: Final = 16
_NUMBER: Final = re.compile(r"0*([0-9]+?)(?:\.0+)?")
KEY_FILE: Final = "key"
SHARDS: Final = b"shards"
INDEX: Final = pa.schema(
    [
        ("object", pa.int32()),  # position in the bundle
        ("member", pa.string()),  # as a labels file has it; "" for a loose radiograph or an archive
        ("index", pa.int64()),  # position in the archive, -1 for none
        ("reason", pa.string()),  # null where there is a picture
        ("rows", pa.int32()),  # as stored, 0 where unknown
        ("columns", pa.int32()),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("patient", pa.binary(PATIENT_BYTES)),
        ("hash", pa.binary(BITS // 8)),
        ("black", pa.float32()),  # see `shortcuts`
        ("sharpness", pa.float32()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("crc", pa.uint32()),
    ]
)
"""One row for each member that was met, and for each that a labels file names in vain."""
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Recipe:
    """How bundles are read, and where they are kept.

    Attributes:
        spec: How pixels are prepared.
        limits: Bounds on what is read.
        cache: URI of the folder of indices and shards.
    """

    spec: Preprocessing
    limits: Limits
    cache: str


def index_uri(cache: str, key: str) -> str:
    """Return where the index of a bundle is kept."""
    return storage.join(cache, f"{key}.parquet")


def patient_key(cache: str) -> bytes:
    """Return the key of the cache's patients, made where there is none.

    Raises:
        StorageError: The cache cannot be written or read.
    """
    uri = storage.join(cache, KEY_FILE)
    if storage.exists(uri) is None:
        storage.put_if_absent(uri, secrets.token_bytes(32))
    return storage.read_bytes(uri)


def hash_patient(patient: str, key: bytes) -> bytes:
    """Return what stands for a patient in an index.

    A number is the same one without the zeros before it and with a decimal behind it, which tables
    lose and add: `000123` of a header is `123.0` of a table that pandas wrote. Were they two, the
    images of one patient would be on two sides of a split; two patients who are taken for one are
    on one side.
    """
    number = _NUMBER.fullmatch(patient.strip())
    plain = number[1] if number else patient.strip()
    return hashlib.blake2b(plain.encode(), key=key, digest_size=PATIENT_BYTES).digest()


def read_bundle(bundle: Bundle, recipe: Recipe, decoder: DecodeProcess, tick: Tick) -> pa.Table:
    """Read a bundle, put its shards and its index.

    Args:
        bundle: What to read.
        recipe: How, and where to.
        decoder: The decoding process.
        tick: Called with the number of pictures, one more, after each member.

    Returns:
        The index.

    Raises:
        StorageError: The cache cannot be written.
    """
    rows = IndexRows(recipe, bundle.key, tick)
    is_whole = True
    for number, wanted in enumerate(bundle.objects):
        is_whole &= _read_object(rows, number, wanted, decoder)
    index = rows.table()
    if is_whole:
        put_index(recipe.cache, bundle.key, index)
    return index


def put_index(cache: str, key: str, index: pa.Table) -> None:
    """Keep the index of a bundle, which is done then.

    Raises:
        StorageError: It cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(index, sink, compression="zstd", write_page_checksum=True)
    keep(index_uri(cache, key), sink.getvalue().to_pybytes())


def read_index(cache: str, key: str) -> pa.Table:
    """Read the index of a bundle that is done.

    Raises:
        StorageError: It cannot be read or is damaged.
    """
    uri = index_uri(cache, key)
    try:
        data = pa.BufferReader(storage.read_bytes(uri))
        index = pq.read_table(data, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(uri) from error
    if not index.schema.equals(INDEX) or SHARDS not in (index.schema.metadata or {}):
        raise _damaged(uri)
    return index


def _damaged(uri: str) -> StorageError:
    return StorageError(
        f"{uri} is damaged; remove the folder of prepared images, and they are read anew."
    )


def num_pictures(index: pa.Table) -> int:
    """Return how many members of an index have a picture."""
    return int(index["reason"].null_count)


def shards_of(index: pa.Table) -> list[Shard]:
    """Return the shards that an index speaks of."""
    return [Shard(*shard) for shard in json.loads(index.schema.metadata[SHARDS])]


@dataclass
class IndexRows:
    """The index as it grows, and the pictures that are in no shard yet."""

    recipe: Recipe
    key: str
    tick: Tick
    patients: bytes = field(default=b"", repr=False)
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in INDEX.names}
    )
    shards: list[Shard] = field(default_factory=list)
    waiting: list[NDArray[np.uint8]] = field(default_factory=list)
    pictures: int = 0

    def _add(self, **values: object) -> None:
        for name, column in self.columns.items():
            column.append(values.get(name))

    def leave_out(self, number: int, member: str, index: int, reason: str) -> None:
        """Add a member of an object that has no picture."""
        self._add(object=number, member=member, index=index, reason=reason)
        self.tick(self.pictures)

    def add_picture(
        self, number: int, key: str, radiograph: Radiograph, image_SS: NDArray[np.uint8]
    ) -> None:
        """Add a member that has one; it is put when there are enough for a shard."""
        prepared, place = radiograph.prepared, len(self.waiting)
        header = None if prepared is None else prepared.header
        patient = None if header is None else header.patient
        flat = np.ascontiguousarray(image_SS).ravel()
        self.waiting.append(flat.copy())
        self._add(
            object=number,
            member=key,
            index=radiograph.member.index,
            rows=(header and header.rows) or 0,
            columns=(header and header.columns) or 0,
            digest=bytes.fromhex(str(radiograph.content)),
            patient=self._hashed(patient) if patient else None,
            hash=perceptual_hash(image_SS).tobytes(),
            black=black_share(image_SS),
            sharpness=sharpness(image_SS),
            shard=len(self.shards),
            row=place,
            crc=zlib.crc32(flat.data),
        )
        self.pictures += 1
        self.tick(self.pictures)
        if (place + 1) * flat.nbytes >= SHARD_BYTES:
            self._put()

    def _hashed(self, patient: str) -> bytes:
        self.patients = self.patients or patient_key(self.recipe.cache)
        return hash_patient(patient, self.patients)

    def _put(self) -> None:
        pictures_NB = np.stack(self.waiting)
        self.waiting.clear()
        self.shards.append(put_shard(self.recipe.cache, self.key, pictures_NB))

    def table(self) -> pa.Table:
        """Put what is in no shard yet; return the index."""
        if self.waiting:
            self._put()
        shards = json.dumps([[shard.name, shard.start] for shard in self.shards])
        return pa.table(self.columns, schema=INDEX.with_metadata({SHARDS: shards}))


def _read_object(rows: IndexRows, number: int, wanted: Wanted, decoder: DecodeProcess) -> bool:
    """Add the members of one archive or loose radiograph; return whether the store gave it."""
    seen: set[str] = set()
    named = wanted.named()
    is_loose = named is not None and "" in named
    spellings = Spellings(named or ())

    def key_of(member: Member) -> str:
        return "" if is_loose else spellings.find(member.name) or member.name

    def unusable(member: Member) -> str | None:
        key = key_of(member)
        return _unusable(member, _is_labelled(wanted.name, named, key), key in seen)

    is_whole = True
    try:
        with storage.open_object(wanted.info) as reader:
            for radiograph in read_radiographs(
                *(reader, wanted.name.rsplit("/", 1)[-1], rows.recipe.limits, decoder.prepare),
                content_digest,
                allocate=decoder.allocate,
                is_wanted=lambda member: unusable(member) is None,
            ):
                key = key_of(radiograph.member)
                _add(rows, number, radiograph, unusable(radiograph.member), key)
                seen.add(key)
    except (ArchiveError, StorageError) as error:
        rows.leave_out(number, "", -1, str(error.reason))
        is_whole = error.reason not in TRANSIENT
    for member in sorted((named or frozenset()) - seen):
        rows.leave_out(number, member, -1, "not_in_archive")
    return is_whole


def _add(
    rows: IndexRows, number: int, radiograph: Radiograph, reason: str | None, key: str
) -> None:
    member, prepared = radiograph.member, radiograph.prepared
    if prepared is not None and prepared.image is not None:
        rows.add_picture(number, key, radiograph, prepared.image)
        return
    if prepared is not None:
        reason = str(prepared.reason)
    rows.leave_out(number, member.name, member.index, str(reason))


def _is_labelled(archive: str, named: frozenset[str] | None, key: str) -> bool:
    if named is None:
        return label_of_name(archive, key) is not None
    return key in named


def _unusable(member: Member, is_labelled: bool, seen_before: bool) -> str | None:
    """Why a member is not decoded: it has no label, no content, or the name of one before it."""
    if not is_labelled:
        return str(member.reason) if member.reason is Reason.CLUTTER else "no_label"
    if seen_before:
        return "name_twice"
    return None if member.reason is None else str(member.reason)


def _tick_on(tick: Tick, before: int, more: int) -> None:
    tick(before + more)


def read_here(
    bundles: Sequence[Bundle], recipe: Recipe, tick: Tick
) -> Iterator[tuple[int, pa.Table]]:
    """Read bundles in this process, one after the other; yield the index of each by position."""
    before = 0
    with DecodeProcess(recipe.spec, recipe.limits) as decoder:
        for position, bundle in enumerate(bundles):
            index = read_bundle(bundle, recipe, decoder, partial(_tick_on, tick, before))
            before += num_pictures(index)
            yield position, index
