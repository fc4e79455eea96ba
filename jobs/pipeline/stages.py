"""The stages between the archives and the receipts: classify and publish, each in actors.

Every stage takes a block and hands on a block; pictures end at the classifier, rows at the
publisher, and only receipts of some hundred bytes reach the driver.

Ray Data's own defaults repeat a task for ever if its process keeps dying. Here each is repeated a
bounded number of times, and then its block is left out: the ledger misses the archives it held, and
`run.py` sees to them.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources
from ray.util.annotations import RayDeprecationWarning

from implant_model.batches import CPU_BATCH_SIZE, Images
from implant_model.compiled_classifier import CompiledClassifier
from implant_model.errors import ImplantError, PackageError, UsageError
from implant_model.networks.engine import EngineError, unpacked
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions
from jobs.entry.cluster import may_grow, possible_resources
from jobs.pipeline.blocks import block_table, read_block
from jobs.pipeline.filled_rows import fill_rows
from jobs.pipeline.publisher import PublishBlock
from jobs.pipeline.read_ahead import Group
from jobs.pipeline.recipe import Recipe
from jobs.pipeline.source import (
    BLOCK_MEMBERS,
    ArchiveSource,
    group_archives,
    large_block_members,
)
from jobs.tables.receipts import ArchiveReceipt, Fault, Published, load_receipts
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTION_ROW

SHARE = 0.5
"""CPUs that a reader or an actor asks for where there are no GPUs: either may be what takes the
time, so that there are more of them than cores and the operating system shares the cores out."""
CLASSIFIER_THREADS = 2
"""Of an actor on CPUs, of which there is one for every two cores: where decoding is cheap, or done,
the classifier has the cores to itself."""
CALLS_PER_ACTOR = 2
"""Blocks that an actor works on at a time. On CPUs one thread need not wait for the other at the
end of each block: a tenth more pictures a second where they are small. A GPU has the next batch
while the rows of the one before are filled."""
WAITING_PER_CPU = 16
"""Blocks for each CPU that may be in the object store: small pictures are decoded faster than they
are classified, and would fill it."""
LEAST_WAITING = 16
"""Blocks that there must be room for: with fewer than a dozen Ray Data stops readers for want of
room, and their idle processes are ended and started again."""
LARGE_FROM_CPUS = 64
"""Cores that fill more of the smaller blocks in a second than one driver hands on."""
TASKS_PER_CPU = 16
"""Read tasks for each CPU: enough that the last ones end together, few enough to start quickly."""
CPUS_PER_PUBLISHER = 8
"""These read a block in 0.3 s at the fastest, which takes some 0.1 s to publish."""
TASK_RETRIES = 2
"""How often a task is repeated whose process or node was lost; half of it where it is alone."""
MAX_LOST_TASKS = 100
"""Tasks that one pass may lose for good: more is no archive's fault but the cluster's."""


Classify = Callable[[Images, int | None], Predictions]


@dataclass(frozen=True)
class Resources:
    """What the stages ask of the cluster.

    Attributes:
        min_actors: Classifier actors that must exist.
        max_actors: Classifier actors that there may be.
        gpus_per_actor: 0 on CPUs; a fraction shares one GPU.
        read_cpus: CPUs of one task that reads and decodes.
        actor_cpus: CPUs of one classifier actor.
        batch_size: Pictures in one pass of the networks; None fits it to the device.
        read_tasks: Most read tasks that archives are dealt to.
        max_publishers: Publisher actors that there may be.
        max_waiting: Blocks of the smaller kind that may be in the object store, as far as Ray Data
            can tell.
        large_blocks: Whether blocks are large: where there are GPUs, or many cores.
    """

    min_actors: int
    max_actors: int
    gpus_per_actor: float
    read_cpus: float
    actor_cpus: float
    batch_size: int | None
    read_tasks: int
    max_publishers: int
    max_waiting: int
    large_blocks: bool

    def block_members(self, size_px: int) -> int:
        """Return how many members a block has, of pictures of so many pixels a side."""
        return large_block_members(size_px) if self.large_blocks else BLOCK_MEMBERS


@dataclass(frozen=True, eq=False)
class Model:
    """What a classifier actor is given.

    Attributes:
        package: Its files verified.
        converted: Its networks for CPUs, see `implant_model.package.conversion`; None: torch runs
            them, or converts them itself, for which it must be imported.
    """

    package: ModelPackage
    converted: bytes | None = None


def choose_resources(
    actors: tuple[int, int] | None, gpus_per_actor: float | None, batch_size: int | None
) -> Resources:
    """Fit the stages to the cluster that this driver is connected to, or to what it can become.

    Args:
        actors: Least and most classifier actors, or None: on GPUs one for each that there is, on
            CPUs at most one for every two cores.
        gpus_per_actor: Or None: 1 where the cluster has GPUs, else 0.
        batch_size: Pictures in one pass of the networks; None fits it to the device.

    Raises:
        UsageError: GPUs are asked for and the cluster has none.
    """
    cluster = possible_resources()
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    if gpus_per_actor is None:
        gpus_per_actor = 1.0 if gpus else 0.0
    if gpus_per_actor > gpus and not may_grow():
        raise UsageError(
            f"--gpus-per-actor {gpus_per_actor:g} asks for GPUs; the cluster has {gpus:g}. Leave "
            "it out to classify on CPUs."
        )
    if actors is None:
        most = int(gpus / gpus_per_actor) if gpus_per_actor else int(cpus // 2)
        actors = (1, max(most, 1))
    # On a GPU node a CPU is whole, as on nodes still to come; else see SHARE.
    share = 1.0 if gpus_per_actor and (cpus >= 2 or not cpus) else SHARE
    tasks = int(max(cpus, 1) * TASKS_PER_CPU)
    publishers = max(1, int(cpus // CPUS_PER_PUBLISHER))
    waiting = int(max(cpus, 1) * WAITING_PER_CPU)
    large = bool(gpus_per_actor) or cpus >= LARGE_FROM_CPUS
    return Resources(
        *actors, gpus_per_actor, share, share, batch_size, tasks, publishers, waiting, large
    )


def run_stages(
    todo: Sequence[PlannedArchive],
    recipe: Recipe,
    model: Model,
    resources: Resources,
    positions: Sequence[int] | None = None,
) -> Iterator[ArchiveReceipt]:
    """Run planned archives through the stages; yield their receipts as they come.

    Args:
        todo: The plan.
        recipe: How members become rows.
        model: It travels to the actors through the object store.
        resources: What each stage asks for.
        positions: Places in the plan of the archives to run, each in a task of its own; by default
            all of them, dealt to tasks.
    """
    if positions is None:
        groups = group_archives(todo, resources.read_tasks)
        yield from receipts(build(groups, recipe, model, resources))
    else:
        alone: list[Group] = [[(position, todo[position])] for position in positions]
        yield from receipts(build(alone, recipe, model, resources, alone=True))


def build(
    groups: Sequence[Group],
    recipe: Recipe,
    model: Model,
    resources: Resources,
    alone: bool = False,
) -> Dataset:
    """Return the lazy Ray Data pipeline from archives to receipts.

    Args:
        groups: The planned archives, dealt to read tasks.
        recipe: How members become rows.
        model: It travels to the actors through the object store.
        resources: What each stage asks for.
        alone: A classifier actor takes one block at a time: one that kills it costs no other.

    Returns:
        A dataset of schema `RECEIPT`; each row is a JSON list of receipts, see `PublishBlock`.
    """
    context = DataContext.get_current()
    # Each of our blocks is one of Ray's: see source.py for why this must not depend on sizes.
    context.target_max_block_size = 1
    context.execution_options.preserve_order = False
    context.max_errored_blocks = MAX_LOST_TASKS
    size_px = recipe.preprocessing.size_px
    block_members = resources.block_members(size_px)
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=max(
            resources.max_waiting * BLOCK_MEMBERS, LEAST_WAITING * block_members
        )
        * size_px**2
    )
    with warnings.catch_warnings():
        # How often a lost task is repeated has no parameter of its own in Ray 2.60, which repeats
        # without end by default; `ray_remote_args` goes in 2.64, so pyproject.toml has that bound.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        blocks = ray.data.read_datasource(
            ArchiveSource(groups, recipe, block_members),
            override_num_blocks=len(groups),
            num_cpus=resources.read_cpus,
            ray_remote_args={"max_retries": retries(alone)},
        )
        classified = classify_stage(blocks, recipe.precision, model, resources, alone=alone)
        return publish_stage(classified, recipe, resources, alone=alone)


def publish_stage(
    classified: Dataset, recipe: Recipe, resources: Resources, *, alone: bool = False
) -> Dataset:
    """Map the pool of publisher actors over classified blocks.

    Returns:
        Rows of schema `RECEIPT`, one for each block.
    """
    published: Dataset = classified.map_batches(
        PublishBlock,
        fn_constructor_args=(recipe.output, recipe.is_private),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=resources.max_publishers),
        num_cpus=0,  # waits for the store; a share of a CPU would keep it from running on 2 cores
        max_task_retries=retries(alone),
    )
    return published


def classify_stage(
    blocks: Dataset,
    precision: Precision,
    model: Model,
    resources: Resources,
    *,
    alone: bool = False,
) -> Dataset:
    """Map the pool of classifier actors over blocks.

    Args:
        blocks: Blocks of schema `BLOCK`, one row each.
        precision: Of the networks.
        model: It travels to the actors through the object store.
        resources: What an actor asks for, and how many there are.
        alone: See `build`.

    Returns:
        Blocks whose rows are filled and whose pictures are gone.
    """
    arguments = (ray.put(model), precision, resources)
    return actor_stage(blocks, ClassifyBlock, arguments, resources, alone=alone)


def actor_stage(
    blocks: Dataset,
    actor: type[Callable[[pa.Table], pa.Table]],
    arguments: tuple[object, ...],
    resources: Resources,
    *,
    alone: bool = False,
) -> Dataset:
    """Map a pool of actors over blocks, see `classify_stage`.

    Args:
        blocks: Blocks of schema `BLOCK`, one row each.
        actor: What is made in each process, and called with a block.
        arguments: What it is made with.
        resources: What an actor asks for, and how many there are.
        alone: See `build`.
    """
    gpus: dict[str, Any] = (
        {"num_gpus": resources.gpus_per_actor} if resources.gpus_per_actor else {}
    )
    classified: Dataset = blocks.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=resources.min_actors,
            max_size=resources.max_actors,
            max_tasks_in_flight_per_actor=1 if alone else None,
            max_concurrent_calls_per_actor=1 if alone else CALLS_PER_ACTOR,
            enable_true_multi_threading=not alone,
        ),
        num_cpus=resources.actor_cpus,
        max_task_retries=retries(alone),
        **gpus,
    )
    return classified


def retries(alone: bool) -> int:
    """Return how often a task is repeated whose process or node was lost."""
    return TASK_RETRIES // 2 if alone else TASK_RETRIES


class ClassifyBlock:
    """A classifier actor: fills the rows of a block and drops its pictures.

    It is called by several threads at a time.

    Args:
        model: Reference to the `Model` in the object store.
        precision: Of the networks.
        resources: Device and batch size.
    """

    def __init__(
        self, model: "ray.ObjectRef[Model]", precision: Precision, resources: Resources
    ) -> None:
        self._model: Model = ray.get(model)
        self._precision: Precision = precision
        self._size_px = self._model.package.preprocessing.size_px
        self._batch_size = resources.batch_size
        self._on_gpu = bool(resources.gpus_per_actor)
        self._threads = min(CLASSIFIER_THREADS, os.cpu_count() or 1)
        self._changing = threading.Lock()
        self._fault: Fault | None = None
        full = self._batch_size or CPU_BATCH_SIZE  # what most of the work will be done in
        blank = np.zeros((full, self._size_px, self._size_px), np.uint8)
        # Ray Data would take an exception for the loss of a block, and try others.
        try:
            self._classifier = self._compiled() or self._by_torch()
            self._classify(blank)  # warm before work
        except PackageError as error:
            self._fault = Fault(str(error), at_start=True)
        except RuntimeError as error:  # of a driver that is too old, a card without room, ...
            if not self._on_gpu:
                raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            self._fault = Fault(f"A GPU cannot run the networks: {reason}.", at_start=True)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Classify the pictures of one block."""
        if self._fault:
            return _fault_block(self._fault)
        pieces, rows, images_NHW = read_block(table, self._size_px)
        if len(images_NHW):
            try:
                predictions = self._classify(images_NHW)
            except PackageError as error:
                return _fault_block(Fault(str(error), at_start=False))
            rows = fill_rows(rows, predictions, self._model.package)
        return block_table(pieces, rows)

    def _classify(self, images_NHW: Images) -> Predictions:
        used = self._classifier
        try:
            return used(images_NHW, self._batch_size)
        except EngineError:
            with self._changing:  # of several threads that found it, the first changes
                if self._classifier == used:
                    self._classifier = self._by_torch()
            return self._classifier(images_NHW, self._batch_size)

    def _compiled(self) -> Classify | None:
        """Return what needs no torch; None where that cannot be."""
        if self._model.converted is None or self._on_gpu:
            return None
        try:
            converted = unpacked(self._model.converted)
            return CompiledClassifier(
                self._model.package, converted, self._precision, self._threads, omp_threads()
            ).classify
        except EngineError:
            return None

    def _by_torch(self) -> Classify:
        from implant_model.classifier import Classifier  # here: torch takes 3 s of CPU to import

        device = "cuda" if self._on_gpu else "cpu"
        return Classifier(self._model.package, device, self._precision, self._threads).classify


def omp_threads() -> int:
    """Return the threads that a stream of networks has: what torch would take."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _fault_block(fault: Fault) -> pa.Table:
    return block_table([fault], PREDICTION_ROW.empty_table())


def receipts(dataset: Dataset) -> Iterator[ArchiveReceipt]:
    """Run the pipeline and yield its receipts as they come.

    Raises:
        PackageError: The model gives no answers, and nothing was published.
        ImplantError: The model does not answer for some picture, or one node is not set up as the
            others that have published already.
    """
    published = False
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in cast(pa.Table, batch)["receipts"].to_pylist():
            for receipt in load_receipts(text):
                if isinstance(receipt, Fault):
                    kind = PackageError if receipt.at_start and not published else ImplantError
                    raise kind(receipt.fault)
                published = published or isinstance(receipt, Published)
                yield receipt
