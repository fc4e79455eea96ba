"""Masks for a whole labelled set: those made by hand where there are any, else automatic ones.

Automatic masks take a tenth of a second each, so Ray's tasks share them, and they are kept beside
the prepared images. What is graded poor teaches nothing and measures nothing.

Shapes: N images, S side of the preprocessed image.
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.storage.local_files import write_whole
from training.data.labelled import LabelledSet
from training.failures import results_of
from training.masks.automatic import find_mask
from training.masks.mask_files import is_inside, mask_file, mask_files, read_mask, write_masks

POOR, GOOD, BY_HAND = 0, 1, 2
METHOD = 1  # of the automatic masks; a change makes kept ones void
TASK_IMAGES = 64

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class MaskSet:
    """A mask for each image of a set, and what it is worth.

    Attributes:
        masks_NSS: bool, True on the implant.
        grades_N: `POOR` or `GOOD` of automatic ones, `BY_HAND`; uint8.
        digest: SHA-256 of the images and all masks made by hand, hexadecimal.
        unused: Files in the folder of masks made by hand that belong to no image.
    """

    masks_NSS: Masks
    grades_N: NDArray[np.uint8]
    digest: str
    unused: int = 0

    def usable(self, indices_N: Indices) -> Indices:
        """Return those of the given positions whose masks may teach or measure."""
        usable_N: Indices = indices_N[self.grades_N[indices_N] != POOR]
        return usable_N

    def measuring(self, indices_N: Indices) -> Indices:
        """Those whose masks measure: made by hand where there are any, else the good ones."""
        by_hand_N = indices_N[self.grades_N[indices_N] == BY_HAND]
        return by_hand_N if len(by_hand_N) else self.usable(indices_N)

    def counts(self, indices_N: Indices) -> tuple[int, int, int]:
        """Return poor, good and hand-made masks of the given positions."""
        poor, good, by_hand = np.bincount(self.grades_N[indices_N], minlength=3).tolist()
        return poor, good, by_hand


def gather_masks(labelled: LabelledSet, folder: str, cache: Path) -> MaskSet:
    """Find or read a mask for each image. Ray must run.

    Args:
        labelled: The set.
        folder: Of masks made by hand, see `training.masks.mask_files`; "" for none.
        cache: Folder that keeps the automatic masks.

    Raises:
        UsageError: See `find_files`, or a mask that is there cannot be used.
    """
    files, unused = find_files(labelled, folder)
    masks_NSS = np.zeros(labelled.images_NSS.shape, bool)
    grades_N = np.full(len(labelled), BY_HAND, np.uint8)
    others_N = np.array([n for n in range(len(labelled)) if n not in files], np.int64)
    masks_NSS[others_N], grades_N[others_N] = _automatic(labelled, others_N, cache)
    digest = hashlib.sha256(labelled.fingerprint.encode())
    by_path = sorted(files.values())
    for index, file in files.items():
        what = f"Mask {by_path.index(file) + 1} of {len(by_path)} in {folder}, by path,"
        masks_NSS[index] = read_mask(file, labelled.images_NSS.shape[1], what)
        digest.update(f"{index}:".encode() + np.packbits(masks_NSS[index]).tobytes())
    return MaskSet(masks_NSS, grades_N, digest.hexdigest(), unused)


def find_files(labelled: LabelledSet, folder: str) -> tuple[Mapping[int, Path], int]:
    """Find the masks made by hand.

    Args:
        labelled: The set.
        folder: See `gather_masks`.

    Returns:
        The file of each image that has one, by the image's position; and how many files of the
        folder belong to no image.

    Raises:
        UsageError: The folder is not there, or all of its masks belong to other images.
    """
    if not folder:
        return {}, 0
    there = mask_files(Path(folder))
    found = (mask_file(Path(folder), *place) for place in labelled.places_N)
    files = {index: file for index, file in enumerate(found) if file is not None}
    if there and not files:
        raise UsageError(
            f"None of the {len(there)} masks in {folder} belongs to an image; their paths there "
            "are expected to be ARCHIVE/MEMBER.png, or RADIOGRAPH.png for one that lies alone."
        )
    return files, len(there - set(files.values()))


def _automatic(
    labelled: LabelledSet, indices_N: Indices, cache: Path
) -> tuple[Masks, NDArray[np.uint8]]:
    shape = (len(indices_N), *labelled.images_NSS.shape[1:])
    made_of = f"{labelled.fingerprint} {METHOD} ".encode() + indices_N.tobytes()
    file = cache / f"{hashlib.sha256(made_of).hexdigest()[:32]}-masks.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as arrays:
            bits = np.unpackbits(arrays["bits"], count=math.prod(shape))
            return bits.reshape(shape).astype(bool), arrays["grades"]
    masks_NSS, grades_N = find_masks(labelled.images_NSS[indices_N])
    buffer = io.BytesIO()
    np.savez(buffer, bits=np.packbits(masks_NSS), grades=grades_N)
    write_whole(file, buffer.getvalue())
    return masks_NSS, grades_N


def find_masks(images_NSS: Images) -> tuple[Masks, NDArray[np.uint8]]:
    """Return automatic masks and their grades, `POOR` or `GOOD`, found by Ray's tasks."""
    tasks = [
        _find.remote(images_NSS[start : start + TASK_IMAGES])
        for start in range(0, len(images_NSS), TASK_IMAGES)
    ]
    parts: list[tuple[Masks, NDArray[np.uint8]]] = results_of(tasks)
    masks_NSS = np.zeros(images_NSS.shape, bool)
    grades_N = np.zeros(len(images_NSS), np.uint8)
    for number, (masks_BSS, grades_B) in enumerate(parts):
        place = slice(number * TASK_IMAGES, number * TASK_IMAGES + len(grades_B))
        masks_NSS[place], grades_N[place] = masks_BSS, grades_B
    return masks_NSS, grades_N


@ray.remote(num_cpus=1)
def _find(images_NSS: Images) -> tuple[Masks, NDArray[np.uint8]]:
    found = [find_mask(image_SS) for image_SS in images_NSS]
    grades = [GOOD if graded.grade.word == "good" else POOR for graded in found]
    return np.stack([graded.mask_HW for graded in found]), np.array(grades, np.uint8)


def write_poor(labelled: LabelledSet, masks: MaskSet, folder: Path, most: int = 500) -> int:
    """Write poor automatic masks with their pictures, to be corrected by hand.

    Args:
        labelled: The set.
        masks: Its masks.
        folder: Where; `segmenter.masks` may name it afterwards, once what is wrong is mended or
            deleted.
        most: No more than so many.

    Returns:
        How many were written; a member whose name leads out of the folder is left out.
    """
    names = {
        index: f"{labelled.places_N[index][0]}/{labelled.places_N[index][1]}".rstrip("/")
        for index in np.flatnonzero(masks.grades_N == POOR).tolist()
    }
    chosen = [index for index, name in names.items() if is_inside(name)][:most]
    images_NSS, masks_NSS = labelled.images_NSS[chosen], masks.masks_NSS[chosen]
    write_masks(folder, [names[index] for index in chosen], images_NSS, masks_NSS)
    return len(chosen)
