"""Reference radiographs of a package: which of a labelled set become them, and their file.

Letters: R references, H rows, W columns.
"""

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
from training.data.set_columns import digest_values
from training.data.shards import Pictures
from training.data.split import ranks

READABLE: Final = 0o644


def choose(
    labels: Sequence[int | None] | NDArray[np.int64],
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
    labels_N = np.fromiter((-1 if label is None else label for label in labels), np.int64)
    at_M = np.flatnonzero(labels_N >= 0)
    label_M, digest_M = labels_N[at_M], digest_values(digests)[at_M]
    # An image of an unknown patient has its own content for one.
    _, content_M = np.unique(digest_M, return_inverse=True)
    patient_M = patients_N[at_M]
    owner_M = np.where(patient_M < 0, -1 - content_M, patient_M)
    turn_M = ranks(np.lexsort((at_M, digest_M, owner_M, label_M)), label_M, owner_M)
    order_M = np.lexsort((at_M, digest_M, turn_M, label_M))
    of_class_M = ranks(order_M, label_M)
    chosen: list[int] = at_M[order_M[of_class_M[order_M] < per_class]].tolist()
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
