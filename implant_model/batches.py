"""Images through networks, a batch at a time; the networks are whoever's. Needs no torch.

Letters: N images, B batch, C classes (implants), F features, H height, W width.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final

import numpy as np
import numpy.typing as npt

CPU_BATCH_SIZE: Final = 16
"""Larger ones gain 4 % at 32, leave the cache behind that (2.2, 2.5 and 3.5 ms an image at 32, 64,
128), and take a classifier from 0.6 to 0.8 GB."""
Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Run = Callable[[Images], tuple[Array, Array]]
"""A batch, BHW, to log probabilities, BC, and embeddings, BF."""


def in_batches(
    run: Run,
    images_NHW: Images,
    batch_size: int,
    *,
    is_filled: bool = False,
    pool: Executor | None = None,
) -> tuple[Array, Array]:
    """Run all images.

    Args:
        run: Runs one batch, which it must not change; several threads may call it where there is
            a pool.
        images_NHW: uint8; N may be 0.
        batch_size: Images of a batch.
        is_filled: Fill the last batch up with blank pictures.
        pool: Runs batches side by side; None: one after the other on the calling thread.

    Returns:
        Log probabilities, NC, and embeddings, NF, both float32.

    Raises:
        ValueError: Images of another dtype or number of dimensions, or a batch size below 1.
    """
    check_images(images_NHW, batch_size)
    batches = _batches(images_NHW, batch_size, is_filled=is_filled)
    pairs = list((map if pool is None else pool.map)(run, batches))
    logs = np.concatenate([pair[0] for pair in pairs])
    features = np.concatenate([pair[1] for pair in pairs])
    return logs[: len(images_NHW)], features[: len(images_NHW)]


def check_images(images_NHW: Images, batch_size: int | None) -> None:
    """Check what was given.

    Raises:
        ValueError: Images of another dtype or number of dimensions, or a batch size below 1.
    """
    if images_NHW.dtype != np.uint8 or images_NHW.ndim != 3:
        raise ValueError(
            f"Images are {images_NHW.dtype} with {images_NHW.ndim} dimensions; uint8, (N, H, W) "
            "is expected."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is expected.")


def _batches(images_NHW: Images, batch_size: int, *, is_filled: bool) -> Iterator[Images]:
    for start in range(0, max(len(images_NHW), 1), batch_size):
        part = images_NHW[start : start + batch_size]
        fill = batch_size - len(part) if is_filled else int(not len(part))
        if fill:
            part = np.concatenate((part, np.zeros((fill, *part.shape[1:]), np.uint8)))
        yield part  # a view: a pool takes all batches of a block at once
