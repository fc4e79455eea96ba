"""The segmenter of one training: fitted on its training part's masks, measured on its test part's.

Shapes: N images, S side of the preprocessed image.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from implant_model.networks.weights import load_network, weights_bytes
from training.config import Augmentation, SegmenterSettings
from training.data.shards import PART, Chosen, Pictures
from training.failures import results_of
from training.fit.segmenter import fit_segmenter, segment
from training.fit.worker_inputs import State
from training.masks.mask_set import ChosenMasks, MaskSet, SetOfMasks
from training.masks.overlap import Overlaps, overlaps, pool_overlaps

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SegmenterTask:
    """All that decides a fit, its images and masks aside.

    Attributes:
        settings: How it is fitted.
        augmentation: How far its views may go.
        threads: Of the CPU.
        use_gpu: Whether the task holds a GPU.
        state_file: Kept after each epoch, from which a fit that was broken off goes on.
        curve: File that gets a line of JSON for each epoch: epoch, loss.
        first_weights: To start from; None from scratch.
    """

    settings: SegmenterSettings
    augmentation: Augmentation
    threads: int
    use_gpu: bool
    state_file: Path
    curve: Path
    first_weights: State | None


def fit_on_masks(images: Pictures, masks: MaskSet, train_N: Indices, task: SegmenterTask) -> bytes:
    """Fit a U-Net to the usable masks of a training part, in a task of Ray's.

    Returns:
        Content of its file in the package.

    Raises:
        UsageError: Too few masks to learn from.
    """
    used_N = masks.usable(train_N)
    remote = _fit.options(num_cpus=task.threads, num_gpus=int(task.use_gpu), max_retries=3)
    fit = remote.remote(Chosen(images, used_N), ChosenMasks(masks.masks_NSS, used_N), task)
    weights: bytes = results_of([fit])[0]
    return weights


@ray.remote
def _fit(images: Pictures, masks: SetOfMasks, task: SegmenterTask) -> bytes:
    def report(epoch: int, loss: float) -> None:
        with task.curve.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "loss": loss}) + "\n")

    torch.set_num_threads(task.threads)
    network = fit_segmenter(
        images,
        masks,
        task.settings,
        task.augmentation,
        "cuda" if task.use_gpu else "cpu",
        task.state_file,
        report,
        task.first_weights,
    )
    return weights_bytes(network)


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
