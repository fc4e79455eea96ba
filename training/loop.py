"""Fits one network with Ray Train: any number of workers, CPU (gloo) or GPU (nccl) alike.

The tensor set lies once in Ray's object store, and each worker maps it from there. All workers draw
the same order from the epoch's seed and each takes its share of every batch, so that a training
repeats itself on the same number of workers, and one that was broken off goes on as if it had not
been: seeds follow the epoch, and a checkpoint holds weights, their average and the optimiser.

Shapes: N images, S side, B batch, K classes.
"""

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import Tensor, nn

from implant_model.errors import ImplantError
from implant_model.network_spec import NetworkSpec
from implant_model.networks import build
from training.augment import Augmentation, augment
from training.config import FitSettings
from training.schedule import draw_order, learning_rate, parameter_groups, take_weights

STATE_FILE = "state.pt"
State = dict[str, Tensor]


class TrainingError(ImplantError):
    """A training that ended before its last epoch; `--resume` goes on."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a training, its images aside.

    Attributes:
        spec: The network.
        num_classes: K.
        pretrained: Whether to start from torchvision's weights.
        fit: How it is fitted.
        augmentation: How far its views may go.
    """

    spec: NetworkSpec
    num_classes: int
    pretrained: bool
    fit: FitSettings
    augmentation: Augmentation


def fit_network(
    images_NSS: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    recipe: Recipe,
    first_weights: State | None,
    name: str,
    storage_path: str,
    curve: Path,
    num_workers: int,
    use_gpu: bool,
) -> State:
    """Fits a network to a training part; blocks until it is done.

    Args:
        images_NSS: Preprocessed images, uint8.
        labels_N: Their classes.
        recipe: What to fit, and how.
        first_weights: Tensors to start from where name and shape fit; None for none.
        name: Of this training: the same name under the same storage path goes on from its last
            checkpoint.
        storage_path: Folder or URI that every worker reaches.
        curve: File that gets a line of JSON for each epoch: epoch, loss, learning_rate.
        num_workers: Processes, one GPU each where `use_gpu`.
        use_gpu: Whether workers hold a GPU.

    Returns:
        The weights to ship: the average of those of the last steps (`FitSettings.ema`), on the CPU.
    """
    shared = ray.put((images_NSS, labels_N, first_weights))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe, "shared": [shared], "curve": str(curve)},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
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
            f"checkpoint is in {storage_path}, and --resume goes on from it. Cause: {error}"
        ) from error
    if result.checkpoint is None:
        raise TrainingError(f"The training {name} ended without a checkpoint in {storage_path}.")
    weights: State = read_checkpoint(result.checkpoint)["average"]
    return weights


def train_worker(config: Mapping[str, Any]) -> None:
    """What each worker runs; everything it needs is in `config`."""
    recipe: Recipe = config["recipe"]
    images_NSS, labels_N, first_weights = ray.get(config["shared"][0])
    torch.set_num_threads(recipe.fit.threads)
    curve = Path(config["curve"])
    Training(recipe, torch.tensor(images_NSS), torch.tensor(labels_N), first_weights, curve).run()


class Training:
    """One worker's side of a training."""

    def __init__(
        self,
        recipe: Recipe,
        images_NSS: Tensor,
        labels_N: Tensor,
        first_weights: State | None,
        curve: Path,
    ) -> None:
        self.curve = curve
        self.recipe, self.fit = recipe, recipe.fit
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device: torch.device = get_device()
        self.images_NSS = images_NSS.to(self.device)
        self.labels_N = labels_N.to(self.device)
        torch.manual_seed(self.fit.seed)
        network = build(recipe.spec, recipe.num_classes, pretrained=recipe.pretrained)
        if first_weights is not None:
            take_weights(network, first_weights)
        self.model = prepare_model(network.to(memory_format=torch.channels_last))
        self.network: nn.Module = getattr(self.model, "module", self.model)
        self.average = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.network, self.fit.weight_decay), lr=self.fit.learning_rate
        )
        self.steps_per_epoch = max(1, len(labels_N) // self.fit.batch_size)
        self.first_epoch = 0

    def run(self) -> None:
        """Trains the epochs that are left and reports each."""
        self.resume()
        if self.first_epoch == self.fit.epochs:  # it was done, and only the report was lost
            self.report(self.fit.epochs - 1, {}, keep=True)
        for epoch in range(self.first_epoch, self.fit.epochs):
            metrics = self.train_epoch(epoch)
            last = epoch + 1 == self.fit.epochs
            self.report(epoch, metrics, keep=last or (epoch + 1) % self.fit.checkpoint_epochs == 0)

    def resume(self) -> None:
        """Goes on from the last checkpoint of this training's name, if there is one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        state = read_checkpoint(checkpoint)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)
        self.first_epoch = state["epoch"] + 1

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass; returns its mean loss and its last learning rate."""
        self.model.train()
        total, rate = torch.zeros((), device=self.device), 0.0
        seed = (self.fit.seed * 1_000_003 + epoch) * 1_009 + self.rank
        generator = torch.Generator(self.device).manual_seed(seed)
        for step, batch_B in enumerate(self.batches(epoch)):
            done = (epoch * self.steps_per_epoch + step) / (self.fit.epochs * self.steps_per_epoch)
            rate = learning_rate(done, self.fit)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            views = augment(self.images_NSS[batch_B], self.recipe.augmentation, generator)
            total += self.step(views, self.labels_N[batch_B])
            self.update_average(epoch * self.steps_per_epoch + step)
        return {"loss": float(total) / self.steps_per_epoch, "learning_rate": rate}

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yields this worker's share of each batch: positions on its device."""
        generator = torch.Generator().manual_seed(self.fit.seed * 1_000_003 + epoch)
        order_N = draw_order(self.labels_N.cpu(), self.fit.class_balance, generator)
        for step in range(self.steps_per_epoch):
            batch_B = order_N[step * self.fit.batch_size :][: self.fit.batch_size]
            yield batch_B[self.rank :: self.num_workers].to(self.device)

    def step(self, views_B1HW: Tensor, labels_B: Tensor) -> Tensor:
        """One step of the optimiser; returns the loss, detached."""
        enabled = self.fit.mixed_precision
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            logits_BK = self.model(views_B1HW.to(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(
            logits_BK.float(), labels_B, label_smoothing=self.fit.label_smoothing
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Moves the average of the weights; its decay grows so that early weights are forgotten."""
        decay = min(self.fit.ema, (1 + step) / (10 + step))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def report(self, epoch: int, metrics: dict[str, float], keep: bool) -> None:
        """Reports an epoch, with a checkpoint where `keep`; every worker must call it."""
        facts = {"epoch": epoch, **metrics}
        if self.rank == 0 and metrics:
            with self.curve.open("a") as file:
                file.write(json.dumps(facts) + "\n")
        if not (keep and self.rank == 0):
            ray.train.report(facts)
            return
        with tempfile.TemporaryDirectory() as folder:
            state = {
                "epoch": epoch,
                "network": self.network.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
            }
            torch.save(state, Path(folder) / STATE_FILE)
            ray.train.report(facts, checkpoint=Checkpoint.from_directory(folder))


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Reads a checkpoint's tensors and numbers onto the CPU; nothing in it is executed."""
    with checkpoint.as_directory() as folder:
        data = io.BytesIO((Path(folder) / STATE_FILE).read_bytes())
    state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    return state
