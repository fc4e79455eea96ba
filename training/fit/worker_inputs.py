"""What is given to every worker of a training: its task and its material.

Pictures are given by where they lie: a worker reads its share of a batch when it is its turn.

Shapes: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from implant_model.networks.spec import NetworkSpec
from training.config import Augmentation, FitSettings
from training.data.shards import Pictures

State = dict[str, Tensor]


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
class Material:
    """What is fitted, and what the fit starts from.

    Attributes:
        images: Preprocessed images.
        labels_N: Their classes.
        first_weights: Tensors to start from where name and shape fit; None for none.
        segmenter_file: Content of the segmenter's file; b"" for none.
        watched: Images of the training part that early stopping watches; none for N of 0.
        watched_labels_N: Their classes.
    """

    images: Pictures
    labels_N: NDArray[np.int64]
    first_weights: State | None
    segmenter_file: bytes
    watched: Pictures
    watched_labels_N: NDArray[np.int64]
