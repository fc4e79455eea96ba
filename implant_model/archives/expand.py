"""Gzip and zstandard streams, expanded piece by piece.

Memory stays flat whatever the streams hold: a piece of at most `PIECE_BYTES` goes into a
decompressor, pieces of at most `EXPANDED_BYTES` come out, and a budget bounds their sum. What could
be expanded in front of a fault is handed out before the fault is raised.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from implant_model.archives.streams import ByteSource
from implant_model.errors import ArchiveError, ArchiveReason
from implant_model.limits import MIB, Limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 64 << 10
EXPANDED_BYTES = MIB
# A zstandard block holds at most 128 KiB: no more than that is lost where a frame fails.
ZSTD_EXPANDED_BYTES = 128 << 10
# 2**27 bytes is what the zstd command itself accepts without `--long`.
ZSTD_WINDOW_LOG = 27
# Below this, an archive may expand by any ratio: a small tar of zeros compresses 200-fold.
FREE_EXPANSION_BYTES = 64 * MIB


def expanded_source(kind: str, stored: ByteSource, stored_bytes: int, limits: Limits) -> ByteSource:
    """Return the expanded bytes of a gzip or zstandard object.

    Args:
        kind: "gzip" or "zstd".
        stored: The stored bytes.
        stored_bytes: How many there are.
        limits: `archive_bytes` and `archive_expansion` bound the expanded size.
    """
    frame: Callable[[], _Frame] = _GzipMember if kind == "gzip" else _ZstdFrame
    pieces = _expand(stored.chunks(), frame)
    return ByteSource(_within(pieces, expansion_budget(stored_bytes, limits)))


def expansion_budget(stored_bytes: int, limits: Limits) -> int:
    """Return to how many bytes an archive of `stored_bytes` may expand."""
    by_ratio = max(FREE_EXPANSION_BYTES, stored_bytes * limits.archive_expansion)
    return min(limits.archive_bytes, by_ratio)


class _Frame(Protocol):
    """One compressed unit: a gzip member or a zstandard frame."""

    @property
    def eof(self) -> bool:
        """Return whether the unit ended, and its checksums agreed."""

    @property
    def unused_data(self) -> bytes:
        """Return what follows the unit in the piece that ended it."""

    def expand(self, piece: bytes) -> Iterator[bytes]:
        """Yield what `piece` expands to; raise ArchiveError where it is damaged."""


class _GzipMember:
    """A gzip member (RFC 1952); zlib proves its CRC-32 and its length."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def expand(self, piece: bytes) -> Iterator[bytes]:
        while not self._inflater.eof:
            before = self._inflater.copy()  # 1 microsecond
            try:
                expanded = self._inflater.decompress(piece, EXPANDED_BYTES)
            except zlib.error as error:
                yield _up_to_fault(before.decompress, zlib.error, piece)
                raise _corrupt("gzip stream") from error
            piece = self._inflater.unconsumed_tail
            yield expanded
            if not piece and len(expanded) < EXPANDED_BYTES:
                break


class _ZstdFrame:
    """A zstandard frame (RFC 8878), or a skippable one; its checksum is optional."""

    def __init__(self) -> None:
        self._decompressor = _zstd_decompressor()
        self._fresh = True

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data

    def expand(self, piece: bytes) -> Iterator[bytes]:
        rest, num_given = piece, 0
        while True:
            try:
                expanded = self._decompressor.decompress(rest, ZSTD_EXPANDED_BYTES)
            except zstd.ZstdError as error:
                if self._fresh:
                    again = _up_to_fault(_zstd_decompressor().decompress, zstd.ZstdError, piece)
                    yield again[num_given:]
                raise _zstd_error(error) from error
            yield expanded
            rest, num_given = b"", num_given + len(expanded)
            if self._decompressor.eof or self._decompressor.needs_input:
                break
        self._fresh = False


def _expand(chunks: Iterator[bytes], new_frame: Callable[[], _Frame]) -> Iterator[bytes]:
    """Expand frames one after the other; zeros between and after them are padding."""
    frame: _Frame | None = None
    for piece in _pieces(chunks):
        rest = piece if frame else piece.lstrip(b"\0")
        while rest:
            frame = frame or new_frame()
            yield from frame.expand(rest)
            if not frame.eof:
                break
            rest, frame = frame.unused_data.lstrip(b"\0"), None
    if frame is not None:
        raise ArchiveError(
            ArchiveReason.TRUNCATED,
            "The compressed stream ends before its own end mark; send the archive again.",
        )


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for offset in range(0, len(chunk), PIECE_BYTES):
            yield chunk[offset : offset + PIECE_BYTES]


def _within(pieces: Iterator[bytes], budget_bytes: int) -> Iterator[bytes]:
    num_bytes = 0
    for piece in pieces:
        num_bytes += len(piece)
        if num_bytes > budget_bytes:
            raise ArchiveError(
                ArchiveReason.UNSUPPORTED,
                f"The archive expands to more than {budget_bytes} bytes, the most that its stored "
                "size allows (Limits.archive_expansion, Limits.archive_bytes).",
            )
        yield piece


def _up_to_fault(
    decompress: Callable[[bytes], bytes], fault: type[Exception], piece: bytes
) -> bytes:
    """Expand `piece` byte by byte up to the byte that fails; it fails within `EXPANDED_BYTES`."""
    expanded = bytearray()
    for offset in range(len(piece)):
        try:
            expanded += decompress(piece[offset : offset + 1])
        except fault:
            break
    return bytes(expanded)


def _zstd_decompressor() -> "zstd.ZstdDecompressor":
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    )


def _zstd_error(error: Exception) -> ArchiveError:
    if "memory" in str(error) or "ictionary" in str(error):
        return ArchiveError(
            ArchiveReason.UNSUPPORTED,
            "The zstandard stream wants a dictionary or a window of more than "
            f"{1 << ZSTD_WINDOW_LOG} bytes; compress it without --long or a dictionary.",
        )
    return _corrupt("zstandard stream")


def _corrupt(what: str) -> ArchiveError:
    return ArchiveError(
        ArchiveReason.CORRUPT,
        f"The {what} is damaged: it does not expand, or its checksum or length is wrong; "
        "send the archive again.",
    )
