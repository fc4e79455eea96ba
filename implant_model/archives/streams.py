"""Bytes in order: the reader that archives are read from, and a source that hands them out.

A source may end early: its bytes cut, damaged, or over a limit. It then behaves as at the end of a
file and keeps the `ArchiveError` in `failure`, so that what reads from it can first hand out what
it has. Errors of the storage are not kept: they pass through.
"""

import io
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, runtime_checkable

from implant_model.errors import ArchiveError
from implant_model.limits import MIB

# To skip more than this, a new request costs less than reading on.
JUMP_BYTES = 32 * MIB
# A smaller body costs less to copy than to find memory for.
LARGE_BYTES = MIB // 4
Allocate = Callable[[int], memoryview]


class RandomReader(Protocol):
    """What the archive readers need of a stored object; `storage.ObjectReader` is one."""

    @property
    def size(self) -> int:
        """Return size of the object in bytes."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`, fewer only at the end of the object."""

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield all bytes from `start` on, in chunks of any size."""


@runtime_checkable
class DirectReader(RandomReader, Protocol):
    """A reader that can fill memory with no copy between; nothing is under way ahead of use."""

    def read_into(self, offset: int, target: memoryview) -> int:
        """Fill `target` from `offset`; return how many bytes there were."""


class BytesReader:
    """A `RandomReader` of bytes in memory.

    Args:
        data: The bytes.
        chunk_bytes: Size of the chunks that `stream` yields.
    """

    def __init__(self, data: bytes, chunk_bytes: int = 8 * MIB) -> None:
        self._data = data
        self._chunk_bytes = chunk_bytes

    @property
    def size(self) -> int:
        """Return size in bytes."""
        return len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only at the end."""
        return self._data[offset : offset + size]

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield all bytes from `start` on."""
        for offset in range(start, len(self._data), self._chunk_bytes):
            yield self._data[offset : offset + self._chunk_bytes]


class ByteSource:
    """Reads chunks of bytes in order, holding one chunk at a time.

    Args:
        chunks: The bytes; an `ArchiveError` out of it ends them, see `failure`.
        position: Offset of the first byte, for those who count from elsewhere.
        stored: The reader whose bytes these are, unchanged and at the same offsets; with it,
            long skips are jumps.
        allocate: Gives the memory that a large body is read into; what it gave before may then be
            overwritten. Without it, bodies are bytes.
        jump_bytes: To skip more than this is a jump, where there is `stored`.

    Attributes:
        position: Offset of the next byte.
        failure: Why the bytes ended early; None where they did not, or have not ended yet.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        position: int = 0,
        stored: RandomReader | None = None,
        allocate: "Allocate | None" = None,
        jump_bytes: int = JUMP_BYTES,
    ) -> None:
        self.position = position
        self.failure: ArchiveError | None = None
        self._chunks = chunks
        self._stored = stored
        self._allocate = allocate
        self._jump_bytes = jump_bytes
        self._chunk = b""
        self._used = 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        end = self._used + size
        if end <= len(self._chunk):
            data = self._chunk[self._used : end]
            self._used = end
            self.position += size
            return data
        return self._read_across(size)

    def read_body(self, size: int) -> "bytes | memoryview":
        """Return the next `size` bytes as `read` does, of a large body where `allocate` states."""
        if self._allocate is None or size < LARGE_BYTES:
            return self.read(size)
        body, filled = self._allocate(size), 0
        while filled < size:
            part = memoryview(self._chunk)[self._used : self._used + size - filled]
            body[filled : filled + len(part)] = part
            self._used += len(part)
            self.position += len(part)
            filled += len(part)
            if size - filled >= LARGE_BYTES and isinstance(self._stored, DirectReader):
                filled += self._fill(self._stored, body[filled:size])
                break
            if filled < size and not self._next_chunk():
                break
        return body[:filled]

    def _fill(self, stored: "DirectReader", rest: memoryview) -> int:
        """Read the rest of a body where it is to lie; chunks go on behind it."""
        filled = stored.read_into(self.position, rest)
        self.position += filled
        self.close()
        self._chunk, self._used = b"", 0
        self._chunks = stored.stream(self.position)
        return filled

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, and leave them there."""
        held = len(self._chunk) - self._used
        if held < size:
            parts = [self._chunk[self._used :]]
            while held < size and (chunk := self._pull()):
                parts.append(chunk)
                held += len(chunk)
            self._chunk, self._used = b"".join(parts), 0
        return self._chunk[self._used : self._used + size]

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; return how many there were, fewer only at the end."""
        start, left = self.position, size
        while left > 0:
            held = min(left, len(self._chunk) - self._used)
            self._used += held
            self.position += held
            left -= held
            if left > self._jump_bytes and self._stored is not None:
                self._jump(self._stored, left)
                break
            if left and not self._next_chunk():
                break
        return self.position - start

    def chunks(self) -> Iterator[bytes]:
        """Yield all that is left, in the chunks in which it comes."""
        while self._used < len(self._chunk) or self._next_chunk():
            chunk = self._chunk[self._used :] if self._used else self._chunk
            self.position += len(chunk)
            self._used = len(self._chunk)
            yield chunk

    def close(self) -> None:
        """End what feeds this source, and what it reads ahead."""
        if isinstance(self._chunks, Generator):
            self._chunks.close()

    def _read_across(self, size: int) -> bytes:
        # A BytesIO hands out its buffer without a copy, and grows only as bytes arrive.
        parts = io.BytesIO()
        left = size
        while left > 0:
            part = self._chunk[self._used : self._used + left]
            parts.write(part)
            self._used += len(part)
            left -= len(part)
            if left and not self._next_chunk():
                break
        self.position += size - left
        return parts.getvalue()

    def _jump(self, stored: RandomReader, size: int) -> None:
        self.position = min(stored.size, self.position + size)
        self._chunk, self._used = b"", 0
        self.close()
        self._chunks = stored.stream(self.position) if self.position < stored.size else iter(())

    def _next_chunk(self) -> bool:
        self._chunk, self._used = b"", 0
        self._chunk = self._pull()
        return bool(self._chunk)

    def _pull(self) -> bytes:
        try:
            return next((chunk for chunk in self._chunks if chunk), b"")
        except ArchiveError as error:
            self.failure = error
            self._chunks = iter(())
            return b""
