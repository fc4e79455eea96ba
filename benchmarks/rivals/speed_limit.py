"""The limit of `benchmarks.speed`: CPU time of this job's own decode and model, nothing else.

    python -m benchmarks.rivals.speed_limit MODEL TAR --seconds 5

Decodes the members of a tar that is in memory, in this process, and runs the networks on the
pictures in the batches of the job, in float32 and in bfloat16. Prints CPU milliseconds a picture of
each as JSON. One process for each core runs at a time, and each decodes a batch and classifies it
by turns, as a job's cores do: they share a cache and their memory's bandwidth, and the networks
take a tenth more beside a decoder of uncompressed radiographs than beside themselves.
"""

import argparse
import json
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.rivals.speed_archives import NUM_DIFFERENT
from implant_model.decode.prepare import picture_of, silence_loggers
from implant_model.errors import ImplantError
from implant_model.limits import Limits
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage, load_package


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tar", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args(arguments)
    package = load_package(options.model)
    data = read(options.tar)
    cv2.setNumThreads(1)
    silence_loggers()
    decode_ms, float32_ms = by_turns(package, data, "float32", options.seconds)
    _, bfloat16_ms = by_turns(package, data, "bfloat16", options.seconds)
    print(json.dumps({"decode_ms": decode_ms, "model_ms": float32_ms, "bfloat16_ms": bfloat16_ms}))


def by_turns(
    package: ModelPackage, data: Sequence[bytes], precision: Precision, seconds: float
) -> tuple[float, float]:
    """CPU milliseconds of decode and of the classifier for a picture, in batches of the job."""
    from implant_model.batches import CPU_BATCH_SIZE
    from implant_model.classifier import Classifier

    classifier = Classifier(package, precision=precision)
    members = [data[i % len(data)] for i in range(CPU_BATCH_SIZE)]
    batch = np.stack([make(member, package) for member in members])
    classifier.classify(batch, CPU_BATCH_SIZE)
    begun, batches, decode_s, model_s = time.monotonic(), 0, 0.0, 0.0
    while time.monotonic() - begun < seconds:
        started = time.process_time()
        batch = np.stack([make(member, package) for member in members])
        decoded = time.process_time()
        classifier.classify(batch, CPU_BATCH_SIZE)
        decode_s, model_s = decode_s + decoded - started, model_s + time.process_time() - decoded
        batches += 1
    images = batches * CPU_BATCH_SIZE
    return 1000 * decode_s / images, 1000 * model_s / images


def read(tar: Path) -> list[bytes]:
    """Return the members of a tar that differ."""
    with tarfile.open(tar) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()[:NUM_DIFFERENT]]
        return [file.read() for file in files if file is not None]


def make(data: bytes, package: ModelPackage) -> np.ndarray:
    """Return the networks' picture of one member."""
    image = picture_of(data, package.preprocessing, Limits()).image
    if image is None:
        raise ImplantError("A member of the benchmark's archive has no picture.")
    return image


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
