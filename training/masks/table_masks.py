"""Masks that a labels file names in its columns `masks` and `valid_mask`, as OrthoNet's tables do.

A mask is a PNG of its radiograph's own size, upright as it is looked at: the implant white, all
else black. It is brought to the prepared picture's size by what prepares that, so each such
radiograph is decoded once more, in processes that are confined as all that decode are. Masks are
made by hand, some hundreds; the driver reads them.

No message of this module contains a path of the table, which may name a patient: rows are named by
their numbers.

Shapes: N images, S side of the prepared picture, H rows, W columns, B bytes.
"""

import os
import queue
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.archives.read import read_members
from implant_model.decode.decoded import Pixels
from implant_model.decode.preprocess import Preprocessing, picture_box, preprocess
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import MemberError, NotFoundError, UsageError
from implant_model.limits import Limits
from training.data.label_rows import MaskRow
from training.data.labelled import LabelledSet, content_digest
from training.data.labels import Labels, plain_path
from training.masks.mask_files import MAX_BYTES, Mask, is_inside, mask_of_radiograph

MAX_DECODERS: Final = 8
_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")  # a column with gaps is one of floats
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class NamedMask:
    """A mask that a row of a labels file names, and that is valid.

    Attributes:
        uri: Of its file.
        row: The row's number, from 1.
    """

    uri: str = field(repr=False)
    row: int

    @property
    def what(self) -> str:
        """Return what messages call it."""
        return f"The mask of row {self.row} of the labels file"


@dataclass(frozen=True)
class TableMasks:
    """All masks that a labels file names.

    Attributes:
        spec: How pictures are prepared.
        by_place: The valid ones by archive (as `plain_path` has it) and member of the radiograph.
        not_valid: URIs of those that are not valid, and not used; None of one that lies elsewhere.
    """

    spec: Preprocessing
    by_place: Mapping[tuple[str, str], NamedMask]
    not_valid: Sequence[str | None]

    def of_images(self, labelled: LabelledSet) -> dict[int, NamedMask]:
        """Return the valid masks by the positions of their images in a set."""
        found = {}
        for index, (archive, member) in enumerate(labelled.places_N if self.by_place else ()):
            for place in (archive, labelled.origins_N[index][0]):
                mask = self.by_place.get((plain_path(place), member))
                if mask is not None:
                    found[index] = mask
        return found

    @property
    def uris(self) -> Sequence[str]:
        """Return all that lie where masks are looked for, valid or not."""
        return [*(mask.uri for mask in self.by_place.values()), *filter(None, self.not_valid)]

    def summary(self, taken: int) -> str:
        """Return how many masks were taken, and what became of the others, as one line."""
        others = len(self.by_place) - taken
        return (
            f"Masks of the labels file: {taken:,} taken, {len(self.not_valid):,} left out as not "
            f"valid{f', {others:,} of radiographs that were left out' if others else ''}"
        )


def table_masks(labels: Labels | None, folder: str, spec: Preprocessing) -> TableMasks | None:
    """Find the masks that a labels file names; their pictures are not looked at.

    Args:
        labels: The labels file; None for none.
        folder: Where they lie; "" for the folder that the labels file lies in.
        spec: How pictures are prepared.

    Returns:
        None where the file has no masks.

    Raises:
        UsageError: A mask is not there, its path leads elsewhere, or nobody knows if it is valid.
        StorageError: It cannot be asked for.
    """
    if labels is None or not labels.masks:
        return None
    root = storage.normalise(folder or labels.uri)
    root = root if folder else root.rpartition("/")[0]
    valid: dict[tuple[str, str], NamedMask] = {}
    not_valid = []
    for row in labels.masks:
        is_valid = _is_valid(row)
        if row.mask and is_valid:
            valid[plain_path(row.archive), row.member] = _found(row, root)
        elif row.mask:
            not_valid.append(_uri(row.mask, root))
    return TableMasks(spec, valid, not_valid)


def _is_valid(row: MaskRow) -> bool:
    stated = "true" if row.is_valid is None else row.is_valid.strip().casefold()
    if stated in _TRUE or (not stated and not row.mask):
        return True
    if stated not in _FALSE:
        raise UsageError(
            f"Row {row.row} of the labels file has a valid_mask that is "
            f"{'neither true nor false' if stated else 'empty'}; true, 1, false or 0 is expected."
        )
    return False


def _found(row: MaskRow, root: str) -> NamedMask:
    """Return a row's mask, which is there; in a bucket that shows when it is read."""
    uri = _uri(row.mask, root)
    if uri is None:
        raise UsageError(
            f"Row {row.row} of the labels file names a mask outside of {root}; a path below that "
            "folder is expected, or that of another folder in segmenter.masks."
        )
    mask = NamedMask(uri, row.row)
    if not storage.is_remote(root) and storage.exists(uri) is None:
        raise _not_there(mask)
    return mask


def _uri(name: str, root: str) -> str | None:
    """Return the URI of a path of the table; None where it does not lie below the root."""
    if name.startswith("/") or "://" in name:
        try:
            name = storage.relative(storage.normalise(name), root)
        except (ValueError, UsageError):
            return None
    is_below = is_inside(name) and not _DRIVE.match(name)
    return storage.join(root, name) if is_below else None


def _not_there(mask: NamedMask) -> UsageError:
    return UsageError(
        f"{mask.what} is not there; its path below the folder of the labels file, or below "
        "segmenter.masks, is expected, or nothing."
    )


def placed_masks(
    table: TableMasks, labelled: LabelledSet, masks: Mapping[int, NamedMask]
) -> Iterator[tuple[int, Mask]]:
    """Yield masks as they lie on their prepared pictures, bool (S, S), by the images' positions.

    Args:
        table: The masks of the labels file.
        labelled: The set.
        masks: See `TableMasks.of_images`.

    Raises:
        UsageError: A mask cannot be used.
        StorageError: A mask or a radiograph cannot be read.
    """
    by_object: dict[str, dict[int, int]] = {}
    for index in sorted(masks):
        uri, position = labelled.origins_N[index]
        by_object.setdefault(uri, {})[position] = index
    count = max(1, min(MAX_DECODERS, os.cpu_count() or 1, len(by_object)))
    decoders: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(count):
            decoders.put(stack.enter_context(DecodeProcess(table.spec, Limits())))
        pool = stack.enter_context(ThreadPoolExecutor(count))
        work = partial(_of_object, table.spec, labelled, masks, decoders)
        for part in pool.map(work, by_object.items()):
            for index, bits_B in part:
                flat = np.unpackbits(bits_B, count=table.spec.size_px**2).astype(bool)
                yield index, flat.reshape(table.spec.size_px, -1)


def _of_object(
    spec: Preprocessing,
    labelled: LabelledSet,
    masks: Mapping[int, NamedMask],
    decoders: "queue.SimpleQueue[DecodeProcess]",
    item: tuple[str, Mapping[int, int]],
) -> list[tuple[int, np.ndarray]]:
    """Return the masks of one archive's or loose radiograph's images, packed to bits."""
    uri, wanted = item
    done = []
    decoder = decoders.get()
    try:
        for index, member in _members(uri, wanted):
            mask = masks[index]
            pixels_HW = _picture(member, labelled.digests[index], decoder, mask)
            mask_HW = mask_of_radiograph(_content(mask), pixels_HW.shape, mask.what)
            done.append((index, np.packbits(place_mask(mask_HW, pixels_HW, spec, mask.what))))
    finally:
        decoders.put(decoder)
    return done


def _members(uri: str, wanted: Mapping[int, int]) -> Iterator[tuple[int, Member]]:
    """Yield the members at some positions of an archive, with what the positions stand for."""
    left = len(wanted)
    with storage.open_object(storage.stat(uri)) as reader:
        for member in read_members(reader, "radiograph", Limits()):
            if member.index in wanted:
                yield wanted[member.index], member
                left -= 1
            if not left:
                return
    raise UsageError("An archive was replaced while its masks were read; begin the training anew.")


def _picture(member: Member, digest: str, decoder: DecodeProcess, mask: NamedMask) -> Pixels:
    """Return a radiograph in its own size, which is still the one that was prepared."""
    data = member.data
    pixels_HW = None
    if data is not None and content_digest(data) == digest:
        pixels_HW = decoder.decode(data).pixels_HW
    if pixels_HW is None:
        raise UsageError(f"{mask.what} has no radiograph any more: it was replaced on the way.")
    return pixels_HW


def _content(mask: NamedMask) -> bytes:
    try:
        info = storage.stat(mask.uri)
        if info.size > MAX_BYTES:
            return b""
        with storage.open_object(info) as reader:
            return b"".join(reader.stream())
    except NotFoundError as error:
        raise _not_there(mask) from error


def place_mask(mask_HW: Mask, pixels_HW: Pixels, spec: Preprocessing, what: str) -> Mask:
    """Bring a mask to where the implant lies on the prepared picture.

    Args:
        mask_HW: Of the radiograph's own size.
        pixels_HW: The radiograph.
        spec: How it is prepared.
        what: Calls the mask in messages.

    Returns:
        bool (S, S).

    Raises:
        UsageError: All or nothing of the prepared picture is implant.
    """
    if spec.trim_borders:
        mask_HW = mask_HW[picture_box(pixels_HW)]
    plain = replace(spec, trim_borders=False, low_percent=0.0, high_percent=100.0)
    try:
        placed_SS: Mask = preprocess(mask_HW.astype(np.uint8) * 255, plain) > 127
    except MemberError as error:
        raise UsageError(
            f"{what} is of one grey on the prepared picture: its implant lies on a border that is "
            "cut off (preprocessing.trim_borders), or fills the rest."
        ) from error
    return placed_SS
