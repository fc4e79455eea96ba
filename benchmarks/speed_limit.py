"""The limit of `benchmarks.speed`: CPU time of this job's own decode and model, nothing else.

    python -m benchmarks.speed_limit MODEL TAR --seconds 5

Decodes the members of a tar that is in memory, in this process, and runs the networks on the
pictures in the batches of the job, in float32 and in bfloat16. Prints CPU milliseconds a picture of
each as JSON. One process for each core runs at a time, since cores share their memory's bandwidth
when all work.
"""

import argparse
import json
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.speed_archives import NUM_DIFFERENT
from implant_model.decode import silence_loggers
from implant_model.errors import ImplantError
from implant_model.limits import Limits
from implant_model.network_spec import Precision
from implant_model.package import ModelPackage, load_package
from implant_model.pictures import picture_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tar", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args(arguments)
    package = load_package(options.model)
    data = read(options.tar)
    cv2.setNumThreads(1)
    silence_loggers()
    images = [make(member, package) for member in data]
    decode_ms = 1000 * cpu_seconds(lambda i: make(data[i % len(data)], package), options.seconds)
    float32_ms, bfloat16_ms = (
        classify_ms(package, images, precision, options.seconds)
        for precision in ("float32", "bfloat16")
    )
    print(json.dumps({"decode_ms": decode_ms, "model_ms": float32_ms, "bfloat16_ms": bfloat16_ms}))


def classify_ms(
    package: ModelPackage, images: Sequence[np.ndarray], precision: Precision, seconds: float
) -> float:
    """CPU milliseconds of the classifier for a picture, in batches of the job."""
    from implant_model.classifier import Classifier
    from implant_model.device_batches import CPU_BATCH_SIZE

    classifier = Classifier(package, precision=precision)
    batch = np.stack([images[i % len(images)] for i in range(CPU_BATCH_SIZE)])
    classifier.classify(batch, CPU_BATCH_SIZE)
    used_s = cpu_seconds(lambda _: classifier.classify(batch, CPU_BATCH_SIZE), seconds)
    return 1000 * used_s / CPU_BATCH_SIZE


def read(tar: Path) -> list[bytes]:
    """The members of a tar that differ."""
    with tarfile.open(tar) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()[:NUM_DIFFERENT]]
        return [file.read() for file in files if file is not None]


def make(data: bytes, package: ModelPackage) -> np.ndarray:
    """The networks' picture of one member."""
    image = picture_of(data, package.preprocessing, Limits()).image
    if image is None:
        raise ImplantError("A member of the benchmark's archive has no picture.")
    return image


def cpu_seconds(work: Callable[[int], object], seconds: float) -> float:
    """CPU seconds of one call, the mean of as many as fill the time."""
    begun, used, calls = time.monotonic(), time.process_time(), 0
    while time.monotonic() - begun < seconds:
        work(calls)
        calls += 1
    return (time.process_time() - used) / calls


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
