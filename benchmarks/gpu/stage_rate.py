"""The rate of a Ray Data stage alone: blocks of noise that are ready go through it to the driver.

Letters: N images, H height, W width.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, Dataset

from implant_model.errors import ImplantError
from jobs.pipeline.blocks import block_table
from jobs.pipeline.source import BlockSource
from jobs.tables.receipts import Unit
from jobs.tables.schema import PREDICTION_ROW

TASKS: Final = 32
"""Read tasks that hand out the blocks of a run of the stage."""
COUNTED: Final = 0.75
"""Share of a run of the stage that counts: before that, processes start and networks are loaded."""


def make_block(size_px: int, members: int) -> pa.Table:
    """Return a block of noise, schema `BLOCK`, all of whose rows wait for a prediction."""
    images_NHW = np.random.default_rng(0).integers(0, 256, (members, size_px, size_px), np.uint8)
    must = {"archive": "a.tar", "archive_version": "1", "frame": 0}
    rows = [
        dict.fromkeys(PREDICTION_ROW.names) | must | {"member_index": n, "member": f"{n:06}.dcm"}
        for n in range(members)
    ]
    unit = Unit(0, "a.tar", "1", 0, members, images_NHW.nbytes, "unit.parquet")
    table = pa.Table.from_pylist(rows, PREDICTION_ROW)
    return block_table([unit], table, images_NHW.tobytes())


def stage_rate(
    block: pa.Table,
    members: int,
    count: int,
    stage: Callable[[Dataset], Dataset],
    read_cpus: float,
) -> float:
    """Images a second of so many blocks through a stage, by when the last of them come out.

    Args:
        block: What `make_block` returns.
        members: Of the block.
        count: Blocks.
        stage: Maps actors over them.
        read_cpus: CPUs of one task that hands them out.
    """
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.execution_options.preserve_order = False
    holder = [ray.put(block)]
    shares = [len(range(task, count, TASKS)) for task in range(min(TASKS, count))]
    source = BlockSource([partial(_hand_out, holder, share) for share in shares])
    blocks = ray.data.read_datasource(source, override_num_blocks=len(shares), num_cpus=read_cpus)
    seen_at = [
        time.monotonic()
        for batch in stage(blocks).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )
        for _ in range(len(batch))
    ]
    if len(seen_at) != count:
        raise ImplantError(f"The stage gave {len(seen_at)} blocks of {count}.")
    first = count - int(COUNTED * count)
    return (count - first) * members / (seen_at[-1] - seen_at[first - 1])


def _hand_out(holder: "list[ray.ObjectRef[pa.Table]]", count: int) -> Iterator[pa.Table]:
    block = ray.get(holder[0])
    for _ in range(count):
        yield block
