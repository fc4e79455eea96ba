"""Runs one contender of `benchmarks.speed` on folders of tars, in a process of its own.

    python -m benchmarks.rivals.speed_contender job MODEL OUTPUT FOLDER [FOLDER ...]

Prints the seconds that each folder took as JSON on its last line. Ray comes from `RAY_ADDRESS`.
"""

import contextlib
import importlib
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from implant_model.errors import ImplantError
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage, load_package

Contender = Callable[[Sequence[Path], Path, ModelPackage], None]
PRECISIONS: Final[dict[str, Precision]] = {"job": "float32", "bfloat16": "bfloat16"}
"""Of the contenders that are this job."""


def main(arguments: Sequence[str]) -> None:
    """Times one contender on each folder."""
    name, model, output = arguments[0], arguments[1], Path(arguments[2])
    package = load_package(model)
    classify = job(model, PRECISIONS[name]) if name in PRECISIONS else rival(name)
    seconds = []
    for number, folder in enumerate(map(Path, arguments[3:])):
        target = output / str(number)
        target.mkdir(parents=True)
        begun = time.monotonic()
        classify(sorted(folder.iterdir()), target, package)
        seconds.append(time.monotonic() - begun)
        print(f"{count_rows(target)} rows")
    print(json.dumps(seconds))


def job(model: str, precision: Precision) -> Contender:
    """This project's job, by its own command line; what a process does but once is done before."""
    from jobs.classify import main as classify_main
    from jobs.entry.cluster import start_ray

    start_ray()
    importlib.import_module("jobs.pipeline.stages")

    def classify(paths: Sequence[Path], output: Path, package: ModelPackage) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = classify_main(
                [str(paths[0].parent), "--output", str(output), "--model", model]
                + ["--precision", precision]
            )
        if code:
            raise ImplantError(f"classify ended with {code}: {said.getvalue()}")

    return classify


def rival(name: str) -> Contender:
    """Return one of those that a user might write instead."""
    if name == "ray":
        import ray
        import ray.data

        from benchmarks.rivals.speed_ray import classify as by_ray

        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return by_ray
    classify: Contender = importlib.import_module(f"benchmarks.rivals.speed_{name}").classify
    return classify


def count_rows(output: Path) -> int:
    """Return rows of the predictions that stand below a folder."""
    predictions = output / "predictions"
    if predictions.is_dir():  # by its log: files that were replaced stay beside the others
        return int(
            pc.sum(pa.table(DeltaTable(predictions).get_add_actions())["num_records"]).as_py()
        )
    return sum(ds.dataset(path).count_rows() for path in output.rglob("*.parquet"))


if __name__ == "__main__":
    main(sys.argv[1:])
