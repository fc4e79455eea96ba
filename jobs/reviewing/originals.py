"""Radiographs in their own size and depth, read out of their archives when they are looked at.

Nothing is written: a picture is in the memory of this process alone, in a cache of bounded size. It
is decoded in the confined process that `jobs.classify` decodes in, and shown only if its archive is
still the version that was predicted.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.archives.pick import MemberPicker
from implant_model.decode.decoded import Header, Pixels, Prepared, prepare_member
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import (
    AccessDeniedError,
    ArchiveError,
    ChangedError,
    NotFoundError,
    Reason,
    StorageError,
)
from implant_model.limits import MIB, Limits
from jobs.pages.wording import REASONS

NUM_DECODERS: Final = 2
CACHE_BYTES: Final = 384 * MIB
MAX_PIXELS: Final = 30_000_000
"""Of a picture that is sent as it is; a larger one is reduced by a whole number."""


@dataclass(frozen=True)
class Place:
    """Where a radiograph is.

    Attributes:
        uri: Of the object that it lies in.
        archive: What the tables call that.
        version: The version that was predicted, as the tables have it.
        index: Its position in the archive.
        known_version: The version of a loose radiograph as it is now, under the tables' hash; None:
            the store is asked.
    """

    uri: str
    archive: str
    version: str
    index: int
    known_version: str | None = None


@dataclass(frozen=True)
class Original:
    """A radiograph, or why it cannot be shown.

    Attributes:
        pixels_HW: Display-ready grey, uint8 or uint16; None where there is trouble.
        reduced: By which factor each side was reduced.
        trouble: One sentence that holds nothing out of the file; None where there is a picture.
        is_replaced: Whether the trouble is that the archive is another version now.
    """

    pixels_HW: Pixels | None
    reduced: int = 1
    trouble: str | None = None
    is_replaced: bool = False

    @property
    def num_bytes(self) -> int:
        """Return bytes of the picture."""
        return 0 if self.pixels_HW is None else self.pixels_HW.nbytes


class Originals:
    """Reads and decodes radiographs; a context manager whose methods several threads may call.

    Args:
        preprocessing: The package's, for what `prepare` gives.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._limits = Limits()
        self._decoders: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        self._all = [
            DecodeProcess(preprocessing, self._limits, yields=False) for _ in range(NUM_DECODERS)
        ]
        for decoder in self._all:
            self._decoders.put(decoder)
        self._pickers: OrderedDict[tuple[str, str], tuple[MemberPicker, threading.Lock]] = (
            OrderedDict()
        )
        self._kept: OrderedDict[Place, Original] = OrderedDict()
        self._shown: set[Place] = set()
        self._under_way: dict[Place, threading.Lock] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Originals":
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self._all:
            decoder.close()

    def start(self) -> None:
        """Start a decoding process ahead of the first picture."""
        with self._decoder() as decoder:
            decoder.start()

    def original(self, place: Place) -> Original:
        """Return a radiograph in its own size and depth; one that is wanted twice is read once."""
        trouble = self._replaced(place)
        if trouble is not None:
            return trouble
        with self._lock:
            own = self._under_way.setdefault(place, threading.Lock())
        with own:
            with self._lock:
                kept = self._kept.get(place)
                if kept is not None:
                    self._kept.move_to_end(place)
                    return kept
            found = self._read(place)
            self._keep(place, found)
        with self._lock:
            self._under_way.pop(place, None)
        return found

    def was_shown(self, place: Place) -> bool:
        """Return whether a radiograph is among those that could be shown of late."""
        with self._lock:
            return place in self._shown

    def name(self, place: Place) -> str | None:
        """Return what a radiograph is called in its archive; None where it is not to be had."""
        if self._replaced(place) is not None:
            return None
        with self._member(place) as member:
            return None if isinstance(member, Original) else member.name

    def prepared(self, place: Place) -> Prepared | Original:
        """Return what the networks see of a radiograph, or why that cannot be read."""
        trouble = self._replaced(place)
        if trouble is not None:
            return trouble
        with self._member(place) as member:
            if isinstance(member, Original):
                return member
            with self._decoder() as decoder:
                return prepare_member(member, decoder.prepare)

    def decode(self, data: bytes) -> Original:
        """Return the picture of bytes that lie in no archive."""
        return self._decoded(Member(0, "radiograph", len(data), data, None))

    def prepare(self, data: bytes) -> Prepared:
        """Return what the networks see of bytes that lie in no archive."""
        with self._decoder() as decoder:
            return decoder.prepare(data) if data else Prepared(Header(), None, Reason.EMPTY)

    def _replaced(self, place: Place) -> Original | None:
        """Return the trouble of an archive that is not the version that was predicted."""
        if place.known_version is not None:
            return None if place.known_version == place.version else _REPLACED
        try:
            info = storage.stat(place.uri)
        except (NotFoundError, AccessDeniedError, StorageError) as error:
            return Original(None, trouble=_of_store(error))
        return None if info.version == place.version else _REPLACED

    def _read(self, place: Place) -> Original:
        with self._member(place) as member:
            return member if isinstance(member, Original) else self._decoded(member)

    @contextmanager
    def _member(self, place: Place) -> Iterator[Member | Original]:
        """Give the member, or why it cannot be read."""
        try:
            info = storage.stat(place.uri)
            picker, lock = self._picker(place.uri, info.version)
            with storage.open_object(info) as reader, lock:
                member = picker.pick(reader, place.index)
        except ChangedError:
            yield _REPLACED
        except StorageError as error:
            yield Original(None, trouble=_of_store(error))
        except ArchiveError as error:
            yield Original(None, trouble=f"Its archive cannot be read: {error.reason}.")
        else:
            yield _GONE if member is None else member

    def _picker(self, uri: str, version: str) -> tuple[MemberPicker, threading.Lock]:
        with self._lock:
            found = self._pickers.get((uri, version))
            if found is None:
                found = MemberPicker(uri.rpartition("/")[2], self._limits), threading.Lock()
                self._pickers[uri, version] = found
            return found

    def _decoded(self, member: Member) -> Original:
        if member.data is None:
            return rejected(member.reason)
        with self._decoder() as decoder:
            decoded = decoder.decode(member.data)
        if decoded.pixels_HW is None:
            return rejected(decoded.reason)
        return _fitted(decoded.pixels_HW)

    def _keep(self, place: Place, found: Original) -> None:
        if found.pixels_HW is None:
            return  # it may be there again
        with self._lock:
            self._shown.add(place)
            self._kept[place] = found
            while sum(kept.num_bytes for kept in self._kept.values()) > CACHE_BYTES:
                self._kept.popitem(last=False)

    @contextmanager
    def _decoder(self) -> Iterator[DecodeProcess]:
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)


_REPLACED: Final = Original(
    None,
    trouble="Its archive was replaced since it was classified, so that this is not the radiograph "
    "that was audited: classify and audit again.",
    is_replaced=True,
)
_GONE: Final = Original(None, trouble="Its archive has no member at this position any more.")


def _of_store(error: StorageError) -> str:
    if isinstance(error, NotFoundError):
        return "Its archive is not there any more: start with --archives where it is now."
    if isinstance(error, AccessDeniedError):
        return "Its archive may not be read with the credentials at hand."
    return "The store of its archive does not answer."


def rejected(reason: Reason | None) -> Original:
    """Return the trouble of what is no readable picture."""
    known = Reason.CORRUPT if reason is None else reason
    return Original(None, trouble=f"It is no readable picture ({known}): {REASONS[known]}")


def _fitted(pixels_HW: Pixels) -> Original:
    """Return a picture that a browser can hold, reduced by a whole number where it is too large."""
    reduced = int(np.ceil(np.sqrt(pixels_HW.size / MAX_PIXELS)))
    if reduced <= 1:
        return Original(pixels_HW)
    size = tuple(max(side // reduced, 1) for side in reversed(pixels_HW.shape))
    smaller = cast(Pixels, cv2.resize(pixels_HW, size, interpolation=cv2.INTER_AREA))
    return Original(smaller, reduced)
