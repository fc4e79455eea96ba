"""The whole job on a GPU and so many cores: its rate, and the share of time the GPU is busy."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gpu.busy import BusyGpu
from benchmarks.rivals.speed_archives import KINDS, link, prepare
from benchmarks.rivals.speed_contender import PRECISIONS
from benchmarks.speed import FIRST, ROOT
from implant_model.errors import ImplantError
from implant_model.networks.spec import Precision

CONTENDERS: Final = {precision: name for name, precision in PRECISIONS.items()}


@dataclass(frozen=True)
class JobRate:
    """One measurement of the job.

    Attributes:
        kind: Of file, see `benchmarks.rivals.speed_archives`.
        precision: Of the networks.
        cores: For readers, actor, driver and all of Ray.
        images_s: Images a second, a slope between two sizes of run.
        busy: Share of the GPU's time between the same two sizes.
    """

    kind: str
    precision: Precision
    cores: int
    images_s: float
    busy: float


def measure_job(
    model: Path,
    kind: str,
    precision: Precision,
    cores: int,
    expected_s: float,
    seconds: float,
    folder: Path,
) -> JobRate:
    """Run the job on archives of one kind, on the first cores of this machine and its GPU.

    Args:
        model: Folder of the package.
        kind: Of file.
        precision: Of the networks.
        cores: How many the job may use.
        expected_s: Images a second that the runs' sizes are made for.
        seconds: Of work of the smaller run, and between the two.
        folder: Where archives and outputs lie.
    """
    tar = prepare(folder, kind)
    archives = max(1, round(seconds * expected_s / KINDS[kind].members))
    sizes = (FIRST, archives, 2 * archives)
    with tempfile.TemporaryDirectory(dir=folder) as place, BusyGpu() as gpu:
        folders = [Path(place) / f"in-{number}" for number in range(len(sizes))]
        for path, size in zip(folders, sizes, strict=True):
            link(tar, path, size)
        arguments = [CONTENDERS[precision], str(model), f"{place}/out", *map(str, folders)]
        seconds_each, ends = _run(arguments, cores, [size * KINDS[kind].members for size in sizes])
        busy = [gpu.seconds(end - took, end) for took, end in zip(seconds_each, ends, strict=True)]
    more_s = seconds_each[2] - seconds_each[1]
    images = archives * KINDS[kind].members
    return JobRate(kind, precision, cores, images / more_s, (busy[2] - busy[1]) / more_s)


def _run(arguments: list[str], cores: int, expected: list[int]) -> tuple[list[float], list[float]]:
    """Return seconds that each folder took, and when each was done, on `time.monotonic`."""
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
        [sys.executable, "-u", "-m", "benchmarks.rivals.speed_contender", *arguments],
        cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=errors, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    ) as process:  # fmt: skip
        said = [(line.strip(), time.monotonic()) for line in process.stdout or ()]
        if process.wait():
            errors.seek(0)
            raise ImplantError(f"The job failed: {errors.read()[-2000:]}")
    lines = [line for line, _ in said]
    rows = [f"{count} rows" for count in expected]
    if lines[:-1] != rows:
        raise ImplantError(f"The job wrote {lines[:-1]}, not {rows}.")
    taken: list[float] = json.loads(lines[-1])
    return taken, [at for _, at in said[:-1]]
