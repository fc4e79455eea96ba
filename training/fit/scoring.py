"""Lets fitted networks name or embed a large part of a set, its pictures dealt to Ray's tasks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import ray

from implant_model.networks.spec import NetworkSpec
from implant_model.novelty import Method, NoveltyReference, fit_novelty, fit_novelty_in_parts
from training.calibrate import Floats, Scored, embed, score
from training.data.links import Indices
from training.data.shards import Pictures, in_parts
from training.failures import results_of

TASK_IMAGES = 4096
"""Of one task: a minute of a core, and more than the seconds in which networks are loaded."""
MAX_HERE = 20_000
"""Images that the driver names by itself, before Ray's workers have imported torch."""
MAX_WHOLE = 8192
"""Embeddings that novelty is fitted to as one matrix: six copies of 1,024 float64 are 400 MB."""
EMBEDDINGS_AT_ONCE = 1024
"""Of more of them, which are summed up."""


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


class StoredEmbeddings:
    """Embeddings in Ray's object store; one task's are looked at, in place, at a time.

    Args:
        parts: Of each task, float32 (B, F).
    """

    def __init__(self, parts: "Sequence[ray.ObjectRef[Floats]]") -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Floats]:
        for part in self._parts:
            yield from results_of([part])


def embed_by_ray(
    files: Mapping[NetworkSpec, bytes],
    num_classes: int,
    pictures: Pictures,
    positions_N: Indices,
    use_gpu: bool,
) -> StoredEmbeddings:
    """Embed pictures by Ray's tasks, in their order; arguments are those of `score_by_ray`."""
    task = _embed.options(num_gpus=1) if use_gpu else _embed
    shared = ray.put((dict(files), num_classes, pictures))
    return StoredEmbeddings(
        [
            task.remote(shared, positions_N[start : start + TASK_IMAGES], use_gpu)
            for start in range(0, len(positions_N), TASK_IMAGES)
        ]
    )


@ray.remote(num_cpus=1, max_retries=3)
def _embed(
    shared: tuple[dict[NetworkSpec, bytes], int, Pictures], positions_N: Indices, use_gpu: bool
) -> Floats:
    files, num_classes, pictures = shared
    parts = in_parts(pictures, positions_N)
    return np.concatenate([*embed(files, num_classes, parts, "cuda" if use_gpu else "cpu")])


def describe_known(
    files: Mapping[NetworkSpec, bytes],
    num_classes: int,
    pictures: Pictures,
    positions_N: Indices,
    labels_N: Indices,
    method: Method,
    device: str,
    use_gpu: bool,
) -> NoveltyReference:
    """Describe where known implants lie, by images of the training part.

    Up to `MAX_WHOLE` images it is `fit_novelty`; of more, `fit_novelty_in_parts`, which differs
    from that by rounding and holds no embeddings but a part's. Up to `MAX_HERE` are embedded here.

    Args:
        files: The networks with the content of their files.
        num_classes: K.
        pictures: The set.
        positions_N: Which of them.
        labels_N: Their classes.
        method: Of the novelty.
        device: As torch names it, of this process.
        use_gpu: Whether each of Ray's tasks holds a GPU, or a core.
    """
    parts = in_parts(pictures, positions_N)
    if len(positions_N) <= MAX_WHOLE:
        features_NF = np.concatenate([*embed(files, num_classes, parts, device)])
        return fit_novelty(features_NF, labels_N, num_classes, method)
    found: Iterable[Floats]
    if len(positions_N) <= MAX_HERE:
        found = [*embed(files, num_classes, parts, device)]
    else:
        found = embed_by_ray(files, num_classes, pictures, positions_N, use_gpu)
    return fit_novelty_in_parts(lambda: _labelled(found, labels_N), num_classes, method)


def _labelled(found: Iterable[Floats], labels_N: Indices) -> Iterator[tuple[Floats, Indices]]:
    """Yield embeddings with their labels, some at a time."""
    done = 0
    for features_BF in found:
        for start in range(0, len(features_BF), EMBEDDINGS_AT_ONCE):
            part_BF = features_BF[start : start + EMBEDDINGS_AT_ONCE]
            yield part_BF, labels_N[done : done + len(part_BF)]
            done += len(part_BF)
