"""Lets a package name labelled images, and sets it against another package or a reader.

Shapes: N images, S side of the preprocessed image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from implant_model.catalogue import Catalogue, folded
from implant_model.classifier import Classifier
from implant_model.storage import ObjectInfo
from training.assessment import Examined
from training.config import SplitSettings
from training.duplicates import duplicate_groups
from training.gather import Gathered, Place
from training.labels import Labels, match_archives
from training.paired import Paired, compare_readers
from training.split import join_groups

Images = NDArray[np.uint8]
Key = tuple[str, str]
"""URI of the archive, and the member as the labels file has it."""


def examine(classifier: Classifier, gathered: Gathered) -> Examined:
    """Classifies labelled images.

    Args:
        classifier: A package at work.
        gathered: Images by that package's preprocessing, one or more.

    Returns:
        Labels by name or synonym of the package's catalogue, -1 where it has none; groups of
        patients and near duplicates, as in training.
    """
    images_NSS = np.stack(gathered.images)
    pictures_N = duplicate_groups(images_NSS, SplitSettings().duplicate_bits)
    catalogue = classifier.package.catalogue
    return Examined(
        catalogue.names,
        labels_of(catalogue, gathered.labels),
        classifier.classify(images_NSS),
        join_groups(gathered.patients, pictures_N.tolist()),
    )


def labels_of(catalogue: Catalogue, texts: Sequence[str]) -> NDArray[np.int64]:
    """Indices into a catalogue by name or synonym; -1 for what it lacks."""
    found = [catalogue.find(text) for text in texts]
    return np.array([-1 if index is None else index for index in found], dtype=np.int64)


def outside(examined: Examined, gathered: Gathered) -> Counter[str]:
    """Labels that the catalogue lacks, with their images."""
    return Counter(gathered.labels[i] for i in np.flatnonzero(~examined.known_N))


def package_hits(classifier: Classifier, gathered: Gathered) -> dict[Key, bool]:
    """Whether another package names each image rightly, of implants that its catalogue holds."""
    labels_N = labels_of(classifier.package.catalogue, gathered.labels)
    said = classifier.classify(np.stack(gathered.images))
    right_N = said.probabilities_NC.argmax(axis=1) == labels_N
    return {
        key_of(place): bool(right)
        for place, right, label in zip(gathered.places, right_N, labels_N, strict=True)
        if label >= 0
    }


def reader_hits(
    answers: Labels,
    objects: Sequence[tuple[ObjectInfo, str]],
    gathered: Gathered,
    catalogue: Catalogue,
) -> dict[Key, bool]:
    """Whether a reader's answers are right, for the images that were answered.

    Args:
        answers: The reader's table: archive, member, and as label what was read.
        objects: The images' archives, as `list_images` gives them.
        gathered: The images.
        catalogue: Whose synonyms count as the same implant.

    Raises:
        UsageError: The table speaks of an archive that is not among the images.
    """
    rows = match_archives(answers, {info.uri: name for info, name in objects})

    def meant(text: str) -> int | str:
        index = catalogue.find(text)
        return folded(text) if index is None else index

    return {
        key_of(place): meant(rows[place.uri][place.member].label) == meant(label)
        for place, label in zip(gathered.places, gathered.labels, strict=True)
        if place.member in rows.get(place.uri, {})
    }


def pair(examined: Examined, gathered: Gathered, hits: Mapping[Key, bool]) -> Paired:
    """Compares the package with another reader on the images that both could name.

    These are images of implants in the package's catalogue that `hits` speaks of.
    """
    keys = [key_of(place) for place in gathered.places]
    at = [i for i in np.flatnonzero(examined.known_N) if keys[i] in hits]
    other_N = np.array([hits[keys[i]] for i in at], dtype=bool)
    return compare_readers(examined.right_N[at], other_N, examined.groups_N[at])


def key_of(place: Place) -> Key:
    """What an image is known by in every labels file."""
    return place.uri, place.member
