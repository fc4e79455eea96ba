"""Lets a package name pictures: some here, very many on all nodes of a cluster."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import ray

from implant_model.classifier import Classifier
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions
from jobs.fitting.read_images import start_ray_train
from training.data.shards import Pictures, in_parts
from training.failures import results_of

Name = Callable[[Classifier, Pictures], Predictions]
NAMED_HERE: Final = 8192
"""Pictures that one process names in the time in which Ray would start."""
TASK_PICTURES: Final = 4096
"""Of one task: many seconds of a core, in which networks are loaded in one or two."""


def name_here(classifier: Classifier, pictures: Pictures) -> Predictions:
    """Classify pictures, some at a time."""
    return _joined([classifier.classify(part_NSS) for part_NSS in in_parts(pictures)])


def name_fast(classifier: Classifier, pictures: Pictures) -> Predictions:
    """Classify pictures here, or by Ray, which is started for it; the answers are the same.

    Args:
        classifier: A package at work; a cluster's tasks load it anew, each for a GPU if this one
            has one, or else for a core.
        pictures: All nodes must reach them, where they lie in shards.

    Raises:
        UsageError: Ray cannot be started or joined.
        StorageError: A node does not reach the pictures.
        TrainingError: The cluster lost a task again and again.
    """
    if len(pictures) <= NAMED_HERE:
        return name_here(classifier, pictures)
    start_ray_train()
    device = classifier.device.type
    task = _name.options(num_gpus=1) if device == "cuda" else _name
    shared = ray.put((classifier.package, device, pictures))
    starts = range(0, len(pictures), TASK_PICTURES)
    return _joined(results_of([task.remote(shared, start) for start in starts]))


@ray.remote(num_cpus=1, max_retries=3)
def _name(shared: tuple[ModelPackage, str, Pictures], start: int) -> Predictions:
    package, device, pictures = shared
    positions_N = np.arange(start, min(start + TASK_PICTURES, len(pictures)))
    classifier = _classifier(_ByHash(package), device)
    return _joined([classifier.classify(part) for part in in_parts(pictures, positions_N)])


class _ByHash:
    """A package that is the same as another one by its hash: a worker loads it for many tasks."""

    def __init__(self, package: ModelPackage) -> None:
        self.package = package

    def __hash__(self) -> int:
        return hash(self.package.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByHash) and self.package.hash == other.package.hash


@lru_cache(2)
def _classifier(package: _ByHash, device: str) -> Classifier:
    return Classifier(package.package, device)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([part.probabilities_NC for part in parts]),
        np.concatenate([part.novelty_N for part in parts]),
        [candidates for part in parts for candidates in part.candidates],
        [outcome for part in parts for outcome in part.outcomes],
    )
