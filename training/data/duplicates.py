"""Near duplicates: the same radiograph stored twice, rescaled, recompressed or retouched.

Each image gets a perceptual hash of 256 bits: the signs of its 16 x 16 lowest cosine frequencies
about their median (after Zauner 2010, who takes 64 bits; radiographs of one body part resemble each
other, and need more). Two images whose hashes differ in few bits are the same picture. Mirrored and
turned copies are not found.

Shapes: N images, H rows, W columns, B bytes.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 64
"""Side of the square that is transformed; 4 times the frequencies kept."""
FREQUENCIES = 16
ROWS_AT_ONCE = 1024
"""Hashes compared with all others at once: 1024 x 50,000 counts are 50 MB."""


def perceptual_hash(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Hash one grey image: uint8 (32,), 256 bits, of the frequencies row by row."""
    small = cv2.resize(image_HW, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:FREQUENCIES, :FREQUENCIES].ravel()
    low[0] = 0  # the mean grey: exposure, not content
    return np.packbits(low > np.median(low))


def perceptual_hashes(images_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Hash a set: uint8 (N, 32)."""
    return np.stack([perceptual_hash(image_HW) for image_HW in images_NHW])


def near_pairs(hashes_NB: NDArray[np.uint8], most_bits: int) -> list[tuple[int, int]]:
    """Find all pairs (lower, higher position) whose hashes differ in at most `most_bits` bits."""
    words_NW = np.ascontiguousarray(hashes_NB).view(np.uint64)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(words_NW), ROWS_AT_ONCE):
        rows = words_NW[start : start + ROWS_AT_ONCE]
        bits = np.zeros((len(rows), len(words_NW)), dtype=np.uint16)
        for word in range(words_NW.shape[1]):
            bits += np.bitwise_count(rows[:, None, word] ^ words_NW[None, :, word])
        for row, other in np.argwhere(bits <= most_bits).tolist():
            if start + row < other:
                pairs.append((start + row, other))
    return pairs


def duplicate_groups(images_NHW: NDArray[np.uint8], most_bits: int) -> NDArray[np.int64]:
    """Group near duplicates, as far as the links reach.

    Args:
        images_NHW: Preprocessed images.
        most_bits: Most bits, of 256, in which two hashes of the same picture differ.

    Returns:
        Group of each image, int64 (N,): the position of the group's first image.
    """
    group_N = np.arange(len(images_NHW))
    for low, high in near_pairs(perceptual_hashes(images_NHW), most_bits):
        first, second = sorted((group_N[low], group_N[high]))
        if first != second:
            group_N[group_N == second] = first
    return group_N
