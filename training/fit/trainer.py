"""Fits one network with Ray Train: any number of workers, CPU (gloo) or GPU (nccl) alike.

Where pictures and masks lie is in Ray's object store, and each worker reads those of its batches.
What the workers do is in `training.fit.loop`, for classifiers and the segmenter alike.
"""

from pathlib import Path

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from training.failures import TrainingError, last_line
from training.fit.loop import read_checkpoint, train_worker
from training.fit.worker_inputs import FitTask, Material, State
from training.fit.workers import Workers

MASK_SHARE = 2
"""Images of a step that each worker gets, at least, of the segmenter's: where images are as small
as 16 pixels, batch norm at its bottom sees one pixel of each, and cannot do with one alone."""


def fit_network(
    material: Material,
    recipe: FitTask,
    name: str,
    storage_path: str,
    curve: Path,
    workers: Workers,
    use_gpu: bool,
) -> State:
    """Fit a network to a training part; blocks until it is done.

    Args:
        material: The training part.
        recipe: What to fit, and how.
        name: Of this training: the same name under the same storage path goes on from its last
            checkpoint.
        storage_path: Folder or URI that every worker reaches.
        curve: File that gets a line of JSON for each epoch: epoch, loss, learning_rate, seconds.
        workers: Processes, one GPU each where `use_gpu`; fewer where a step has too few images
            for so many, see `num_useful`.
        use_gpu: Whether workers hold a GPU.

    Returns:
        The weights to ship: the average of those of the last steps (`FitSettings.ema`), or with
        early stopping the best such average, on the CPU.

    Raises:
        TrainingError: A worker failed more often than it may; Ray's log holds the traceback.
    """
    shared = ray.put(material)
    bounds = workers.at_most(num_useful(material, recipe))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe, "shared": [shared], "curve": str(curve)},
        scaling_config=ScalingConfig(
            # The type is that of an older class, which has no bounds.
            num_workers=(bounds.least, bounds.most) if bounds.is_elastic else bounds.most,  # type: ignore[arg-type]
            use_gpu=use_gpu,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=recipe.fit.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="epoch", checkpoint_score_order="max"
            ),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(
            f"The training {name} failed after {recipe.fit.max_failures} restarts; its last "
            f"checkpoint is in {storage_path}, and --resume goes on from it. Cause: "
            f"{last_line(error)}"
        ) from error
    if result.checkpoint is None:
        raise TrainingError(f"The training {name} ended without a checkpoint in {storage_path}.")
    state = read_checkpoint(result.checkpoint)
    best: State | None = state["early_stop"]["best"] if state["early_stop"] else None
    average: State = state["average"]
    return best or average


def num_useful(material: Material, recipe: FitTask) -> int:
    """Return the most workers that all have a share in each step."""
    share = MASK_SHARE if recipe.spec.role == "segmenter" else 1
    step_images = min(recipe.fit.batch_size, len(material.examples))
    return max(1, step_images // share)
