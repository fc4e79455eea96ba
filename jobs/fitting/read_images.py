"""Where labelled images are read: few in this process, many on all nodes of the cluster."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa

from implant_model.limits import MIB
from jobs.entry.cluster import start_ray
from training.data.bundles import Bundle
from training.data.ray_reading import read_by_ray
from training.data.reading import Recipe, Tick, read_here

START_TIMEOUT: Final = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
READ_HERE_BYTES: Final = 64 * MIB
"""Of archives that one process has read before Ray has its workers."""


def read_fast(
    bundles: Sequence[Bundle], recipe: Recipe, tick: Tick
) -> Iterator[tuple[int, pa.Table]]:
    """Read bundles here or by Ray, which is started for it; see `read_here`.

    Raises:
        UsageError: Ray cannot be started or joined.
        StorageError: The cache cannot be written.
        TrainingError: The cluster lost the tasks that read them, again and again.
    """
    if sum(bundle.num_bytes for bundle in bundles) <= READ_HERE_BYTES:
        return read_here(bundles, recipe, tick)
    start_ray_train()
    return read_by_ray(bundles, recipe, tick)


def start_ray_train() -> None:
    """Join or start Ray, if that has not been done, with patience for a training's workers."""
    # The default of 60 s is over before torch is imported on a busy machine, and the start is
    # begun again without end.
    os.environ.setdefault(START_TIMEOUT, "300")
    start_ray()


def expect_lost_nodes() -> None:
    """Have a start of workers given up sooner, for a training whose number of workers may change.

    When a node is lost Ray first starts as many workers as before, and counts the nodes that are
    left when it has given that up.
    """
    os.environ.setdefault(START_TIMEOUT, "100")
