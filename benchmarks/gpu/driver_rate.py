"""Whether one driver bounds a fast GPU, by classifiers that sleep for as long as it would take.

    python -m benchmarks.gpu.driver_rate
    python -m benchmarks.gpu.driver_rate --rate 26000 --gpus 1 --seconds 20 --repeats 3

Blocks of noise go through the job's classifier stage in both sizes that blocks have. Its actors
keep no GPU busy: each sleeps for its pictures over --rate, one block at a time, as a card works,
and hands on the rows. Readers hand out blocks that are ready. They and the copies into the object
store have the same cores as the driver, where a cluster has others for them: so the driver's own
CPU time is given too, from which follows what it could hand on.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import pyarrow as pa
from ray.data import Dataset

from benchmarks.gpu.stage_rate import COUNTED, make_block, stage_rate
from benchmarks.machine import machine
from jobs.entry.cluster import start_ray
from jobs.entry.command import OK, run_command
from jobs.pipeline.blocks import block_table, read_block
from jobs.pipeline.source import BLOCK_MEMBERS, large_block_members
from jobs.pipeline.stages import Resources, actor_stage, choose_resources

SIZE_PX: Final = 192


class Turn(NamedTuple):
    """What one run gave: images a second, and the driver's CPU seconds a block."""

    rate: float
    driver_s: float


class Sleeper:
    """A classifier that has the networks' time and not their work.

    Args:
        rate: Images a second of the card.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._card = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Take a block's time and hand on its rows, without pictures."""
        pieces, rows, images_NHW = read_block(table, SIZE_PX)
        with self._card:
            time.sleep(len(images_NHW) / self._rate)
        return block_table(pieces, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=26_000.0, help="images a second of a card")
    parser.add_argument("--gpus", type=int, default=1, help="cards, an actor each")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args(arguments)
    start_ray()
    asked = choose_resources((options.gpus, options.gpus), 0.0, None)
    sizes = (BLOCK_MEMBERS, large_block_members(SIZE_PX))
    found: dict[int, list[Turn]] = {size: [] for size in sizes}
    for _ in range(options.repeats):
        for members, turns in found.items():
            turns.append(measure(members, options.rate, options.gpus, options.seconds, asked))
            print(f"blocks of {members:,}: {turns[-1].rate:,.0f} images/s", flush=True)
    wanted = options.rate * options.gpus
    lines = [
        f"# One driver\n\n{datetime.now(UTC):%Y-%m-%d}. Machine: {machine()}.\n",
        f"Simulated: {options.gpus} card(s) of {options.rate:,.0f} images of {SIZE_PX} x {SIZE_PX} "
        f"pixels a second; medians of {options.repeats} turns (least to most).\n",
        "| members of a block | blocks/s | images/s | of what the cards take | driver's CPU, "
        "ms a block | images/s for a driver with a core of its own |",
        "|---|---|---|---|---|---|",
    ]
    for members, turns in found.items():
        rates = [turn.rate for turn in turns]
        middle, cpu_s = median(rates), median(turn.driver_s for turn in turns)
        lines.append(
            f"| {members:,} | {middle / members:.0f} | {middle:,.0f} ({min(rates):,.0f} to "
            f"{max(rates):,.0f}) | {middle / wanted:.2f} | {1000 * cpu_s:.1f} "
            f"| {members / cpu_s:,.0f} |"
        )
    options.result.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return OK


def measure(members: int, rate: float, gpus: int, seconds: float, asked: Resources) -> Turn:
    """Send as many blocks of so many members through the stage as the cards take in that time."""
    count = int(seconds / COUNTED * rate * gpus / members)

    def stage(blocks: Dataset) -> Dataset:
        return actor_stage(blocks, Sleeper, (rate,), asked)

    block = make_block(SIZE_PX, members)
    used_s = time.process_time()
    found = stage_rate(block, members, count, stage, asked.read_cpus)
    return Turn(found, (time.process_time() - used_s) / count)


if __name__ == "__main__":
    run_command("driver_rate", partial(main, sys.argv[1:]))
