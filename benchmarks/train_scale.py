"""Shows what a training takes as its set grows: memory, reading, near duplicates, ingest.

    python -m benchmarks.train_scale
    python -m benchmarks.train_scale --images 10000 100000 1000000 --folder /var/tmp

For each size it writes tars of 64 px synthetic pictures, runs the whole of `jobs.train` on them in
processes of its own, and looks at the memory of all of them twice a second. The network is the
smallest of torchvision's, at 32 px and for two epochs: what is measured is everything around it.
From --made-from pictures on, they are made in the cache as if they had been read, with hashes and
cues that are random numbers, and there is one epoch of views of half the side, in steps of 512. A
run that takes longer than --patience-s is ended, and what it had reached by then is reported. Then
the rate at which batches come to a training step is compared, in one process, with the step's own
rate and with a DataLoader of torch's over the same shards. The result goes to
benchmarks/train_scale.md. It needs Linux and 4 GB of disk for a million pictures.
Exit codes: 0 done; 3 a run was ended before it was done, or did not end well.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import machine
from benchmarks.process_memory import Peaks, look
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import Outcome
from implant_model.limits import Limits
from implant_model.networks.build import build
from implant_model.networks.spec import NetworkSpec
from implant_model.predictions import Predictions
from jobs.entry.command import INCOMPLETE, OK, run_command
from jobs.evaluating.assessment import Examined, assess, assess_classes
from training.data.bundles import SMALL_BYTES, Bundle, bundles_of
from training.data.duplicates import near_groups
from training.data.gather import list_images
from training.data.reading import INDEX, SHARDS, Recipe, put_index, shards_of
from training.data.shards import Shard, StoredPictures, StoredRows, put_shard, read_batches

_MADE = "sets of so many pictures or more are made in the cache, one epoch; default 1,000,000"
_RUN_ONLY = "leave out what is measured by itself: near duplicates, and rates of batches"
_ALONE = "near duplicates and figures of so many images by themselves; 0 for none"
ROOT = Path(__file__).parents[1]
SIZES = (10_000, 100_000, 1_000_000)
PER_TAR = 5_000
CLASSES = 8
SIDE_PX = 64
LOOK_EVERY_S = 0.5
TRAINS = 0.6
"""Share of the set that trains, by default."""
BATCH = 128
INGEST_STEPS = 60
REPEATS = 5
"""Of each rate in turn; the median counts."""
SPEC = Preprocessing(size_px=32, trim_borders=False)
CONFIG = """
name = "scale"
[preprocessing]
size_px = 32
trim_borders = false
[network]
architecture = "shufflenet_v2_x0_5"
[fit]
epochs = 2
batch_size = 128
half_size = 0.0
mixed_precision = false
[card]
synthetic = true
"""
LONG = "epochs = 2\nbatch_size = 128\nhalf_size = 0.0"
SHORT = "epochs = 1\nbatch_size = 512\nhalf_size = 0.99"
"""Of sets that are made in the cache: a quarter of the work in a quarter of the steps."""


@dataclass(frozen=True)
class Run:
    """One size and what it took; None where it was not reached.

    Attributes:
        images: Of the set.
        read_s: Seconds from the call to the last index, Ray's start among them.
        duplicates_s: Seconds for near duplicates by themselves, on one core.
        trained: Images a second, of one worker, in the last epoch.
        total_s: Seconds of the whole; of a run that was ended, until then.
        ended: Whether it was ended before it was done.
        peaks: Memory of its processes.
        cache_bytes: Of the prepared images.
    """

    images: int
    read_s: float | None
    duplicates_s: float | None
    trained: float | None
    total_s: float
    ended: bool
    peaks: Peaks
    cache_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", help="where the archives are written meanwhile")
    parser.add_argument("--patience-s", type=float, default=7200, help="of one run")
    parser.add_argument("--made-from", type=int, default=1_000_000, metavar="N", help=_MADE)
    parser.add_argument("--alone", type=int, default=1_000_000, metavar="N", help=_ALONE)
    parser.add_argument("--run-only", action="store_true", help=_RUN_ONLY)
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "train_scale.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs, rates = [], None
    for count in options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            config = CONFIG
            if count >= options.made_from:
                make_cache(folder / "images", folder / "model.work" / "images", count)
                config = CONFIG.replace(LONG, SHORT)
            else:
                write_archives(folder / "images", count)
            is_alone = not options.run_only
            runs.append(measure(folder, count, options.patience_s, config, is_alone))
            print(runs[-1], flush=True)
            if is_alone:
                rates = rates or ingest(folder / "model.work" / "images")
    text = report(runs, rates or {}, options.made_from)
    if options.alone:
        text += alone(options.alone, duplicates_alone(options.alone), figures_alone(options.alone))
    options.result.write_text(text, encoding="utf-8")
    print(text)
    return INCOMPLETE if any(run.ended for run in runs) else OK


def write_archives(folder: Path, count: int) -> None:
    """Write tars of pictures whose folder is their class."""
    folder.mkdir()
    starts = range(0, count, PER_TAR)
    parts = [(folder / f"{start:07}.tar", start, min(PER_TAR, count - start)) for start in starts]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_write_tar, parts, chunksize=1)


def _write_tar(path: Path, first: int, count: int) -> None:
    rng = np.random.default_rng(first)
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            coarse = rng.integers(0, 256, (16, 16), dtype=np.uint8)
            picture = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
            label = number % CLASSES
            at = 6 * label
            picture[at : at + 6] = 250  # what there is to learn
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            header = tarfile.TarInfo(f"class-{label}/{number}.jpg")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def make_cache(images: Path, cache: Path, count: int) -> None:
    """Make prepared pictures as if so many had been read from archives, which hold nothing.

    Hashes and cues are random numbers, and not those of the pictures, which would take longer.
    """
    images.mkdir()
    for first in range(0, count, PER_TAR):
        with (images / f"{first:07}.tar").open("wb") as archive:
            archive.truncate(SMALL_BYTES + 1)
    recipe = Recipe(SPEC, Limits(), cache.as_uri())
    found = bundles_of(list_images([str(images)]), None, recipe.spec, recipe.limits)
    parts = [(bundle, recipe, at * PER_TAR) for at, bundle in enumerate(found)]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_make_bundle, parts, chunksize=1)


def _make_bundle(bundle: Bundle, recipe: Recipe, first: int) -> None:
    rng, numbers_N = np.random.default_rng(first), np.arange(first, first + PER_TAR)
    coarse_N88 = rng.integers(0, 256, (PER_TAR, 8, 8), dtype=np.uint8)
    pictures = coarse_N88.repeat(4, axis=1).repeat(4, axis=2)
    for label in range(CLASSES):
        pictures[numbers_N % CLASSES == label, 3 * label : 3 * label + 3] = 250
    flat_NB = pictures.reshape(PER_TAR, -1)
    shard = put_shard(recipe.cache, bundle.key, flat_NB)
    digests, hashes = (
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), PER_TAR, [None, pa.py_buffer(rng.bytes(width * PER_TAR))]
        )
        for width in (8, 32)
    )
    columns = {
        "object": np.zeros(PER_TAR, np.int32),
        "member": [f"class-{number % CLASSES}/{number}.jpg" for number in numbers_N.tolist()],
        "index": np.arange(PER_TAR),
        "reason": pa.nulls(PER_TAR, pa.string()),
        "rows": np.full(PER_TAR, SIDE_PX, np.int32),
        "columns": np.full(PER_TAR, SIDE_PX, np.int32),
        "digest": digests,
        "patient": pa.nulls(PER_TAR, INDEX.field("patient").type),
        "hash": hashes,
        "black": rng.random(PER_TAR, np.float32),
        "sharpness": rng.random(PER_TAR, np.float32),
        "shard": np.zeros(PER_TAR, np.int32),
        "row": np.arange(PER_TAR, dtype=np.int32),
        "crc": np.array([zlib.crc32(flat_B.data) for flat_B in flat_NB], np.uint32),
    }
    shards = json.dumps([[shard.name, shard.start]])
    put_index(
        recipe.cache, bundle.key, pa.table(columns, schema=INDEX.with_metadata({SHARDS: shards}))
    )


def measure(folder: Path, count: int, patience_s: float, config: str, is_alone: bool) -> Run:
    """Train on the archives of a folder in fresh processes, looking at their memory meanwhile."""
    (folder / "train.toml").write_text(config)
    output = folder / "model"
    command = [sys.executable, "-m", "jobs.train", "--images", str(folder / "images")]
    command += ["--output", str(output), "--config", str(folder / "train.toml")]
    cache = folder / "model.work" / "images"
    peaks, begun, read_s = Peaks(), time.monotonic(), None
    with (folder / "log").open("w+b") as log:
        job = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        while job.poll() is None and time.monotonic() - begun < patience_s:
            peaks.add(look(job.pid))
            if read_s is None and _num_read(cache) >= count:
                read_s = time.monotonic() - begun
            time.sleep(LOOK_EVERY_S)
        ended = job.poll() is None
        if ended:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    total_s = time.monotonic() - begun
    if not ended and job.returncode:
        print((folder / "log").read_text(errors="replace"), flush=True)
    duplicates_s = None
    if read_s is not None and is_alone:
        start = time.monotonic()
        near_groups(_hashes(cache), 40)
        duplicates_s = time.monotonic() - start
    cache_bytes = sum(file.stat().st_size for file in cache.iterdir()) if cache.is_dir() else 0
    trained = _trained(folder / "model.work", count)
    failed = ended or bool(job.returncode)
    return Run(count, read_s, duplicates_s, trained, total_s, failed, peaks, cache_bytes)


def _num_read(cache: Path) -> int:
    """Return the images of all indices that are there."""
    if not cache.is_dir():
        return 0
    return sum(pq.read_metadata(file).num_rows for file in cache.glob("*.parquet"))


def _hashes(cache: Path) -> np.ndarray:
    columns = (pq.read_table(file, columns=["hash"])["hash"] for file in cache.glob("*.parquet"))
    data = b"".join(value for column in columns for value in column.to_pylist())
    return np.asarray(np.frombuffer(data, np.uint8).reshape(-1, 32))


def _trained(work: Path, count: int) -> float | None:
    """Return images a second between the ends of the last two epochs, by the times of the lines."""
    for curve in work.glob("*.jsonl"):
        facts = [json.loads(line) for line in curve.read_text().splitlines()]
        seconds = [fact["seconds"] for fact in facts if "seconds" in fact]
        if seconds:
            return count * TRAINS / float(seconds[-1])
    return None


class _Set(Dataset[Any]):
    """The shards as torch's DataLoader takes a set: one picture by its position."""

    def __init__(self, pictures: StoredPictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, at: int) -> np.ndarray:
        return np.asarray(self.pictures[np.array([at])][0])


def ingest(cache: Path) -> dict[str, float]:
    """Return images a second: of a step alone, of batches alone, of both, and of a DataLoader."""
    pictures = _pictures(cache)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0)).numpy()
    steps = min(INGEST_STEPS, len(order) // BATCH)
    batches = [order[step * BATCH :][:BATCH] for step in range(steps)]

    def new_step() -> Callable[[Any], None]:
        """Of a network of its own: one that has nothing left to learn has other numbers."""
        spec = NetworkSpec("a.safetensors", "classifier", "shufflenet_v2_x0_5")
        network = build(spec, CLASSES)
        optimiser = torch.optim.AdamW(network.parameters())

        def step(images: Any) -> None:
            views = torch.as_tensor(images)[:, None].float() / 255
            labels = torch.randint(CLASSES, (len(views),))
            loss = nn.functional.cross_entropy(network(views), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        step(in_memory)
        return step

    in_memory = pictures[batches[0]]

    def ours() -> Iterator[np.ndarray]:
        yield from (images for _, images in read_batches(pictures, batches))

    def loader() -> Iterator[torch.Tensor]:
        yield from DataLoader(
            _Set(pictures),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=2,
            multiprocessing_context="fork",
        )

    kinds: dict[str, Callable[[], float]] = {
        "batches alone": lambda: _rate(ours(), None),
        "a DataLoader of 2 processes alone": lambda: _rate(loader(), None),
        "the step alone, its batch in memory": lambda: _rate([in_memory] * steps, new_step()),
        "the step, with batches from shards": lambda: _rate(ours(), new_step()),
        "the step, with a DataLoader of 2 processes": lambda: _rate(loader(), new_step()),
    }
    found = [{name: rate() for name, rate in kinds.items()} for _ in range(REPEATS)]
    return {name: median(rates[name] for rates in found) for name in kinds}


def _rate(batches: Any, step: Any) -> float:
    begun, count = time.monotonic(), 0
    for images in batches:
        count += len(images)
        if step is not None:
            step(images)
    return count / (time.monotonic() - begun)


def _pictures(cache: Path) -> StoredPictures:
    shards: list[Shard] = []
    parts = []
    for file in sorted(cache.glob("*.parquet")):
        index = pq.read_table(file)
        column = pa.array(index["shard"].to_numpy() + len(shards), pa.int32())
        parts.append([column.to_numpy(), index["row"].to_numpy(), index["crc"].to_numpy()])
        shards += shards_of(index)
    shard_N, row_N, crc_N = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = StoredRows(cache.as_uri(), tuple(shards), shard_N, row_N, crc_N, 32**2)
    return StoredPictures(rows, 32)


def duplicates_alone(count: int) -> float:
    """Return seconds for near duplicates of random hashes, one in twenty a near copy of another."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    copies, sources = rng.permutation(count)[: count // 20], rng.integers(count, size=count // 20)
    flips = np.stack([rng.permutation(256) < rng.integers(45) for _ in copies])
    hashes[copies] = hashes[sources] ^ np.packbits(flips, axis=1)
    begun = time.monotonic()
    near_groups(hashes, 40)
    return time.monotonic() - begun


def figures_alone(count: int, classes: int = 12) -> float:
    """Return seconds for all figures of so many predictions, those of each class among them."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, classes, count)
    probabilities = rng.random((count, classes)).astype(np.float32)
    probabilities[np.arange(count), labels_N] += 2 * rng.random(count)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels_N[rng.random(count) < 0.02] = -1
    said = Predictions(
        probabilities,
        rng.random(count).astype(np.float32),
        [[best] for best in probabilities.argmax(axis=1).tolist()],
        [Outcome.IDENTIFIED] * count,
    )
    names = tuple(map(str, range(classes)))
    examined = Examined(names, labels_N, said, rng.integers(0, count * 2 // 3, count))
    begun = time.monotonic()
    assess(examined)
    assess_classes(examined)
    return time.monotonic() - begun


COLUMNS = (
    "images", "cache, MB", "read, s", "read, images/s", "near duplicates, s", "trained, images/s",
    "driver, MB", "largest worker, MB", "all workers and decoders, MB", "object store, MB",
    "the whole, s",
)  # fmt: skip


def report(runs: Sequence[Run], rates: dict[str, float], made_from: int) -> str:
    """Return the result as Markdown."""
    lines = [
        "# A training as its set grows",
        "",
        f"`python -m benchmarks.train_scale --images {' '.join(str(run.images) for run in runs)}`, "
        f"{datetime.now(UTC):%Y-%m-%d}: tars of {PER_TAR:,} JPEG of {SIDE_PX} px, the whole of "
        "`jobs.train` with one worker, the smallest network of torchvision's at 32 px for two "
        f"epochs; sets of {made_from:,} and more are made in the cache as if read, and trained on "
        "once, at half the side and in steps of 512. Peaks of anonymous memory. Near duplicates: "
        "within 40 of 256 bits, exact, by themselves on one core. Reading has Ray's start and one "
        "decoding process for each core.",
        "A dash: not measured, or not reached.",
        "",
        f"Machine: {machine()}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---:|' * len(COLUMNS)}",
        *map(_line, runs),
        "",
    ]
    if any(run.ended for run in runs):
        lines += ["Ended: the run was ended for want of time, or failed.", ""]
    if rates:
        lines += [
            "Batches of 128 random pictures, one process, one thread for the step, medians of 5:",
            "",
            "| what | images/s |",
            "|---|---:|",
            *(f"| {name} | {rate:,.0f} |" for name, rate in rates.items()),
            "",
        ]
        alone = rates["the step alone, its batch in memory"]
        share = rates["the step, with batches from shards"] / alone
        lines += [f"Of the step's own rate {share:.2f} is reached with batches from shards.", ""]
    return "\n".join(lines)


def alone(count: int, duplicates_s: float, figures_s: float) -> str:
    """Return what parts of a training or an evaluation take by themselves, as Markdown."""
    return (
        f"By themselves, on one core, of {count:,} images: near duplicates of random hashes, one "
        f"in twenty a near copy, {duplicates_s:,.0f} s; all figures of `jobs.evaluate` with their "
        f"intervals by groups, of 12 classes, {figures_s:,.0f} s.\n"
    )


def _line(run: Run) -> str:
    peaks = run.peaks
    memory = [peaks.by_role["driver"], peaks.largest, peaks.total, peaks.by_role["store"]]
    values = [
        f"{run.images:,}",
        f"{run.cache_bytes / 1e6:,.0f}",
        *(_shown(run.read_s), _shown(run.read_s and run.images / run.read_s)),
        *(_shown(run.duplicates_s), _shown(run.trained)),
        *(f"{value / 1e6:,.0f}" for value in memory),
        f"{run.total_s:,.0f}{' (ended)' if run.ended else ''}",
    ]
    return f"| {' | '.join(values)} |"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    run_command("train_scale", lambda: main(sys.argv[1:]))
