"""Lets fitted networks name a large part of a set, its pictures dealt to Ray's tasks."""

from collections.abc import Mapping

import numpy as np
import ray

from implant_model.networks.spec import NetworkSpec
from implant_model.novelty import NoveltyReference
from training.calibrate import Scored, score
from training.data.links import Indices
from training.data.shards import Pictures, in_parts
from training.failures import results_of

TASK_IMAGES = 4096
"""Of one task: a minute of a core, and more than the seconds in which networks are loaded."""


def score_by_ray(
    files: Mapping[NetworkSpec, bytes],
    num_classes: int,
    reference: NoveltyReference,
    pictures: Pictures,
    positions_N: Indices,
    use_gpu: bool,
) -> Scored:
    """Score pictures as `score` does; embeddings never leave the tasks.

    Args:
        files: The networks with the content of their files.
        num_classes: K.
        reference: What novelty is measured from.
        pictures: The set.
        positions_N: Which of them.
        use_gpu: Whether each task holds a GPU, or a core.
    """
    task = _score.options(num_gpus=1) if use_gpu else _score
    shared = ray.put((dict(files), num_classes, reference, pictures))
    parts: list[Scored] = results_of(
        [
            task.remote(shared, positions_N[start : start + TASK_IMAGES], use_gpu)
            for start in range(0, len(positions_N), TASK_IMAGES)
        ]
    )
    return Scored(
        np.concatenate([part.logits_NK for part in parts]),
        np.concatenate([part.novelty_N for part in parts]),
    )


@ray.remote(num_cpus=1, max_retries=3)
def _score(
    shared: tuple[dict[NetworkSpec, bytes], int, NoveltyReference, Pictures],
    positions_N: Indices,
    use_gpu: bool,
) -> Scored:
    files, num_classes, reference, pictures = shared
    parts = in_parts(pictures, positions_N)
    return score(files, num_classes, reference, parts, "cuda" if use_gpu else "cpu")
