"""Lets a package name labelled images.

Shapes: N images, S side of the preprocessed image.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from implant_model.classifier import Classifier, has_gpu
from implant_model.errors import UsageError
from implant_model.package.catalogue import Catalogue
from implant_model.package.load import ModelPackage
from jobs.evaluating.assessment import Examined
from jobs.evaluating.naming import Name, name_here
from training.data.duplicates import near_groups
from training.data.gather import Gathered
from training.data.set_columns import CodedTexts, digest_values
from training.data.split import join_groups
from training.data.trained_on import record_of
from training.settings import SplitSettings


def examine(classifier: Classifier, gathered: Gathered, name: Name = name_here) -> Examined:
    """Classify labelled images.

    Args:
        classifier: A package at work.
        gathered: Images by that package's preprocessing, one or more.
        name: Where they are named, see `naming`.

    Returns:
        Labels by name or synonym of the package's catalogue, -1 where it has none; groups of
        patients and near duplicates, as in training.
    """
    pictures_N = near_groups(gathered.hashes_NB, duplicate_bits(classifier.package))
    catalogue = classifier.package.catalogue
    return Examined(
        catalogue.names,
        labels_of(catalogue, gathered.labels),
        name(classifier, gathered.images),
        join_groups(gathered.patients_N, pictures_N),
    )


def duplicate_bits(package: ModelPackage) -> int:
    """Return what the package's training took for near duplicates, where recorded; else the usual.

    Pictures drawn alike, as phantoms are, or a narrow view of one joint, lie nearer to each other
    than different radiographs do, and would be one large group.
    """
    found: object = package.provenance
    for key in ("settings", "split", "duplicate_bits"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if type(found) is int and 0 <= found < 256 else SplitSettings().duplicate_bits


def labels_of(catalogue: Catalogue, texts: Sequence[str]) -> NDArray[np.int64]:
    """Return indices into a catalogue by name or synonym; -1 for what it lacks."""
    if isinstance(texts, CodedTexts):
        return labels_of(catalogue, texts.names)[texts.code_N]
    found = [catalogue.find(text) for text in texts]
    return np.array([-1 if index is None else index for index in found], dtype=np.int64)


def outside(examined: Examined, gathered: Gathered) -> Counter[str]:
    """Return labels that the catalogue lacks, with their images."""
    return Counter(gathered.labels[i] for i in np.flatnonzero(~examined.known_N).tolist())


def trained_on(package: ModelPackage, gathered: Gathered) -> int | None:
    """Count images that the package's networks were fitted to; None where it has no record."""
    record = record_of(package)
    return None if record is None else int(record.hold(digest_values(gathered.digests)).sum())


def usable_device(name: str) -> str:
    """Return the name of a device that is there.

    Raises:
        UsageError: It is not.
    """
    if name.startswith("cuda") and not has_gpu():
        raise UsageError(f"The device {name} was asked for, and no GPU can be used; cpu can.")
    return name
