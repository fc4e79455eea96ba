"""What a network learns: which views it sees, what it shall answer, and how far off it is.

A classifier learns the classes of radiographs, the segmenter their masks. All else of a fit is the
same for both, see `training.fit.loop`.

Shapes: N images, B batch, S side, C channels, K classes.
"""

import copy
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from implant_model.networks.build import ImplantSegmenter
from implant_model.networks.weights import load_network
from training.fit.augment import augment
from training.fit.early_stop import EarlyStop
from training.fit.segmenter import overlap_loss, views
from training.fit.worker_inputs import FitTask, Material

EPOCH_SEEDS = 1_000_003
"""From one seed of a training to the next, so that no two share the seed of an epoch."""
WORKER_SEEDS = 10_007
"""From one worker's views of masks to the next worker's: more than a segmenter has epochs."""


class Objective(Protocol):
    """What differs between the fits of two kinds of network."""

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the optimiser's groups."""

    def early_stop(self, network: nn.Module) -> EarlyStop | None:
        """Return what ends the training early; None where all epochs are expected."""

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw the positions of one epoch, N of them."""

    def views_seed(self, epoch: int, rank: int) -> int:
        """Return the seed of a worker's views in an epoch: those of two workers differ."""

    def views(
        self, images_BSS: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw what the network sees of images, BCSS, and what it shall answer."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how far the network's float32 outputs are off; a scalar."""


def objective_of(recipe: FitTask, material: Material, device: torch.device) -> Objective:
    """Return what the network of a training learns."""
    kind = _Masks if recipe.spec.role == "segmenter" else _Classes
    return kind(recipe, material, device)


class _Classes:
    """A classifier's: the class of a radiograph, or of it and its cut-out."""

    def __init__(self, recipe: FitTask, material: Material, device: torch.device) -> None:
        self.fit, self.augmentation, self.device = recipe.fit, recipe.augmentation, device
        self.watched = material.watched
        self.labels_N = torch.tensor(_all_targets(material))
        self.segmenter: ImplantSegmenter | None = None
        if recipe.segmenter is not None:
            segmenter = load_network(recipe.segmenter, 1, material.segmenter_file)
            self.segmenter = cast(ImplantSegmenter, segmenter.to(device))

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return decay_groups(network, self.fit.weight_decay)

    def early_stop(self, network: nn.Module) -> EarlyStop | None:
        if not self.fit.patience or self.watched is None:
            return None
        at_N = np.arange(len(self.watched))
        labels_N = torch.tensor(self.watched.targets[at_N]).to(self.device)
        judge = copy.deepcopy(network).to(self.device)
        return EarlyStop(self.fit.patience, judge, self.watched.images, labels_N, self.inputs)

    def order(self, generator: torch.Generator) -> Tensor:
        return draw_order(self.labels_N, self.fit.class_balance, generator)

    def views_seed(self, epoch: int, rank: int) -> int:
        return (self.fit.seed * EPOCH_SEEDS + epoch) * 1_009 + rank

    def views(
        self, images_BSS: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self.inputs(augment(images_BSS, self.augmentation, generator)), targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.fit.label_smoothing
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=smoothing)

    @torch.no_grad()
    def inputs(self, views_B1HW: Tensor) -> Tensor:
        """Return what the network sees: the radiograph, or it and its cut-out."""
        return views_B1HW if self.segmenter is None else self.segmenter.with_cut_out(views_B1HW)


class _Masks:
    """The segmenter's: where the implant is, see `training.fit.segmenter`."""

    def __init__(self, recipe: FitTask, material: Material, device: torch.device) -> None:
        self.fit, self.augmentation = recipe.fit, recipe.augmentation
        self.count = len(material.examples)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return [{"params": [*network.parameters()], "weight_decay": self.fit.weight_decay}]

    def early_stop(self, network: nn.Module) -> EarlyStop | None:
        return None

    def order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)

    def views_seed(self, epoch: int, rank: int) -> int:
        return self.fit.seed * EPOCH_SEEDS + epoch + rank * WORKER_SEEDS

    def views(
        self, images_BSS: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return views(images_BSS, targets, self.augmentation, generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return overlap_loss(outputs, targets)


def _all_targets(material: Material) -> Any:
    return material.examples.targets[np.arange(len(material.examples))]


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels, but neither biases nor the scales of normalisations."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def draw_order(labels_N: Tensor, balance: float, generator: torch.Generator) -> Tensor:
    """Draw N positions: without repetition for balance 0, else with weights by class.

    A class of n images is drawn in proportion to n ** (1 - balance).
    """
    if balance == 0:
        return torch.randperm(len(labels_N), generator=generator)
    counts_K = torch.bincount(labels_N).clamp(min=1).double()
    weights_N = counts_K[labels_N] ** -balance
    return torch.multinomial(weights_N, len(labels_N), replacement=True, generator=generator)
