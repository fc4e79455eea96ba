"""Lists objects of a bucket: one page after the other in order, or ranges of keys side by side.

A store answers a thousand keys a request, so ten million take an hour one after the other. Ranges
are cut at prefixes that a listing by "/" shows and at the next characters that keys might have, and
each is listed from its begin to its end: the cuts decide how evenly the work is spread, never what
is found.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Final, TypedDict

from implant_model.errors import NotFoundError
from implant_model.storage.s3 import client, translated
from implant_model.storage.uri import ObjectInfo, s3_parts

PAGE_KEYS: Final = 1000
PAGES_IN_ORDER: Final = 16
"""Before it is known that there is much: finding out where to cut takes some hundred requests."""
THREADS: Final = 16
_PAGES_AHEAD: Final = 32
_MOST_RANGES: Final = 64
_LEVELS: Final = 3
_KINDS: Final = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

Page = list[ObjectInfo]


class _Start(TypedDict, total=False):
    StartAfter: str


def list_objects(root: str, after: str = "", *, in_order: bool = True) -> Iterator[ObjectInfo]:
    """Yield the object of that key, and all below it as a prefix; see `store.list_objects`."""
    bucket, key = s3_parts(root)
    found = bool(after)
    if after:
        key = f"{key.rstrip('/')}/" if key else ""
    elif key and not key.endswith("/"):
        # The key itself comes first among all that begin with it. HEAD would answer 403 where the
        # object is absent and listing is not allowed.
        for info in list_in_order(bucket, key, root, most=1):
            if info.uri == f"s3://{bucket}/{key}":
                found = True
                yield info
        key += "/"
    if in_order or after:
        below = list_in_order(bucket, key, root, after=after and key + after)
    else:
        below = list_side_by_side(bucket, key, root)
    for info in below:
        found = True
        if info.size or not info.uri.endswith("/"):  # else the marker of a folder
            yield info
    if not (found or key in ("", "/") or root.endswith("/")):
        raise NotFoundError(f"There is no object {root!r}, nor any below it; check the name.")


def list_in_order(
    bucket: str, prefix: str, root: str, most: int | None = None, after: str = ""
) -> Iterator[ObjectInfo]:
    """Yield the objects below a prefix in order of their keys.

    Args:
        bucket: Of them.
        prefix: Of their keys.
        root: What errors name.
        most: How many; None for all.
        after: A key; what is not behind it is left out.

    Raises:
        StorageError: The store does not answer.
    """
    for page in _pages(bucket, prefix, root, most, after):
        yield from page


def list_side_by_side(bucket: str, prefix: str, root: str) -> Iterator[ObjectInfo]:
    """Yield the objects below a prefix in any order, several ranges of keys at once.

    Raises:
        StorageError: The store does not answer.
    """
    last: Page = []
    for number, page in enumerate(_pages(bucket, prefix, root), 1):
        yield from page
        # A store whose pages are shorter is listed in order.
        if number >= PAGES_IN_ORDER and len(page) == PAGE_KEYS:
            last = page
            break
    if last:
        cuts = _cuts(bucket, prefix, root, _key(last[0]), _key(last[-1]))
        yield from _Ranges(bucket, prefix, root).list(cuts, _key(last[-1]))


def _pages(
    bucket: str, prefix: str, root: str, most: int | None = None, after: str = ""
) -> Iterator[Page]:
    start: _Start = {"StartAfter": after} if after else {}
    with translated("list", root):
        pages = (
            client()
            .get_paginator("list_objects_v2")
            .paginate(
                Bucket=bucket,
                Prefix=prefix,
                PaginationConfig={} if most is None else {"MaxItems": most, "PageSize": most},
                **start,
            )
        )
        for page in pages:
            yield [
                ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", [])
            ]


def _key(info: ObjectInfo) -> str:
    return info.uri.split("/", 3)[3]


def _cuts(bucket: str, prefix: str, root: str, first: str, last: str) -> list[str]:
    """Return keys at which to cut what lies behind a page, in order.

    Args:
        bucket: Of the objects.
        prefix: Of their keys.
        root: What errors name.
        first: First key of the page.
        last: Its last key.
    """
    found: list[str] = []
    level = [prefix]
    start: _Start = {"StartAfter": last}
    for _ in range(_LEVELS):
        below: list[str] = []
        for above in level[:_MOST_RANGES]:
            with translated("list", root):
                page = client().list_objects_v2(
                    Bucket=bucket, Prefix=above, Delimiter="/", MaxKeys=PAGE_KEYS, **start
                )
            below += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        found, level, start = sorted({*found, *below}), below, _Start()
        if not 0 < len(found) < _MOST_RANGES // 4:
            break
    found = [cut for cut in found if cut > last]
    step = -(-max(len(found), 1) // _MOST_RANGES)
    return sorted({*found[::step], *_next_characters(prefix, first, last)})


def _next_characters(prefix: str, first: str, last: str) -> list[str]:
    """Return what keys might begin with behind a page, where they count or are spread at random.

    Of keys from `p/00000` to `p/00999`, those are `p/001`, ..., `p/01`, ..., `p/9`.
    """
    found: list[str] = []
    for place in range(len(prefix), len(last)):
        for kind in _KINDS:
            if last[place] in kind:
                found += [last[:place] + c for c in kind if c > last[place]]
        if len(found) >= _MOST_RANGES or first[: place + 1] != last[: place + 1]:
            break
    return found[:_MOST_RANGES]


class _Ranges:
    """Ranges of keys, listed by threads that end with whoever takes what they found."""

    def __init__(self, bucket: str, prefix: str, root: str) -> None:
        self._place = bucket, prefix, root
        self._ended = threading.Event()
        self._found: queue.Queue[Page | BaseException | None] = queue.Queue(_PAGES_AHEAD)
        self._waiting: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def list(self, cuts: Sequence[str], after: str) -> Iterator[ObjectInfo]:
        """Yield what lies behind a key, cut into ranges."""
        for begin, end in zip([after, *cuts], [*cuts, None], strict=True):
            self._waiting.put((begin, end))
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(THREADS, len(cuts) + 1))
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                found = self._found.get()
                if found is None:
                    left -= 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    yield from found
        finally:
            self._ended.set()

    def _work(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    begin, end = self._waiting.get_nowait()
                except queue.Empty:
                    break
                for page in _pages(*self._place, after=begin):
                    inside = [
                        info
                        for info in page
                        if _key(info) > begin and (end is None or _key(info) <= end)
                    ]  # also of a store that takes no notice of where to start
                    is_past = bool(page) and end is not None and _key(page[-1]) > end
                    if not self._hand_on(inside) or is_past:
                        break
            self._hand_on(None)
        except BaseException as error:
            self._hand_on(error)

    def _hand_on(self, found: "Page | BaseException | None") -> bool:
        while not self._ended.is_set():
            try:
                self._found.put(found, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
