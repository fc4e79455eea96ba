"""Images as a package's networks see them: embeddings, their means, and what heads say of them.

Letters: N images, J labels, F features of one network, B a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from implant_model.networks.build import Ensemble
from training.data.shards import Pictures, in_parts

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
BATCH: Final = 16


@dataclass(frozen=True)
class Embedded:
    """Images as the networks see them.

    Attributes:
        raw: Of each network its embeddings, NF, as its head takes them.
        labels_N: Of each image, C known implants first, the new ones behind.
        groups_N: Images of one patient, or near duplicates, have one number.
    """

    raw: Sequence[Floats]
    labels_N: Indices
    groups_N: Indices

    @property
    def features_NF(self) -> Floats:
        """Return what `Ensemble` gives: each embedding of length one, side by side."""
        return np.concatenate([unit(raw_NF) for raw_NF in self.raw], axis=1)

    def at(self, chosen_N: NDArray[np.bool_]) -> "Embedded":
        """Return the images that are chosen."""
        raw = [raw_NF[chosen_N] for raw_NF in self.raw]
        return Embedded(raw, self.labels_N[chosen_N], self.groups_N[chosen_N])


@torch.inference_mode()
def embed(networks: Ensemble, images: Pictures, positions_N: Indices) -> list[Floats]:
    """Return the embeddings of each network, NF, of images at some positions.

    Args:
        networks: In evaluation mode, on the CPU.
        images: Preprocessed.
        positions_N: Which.
    """
    parts = [[torch.zeros(0, network.num_features) for network in networks.members]]
    for part_BSS in in_parts(images, positions_N):
        for start in range(0, len(part_BSS), BATCH):
            batch_BSS = torch.from_numpy(np.ascontiguousarray(part_BSS[start : start + BATCH]))
            parts.append(networks.embeddings(batch_BSS[:, None].float() / 255))
    return [
        np.concatenate([part[place].numpy() for part in parts]).astype(np.float64)
        for place in range(len(networks.members))
    ]


def logs_of(networks: Ensemble, images: Embedded) -> Floats:
    """Return logs of the averaged probabilities, NC, of embeddings by the networks' heads."""
    with torch.inference_mode():
        logs_NC, _ = networks.average([torch.from_numpy(raw_NF).float() for raw_NF in images.raw])
    return np.asarray(logs_NC.numpy().astype(np.float64), np.float64)


def unit(vectors_NF: Floats) -> Floats:
    """Return vectors of length one."""
    lengths_N1 = np.linalg.norm(vectors_NF, axis=1, keepdims=True)
    return np.asarray(vectors_NF / np.maximum(lengths_N1, 1e-12), np.float64)


def means(vectors_NF: Floats, labels_N: Indices) -> Floats:
    """Return the mean of each label's vectors, JF."""
    return np.stack([vectors_NF[labels_N == label].mean(axis=0) for label in np.unique(labels_N)])


def lengths(images: Embedded) -> list[float]:
    """Return the mean length of the embeddings of each network."""
    return [float(np.linalg.norm(raw_NF, axis=1).mean()) for raw_NF in images.raw]
