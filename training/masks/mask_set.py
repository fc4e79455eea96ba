"""Masks for a whole labelled set: those made by hand where there are any, else automatic ones.

Those by hand are named by the labels file, or lie in a folder under their images' names. Automatic
masks take a tenth of a second each, so Ray's tasks share them, and they are kept beside the
prepared images. What is graded poor teaches nothing and measures nothing.

Shapes: N images, S side of the preprocessed image.
"""

import hashlib
import io
import os
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
from numpy.typing import NDArray

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.storage.uri import local_path
from training.data.labelled import LabelledSet
from training.data.shards import Pictures, Shard, StoredRows, as_positions, keep, put_shard
from training.failures import results_of
from training.masks.automatic import find_mask
from training.masks.mask_files import Mask, is_inside, mask_file, mask_files, read_mask, write_masks
from training.masks.table_masks import TableMasks, placed_masks

POOR, GOOD, BY_HAND = 0, 1, 2
METHOD = 1  # of the automatic masks; a change makes kept ones void
TASK_IMAGES = 64

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]


class SetOfMasks(Protocol):
    """Masks by position, bool; an array (N, S, S) is such."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""

    def __getitem__(self, positions: Any, /) -> Masks:
        """Return those at some positions, in that order."""


@dataclass(frozen=True)
class StoredMasks:
    """Masks in shards, a bit for each pixel.

    Attributes:
        rows: Their bytes.
        side: S.
    """

    rows: StoredRows
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""
        return (len(self.rows), self.side, self.side)

    def __getitem__(self, positions: Any) -> Masks:
        """Read the masks at some positions."""
        positions_N = as_positions(positions, len(self.rows))
        bits_NB = self.rows.read(positions_N.ravel())
        found = np.unpackbits(bits_NB, axis=1, count=self.side**2).astype(bool)
        found = found.reshape(-1, self.side, self.side)
        return found if positions_N.ndim else np.asarray(found[0])


@dataclass(frozen=True)
class ChosenMasks:
    """Some masks of others, by position.

    Attributes:
        masks: The others.
        positions_N: Which of them.
    """

    masks: SetOfMasks
    positions_N: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""
        return (len(self.positions_N), *self.masks.shape[1:])

    def __getitem__(self, positions: Any) -> Masks:
        return self.masks[self.positions_N[positions]]


@dataclass(frozen=True)
class MaskSet:
    """A mask for each image of a set, and what it is worth.

    Attributes:
        masks_NSS: bool, True on the implant; read where they are asked for.
        grades_N: `POOR` or `GOOD` of automatic ones, `BY_HAND`; uint8.
        digest: SHA-256 of the images and all masks made by hand, hexadecimal.
        unused: Files in the folder of masks made by hand that belong to no image.
        of_table: How many of those made by hand the labels file names.
    """

    masks_NSS: SetOfMasks
    grades_N: NDArray[np.uint8]
    digest: str
    unused: int = 0
    of_table: int = 0

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


def gather_masks(
    labelled: LabelledSet, folder: str, cache: str, table: TableMasks | None = None
) -> MaskSet:
    """Find or read a mask for each image. Ray must run, unless all are made by hand.

    Args:
        labelled: The set.
        folder: Of masks made by hand, see `training.masks.mask_files`; "" for none.
        cache: URI of the folder that keeps the masks; Ray's workers reach it.
        table: Masks that a labels file names, which go before the folder's.

    Raises:
        UsageError: See `find_files`, or a mask that is there cannot be used.
        StorageError: A mask that the labels file names, or its radiograph, cannot be read.
    """
    cache = storage.normalise(cache)
    named = {} if table is None else table.of_images(labelled)
    files, unused = find_files(labelled, folder, table, named)
    found = _Found(len(labelled), labelled.images_NSS.shape[1])
    digest = hashlib.sha256(labelled.fingerprint.encode())
    by_hand: Iterator[tuple[int, Mask]] = _of_folder(files, folder, found.side)
    if table is not None:
        by_hand = chain(by_hand, placed_masks(table, labelled, named))
    for part in _in_parts(by_hand):
        masks = [np.packbits(mask_SS) for _, mask_SS in part]
        for (index, _), bits_B in zip(part, masks, strict=True):
            digest.update(f"{index}:".encode() + bits_B.tobytes())
        grades = np.full(len(masks), BY_HAND, np.uint8)
        found.take(np.array([index for index, _ in part]), *_put(cache, np.stack(masks)), grades)
    others_N = np.setdiff1d(np.arange(len(labelled)), np.array([*files, *named], np.int64))
    _automatic(found, labelled, others_N, cache)
    return MaskSet(found.masks(cache), found.grades_N, digest.hexdigest(), unused, len(named))


def _of_folder(files: Mapping[int, Path], folder: str, side: int) -> Iterator[tuple[int, Mask]]:
    """Read masks of a folder, by the images' positions."""
    by_path = {file: number for number, file in enumerate(sorted(files.values()), start=1)}
    for index, file in files.items():
        what = f"Mask {by_path[file]} of {len(by_path)} in {folder}, by path,"
        yield index, read_mask(file, side, what)


def _in_parts(masks: Iterable[tuple[int, Mask]]) -> Iterator[list[tuple[int, Mask]]]:
    rest = iter(masks)
    while part := [*islice(rest, TASK_IMAGES)]:
        yield part


class _Found:
    """Where the masks of a set lie, as they are found.

    Args:
        count: N.
        side: S.
    """

    def __init__(self, count: int, side: int) -> None:
        self.side = side
        self.shards: list[Shard] = []
        self.shard_N, self.row_N = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.crc_N, self.grades_N = np.zeros(count, np.uint32), np.zeros(count, np.uint8)

    def take(
        self, at_B: Indices, shard: Shard, crc_B: NDArray[np.uint32], grades_B: NDArray[np.uint8]
    ) -> None:
        """Take the masks of some positions, which are one shard."""
        self.shard_N[at_B], self.row_N[at_B] = len(self.shards), np.arange(len(at_B))
        self.crc_N[at_B], self.grades_N[at_B] = crc_B, grades_B
        self.shards.append(shard)

    def masks(self, cache: str) -> StoredMasks:
        """Return the masks of all positions."""
        length = -(-(self.side**2) // 8)
        places = self.shard_N, self.row_N, self.crc_N
        return StoredMasks(StoredRows(cache, tuple(self.shards), *places, length), self.side)


def _put(cache: str, bits_NB: NDArray[np.uint8]) -> tuple[Shard, NDArray[np.uint32]]:
    crc_N = np.array([zlib.crc32(bits_B.data) for bits_B in bits_NB], np.uint32)
    return put_shard(cache, "masks", bits_NB), crc_N


def find_files(
    labelled: LabelledSet,
    folder: str,
    table: TableMasks | None = None,
    named: Container[int] = (),
) -> tuple[Mapping[int, Path], int]:
    """Find the masks made by hand that lie under their images' names.

    Args:
        labelled: The set.
        folder: See `gather_masks`.
        table: Masks that a labels file names: those of the folder are no other image's, and are
            not used where they are not valid.
        named: Positions of images whose masks it names.

    Returns:
        The file of each image that has one, by the image's position; and how many files of the
        folder belong to no image.

    Raises:
        UsageError: The folder is not there, or all of its masks belong to other images.
    """
    if not folder:
        return {}, 0
    taken = set() if table is None else {local_path(uri) for uri in table.uris}
    there = {file for file in mask_files(Path(folder)) if os.path.abspath(file) not in taken}
    places = ((at, place) for at, place in enumerate(labelled.places_N) if at not in named)
    found = ((at, mask_file(Path(folder), *place)) for at, place in places)
    files = {at: file for at, file in found if file and os.path.abspath(file) not in taken}
    if there and not files and table is None:
        raise UsageError(
            f"None of the {len(there)} masks in {folder} belongs to an image; their paths there "
            "are expected to be ARCHIVE/MEMBER.png, or RADIOGRAPH.png for one that lies alone."
        )
    return files, len(there - set(files.values()))


def _automatic(found: _Found, labelled: LabelledSet, indices_N: Indices, cache: str) -> None:
    """Take automatic masks of some images: those in the cache, or Ray's tasks find them."""
    if not len(indices_N):
        return
    made_of = f"{labelled.fingerprint} {METHOD} ".encode() + indices_N.tobytes()
    uri = storage.join(cache, f"{hashlib.sha256(made_of).hexdigest()[:32]}-masks.npz")
    if storage.exists(uri) is None:
        parts = find_masks(labelled.images_NSS, indices_N, cache)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            shards=np.array([[part[0].name, str(part[0].start)] for part in parts]).reshape(-1, 2),
            sizes=np.array([len(part[1]) for part in parts], np.int64),
            crc=np.concatenate([np.zeros(0, np.uint32), *(part[1] for part in parts)]),
            grades=np.concatenate([np.zeros(0, np.uint8), *(part[2] for part in parts)]),
        )
        keep(uri, buffer.getvalue())
    with np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False) as arrays:
        end = 0
        for (name, start), size in zip(arrays["shards"].tolist(), arrays["sizes"], strict=True):
            part = slice(end, end := end + int(size))
            shard = Shard(name, int(start))
            found.take(indices_N[part], shard, arrays["crc"][part], arrays["grades"][part])


def find_masks(
    pictures: Pictures, positions_N: Indices, cache: str
) -> list[tuple[Shard, NDArray[np.uint32], NDArray[np.uint8]]]:
    """Find automatic masks by Ray's tasks, which put them in the cache.

    Returns:
        For each part of the positions its shard, the CRC-32 of each mask's bits and its grade,
        `POOR` or `GOOD`.
    """
    shared = ray.put(pictures)
    found: list[tuple[Shard, NDArray[np.uint32], NDArray[np.uint8]]] = results_of(
        [
            _find.remote(shared, positions_N[start : start + TASK_IMAGES], cache)
            for start in range(0, len(positions_N), TASK_IMAGES)
        ]
    )
    return found


@ray.remote(num_cpus=1)
def _find(
    pictures: Pictures, positions_N: Indices, cache: str
) -> tuple[Shard, NDArray[np.uint32], NDArray[np.uint8]]:
    found = [find_mask(image_SS) for image_SS in pictures[positions_N]]
    grades = [GOOD if graded.grade.word == "good" else POOR for graded in found]
    bits_NB = np.stack([np.packbits(graded.mask_HW) for graded in found])
    return *_put(cache, bits_NB), np.array(grades, np.uint8)


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
    poor = ((at, labelled.places_N[at]) for at in np.flatnonzero(masks.grades_N == POOR).tolist())
    names = ((at, f"{archive}/{member}".rstrip("/")) for at, (archive, member) in poor)
    chosen = dict(islice(((at, name) for at, name in names if is_inside(name)), most))
    at_N = np.array([*chosen], np.int64)
    images_NSS, masks_NSS = labelled.images_NSS[at_N], masks.masks_NSS[at_N]
    write_masks(folder, [*chosen.values()], images_NSS, masks_NSS)
    return len(chosen)
