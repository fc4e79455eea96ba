"""Columns of a large set that are looked at as sequences: no object for each image is held.

Shapes: N images, B bytes.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Item = TypeVar("Item", covariant=True)


class Rows(Sequence[Item]):
    """Rows that are made when they are asked for, so that columns are all that is held.

    Args:
        count: How many.
        row: Makes one from its position.
    """

    def __init__(self, count: int, row: Callable[[int], Item]) -> None:
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Item: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...

    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        """Return one row, or some."""
        if isinstance(at, slice):
            return [self._row(place) for place in range(*at.indices(self._count))]
        return self._row(range(self._count)[at])

    def __iter__(self) -> Iterator[Item]:
        return map(self._row, range(self._count))

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence holds the same, in the same order."""
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class CodedTexts(Rows[str]):
    """Texts of which there are few different ones.

    Args:
        names: Those, in the order of their first appearance.
        code_N: Of each image, int32, a position in `names`.
    """

    def __init__(self, names: Sequence[str], code_N: NDArray[np.int32]) -> None:
        self.names, self.code_N = tuple(names), code_N
        super().__init__(len(code_N), lambda at: self.names[code_N[at]])


class TextCodes:
    """`CodedTexts` as they grow."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._code_N = array("i")

    def add(self, text: str) -> None:
        """Add the text of one image more."""
        self._code_N.append(self._codes.setdefault(text, len(self._codes)))

    def coded(self) -> CodedTexts:
        """Return all of them."""
        return CodedTexts(tuple(self._codes), np.array(self._code_N, np.int32))


class Texts(Rows[str]):
    """Texts that nearly all differ, as their bytes; what is no Unicode survives.

    Args:
        texts: All of them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        column = pa.array(encoded, pa.large_binary())
        super().__init__(
            len(column), lambda at: column[at].as_py().decode("utf-8", "surrogatepass")
        )


class HexDigests(Rows[str]):
    """Digests of 64 bits, each as 16 hexadecimal digits.

    Args:
        values_N: Their numbers, uint64.
    """

    def __init__(self, values_N: NDArray[np.uint64]) -> None:
        self.values_N = values_N
        super().__init__(len(values_N), lambda at: f"{values_N[at]:016x}")


def digest_values(digests: Iterable[str]) -> NDArray[np.uint64]:
    """Return the numbers of hexadecimal digests, in their order, which is that of their texts."""
    if isinstance(digests, HexDigests):
        return digests.values_N
    return np.array([int(digest, 16) for digest in digests], np.uint64)


def bytes_of(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of binary values of one length: uint8 (N, B); of a null anything."""
    width = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width :][: len(chunk) * width]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, width)
