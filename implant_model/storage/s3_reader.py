"""Reads one version of one S3 object by ranges, so that a broken body costs one range.

Every GET carries `If-Match`, and the ETag, range and length of every reply are compared with what
was asked: neither a replaced object nor a store or proxy that ignores a header gives wrong bytes.
"""

import contextlib
import hashlib
import zlib
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from implant_model.errors import ChangedError, StorageError
from implant_model.storage.s3 import client, pause, translated
from implant_model.storage.uri import ObjectInfo, s3_parts

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

PART_BYTES = 8 << 20
IN_FLIGHT = 3
_BODY_ATTEMPTS = 5


class S3Reader:
    """An `ObjectReader` of an S3 object; holds no connection between calls.

    Args:
        info: The object.
        whole: Fetch it here and now, by one request, and hold its bytes.

    Raises:
        StorageError: From the constructor, where it is to be fetched and cannot be.
    """

    def __init__(self, info: ObjectInfo, *, whole: bool = False) -> None:
        self.size = info.size
        self.version = info.version
        self._uri = info.uri
        self._bucket, self._key = s3_parts(info.uri)
        self._held: bytes | None = None
        if whole:
            self._held = self._range(0, self.size)

    def read_at(self, offset: int, size: int) -> bytes:
        """See `ObjectReader.read_at`."""
        if offset < 0 or size < 0:
            raise ValueError(f"offset {offset} and size {size} are to be 0 or more.")
        return b"".join(self._parts(offset, min(offset + size, self.size)))

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """See `ObjectReader.stream`. Keeps 3 ranges of 8 MiB under way ahead of use.

        Read from 0 to the end, the bytes are checked against the checksum of the whole object,
        where the store holds a CRC32, SHA-1 or SHA-256: StorageError at the end if they differ.
        """
        if start < 0:
            raise ValueError(f"start {start} is to be 0 or more.")
        if self._held is not None or (start == 0 and self.size <= PART_BYTES):
            # Also for an empty object: whether it changed is to be asked even of that.
            yield from filter(None, [self._range(start, self.size)])
            return
        checksum = self._checksum() if start == 0 else None
        for part in self._parts(start, self.size):
            if checksum:
                checksum.update(part)
            yield part
        if checksum and not checksum.agrees():
            raise StorageError(f"{self._uri!r} does not have the checksum that its store holds.")

    def close(self) -> None:
        """Nothing is held between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _parts(self, start: int, stop: int) -> Iterator[bytes]:
        if self._held is not None or stop - start <= PART_BYTES:
            if start < stop:
                yield self._range(start, stop)
            return
        starts = iter(range(start, stop, PART_BYTES))
        pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="s3-range")
        under_way: deque[Future[bytes]] = deque()
        try:
            for first in starts:
                under_way.append(pool.submit(self._range, first, min(first + PART_BYTES, stop)))
                if len(under_way) == IN_FLIGHT:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _range(self, start: int, stop: int) -> bytes:
        if self._held is not None:
            return self._held[start:stop]
        for attempt in range(_BODY_ATTEMPTS):
            pause(attempt)
            data = self._try_range(start, stop)
            if data is not None:
                return data
        raise StorageError(
            f"Cannot read {self._uri!r}: bytes {start} to {stop} came back broken, short or from "
            f"elsewhere {_BODY_ATTEMPTS} times."
        )

    def _try_range(self, start: int, stop: int) -> bytes | None:
        """Return the bytes, or None where the reply or its body is not what was asked for."""
        with translated("read", self._uri):
            reply = self._get(start, stop)
        with contextlib.closing(reply["Body"]) as body:
            version = reply["ETag"].strip('"')
            if version != self.version:
                raise ChangedError(
                    f"{self._uri!r} changed: it was version {self.version} when the run was "
                    f"planned and is {version}; run again to read the new version."
                )
            whole = (start, stop) == (0, self.size) and "ContentRange" not in reply
            if not whole and reply.get("ContentRange") != f"bytes {start}-{stop - 1}/{self.size}":
                return None
            try:
                data = body.read()
            except (BotoCoreError, HTTPError, OSError):  # cut, timed out, or a wrong checksum
                return None
        return data if len(data) == stop - start else None

    def _get(self, start: int, stop: int) -> "GetObjectOutputTypeDef":
        match = f'"{self.version}"'
        if (start, stop) == (0, self.size):
            # Only a whole reply has a checksum, which botocore then compares.
            return client().get_object(
                Bucket=self._bucket, Key=self._key, IfMatch=match, ChecksumMode="ENABLED"
            )
        span = f"bytes={start}-{stop - 1}"
        return client().get_object(Bucket=self._bucket, Key=self._key, IfMatch=match, Range=span)

    def _checksum(self) -> "_Checksum | None":
        with translated("read", self._uri):
            reply = client().head_object(
                Bucket=self._bucket,
                Key=self._key,
                IfMatch=f'"{self.version}"',
                ChecksumMode="ENABLED",
            )
        held: dict[Callable[[], _Hash], str | None] = {
            _Crc32: reply.get("ChecksumCRC32"),
            hashlib.sha256: reply.get("ChecksumSHA256"),
            hashlib.sha1: reply.get("ChecksumSHA1"),
        }
        for make, expected in held.items():
            # "-" and a number of parts: a checksum of checksums of the upload's parts.
            if expected and "-" not in expected and reply.get("ChecksumType") != "COMPOSITE":
                return _Checksum(make, expected)
        return None


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    """zlib.crc32 with hashlib's methods."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Checksum:
    """A running hash and the base64 value that it must end at."""

    def __init__(self, make: Callable[[], _Hash], expected: str) -> None:
        self._hash = make()
        self._expected = expected
        self.update = self._hash.update

    def agrees(self) -> bool:
        return b64encode(self._hash.digest()).decode() == self._expected
