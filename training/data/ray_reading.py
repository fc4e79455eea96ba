"""Reads bundles by Ray Data, on all nodes: each read task has a decoding process and puts shards.

Pictures go from the task that decodes them to the cache; the driver gets indices, about a hundred
bytes for each image.
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Final, cast

import pyarrow as pa
import ray
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.annotations import RayDeprecationWarning

from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import StorageError
from implant_model.limits import Limits
from training.data.bundles import Bundle
from training.data.reading import Recipe, Tick, num_pictures, read_bundle
from training.failures import TrainingError

TASKS_PER_CPU: Final = 16
"""Read tasks for each CPU: enough that the last ones end together."""
TASK_RETRIES: Final = 2
MAX_LOST_TASKS: Final = 100
"""Tasks that one pass may lose for good: more is no archive's fault but the cluster's."""
RECEIPT: Final = pa.schema(
    [("position", pa.int64()), ("index", pa.large_binary()), ("fault", pa.string())]
)
Part = Sequence[tuple[int, Bundle]]


def read_by_ray(
    bundles: Sequence[Bundle], recipe: Recipe, tick: Tick
) -> Iterator[tuple[int, pa.Table]]:
    """Read bundles on the cluster that this driver is connected to, see `read_here`.

    A task that is lost again and again costs its bundles a second pass, each alone.

    Raises:
        StorageError: The cache cannot be written.
        TrainingError: A bundle cannot be read, though its members are decoded apart.
    """
    left = dict(enumerate(bundles))
    pictures = 0
    for alone in (False, True):
        for position, index in _pass([*left.items()], recipe, alone) if left else ():
            if position in left:
                del left[position]
                pictures += num_pictures(index)
                tick(pictures)
                yield position, index
    if left:
        raise TrainingError(
            f"{len(left):,} of {len(bundles):,} parts of the images could not be read: Ray lost "
            "the tasks that read them, which memory that runs short does; --resume tries again."
        )


def _pass(todo: Part, recipe: Recipe, alone: bool) -> Iterator[tuple[int, pa.Table]]:
    context = DataContext.get_current()
    context.target_max_block_size = 1  # a receipt is on its way when its bundle is done
    context.execution_options.preserve_order = False
    context.max_errored_blocks = MAX_LOST_TASKS
    context.execution_no_progress_timeout_s = -1  # one archive may take hours
    parts = [[item] for item in todo] if alone else deal_bundles(todo, _num_tasks())
    with warnings.catch_warnings():
        # Bounded, as in the main job: by default Ray Data repeats a lost task without end.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        receipts = ray.data.read_datasource(
            _Source(parts, recipe),
            override_num_blocks=len(parts),
            num_cpus=1,
            ray_remote_args={"max_retries": TASK_RETRIES},
        )
    batches = receipts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        for receipt in cast(pa.Table, batch).to_pylist():
            if receipt["fault"] is not None:
                raise StorageError(receipt["fault"])
            yield receipt["position"], pa.ipc.open_stream(receipt["index"]).read_all()


def _num_tasks() -> int:
    return int(max(ray.cluster_resources().get("CPU", 1), 1) * TASKS_PER_CPU)


def deal_bundles(todo: Part, num_tasks: int) -> list[Part]:
    """Deal bundles to about so many tasks, the largest first, each task about as many bytes."""
    share = sum(bundle.num_bytes for _, bundle in todo) / num_tasks
    parts: list[list[tuple[int, Bundle]]] = []
    size = 0.0
    for item in sorted(todo, key=lambda item: -item[1].num_bytes):
        if not parts or size >= share:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += item[1].num_bytes
    return [*parts]


class _Source(Datasource):
    """Receipts, from one read task for each part of the bundles."""

    def __init__(self, parts: Sequence[Part], recipe: Recipe) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = [partial(_read, part, recipe) for part in parts]

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: unknown before they are read."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return one task for each part, whatever `parallelism` asks for."""
        metadata = BlockMetadata(None, None, None, None)
        return [
            ReadTask(read, metadata, schema=RECEIPT, per_task_row_limit=per_task_row_limit)
            for read in self._reads
        ]


def _read(part: Part, recipe: Recipe) -> Iterator[pa.Table]:
    decoder = _decoder(recipe.spec, recipe.limits)
    for position, bundle in part:
        fault, data = None, b""
        try:
            index = read_bundle(bundle, recipe, decoder, lambda _: None)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, index.schema) as stream:
                stream.write_table(index)
            data = sink.getvalue().to_pybytes()
        except StorageError as error:  # Ray Data would take an exception for the loss of a block
            fault = str(error)
        yield pa.table([[position], [data], [fault]], schema=RECEIPT)


@cache
def _decoder(spec: Preprocessing, limits: Limits) -> DecodeProcess:
    """Return this worker's decoding process; it outlives the task and serves the next one."""
    return DecodeProcess(spec, limits)
