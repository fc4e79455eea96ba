"""The segmenter of one training: what it is fitted to and how, and its masks of the test part.

Shapes: N images, S side of the preprocessed image.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.networks.weights import load_network
from training.config import TrainConfig
from training.data.shards import PART, Chosen, Pictures
from training.fit.segmenter import segment
from training.fit.worker_inputs import Examples, FitTask
from training.masks.mask_set import ChosenMasks, MaskSet, SetOfMasks
from training.masks.overlap import Overlaps, overlaps, pool_overlaps
from training.settings import SegmenterSettings

Indices = NDArray[np.int64]
MIN_MASKS = 8  # fewer teach a U-Net nothing that a threshold did not know


def masked_examples(images: Pictures, masks: MaskSet, train_N: Indices) -> Examples:
    """Return the images of a training part whose masks are usable, with these.

    Raises:
        UsageError: Fewer than `MIN_MASKS` masks that hold anything.
    """
    used_N = masks.usable(train_N)
    chosen = ChosenMasks(masks.masks_NSS, used_N)
    found = _num_filled(chosen, len(used_N))
    if found < MIN_MASKS:
        raise UsageError(
            f"The segmenter has {found} masks to learn from; {MIN_MASKS} are expected. Give masks "
            "made by hand (segmenter.masks), or train without a segmenter (segmenter.width = 0)."
        )
    return Examples(Chosen(images, used_N), chosen)


def _num_filled(masks: SetOfMasks, count: int) -> int:
    """Return how many masks hold anything, as far as it takes to know that they are enough."""
    found = 0
    for start in range(0, count, PART):
        part_BSS = masks[np.arange(start, min(start + PART, count))]
        found += int(part_BSS.any(axis=(1, 2)).sum())
        if found >= MIN_MASKS:
            break
    return found


def segmenter_task(config: TrainConfig) -> FitTask:
    """Return how the U-Net is fitted: by its own settings, on workers and checkpoints of `fit`.

    It has no warm-up, no average of weights and no early stop, and is fitted in float32.
    """
    own = config.segmenter
    fit = replace(
        config.fit,
        epochs=own.epochs,
        batch_size=own.batch_size,
        learning_rate=own.learning_rate,
        weight_decay=own.weight_decay,
        seed=own.seed,
        warmup=0.0,
        ema=0.0,
        half_size=0.0,
        validation=0.0,
        patience=0,
        mixed_precision=False,
    )
    return FitTask(own.spec(), 1, None, False, fit, config.augment)


def measure_segmenter(
    settings: SegmenterSettings,
    weights: bytes,
    images: Pictures,
    masks: MaskSet,
    test_N: Indices,
    device: str,
) -> Overlaps:
    """Compare the packaged network's masks of a test part with those that may measure."""
    used_N = masks.measuring(test_N)
    network = load_network(settings.spec(), 1, weights)
    parts = []
    for start in range(0, max(len(used_N), 1), PART):
        at_B = used_N[start : start + PART]
        parts.append(overlaps(segment(network, images[at_B], device), masks.masks_NSS[at_B], at_B))
    return pool_overlaps(parts)
