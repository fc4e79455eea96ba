"""Archives as a source of Ray Data: each read task streams a group of archives.

Reading, decoding and preprocessing are one task, since a raw radiograph is a hundred times the size
of its tensor and nothing is gained by moving it. What a task yields is a block, see `blocks`.

A unit of at most 1,000 members is never split over blocks, and a block is always one of Ray's, so
that no shuffle is needed to bring a unit together. Where a block ends follows from the members
alone, never from what the output holds by then: a task that is run again yields the same blocks,
which Ray's replay of a lost task counts on.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import pyarrow as pa
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from implant_model.decode.confine import require_whole
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import UsageError
from implant_model.limits import MIB, Limits
from implant_model.radiographs import Prepare
from jobs.pipeline.blocks import BLOCK, Block, block_table
from jobs.pipeline.read_ahead import AHEAD, Group, read_ahead
from jobs.pipeline.recipe import Recipe
from jobs.pipeline.units import read_archive
from jobs.tables.receipts import Fault, Piece, Unit
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTION_ROW

BLOCK_MEMBERS = 256
"""Small archives share a block until it holds this many members: below 100 a block is overhead."""
BLOCK_BYTES = 32 * MIB
"""And this much of them in the archives: of what is small, so that it is read soon, more share a
block, and thus a file, up to the members of a large block."""
LARGE_BLOCK_MEMBERS = 1024
"""The same where much is read at a time: one driver hands on 40 to 60 blocks a second, whatever is
in them, and a GPU takes more pictures than 60 of the smaller ones hold."""
LARGE_BLOCK_BYTES = 64 * MIB
"""Of pictures, which a large block is not to exceed: 1,024 of 256 x 256 pixels."""


LEAST_GROUP_BYTES = 4 * MIB
"""Of a read task, so that small archives come together in blocks, and thus in files."""


class BlockSource(Datasource):
    """Blocks, from one read task for each call.

    Args:
        reads: Each yields tables of schema `BLOCK`, a block each.
    """

    def __init__(self, reads: Sequence[Callable[[], Iterator[pa.Table]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = list(reads)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: unknown before they are read."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return one task a call, whatever `parallelism` asks for; called several times by Ray."""
        metadata = BlockMetadata(None, None, None, None)
        return [
            ReadTask(read, metadata, schema=BLOCK, per_task_row_limit=per_task_row_limit)
            for read in self._reads
        ]


class ArchiveSource(BlockSource):
    """Blocks of the planned archives, one read task for each group of them.

    Args:
        groups: Positions in the plan with their archives, see `group_archives`.
        recipe: How members become rows.
        block_members: See `read_group`.
    """

    def __init__(
        self, groups: Sequence[Group], recipe: Recipe, block_members: int = BLOCK_MEMBERS
    ) -> None:
        super().__init__(
            [partial(read_group, group, recipe, block_members=block_members) for group in groups]
        )


def large_block_members(size_px: int) -> int:
    """Return how many members a large block has, of pictures of so many pixels a side."""
    fitting = LARGE_BLOCK_BYTES // size_px**2
    return min(max(fitting, BLOCK_MEMBERS), LARGE_BLOCK_MEMBERS)


def group_archives(archives: Sequence[PlannedArchive], most_groups: int) -> list[Group]:
    """Deal archives into groups, the largest archives first and ever fewer bytes in a group.

    A group takes a share of what is left, so that the last ones are small and all readers end at
    about the same time.

    Args:
        archives: The plan.
        most_groups: About the most read tasks; small archives share one.

    Returns:
        Groups of (position in the plan, archive); each archive is in exactly one.
    """
    total = left = sum(archive.info.size for archive in archives)
    least = max(total / (4 * max(most_groups, 1)), LEAST_GROUP_BYTES)
    # Few that are small are read by one task, and so come into one file.
    most_archives = max(4 * -(-len(archives) // max(most_groups, 1)), BLOCK_MEMBERS)
    groups: list[list[tuple[int, PlannedArchive]]] = [[]]
    size = 0
    for position, archive in sorted(enumerate(archives), key=lambda pair: -pair[1].info.size):
        if size >= max(4 * left / max(most_groups, 1), least) or len(groups[-1]) >= most_archives:
            groups.append([])
            left -= size
            size = 0
        groups[-1].append((position, archive))
        size += archive.info.size
    return [group for group in groups if group]


def read_group(
    group: Group,
    recipe: Recipe,
    prepare: Prepare | None = None,
    ahead: int = AHEAD,
    block_members: int = BLOCK_MEMBERS,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pa.Table]:
    """Stream the blocks of a group of archives.

    Args:
        group: Archives with their positions in the plan.
        recipe: How members become rows.
        prepare: Decodes one member; by default this worker's decoding process.
        ahead: Small archives that are fetched ahead of their turn, see `read_ahead`.
        block_members: A block ends with the unit that takes it to so many members,
        block_bytes: and their sizes in the archives to so much, or it to a large block's members.

    Yields:
        Tables of one row, schema `BLOCK`.
    """
    allocate = None
    try:
        recipe.protector.resolve()
        if prepare is None:
            decoder = _decoder(recipe.preprocessing, recipe.limits)
            if recipe.require_sandbox:
                require_whole(decoder.confinement)
            prepare, allocate = decoder.prepare, decoder.allocate
    except UsageError as error:  # Ray Data would take an exception for the loss of a block
        yield block_table([Fault(str(error), at_start=True)], PREDICTION_ROW.empty_table())
        return
    block, most = Block(), large_block_members(recipe.preprocessing.size_px)
    for position, archive, get in read_ahead(group, recipe, ahead):
        pieces = read_archive(position, archive, recipe, prepare, allocate, get)
        for piece, rows, images_HW in pieces:
            block.add(piece, rows, images_HW)
            is_large = block.num_bytes >= block_bytes or block.members >= most
            is_full = is_large and block.members >= block_members
            if is_full and not _end_follows(piece, recipe):
                yield block.to_table()
                block = Block()
    if block.pieces:
        yield block.to_table()


def _end_follows(piece: Piece, recipe: Recipe) -> bool:
    """Whether the next piece is the end of this unit's archive: only what is last is not full.

    An archive is to be whole in a block, since otherwise it has a file of its own.
    """
    return isinstance(piece, Unit) and not recipe.is_full(piece.members, piece.num_bytes)


@cache
def _decoder(preprocessing: Preprocessing, limits: Limits) -> DecodeProcess:
    """Return this worker's decoding process; it outlives the task and serves the next one."""
    return DecodeProcess(preprocessing, limits)
