"""One worker's side of a training, see `training.fit.trainer`: of a classifier or the segmenter.

All workers draw the same order from the epoch's seed and each takes its share of every batch, so
that a training repeats itself on the same number of workers, and one that was broken off goes on as
if it had not been: seeds follow the epoch, and a checkpoint holds weights, their average and the
optimiser.

The order is drawn over the whole training part, as it would be in memory, and each worker reads
its share of the next batches while the network is at work on this one: the shuffle is a whole one.

Shapes: N images, S side, B batch, C channels.
"""

import io
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn

from implant_model.networks.build import build
from training.data.links import Indices
from training.data.shards import read_batches
from training.fit.objectives import EPOCH_SEEDS, objective_of
from training.fit.worker_inputs import FitTask, Material
from training.settings import FitSettings

STATE_FILE = "state.pt"


def train_worker(config: Mapping[str, Any]) -> None:
    """What each worker runs; everything it needs is in `config`."""
    recipe: FitTask = config["recipe"]
    torch.set_num_threads(recipe.fit.threads)
    Training(recipe, ray.get(config["shared"][0]), Path(config["curve"])).run()


class Training:
    """One worker's side of a training."""

    def __init__(self, recipe: FitTask, material: Material, curve: Path) -> None:
        self.curve = curve
        self.recipe, self.fit = recipe, recipe.fit
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device: torch.device = get_device()
        self.examples = material.examples
        self.objective = objective_of(recipe, material, self.device)
        torch.manual_seed(self.fit.seed)
        network = build(recipe.spec, recipe.num_classes, pretrained=recipe.pretrained)
        if material.first_weights is not None:
            take_weights(network, material.first_weights)
        self.early_stop = self.objective.early_stop(network)
        self.model = prepare_model(network.to(memory_format=torch.channels_last))
        self.network: nn.Module = getattr(self.model, "module", self.model)
        self.average = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.objective.parameter_groups(self.network), lr=self.fit.learning_rate
        )
        self.steps_per_epoch = max(1, len(self.examples) // self.fit.batch_size)
        self.first_epoch = 0

    def run(self) -> None:
        """Train the epochs that are left and report each."""
        self.resume()
        if self.first_epoch == self.fit.epochs:  # it was done, and only the report was lost
            self.report(self.fit.epochs - 1, {}, keep=True)
        for epoch in range(self.first_epoch, self.fit.epochs):
            metrics = self.train_epoch(epoch)
            is_over = self.judge(metrics)
            last = is_over or epoch + 1 == self.fit.epochs
            self.report(epoch, metrics, keep=last or (epoch + 1) % self.fit.checkpoint_epochs == 0)
            if is_over:
                break

    def judge(self, metrics: dict[str, float]) -> bool:
        """Whether early stopping ends the training; all workers hear what the first one finds."""
        if self.early_stop is None:
            return False
        if self.rank == 0:
            metrics["validation_loss"] = self.early_stop.look(self.average)
        answer = torch.tensor([int(self.early_stop.is_over)], device=self.device)
        if self.num_workers > 1:
            torch.distributed.broadcast(answer, src=0)
        return bool(answer.item())

    def resume(self) -> None:
        """Go on from the last checkpoint of this training's name, if there is one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        self.take(read_checkpoint(checkpoint))

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave after some epoch."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)
        self.first_epoch = state["epoch"] + 1
        if self.early_stop is not None and state["early_stop"] is not None:
            self.early_stop.resume(state["early_stop"])
            if self.early_stop.is_over:
                self.first_epoch = self.fit.epochs

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Make one pass; return its mean loss, its last learning rate and how long it took."""
        begun = time.monotonic()
        self.model.train()
        total, rate = torch.zeros((), device=self.device), 0.0
        seed = self.objective.views_seed(epoch, self.rank)
        generator = torch.Generator(self.device).manual_seed(seed)
        for step, (images_BSS, targets) in enumerate(self.batches(epoch)):
            done = (epoch * self.steps_per_epoch + step) / (self.fit.epochs * self.steps_per_epoch)
            rate = learning_rate(done, self.fit)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            views_BCHW, targets = self.objective.views(images_BSS, targets, generator)
            if epoch < self.fit.half_size * self.fit.epochs:
                views_BCHW = nn.functional.avg_pool2d(views_BCHW, 2)
            total += self.step(views_BCHW, targets)
            self.update_average(epoch * self.steps_per_epoch + step)
        loss = float(total) / self.steps_per_epoch
        return {"loss": loss, "learning_rate": rate, "seconds": time.monotonic() - begun}

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this worker's share of each batch, images and targets, on its device."""
        for _, (images_BSS, targets) in read_batches(self.examples, self.shares(epoch)):
            yield (
                torch.from_numpy(images_BSS).to(self.device),
                torch.from_numpy(targets).to(self.device),
            )

    def shares(self, epoch: int) -> Iterator[Indices]:
        """Yield the positions of this worker's share of each batch."""
        generator = torch.Generator().manual_seed(self.fit.seed * EPOCH_SEEDS + epoch)
        order_N = self.objective.order(generator).numpy()
        for step in range(self.steps_per_epoch):
            batch_B = order_N[step * self.fit.batch_size :][: self.fit.batch_size]
            yield batch_B[self.rank :: self.num_workers]

    def step(self, views_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Make one step of the optimiser; return the loss, detached."""
        enabled = self.fit.mixed_precision
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            outputs = self.model(views_BCHW.to(memory_format=torch.channels_last))
        loss = self.objective.loss(outputs.float(), targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the average of the weights; its decay grows so that early weights are forgotten."""
        decay = min(self.fit.ema, (1 + step) / (10 + step))
        for key, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def state(self, epoch: int) -> dict[str, Any]:
        """Return what a checkpoint keeps after an epoch."""
        return {
            "epoch": epoch,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "early_stop": None if self.early_stop is None else self.early_stop.state(),
        }

    def report(self, epoch: int, metrics: dict[str, float], keep: bool) -> None:
        """Report an epoch, with a checkpoint where `keep`; every worker must call it."""
        facts = {"epoch": epoch, **metrics}
        if self.rank == 0 and metrics:
            with self.curve.open("a") as file:
                file.write(json.dumps(facts) + "\n")
        if not (keep and self.rank == 0):
            ray.train.report(facts)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(self.state(epoch), Path(folder) / STATE_FILE)
            ray.train.report(facts, checkpoint=Checkpoint.from_directory(folder))


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read a checkpoint's tensors and numbers onto the CPU; nothing in it is executed."""
    with checkpoint.as_directory() as folder:
        data = io.BytesIO((Path(folder) / STATE_FILE).read_bytes())
    state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    return state


def take_weights(network: nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy the tensors whose name and shape fit; return how many."""
    own = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


def learning_rate(done: float, fit: FitSettings) -> float:
    """The rate after a share of all steps: a climb over `warmup`, then a cosine down to 0."""
    if done < fit.warmup:
        return fit.learning_rate * max(done / fit.warmup, 0.01)
    part = (done - fit.warmup) / (1 - fit.warmup)
    return fit.learning_rate * (1 + math.cos(math.pi * part)) / 2
