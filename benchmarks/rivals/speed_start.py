"""The start of a job in `benchmarks.speed`: seconds from its call to its first published unit."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.rivals.speed_archives import link, prepare
from implant_model.errors import ImplantError

ROOT: Final = Path(__file__).parents[2]
START: Final = "start"
KIND: Final = "small"
NUM_TARS: Final = 2
LOOK_EVERY_S: Final = 0.1


def measure_start(
    model: Path, folder: Path, environment: dict[str, str], repeats: int
) -> dict[str, list[float]]:
    """Seconds to the first published unit, with a cluster that is running and without one."""
    tar = prepare(folder, KIND)
    without = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    seconds: dict[str, list[float]] = {"warm": [], "cold": []}
    for _ in range(repeats):
        for name, variables in (("warm", environment), ("cold", without)):
            seconds[name].append(first_unit(tar, model, variables))
            print(f"start {name} {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def first_unit(tar: Path, model: Path, environment: dict[str, str]) -> float:
    """Return seconds from the call of the job to the first file of predictions."""
    with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
        link(tar, Path(folder) / "in", NUM_TARS)
        predictions = Path(folder) / "out" / "predictions"
        command = [sys.executable, "-m", "jobs.classify", f"{folder}/in"]
        command += ["--output", f"{folder}/out", "--model", str(model)]
        begun = time.monotonic()
        job = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        seconds = None
        while seconds is None and job.poll() is None:
            time.sleep(LOOK_EVERY_S)
            if next(predictions.rglob("*.parquet"), None):
                seconds = time.monotonic() - begun
        _, said = job.communicate()
    if job.returncode or seconds is None:
        raise ImplantError(f"classify ended with {job.returncode}: {said.decode()[-2000:]}")
    return seconds
