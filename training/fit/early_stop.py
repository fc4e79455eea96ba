"""Ends a training that no longer gains, judged on a share of its training part that it never saw.

The share is neither the calibration nor the test part, so that what these promise and measure stays
what it is. What is judged is the average of the weights, which is what ships, by its cross-entropy.

Shapes: N images, S side, B batch, C channels.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.data.shards import Pictures

State = dict[str, Tensor]
BATCH_SIZE = 64


class EarlyStop:
    """The best weights so far, and for how long they have been.

    Args:
        patience: Epochs without a better loss after which the training ends.
        judge: A network of the architecture, for its own use.
        images: Held out of the training, N of them.
        labels_N: Their classes.
        inputs: From images in 0..1, B1SS, to what the network sees, BCSS.
    """

    def __init__(
        self,
        patience: int,
        judge: nn.Module,
        images: Pictures,
        labels_N: Tensor,
        inputs: Callable[[Tensor], Tensor],
    ) -> None:
        self.patience = patience
        self.judge = judge.requires_grad_(False)
        self.images, self.labels_N, self.inputs = images, labels_N, inputs
        self.best: State | None = None
        self.least, self.waited = math.inf, 0

    @property
    def is_over(self) -> bool:
        """Return whether the training shall end."""
        return self.waited >= self.patience

    def look(self, weights: State) -> float:
        """Judge weights, keep them if they are the best; return their loss."""
        self.judge.load_state_dict(weights)
        loss = self._loss()
        if loss < self.least:
            self.least, self.waited = loss, 0
            self.best = {key: value.clone() for key, value in weights.items()}
        else:
            self.waited += 1
        return loss

    @torch.no_grad()
    def _loss(self) -> float:
        self.judge.eval()
        total = 0.0
        for start in range(0, len(self.labels_N), BATCH_SIZE):
            labels_B = self.labels_N[start : start + BATCH_SIZE]
            images_BSS = torch.from_numpy(self.images[np.arange(start, start + len(labels_B))])
            images_B1SS = images_BSS.to(labels_B.device)[:, None].float() / 255
            logits_BK = self.judge(self.inputs(images_B1SS))
            loss = nn.functional.cross_entropy(logits_BK.float(), labels_B, reduction="sum")
            total += float(loss)
        return total / len(self.labels_N)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best, "least": self.least, "waited": self.waited}

    def resume(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self.best, self.least, self.waited = state["best"], state["least"], state["waited"]
