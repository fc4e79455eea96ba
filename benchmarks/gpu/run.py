"""How much of a GPU the job uses, and how many decoding cores fill it.

    python -m benchmarks.gpu.run
    python -m benchmarks.gpu.run --models phantom --parts tensors --repeats 3

Two models: the sample package, which is made for CPUs, and an untrained one whose networks are of
the size that the method's paper used. Part `tensors`: the networks alone, on one batch that lies on
the device; the classifier's actor, which gets blocks of uint8 images in host memory and gives
rows; and the actor in the job's Ray Data stage. Part `job`: the whole job on archives, full-size
model, on 4, 8, ... cores of the machine, with the share of time in which the GPU had work; its runs
must be long beside a start's spread of some seconds, or the GPU seems busy for more than all of the
time. The cores that fill the GPU follow from the networks alone and the job's rate for each core.
What was measured is kept in benchmarks/gpu.json, and benchmarks/gpu.md shows it; a model that fails
is said and left out. Exit codes: 0 the actor reaches 0.90 of the networks alone; 2 there is no GPU;
3 it does not, or a model failed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Final, get_args

import torch

from benchmarks.gpu.full_size import save_full_size
from benchmarks.gpu.table import LEAST, report, shares
from benchmarks.machine import machine
from implant_model.classifier import has_gpu
from implant_model.errors import PackageError, UsageError
from implant_model.networks.spec import Precision
from implant_model.package.load import load_package
from jobs.entry.cluster import start_ray
from jobs.entry.command import INCOMPLETE, OK, run_command

ROOT: Final = Path(__file__).parents[2]
RESULT: Final = ROOT / "benchmarks" / "gpu.json"
PARTS: Final = ("tensors", "job")
MODELS: Final = ("phantom", "full-size")
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
MIN_CORES: Final = 4
PER_CORE: Final = {"dicom": 60.0, "jpeg": 60.0, "small": 400.0}
"""Images a second that a core is expected to feed; only decides how many archives are read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), help="comma-separated; default all")
    add("--models", default=",".join(MODELS), help="comma-separated, of part tensors")
    add("--kinds", default="dicom", help=f"comma-separated of {', '.join(PER_CORE)}; of part job")
    add("--precisions", default=",".join(PRECISIONS), help="comma-separated; default all")
    add("--repeats", type=int, default=3, help="of part tensors")
    add("--seconds", type=float, default=4.0, help="of each measurement of part tensors")
    add("--job-seconds", type=float, default=20.0, help="of work of part job's smaller run")
    add("--cores", type=int, nargs="+", help="of part job; default 4 8 16 ... and all")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "implant-bench")
    options = parser.parse_args(arguments)
    if not has_gpu():
        raise UsageError("This machine has no GPU that torch can use; there is nothing to measure.")
    full_size = options.folder / "full-size"
    if not full_size.exists():
        save_full_size(full_size)
    models = {"phantom": ROOT / "models" / "phantom", "full-size": full_size}
    chosen = {name: models[name] for name in options.models.split(",")}
    precisions: list[Precision] = [p for p in PRECISIONS if p in options.precisions.split(",")]
    measured = earlier(torch.cuda.get_device_name())
    parts, failed = options.parts.split(","), 0
    if "tensors" in parts:
        failed = tensors(chosen, precisions, options.repeats, options.seconds, measured)
    if "job" in parts:
        job(full_size, options.kinds.split(","), precisions, options, measured)
    print(report(measured))
    reached = [median(shares(each, "actor")) for each in measured["tensors"].values()]
    return OK if min(reached, default=1.0) >= LEAST and not failed else INCOMPLETE


def earlier(card: str) -> dict[str, Any]:
    """Return what earlier calls measured on this card; of another card nothing is kept."""
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"machine": ""}
    if not kept["machine"].startswith(f"{card};"):
        kept = {"tensors": {}, "job": {}}
    return {**kept, "machine": f"{card}; {machine()}"}


def tensors(
    models: dict[str, Path],
    precisions: Sequence[Precision],
    repeats: int,
    seconds: float,
    measured: dict[str, Any],
) -> int:
    """Part `tensors`, in this process and on a cluster of its own; return how many failed."""
    start_ray()
    import ray

    from benchmarks.gpu.tensors import measure_tensors
    from jobs.pipeline.stages import choose_resources

    failed = 0
    resources = choose_resources((1, 1), 1.0, None)
    for name, folder in models.items():
        package = load_package(str(folder))
        for precision in precisions:
            try:
                rates = measure_tensors(package, precision, resources, repeats, seconds)
            except PackageError as error:
                print(f"{name}, {precision}: {error}", flush=True)
                failed += 1
                continue
            measured["tensors"][f"{name}, {precision}"] = asdict(rates)
            print(name, precision, rates, flush=True)
            keep(measured)
    ray.shutdown()
    return failed


def job(
    model: Path,
    kinds: Sequence[str],
    precisions: Sequence[Precision],
    options: argparse.Namespace,
    measured: dict[str, Any],
) -> None:
    """Part `job`: more and more cores, until there are no more."""
    from benchmarks.gpu.job import measure_job

    alone = {
        precision: median(measured["tensors"][name]["alone"])
        for precision in precisions
        if (name := f"full-size, {precision}") in measured["tensors"]
    }
    if not alone:
        raise UsageError("The full-size model has not been measured; --parts tensors does so.")
    counts = options.cores or core_counts()
    for kind, (precision, most), cores in product(kinds, alone.items(), counts):
        expected = min(most, cores * PER_CORE[kind])
        found = measure_job(
            model, kind, precision, cores, expected, options.job_seconds, options.folder
        )
        measured["job"][f"{kind}, {precision}, {cores}"] = asdict(found)
        print(found, flush=True)
        keep(measured)


def core_counts() -> list[int]:
    """Return 4, 8, 16, ... and all that there are."""
    there = len(os.sched_getaffinity(0))
    return [*(n for n in (MIN_CORES << k for k in range(8)) if n < there), there]


def keep(measured: dict[str, Any]) -> None:
    """Keep the figures, and the table that shows them."""
    RESULT.write_text(json.dumps(measured, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(report(measured))


if __name__ == "__main__":
    run_command("gpu", lambda: main(sys.argv[1:]))
