"""Reads labelled radiographs by the very loop that the main job reads with.

Archives -> `read_radiographs` (members, a child process that decodes) -> uint8 (S, S). What cannot
be used is in `excluded`, image by image with its reason: nothing is left out unseen.

Shapes: S side of the preprocessed image.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.decode.decoded import Header
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import ArchiveError, NotFoundError, Reason, StorageError, UsageError
from implant_model.limits import Limits
from implant_model.radiographs import read_radiographs
from implant_model.storage.uri import ObjectInfo
from training.data.labelled import (
    Excluded,
    LabelledSet,
    content_digest,
    from_file,
    reason_counts,
    to_file,
    unread_archives,
)
from training.data.labels import Label, Labels, label_of_name, labels_of_names, match_archives


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


@dataclass
class Gathered:
    """Rows as they come: what was read, and what could not be used. Patients are as written.

    `tick` is called with the number of images after each member.
    """

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    patients: list[str | None] = field(default_factory=list, repr=False)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    tick: Callable[[int], None] = field(default=lambda _: None, repr=False, compare=False)


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
    tick: Callable[[int], None] = lambda _: None,
) -> Gathered:
    """Read, decode and preprocess what `list_images` found, see `load_set`.

    Args:
        objects: What may hold images.
        labels: Rows of a labels file; None: the folders are the classes.
        spec: How pixels are prepared.
        limits: Bounds on what is read.
        tick: Called with the number of images that are read, as they are.

    Raises:
        UsageError: The labels speak of an archive that is not there.
    """
    by_uri = {info.uri: name for info, name in objects}
    wanted = match_archives(labels, by_uri) if labels is not None else None
    gathered = Gathered(tick=tick)
    with DecodeProcess(spec, limits) as decoder:
        for info, name in objects:
            rows = None if wanted is None else wanted.get(info.uri, {})
            _gather(gathered, info, name, rows, decoder, limits)
    if labels is None:
        members = [place.member for place in gathered.places]
        gathered.labels = labels_of_names(members) or gathered.labels
    return gathered


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


def _gather(
    gathered: Gathered,
    info: ObjectInfo,
    name: str,
    rows: Mapping[str, Label] | None,
    decoder: DecodeProcess,
    limits: Limits,
) -> None:
    """Add the images of one archive or loose radiograph, and list what it cannot add."""
    seen: set[str] = set()

    def named(member: Member) -> tuple[str, str | None, str | None]:
        """What a labels file calls a member, its label, and why it is not wanted."""
        key = "" if rows is not None and "" in rows else member.name
        label = _label_of(rows, name, key)
        return key, label, _unusable(member, label, key in seen)

    try:
        with storage.open_object(info) as reader:
            for radiograph in read_radiographs(
                *(reader, name.rsplit("/", 1)[-1], limits, decoder.prepare, content_digest),
                allocate=decoder.allocate,
                is_wanted=lambda member: named(member)[2] is None,
            ):
                member, prepared = radiograph.member, radiograph.prepared
                key, label, reason = named(member)
                seen.add(key)
                if prepared is not None and prepared.image is None:
                    reason = str(prepared.reason)
                if prepared is None or prepared.image is None or label is None:
                    gathered.excluded.append(Excluded(name, member.name, str(reason)))
                    gathered.tick(len(gathered.images))
                    continue
                patient = rows[key].patient if rows is not None else None
                place = Place(info.uri, name, key, member.index)
                gathered.digests.append(str(radiograph.content))
                _add(gathered, place, label, patient, prepared.header, prepared.image)
    except (ArchiveError, StorageError) as error:
        gathered.excluded.append(Excluded(name, "", str(error.reason)))
    missing = sorted(set(rows) - seen) if rows is not None else []
    gathered.excluded.extend(Excluded(name, member, "not_in_archive") for member in missing)


def _unusable(member: Member, label: str | None, seen_before: bool) -> str | None:
    """Why a member is not decoded: it has no label, no content, or the name of one before it."""
    if label is None:
        return str(member.reason) if member.reason is Reason.CLUTTER else "no_label"
    if seen_before:
        return "name_twice"
    return None if member.reason is None else str(member.reason)


def _label_of(rows: Mapping[str, Label] | None, name: str, key: str) -> str | None:
    if rows is None:
        return label_of_name(name, key)
    return rows[key].label if key in rows else None


def _add(
    gathered: Gathered,
    place: Place,
    label: str,
    patient: str | None,
    header: Header,
    image_SS: NDArray[np.uint8],
) -> None:
    gathered.images.append(image_SS)
    gathered.labels.append(label)
    gathered.patients.append(patient or header.patient)
    gathered.sizes.append((header.rows or 0, header.columns or 0))
    gathered.places.append(place)
    gathered.tick(len(gathered.images))


CACHE_FORMAT = 4


def load_set(
    roots: Sequence[str],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
    cache: Path,
    tick: Callable[[int], None] = lambda _: None,
) -> LabelledSet:
    """Read a labelled set, or take it from the cache where nothing has changed.

    Args:
        roots: Archives, radiographs, folders or prefixes.
        labels: Rows of a labels file; None: the folders are the classes.
        spec: How pixels are prepared; the package's own.
        limits: Bounds on what is read.
        cache: Folder for the prepared set; made if it is not there.
        tick: Called with the number of images that are read, as they are.

    Raises:
        UsageError: No image, an archive that is not there, or a class without a readable image.
        StorageError: An archive that is there cannot be listed.
    """
    objects = list_images(roots, () if labels is None else (labels.uri,))
    fingerprint = _fingerprint(objects, labels, spec, limits)
    file = cache / f"{fingerprint[:32]}.npz"
    if file.is_file():
        return from_file(file, fingerprint)
    gathered = gather(objects, labels, spec, limits, tick)
    known = labels.names if labels is not None else tuple(sorted(set(gathered.labels)))
    unread = unread_archives(gathered)
    if unread:
        return _assemble(gathered, known, _without(fingerprint, unread))
    labelled = _assemble(gathered, known, fingerprint)
    to_file(file, labelled)
    return labelled


def _without(fingerprint: str, unread: Sequence[str]) -> str:
    """Of a set that lacks archives, so that nothing fitted to it passes for the whole set's."""
    return hashlib.sha256(json.dumps([fingerprint, *unread]).encode()).hexdigest()


def _fingerprint(
    objects: Sequence[tuple[ObjectInfo, str]],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
) -> str:
    rows = (
        None
        if labels is None
        else [
            [row.archive, row.member, row.label, row.patient]
            for members in labels.by_archive.values()
            for row in members.values()
        ]
    )
    document = {
        "format": CACHE_FORMAT,
        "decode": DECODE_VERSION,
        "objects": [[info.uri, info.version, name] for info, name in objects],
        "labels": rows,
        "preprocessing": spec.to_json(),
        "limits": asdict(limits),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _assemble(gathered: Gathered, names: tuple[str, ...], fingerprint: str) -> LabelledSet:
    counts = {name: gathered.labels.count(name) for name in names}
    empty = [name for name, count in counts.items() if count == 0]
    if len(names) < 2 or empty:
        fault = f"the class {empty[0]!r} has no readable image" if empty else "fewer than two"
        left_out = reason_counts(gathered)
        raise UsageError(
            f"A training needs two classes or more with readable images, here {fault} "
            f"({len(gathered.labels)} images were read, {len(gathered.excluded)} left out"
            f"{f': {left_out}' if left_out else ''})."
        )
    index = {name: place for place, name in enumerate(names)}
    numbers: dict[str, int] = {}
    patients = [
        -1 if patient is None else numbers.setdefault(patient, len(numbers))
        for patient in gathered.patients
    ]
    return LabelledSet(
        np.stack(gathered.images),
        np.array([index[label] for label in gathered.labels], dtype=np.int64),
        np.array(patients, dtype=np.int64),
        np.array(gathered.sizes, dtype=np.int64).reshape(-1, 2),
        tuple((place.archive, place.member) for place in gathered.places),
        names,
        tuple(gathered.excluded),
        fingerprint,
        tuple(gathered.digests),
    )
