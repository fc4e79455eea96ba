"""Tensors ready: the networks alone, the classifier's actor, and the actor in its Ray Data stage.

Letters: N images, H height, W width.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import DataContext

from implant_model.classifier import Classifier
from implant_model.errors import ImplantError
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage
from jobs.pipeline.blocks import block_table
from jobs.pipeline.source import BLOCK_MEMBERS, BlockSource
from jobs.pipeline.stages import CALLS_PER_ACTOR, ClassifyBlock, Resources, classify_stage
from jobs.tables.receipts import Unit
from jobs.tables.schema import PREDICTION_ROW

TASKS: Final = 32
"""Read tasks that hand out the blocks of a run of the stage."""
COUNTED: Final = 0.75
"""Share of a run of the stage that counts: before that, processes start and networks are loaded."""


@dataclass(frozen=True)
class TensorRates:
    """Images a second.

    Attributes:
        batch_size: Of the device.
        alone: The networks, on one batch that lies on the device.
        actor: The actor's calls, in as many threads as it has in the job; rows are filled.
        stage: The same in the job's Ray Data stage, one actor.
    """

    batch_size: int
    alone: list[float]
    actor: list[float]
    stage: list[float]


def measure_tensors(
    package: ModelPackage, precision: Precision, resources: Resources, repeats: int, seconds: float
) -> TensorRates:
    """Measure the three in turn.

    Args:
        package: The model.
        precision: Of the networks.
        resources: Of one actor on a GPU.
        repeats: How often each is measured.
        seconds: Of each measurement.
    """
    block = make_block(package.preprocessing.size_px)
    rates = _in_this_process(block, package, precision, resources, repeats, seconds)
    torch.cuda.empty_cache()
    count = int(seconds / COUNTED * max(rates.actor) / BLOCK_MEMBERS) + 4
    for _ in range(repeats):
        rates.stage.append(stage_rate(block, count, precision, package, resources))
    return rates


def _in_this_process(
    block: pa.Table,
    package: ModelPackage,
    precision: Precision,
    resources: Resources,
    repeats: int,
    seconds: float,
) -> TensorRates:
    actor = ClassifyBlock(ray.put(package), precision, resources)
    batches = Classifier(package, "cuda", precision).device_batches(resources.batch_size)
    call = partial(actor, block)
    rates = TensorRates(batches.batch_size, [], [], [])
    for _ in range(repeats):
        rates.alone.append(rate(batches.repeat, batches.batch_size, 1, seconds))
        rates.actor.append(rate(call, BLOCK_MEMBERS, CALLS_PER_ACTOR, seconds))
    return rates


def rate(work: Callable[[], object], images: int, threads: int, seconds: float) -> float:
    """Return images a second of work that threads repeat for so long."""
    work()
    torch.cuda.synchronize()
    begun = time.monotonic()

    def repeat(_: int) -> int:
        calls = 0
        while time.monotonic() - begun < seconds:
            work()
            if threads == 1:
                torch.cuda.synchronize()
            calls += 1
        return calls

    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(repeat, range(threads)))
    torch.cuda.synchronize()
    return calls * images / (time.monotonic() - begun)


def make_block(size_px: int) -> pa.Table:
    """Return a full block of noise, schema `BLOCK`, all of whose rows wait for a prediction."""
    shape = (BLOCK_MEMBERS, size_px, size_px)
    images_NHW = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    must = {"archive": "a.tar", "archive_version": "1", "frame": 0}
    rows = [
        dict.fromkeys(PREDICTION_ROW.names) | must | {"member_index": n, "member": f"{n:06}.dcm"}
        for n in range(BLOCK_MEMBERS)
    ]
    unit = Unit(0, "a.tar", "1", 0, BLOCK_MEMBERS, images_NHW.nbytes, "unit.parquet")
    table = pa.Table.from_pylist(rows, PREDICTION_ROW)
    return block_table([unit], table, images_NHW.tobytes())


def stage_rate(
    block: pa.Table, count: int, precision: Precision, package: ModelPackage, resources: Resources
) -> float:
    """Images a second of so many blocks through the stage, by when the last of them come out."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.execution_options.preserve_order = False
    holder = [ray.put(block)]
    shares = [len(range(task, count, TASKS)) for task in range(min(TASKS, count))]
    source = BlockSource([partial(_hand_out, holder, share) for share in shares])
    blocks = ray.data.read_datasource(
        source, override_num_blocks=len(shares), num_cpus=resources.read_cpus
    )
    filled = classify_stage(blocks, precision, package, resources)
    seen_at = [
        time.monotonic()
        for batch in filled.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )
        for _ in range(len(batch))
    ]
    if len(seen_at) != count:
        raise ImplantError(f"The stage gave {len(seen_at)} blocks of {count}.")
    first = count - int(COUNTED * count)
    return (count - first) * BLOCK_MEMBERS / (seen_at[-1] - seen_at[first - 1])


def _hand_out(holder: "list[ray.ObjectRef[pa.Table]]", count: int) -> Iterator[pa.Table]:
    block = ray.get(holder[0])
    for _ in range(count):
        yield block
