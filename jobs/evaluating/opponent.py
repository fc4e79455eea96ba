"""Sets a package against another one, or against a reader's table, on the same images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from implant_model.classifier import Classifier
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.package.catalogue import Catalogue, folded
from implant_model.package.load import ModelPackage
from implant_model.storage.uri import ObjectInfo
from jobs.evaluating.assessment import Examined
from jobs.evaluating.evaluation_call import Opponent
from jobs.evaluating.examination import labels_of
from jobs.evaluating.naming import Name, name_here
from jobs.evaluating.paired import Paired, compare_readers
from training.data.gather import Gathered, Place
from training.data.labels import Labels, Spellings, match_archives

Key = tuple[str, str]
"""URI of the archive, and the member as the labels file has it."""


def compare_with(
    opponent: Opponent,
    classifier: Classifier | None,
    package: ModelPackage,
    examined: Examined,
    held: Gathered,
    objects: Sequence[tuple[ObjectInfo, str]],
    read: Callable[[Preprocessing], Gathered],
    name: Name = name_here,
) -> Paired:
    """Compare the package with the opponent on the images that both could name.

    These are images of implants in the package's catalogue that another package holds in its own,
    or that a reader answered.

    Args:
        opponent: Who else.
        classifier: Its package at work; None where it is a reader's table.
        package: The one that is evaluated.
        examined: What the package states.
        held: The images it was said of.
        objects: Their archives, as `list_images` gives them.
        read: Reads the images by another preprocessing.
        name: Where they are named, see `naming`.

    Raises:
        UsageError: There is no such image, or a table speaks of an archive that is not there.
    """
    hits: Mapping[Key, bool] = {}
    if classifier is not None:
        same = classifier.package.preprocessing == package.preprocessing
        images = held if same else read(classifier.package.preprocessing)
        hits = package_hits(classifier, images, name)
    elif opponent.answers is not None:
        hits = reader_hits(opponent.answers, objects, held, package.catalogue)
    return pair(examined, held, hits, opponent.name)


def package_hits(classifier: Classifier, gathered: Gathered, name: Name) -> dict[Key, bool]:
    """Whether another package names each image rightly, of implants that its catalogue holds."""
    labels_N = labels_of(classifier.package.catalogue, gathered.labels)
    said = name(classifier, gathered.images)
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
    """Return whether a reader's answers are right, for the images that were answered.

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

    spellings = {uri: Spellings(members) for uri, members in rows.items()}
    hits = {}
    for place, label in zip(gathered.places, gathered.labels, strict=True):
        member = spellings[place.uri].find(place.member) if place.uri in rows else None
        if member is not None:
            hits[key_of(place)] = meant(rows[place.uri][member].label) == meant(label)
    return hits


def pair(examined: Examined, gathered: Gathered, hits: Mapping[Key, bool], name: str) -> Paired:
    """Compare on images of implants in the package's catalogue that `hits` speaks of.

    Raises:
        UsageError: There is none.
    """
    keys = [key_of(place) for place in gathered.places]
    at = [i for i in np.flatnonzero(examined.known_N) if keys[i] in hits]
    if not at:
        raise UsageError(f"There is no image that both this model and {name} could name.")
    other_N = np.array([hits[keys[i]] for i in at], dtype=bool)
    return compare_readers(examined.right_N[at], other_N, examined.groups_N[at])


def key_of(place: Place) -> Key:
    """Return what an image is known by in every labels file."""
    return place.uri, place.member
