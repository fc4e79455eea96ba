"""When a training ends early, and with which weights."""

import numpy as np
import torch
from torch import Tensor, nn

from training.fit.early_stop import EarlyStop


class Constant(nn.Module):
    """Says the first of two classes with a log-odds that is its one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.odds = nn.Parameter(torch.zeros(1))

    def forward(self, images_B1SS: Tensor) -> Tensor:
        first_B1 = self.odds.expand(len(images_B1SS), 1)
        return torch.cat([first_B1, torch.zeros_like(first_B1)], dim=1)


def watch(patience: int) -> EarlyStop:
    images_NSS = np.zeros((100, 4, 4), np.uint8)
    labels_N = torch.tensor([0] * 75 + [1] * 25)  # best is a log-odds of ln 3 = 1.1
    return EarlyStop(patience, Constant(), images_NSS, labels_N, lambda images: images)


def look(stop: EarlyStop, *odds: float) -> list[bool]:
    over = []
    for value in odds:
        stop.look({"odds": torch.tensor([value])})
        over.append(stop.is_over)
    return over


def test_it_ends_when_patience_is_over_and_keeps_the_best_weights() -> None:
    stop = watch(2)
    assert look(stop, 0.0, 1.0, 3.0, 1.1, 2.0, 0.5) == [False] * 5 + [True]
    assert stop.best is not None
    assert stop.best["odds"].item() == torch.tensor(1.1).item()


def test_the_loss_is_the_mean_cross_entropy() -> None:
    assert abs(watch(1).look({"odds": torch.tensor([0.0])}) - 0.6931472) < 1e-6


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been() -> None:
    first = watch(2)
    look(first, 1.1, 3.0)
    second = watch(2)
    second.resume(first.state())
    assert look(second, 2.0) == [True]
    assert second.best is not None
    assert second.best["odds"].item() == torch.tensor(1.1).item()
