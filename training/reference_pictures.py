"""Reference radiographs of a package: which of a labelled set become them, and their file.

Letters: R references, H rows, W columns.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from implant_model.classifier import Classifier, measure
from implant_model.package.load import ModelPackage
from implant_model.package.references import FILE, MAX_SIDE_PX, References
from implant_model.storage.local_files import write_whole
from training.data.shards import Pictures

READABLE: Final = 0o644


def choose(
    labels: Sequence[int | None],
    patients_N: NDArray[np.int64],
    digests: Sequence[str],
    per_class: int,
) -> list[int]:
    """Return places of the images that become references, implant by implant.

    In an order that follows from the images' content, so that the same set gives the same; of
    patients who have several, the others come when each patient has one.

    Args:
        labels: Implant of each image; None for one that is none of the package's.
        patients_N: Number of each image's patient; -1 where unknown.
        digests: Of each image's file.
        per_class: References of an implant.
    """
    taken: Counter[tuple[int, int | str]] = Counter()
    ranked: list[tuple[int, int, str, int]] = []
    for at in sorted(range(len(labels)), key=lambda at: digests[at]):
        label = labels[at]
        if label is None:
            continue
        patient = int(patients_N[at])
        owner = label, digests[at] if patient < 0 else patient
        ranked.append((label, taken[owner], digests[at], at))
        taken[owner] += 1
    used: Counter[int] = Counter()
    chosen = []
    for label, _, _, at in sorted(ranked):
        if used[label] < per_class:
            chosen.append(at)
            used[label] += 1
    return chosen


def picture_of(image_HW: NDArray[np.uint8]) -> bytes:
    """Return what the networks see as an 8-bit grey PNG of at most 256 px a side."""
    if max(image_HW.shape) > MAX_SIDE_PX:
        size = (MAX_SIDE_PX, MAX_SIDE_PX)
        image_HW = np.asarray(cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".png", image_HW, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def write_references(
    folder: Path,
    package: ModelPackage,
    images: Pictures,
    label_R: NDArray[np.int64],
    source: str,
    licence: str,
) -> References:
    """Write a package's reference radiographs beside it.

    Args:
        folder: Of the package.
        package: It.
        images: The references as the networks see them, uint8 (R, S, S).
        label_R: Index of each one's implant.
        source: Where they come from, without identifiers.
        licence: Under which they may be shown.

    Raises:
        OSError: The file cannot be written.
    """
    images_RSS = images[np.arange(len(label_R))]
    _, features_RF = measure(Classifier(package).networks, images_RSS)
    references = References(
        label_R,
        features_RF,
        tuple(map(picture_of, images_RSS)),
        (source,) * len(label_R),
        (licence,) * len(label_R),
    )
    write_whole(folder / FILE, references.to_bytes(package))
    (folder / FILE).chmod(READABLE)  # as the package's other files are
    return references
