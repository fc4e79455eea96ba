"""Images a second of the classifier on a GPU, against its networks alone on the same GPU.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --model models/phantom --batch-size 256

The networks alone run on one batch that lies on the device. The classifier gets what its actor
gets, parcels of uint8 images in host memory, and gives predictions. Both run in turn; printed is
the median ratio, which is to be 0.90 at least. Exit codes: 0 it is; 2 there is no GPU; 3 it is not.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch

from implant_model.classifier import Classifier
from implant_model.device_batches import DeviceBatches
from implant_model.errors import UsageError
from implant_model.package import load_package
from jobs.pipeline.command import INCOMPLETE, OK, run_command
from jobs.pipeline.source import PARCEL_MEMBERS

ROOT: Final = Path(__file__).parents[1]
LEAST: Final = 0.90
REPEATS: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "models" / "phantom"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise UsageError("This machine has no GPU that torch can use; there is nothing to measure.")
    package = load_package(options.model)
    classifier = Classifier(package, "cuda")
    size_px = package.preprocessing.size_px
    batches = DeviceBatches(classifier.networks, classifier.device, size_px, options.batch_size)
    shape = (PARCEL_MEMBERS, size_px, size_px)
    parcel = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    classifier.classify(parcel, options.batch_size)
    alone, job = [], []
    for _ in range(REPEATS):
        alone.append(rate(batches.repeat, batches.batch_size, options.seconds))
        job.append(
            rate(
                lambda: classifier.classify(parcel, options.batch_size),
                len(parcel),
                options.seconds,
            )
        )
    share = median(ours / limit for ours, limit in zip(job, alone, strict=True))
    print(
        f"{torch.cuda.get_device_name()}, batches of {batches.batch_size}: networks alone "
        f"{median(alone):,.0f} images/s, classifier {median(job):,.0f} images/s, ratio {share:.2f}"
    )
    return OK if share >= LEAST else INCOMPLETE


def rate(work: Callable[[], object], images: int, seconds: float) -> float:
    """Images a second of work that is repeated for so long."""
    torch.cuda.synchronize()
    begun, calls = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        work()
        torch.cuda.synchronize()
        calls += 1
    return calls * images / (time.monotonic() - begun)


if __name__ == "__main__":
    run_command("gpu", lambda: main(sys.argv[1:]))
