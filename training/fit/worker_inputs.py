"""What is given to every worker of a training: its task and its material.

Pictures and masks are given by where they lie: a worker reads its share of a batch when it is its
turn.

Shapes: N images, B batch, S side, K classes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from implant_model.networks.spec import NetworkSpec
from training.data.shards import Images, Pictures
from training.settings import Augmentation, FitSettings

State = dict[str, Tensor]


class Targets(Protocol):
    """What a network shall answer, by position: an array of classes, or masks."""

    def __getitem__(self, positions: Any, /) -> NDArray[Any]:
        """Return those at some positions, in that order."""


@dataclass(frozen=True)
class FitTask:
    """All that decides a training, its images aside.

    Attributes:
        spec: The network.
        num_classes: K.
        segmenter: The fitted U-Net that makes the cut-out of a network of two channels.
        pretrained: Whether to start from torchvision's weights.
        fit: How it is fitted.
        augmentation: How far its views may go.
    """

    spec: NetworkSpec
    num_classes: int
    segmenter: NetworkSpec | None
    pretrained: bool
    fit: FitSettings
    augmentation: Augmentation


@dataclass(frozen=True)
class Examples:
    """Preprocessed images, each with what a network shall answer.

    Attributes:
        images: uint8, N of them.
        targets: Of a classifier the classes, int64; of a segmenter the masks, bool.
    """

    images: Pictures
    targets: Targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, positions_B: NDArray[np.int64], /) -> tuple[Images, NDArray[Any]]:
        """Read the images (B, S, S) and targets at some positions, in that order."""
        return self.images[positions_B], self.targets[positions_B]


@dataclass(frozen=True)
class Material:
    """What is fitted, and what the fit starts from.

    Attributes:
        examples: The training part.
        first_weights: Tensors to start from where name and shape fit; None for none.
        segmenter_file: Content of the segmenter's file; b"" for none.
        watched: Examples of the training part that early stopping watches; None for none.
    """

    examples: Examples
    first_weights: State | None = None
    segmenter_file: bytes = b""
    watched: Examples | None = None
