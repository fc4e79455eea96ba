"""The parts of a training that need no worker: start, order of images, rate, weight decay.

Shapes: N images.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from training.config import FitSettings


def take_weights(network: nn.Module, weights: dict[str, Tensor]) -> int:
    """Copies the tensors whose name and shape fit; returns how many."""
    own = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decays matrices and kernels, but neither biases nor the scales of normalisations."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def learning_rate(done: float, fit: FitSettings) -> float:
    """The rate after a share of all steps: a climb over `warmup`, then a cosine down to 0."""
    if done < fit.warmup:
        return fit.learning_rate * max(done / fit.warmup, 0.01)
    part = (done - fit.warmup) / (1 - fit.warmup)
    return fit.learning_rate * (1 + math.cos(math.pi * part)) / 2


def draw_order(labels_N: Tensor, balance: float, generator: torch.Generator) -> Tensor:
    """Draws N positions: without repetition for balance 0, else with weights by class.

    A class of n images is drawn in proportion to n ** (1 - balance).
    """
    if balance == 0:
        return torch.randperm(len(labels_N), generator=generator)
    counts_K = torch.bincount(labels_N).clamp(min=1).double()
    weights_N = counts_K[labels_N] ** -balance
    return torch.multinomial(weights_N, len(labels_N), replacement=True, generator=generator)
