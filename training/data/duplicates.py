"""Near duplicates: the same radiograph stored twice, rescaled, recompressed or retouched.

Each image gets a perceptual hash of 256 bits: the signs of its 16 x 16 lowest cosine frequencies
about their median (after Zauner 2010, who takes 64 bits; radiographs of one body part resemble each
other, and need more). Two images whose hashes differ in few bits are the same picture. Mirrored and
turned copies are not found.

All pairs within the bits are found, and few others are looked at (multi-index hashing, Norouzi et
al. 2012; its chains, Qin and Xiao 2018). The bits are dealt to bands; of two hashes that differ in
b bits at most, some band differs in no more than its share of b, and so do that band and those
after it together. So hashes are sorted by each band in turn and compared, a word each, with those
of the same or nearly the same value. For b = 40 the time grows about as N ** 1.6 where bits are
independent; where all hashes are alike it grows as N ** 2, as no exact search can help.

Shapes: N images, H rows, W columns, B bytes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.links import Components, Indices

SIDE_PX = 64
"""Side of the square that is transformed; 4 times the frequencies kept."""
FREQUENCIES = 16
BITS = FREQUENCIES**2
Hashes = NDArray[np.uint8]
Words = NDArray[np.uint64]

BUCKET = 128
"""Hashes of one value of a band, where bits are independent: enough for array arithmetic."""
PAIRS_AT_ONCE = 1 << 17
"""Compared at once: 1 MB of words stays in a core's cache."""
FEW_PAIRS = 1 << 10
"""Of two values of a band; fewer are compared together with those of other values."""
WORD = 64
SAMPLE = 4096


def perceptual_hash(image_HW: NDArray[np.uint8]) -> Hashes:
    """Hash one grey image: uint8 (32,), 256 bits, of the frequencies row by row."""
    small = cv2.resize(image_HW, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:FREQUENCIES, :FREQUENCIES].ravel()
    low[0] = 0  # the mean grey: exposure, not content
    return np.packbits(low > np.median(low))


def perceptual_hashes(images_NHW: NDArray[np.uint8]) -> Hashes:
    """Hash a set: uint8 (N, 32)."""
    hashes = [perceptual_hash(image_HW) for image_HW in images_NHW]
    return np.array(hashes, np.uint8).reshape(-1, BITS // 8)


def near_groups(hashes_NB: Hashes, most_bits: int) -> Indices:
    """Group hashes that differ in few bits, as far as the links reach.

    Args:
        hashes_NB: uint8 (N, 32).
        most_bits: Most bits, of 256, in which two hashes of the same picture differ.

    Returns:
        Group of each, int64 (N,): the position of the group's first.
    """
    different, first_U, of_N = _different(hashes_NB)
    components = Components(len(hashes_NB))
    components.link(np.arange(len(hashes_NB)), first_U[of_N])
    del of_N  # a fifth of what is held while hashes are compared
    if not most_bits or len(different) < 2:
        return components.all_roots()
    words_UW = np.ascontiguousarray(different).view(np.uint64)
    for band in _bands(different, most_bits):
        for one_L, other_L in _Window(different, band, lambda at: components.roots(first_U[at])):
            bits_L = np.bitwise_count(words_UW[one_L] ^ words_UW[other_L]).sum(axis=1)
            near_L = bits_L <= most_bits
            components.link(first_U[one_L[near_L]], first_U[other_L[near_L]])
    return components.all_roots()


def duplicate_groups(images_NHW: NDArray[np.uint8], most_bits: int) -> Indices:
    """Group near duplicates among images, see `near_groups`."""
    return near_groups(perceptual_hashes(images_NHW), most_bits)


def _different(hashes_NB: Hashes) -> tuple[Hashes, Indices, Indices]:
    """Return the hashes without repetition, the first of each, and which each one is."""
    rows_N = np.ascontiguousarray(hashes_NB).view(np.dtype((np.void, hashes_NB.shape[1]))).ravel()
    _, first_U, of_N = np.unique(rows_N, return_index=True, return_inverse=True)
    return hashes_NB[first_U], first_U, of_N


@dataclass(frozen=True)
class _Band:
    """Some bits, and those of the bands after it as far as a word holds them.

    Attributes:
        columns: Bits of the word, most significant first.
        width: Of them, those of the band itself.
        radius: Most bits in which a band differs.
        most_bits: Most bits in which the word does.
    """

    columns: Indices
    width: int
    radius: int
    most_bits: int


def _bands(hashes_NB: Hashes, most_bits: int) -> Iterator[_Band]:
    """Deal the bits to bands, each with as much that varies as the others.

    With allowances t that sum, each with one added, to most_bits + 1, two hashes within most_bits
    have a band from which on every run of bands differs in less than that sum over the run (the
    cycle lemma, Dvoretzky and Motzkin 1947); otherwise they would differ in more.
    """
    count = _num_bands(len(hashes_NB), most_bits)
    bits = np.unpackbits(hashes_NB[:: max(1, len(hashes_NB) // SAMPLE)], axis=1)
    order = np.argsort(-bits.var(axis=0), kind="stable")
    bands = [order[band::count] for band in range(count)]
    shares = np.full(count, (most_bits + 1) // count)
    shares[: (most_bits + 1) % count] += 1
    for band in range(count):
        members = [(band + next_) % count for next_ in range(count)]
        widths = np.cumsum([len(bands[member]) for member in members])
        chain = members[: max(1, int(np.searchsorted(widths, WORD, side="right")))]
        yield _Band(
            np.concatenate([bands[member] for member in chain])[:WORD],
            min(len(bands[band]), WORD),
            int(shares[band]) - 1,
            int(shares[chain].sum()) - 1,
        )


def _num_bands(count: int, most_bits: int) -> int:
    """Return how many bands: fewer are sharper, more allow for fewer bits in each."""
    wanted = max(1.0, math.log2(max(count, 2) / BUCKET))
    return min(most_bits + 1, max(BITS // WORD, round(BITS / wanted)))


class _Window:
    """The words of one band of all hashes, sorted.

    Args:
        hashes_NB: All different.
        band: Which bits.
        roots: What the hashes at these positions are known to belong to by now.
    """

    def __init__(self, hashes_NB: Hashes, band: _Band, roots: Callable[[Indices], Indices]) -> None:
        words_N = _words(hashes_NB, band.columns)
        self._band, self._roots = band, roots
        self._order_N = np.argsort(words_N)
        self._words_N = words_N[self._order_N]
        keys_N = self._words_N >> np.uint64(WORD - band.width)
        self._keys_K, self._start_K, self._count_K = np.unique(
            keys_N, return_index=True, return_counts=True
        )

    def __iter__(self) -> Iterator[tuple[Indices, Indices]]:
        """Yield positions of hashes that may be near, and are not known to belong together."""
        own_P, other_P = self._pairs_of_values()
        sizes_P = self._count_K[own_P] * self._count_K[other_P]
        many_P = sizes_P >= FEW_PAIRS
        yield from self._compare_few(own_P[~many_P], other_P[~many_P])
        yield from self._compare_many(own_P[many_P], other_P[many_P])

    def _pairs_of_values(self) -> tuple[Indices, Indices]:
        """Return pairs of the band's values that differ in few bits, those with themselves too."""
        own = [np.flatnonzero(self._count_K > 1)]
        other = [own[0]]
        for differing in range(1, self._band.radius + 1):
            for places in combinations(range(self._band.width), differing):
                mask = np.uint64(sum(1 << place for place in places))
                wanted_K = self._keys_K ^ mask
                found_K = np.searchsorted(self._keys_K, wanted_K).clip(max=len(wanted_K) - 1)
                is_there_K = (self._keys_K[found_K] == wanted_K) & (wanted_K > self._keys_K)
                own.append(np.flatnonzero(is_there_K))
                other.append(found_K[is_there_K])
        return np.concatenate(own), np.concatenate(other)

    def _compare_few(self, own_P: Indices, other_P: Indices) -> Iterator[tuple[Indices, Indices]]:
        sizes_P = self._count_K[own_P] * self._count_K[other_P]
        ends_P = np.cumsum(sizes_P)
        begun = 0
        while begun < len(own_P):
            done = ends_P[begun - 1] if begun else 0
            end = max(begun + 1, int(np.searchsorted(ends_P, done + PAIRS_AT_ONCE)))
            part = slice(begun, end)
            own, other, sizes = own_P[part], other_P[part], sizes_P[part]
            within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            row, column = np.divmod(within, np.repeat(self._count_K[other], sizes))
            row += np.repeat(self._start_K[own], sizes)
            column += np.repeat(self._start_K[other], sizes)
            bits = np.bitwise_count(self._words_N[row] ^ self._words_N[column])
            near = bits <= self._band.most_bits
            one, another = self._order_N[row[near]], self._order_N[column[near]]
            apart = self._roots(one) != self._roots(another)
            yield one[apart], another[apart]
            begun = end

    def _compare_many(self, own_P: Indices, other_P: Indices) -> Iterator[tuple[Indices, Indices]]:
        order_P = np.argsort(own_P, kind="stable")
        own_P, other_P = own_P[order_P], other_P[order_P]
        owners, first, counts = np.unique(own_P, return_index=True, return_counts=True)
        for own, start, count in zip(owners, first, counts, strict=True):
            others = other_P[start : start + count]
            places = np.concatenate(
                [
                    np.arange(self._start_K[other], self._start_K[other] + self._count_K[other])
                    for other in others
                ]
            )
            yield from self._compare(int(self._start_K[own]), int(self._count_K[own]), places)

    def _compare(
        self, first: int, count: int, places_M: Indices
    ) -> Iterator[tuple[Indices, Indices]]:
        words_M = self._words_N[places_M]
        rows_at_once = max(1, PAIRS_AT_ONCE // len(places_M))
        for start in range(first, first + count, rows_at_once):
            rows = slice(start, min(start + rows_at_once, first + count))
            bits = np.bitwise_count(self._words_N[rows, None] ^ words_M)
            near = bits <= self._band.most_bits
            # Of a block about a value with itself, each hash is a pair with itself.
            if np.count_nonzero(near) > len(near):
                near &= self._roots(self._order_N[rows])[:, None] != self._roots(
                    self._order_N[places_M]
                )
            row, column = np.nonzero(near)
            if len(row):
                yield self._order_N[row + start], self._order_N[places_M[column]]


def _words(hashes_NB: Hashes, columns: Indices) -> Words:
    """Return the given bits of each hash as one number, the first the most significant."""
    words_N = np.zeros(len(hashes_NB), np.uint64)
    for place, column in enumerate(columns.tolist()):
        bit_N = (hashes_NB[:, column // 8] >> (7 - column % 8)) & 1
        words_N |= bit_N.astype(np.uint64) << np.uint64(WORD - 1 - place)
    return words_N
