"""Labelled radiographs as one tensor set, read by the very code that the main job reads with.

What `gather` reads is kept as uint8 (N, S, S) in one `.npz` file under a hash of all that made it:
archive versions, labels, preprocessing, limits. A set that lacks an archive for the store's sake is
not kept: the next run reads again. Patients are kept as numbers that mean nothing outside the set.

Shapes: N images, S side of the preprocessed image.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.storage.store import ObjectInfo
from training.data.gather import Gathered, gather, list_images
from training.data.labelled import LabelledSet, from_file, to_file, unread_archives
from training.data.labels import Labels

CACHE_FORMAT = 4


def load_set(
    roots: Sequence[str],
    labels: Labels | None,
    spec: Preprocessing,
    limits: Limits,
    cache: Path,
) -> LabelledSet:
    """Reads a labelled set, or takes it from the cache where nothing has changed.

    Args:
        roots: Archives, radiographs, folders or prefixes.
        labels: Rows of a labels file; None: the folders are the classes.
        spec: How pixels are prepared; the package's own.
        limits: Bounds on what is read.
        cache: Folder for the prepared set; made if it is not there.

    Raises:
        UsageError: No image, an archive that is not there, or a class without a readable image.
        StorageError: An archive that is there cannot be listed.
    """
    objects = list_images(roots, () if labels is None else (labels.uri,))
    fingerprint = _fingerprint(objects, labels, spec, limits)
    file = cache / f"{fingerprint[:32]}.npz"
    if file.is_file():
        return from_file(file, fingerprint)
    gathered = gather(objects, labels, spec, limits)
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
        first = gathered.excluded[0] if gathered.excluded else None
        hint = f"; {first.archive} {first.member}: {first.reason}" if first else ""
        raise UsageError(
            f"A training needs two classes or more with readable images, here {fault} "
            f"({len(gathered.labels)} images were read, {len(gathered.excluded)} left out{hint})."
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
