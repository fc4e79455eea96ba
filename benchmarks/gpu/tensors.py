"""Tensors ready: the networks alone, the classifier's actor, and the actor in its Ray stage."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import ray
import torch

from benchmarks.gpu.stage_rate import COUNTED, make_block, stage_rate
from implant_model.classifier import Classifier
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage
from jobs.pipeline.stages import CALLS_PER_ACTOR, ClassifyBlock, Model, Resources, classify_stage


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
    size_px = package.preprocessing.size_px
    members = resources.block_members(size_px)
    block = make_block(size_px, members)
    rates = _in_this_process(block, members, package, precision, resources, repeats, seconds)
    torch.cuda.empty_cache()
    count = int(seconds / COUNTED * max(rates.actor) / members) + 4
    stage = partial(classify_stage, precision=precision, model=Model(package), resources=resources)
    for _ in range(repeats):
        rates.stage.append(stage_rate(block, members, count, stage, resources.read_cpus))
    return rates


def _in_this_process(
    block: pa.Table,
    members: int,
    package: ModelPackage,
    precision: Precision,
    resources: Resources,
    repeats: int,
    seconds: float,
) -> TensorRates:
    actor = ClassifyBlock(ray.put(Model(package)), precision, resources)
    batches = Classifier(package, "cuda", precision).device_batches(resources.batch_size)
    call = partial(actor, block)
    rates = TensorRates(batches.batch_size, [], [], [])
    for _ in range(repeats):
        rates.alone.append(rate(batches.repeat, batches.batch_size, 1, seconds))
        rates.actor.append(rate(call, members, CALLS_PER_ACTOR, seconds))
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
