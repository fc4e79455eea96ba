"""How fast the job is beside what a user might write instead, and beside the hardware's limit.

    python -m benchmarks.speed
    python -m benchmarks.speed --kinds dicom,jpeg --repeats 2 --seconds 10

Each kind of archive is read by this job, in float32 and in bfloat16, by a plain PyTorch DataLoader
loop, by a tuned one, by a simple Ray Data pipeline and, where it is installed and the kind is a
picture, by Daft, one after the other, `--repeats` times in turn. The jobs and the pipeline are on
one running cluster, whose processes have the job's settings; the others have what the caller's
environment states. A rate is the slope between two numbers of archives, both of which
take longer than a start, so that what a start takes cancels, work that is done meanwhile included;
starts are a row of their own. The limit is the number of cores over the CPU seconds of the job's
own decode and model. What was measured replaces its figures in benchmarks/speed.json (a contender
that is left out keeps those of before), and benchmarks/speed.md shows all of that.
Exit codes: 0 measured; 3 a contender failed.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.speed_archives import KINDS, link, prepare
from benchmarks.rivals.speed_start import START, measure_start
from benchmarks.rivals.speed_table import CONTENDERS, DAFT, report
from implant_model.errors import ImplantError
from jobs.entry.cluster import NODE
from jobs.entry.command import OK, run_command

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "speed.json"
START_S = {"job": 14.0, "loader": 2.0, "tuned": 2.0, "ray": 4.0, "daft": 2.0}
"""Seconds of work of the smaller run: above a start, in which some contenders work already."""
FIRST = 16
"""Archives of a run before both, enough that every worker has some: Ray keeps its workers, and
without it only the smaller run would have to start them, and the slope would be too steep."""

TIMEOUT_S = 900
"""Of one contender's three runs: Daft 0.7.26 was seen to stand still."""
ON_CLUSTER = ("job", "bfloat16", "ray")
"""Contenders that the cluster's processes run."""


@dataclass(frozen=True)
class Bench:
    """What all measurements of one call share.

    Attributes:
        model: The package.
        folder: Where archives and outputs lie.
        seconds: Of work between the two sizes of a run.
        environment: Of whoever uses the cluster.
        plain_environment: Of whoever does not.
        cores: That this process may use.
    """

    model: Path
    folder: Path
    seconds: float
    environment: dict[str, str]
    plain_environment: dict[str, str]
    cores: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure in turn, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--kinds", default=",".join([*KINDS, START]), help="comma-separated; default all")
    add("--contenders", default=",".join(installed()), help="comma-separated; default all")
    add("--repeats", type=int, default=3)
    add("--seconds", type=float, default=12.0, help="of work between the two sizes of a run")
    add("--model", type=Path, default=ROOT / "models" / "phantom")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "implant-bench")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    tars = {kind: prepare(options.folder, kind) for kind in kinds if kind in KINDS}
    measured = read_result()
    plain = dict(os.environ)  # before Ray's start sets what its processes want
    with Cluster() as environment:
        bench = Bench(
            options.model.resolve(), options.folder, options.seconds, environment, plain,
            count_cores(),
        )  # fmt: skip
        contenders = options.contenders.split(",")
        for kind, tar in tars.items():
            rates: dict[str, list[float]] = {}
            try:
                measure(kind, tar, contenders, options.repeats, bench, rates)
            finally:  # a contender that fails takes no other's figures with it
                measured.setdefault(kind, {}).update(rates)
                write_result(measured)
        if START in kinds:
            measured[START] = measure_start(bench.model, bench.folder, environment, options.repeats)
            write_result(measured)
    print(report(measured))
    return OK


def installed() -> list[str]:
    """Return the contenders that can run here: Daft is no dependency of the project."""
    return [name for name in CONTENDERS if name != DAFT or importlib.util.find_spec(name)]


class Cluster:
    """A Ray cluster as the job starts one, for all runs; yields the variables that lead to it."""

    def __enter__(self) -> dict[str, str]:
        import ray

        from jobs.entry.cluster import start_ray

        start_ray()
        return {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()


def count_cores() -> int:
    """Return cores that this process may use."""
    return len(os.sched_getaffinity(0))


def measure(
    kind: str,
    tar: Path,
    contenders: Sequence[str],
    repeats: int,
    bench: Bench,
    rates: dict[str, list[float]],
) -> None:
    """Enter images a second of each contender, and the limit, once for each repeat."""
    able = [name for name in contenders if name != DAFT or not KINDS[kind].is_dicom]
    for _ in range(repeats):
        for name in able:
            rate = limit(tar, bench, rates) if name == "limit" else slope(kind, name, tar, bench)
            rates.setdefault(name, []).append(rate)
            print(f"{kind} {name} {rate:.1f} images/s", flush=True)


def slope(kind: str, contender: str, tar: Path, bench: Bench) -> float:
    """Return images a second between a small and a large number of archives."""
    timed_as = "job" if contender == "bfloat16" else contender
    members, expected_ms = KINDS[kind].members, KINDS[kind].expected_ms[timed_as]
    small, more = (
        2 * max(1, round(1000 * seconds / expected_ms / members / 2))  # even: for two workers
        for seconds in (START_S[timed_as], bench.seconds)
    )
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        sizes = (FIRST, small, small + more)
        folders = [Path(folder) / f"in-{number}" for number in range(len(sizes))]
        for place, size in zip(folders, sizes, strict=True):
            link(tar, place, size)
        arguments = [str(bench.model), f"{folder}/out", *map(str, folders)]
        lines = run(["rivals.speed_contender", contender, *arguments], bench)
    for size, line in zip(sizes, lines, strict=False):
        if line != f"{size * members} rows":
            raise ImplantError(f"{contender} wrote {line!r} of {size * members} images of {kind}.")
    _, small_s, large_s = map(float, json.loads(lines[-1]))
    return more * members / (large_s - small_s)


def limit(tar: Path, bench: Bench, rates: dict[str, list[float]]) -> float:
    """Return cores over CPU seconds of decode and model, measured with all cores at work."""
    command = [sys.executable, "-m", "benchmarks.rivals.speed_limit", str(bench.model), str(tar)]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env={**bench.environment, "OMP_NUM_THREADS": "1", **NODE},
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(bench.cores)
    ]  # fmt: skip
    said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    taken = {part: float(sum(each[part] for each in said)) / len(said) for part in said[0]}
    for part, milliseconds in taken.items():
        rates.setdefault(part, []).append(milliseconds)
    return bench.cores / (taken["decode_ms"] + taken["model_ms"]) * 1000


def run(command: Sequence[str], bench: Bench) -> list[str]:
    """Run a module of this package; return what it printed, line by line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:]],
            cwd=ROOT,
            env=bench.environment if command[1] in ON_CLUSTER else bench.plain_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ImplantError(f"{command[1]} did not end within {TIMEOUT_S} s.") from error
    if done.returncode:
        raise ImplantError(f"{command[1]} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()


def read_result() -> dict[str, dict[str, list[float]]]:
    """Return what earlier calls measured."""
    if not RESULT.exists():
        return {}
    measured: dict[str, dict[str, list[float]]] = json.loads(RESULT.read_text())
    return measured


def write_result(measured: dict[str, dict[str, list[float]]]) -> None:
    """Keep the figures, and the table that shows them."""
    RESULT.write_text(json.dumps(measured, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(report(measured))


if __name__ == "__main__":
    run_command("speed", lambda: main(sys.argv[1:]))
