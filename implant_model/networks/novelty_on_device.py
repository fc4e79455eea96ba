"""`NoveltyReference.score` in PyTorch, for embeddings that lie on a GPU.

Letters: B batch, F features, C classes (implants), K axes.
"""

import math

import numpy as np
import torch
from torch import nn

from implant_model.novelty import Gaussian, NoveltyReference


class NoveltyScore(nn.Module):
    """The same arithmetic as the reference's, in float64 as there: distances are differences.

    Args:
        reference: Of the package.
    """

    mean_F: torch.Tensor
    centres_CF: torch.Tensor

    def __init__(self, reference: NoveltyReference) -> None:
        super().__init__()
        self._method = reference.method
        self._within = _Whitening(reference.within)
        self._background = _Whitening(reference.background)
        centres_CF = reference.within.whitened(reference.centres_CF)
        self.register_buffer("centres_CF", torch.from_numpy(centres_CF), persistent=False)
        mean_F = torch.from_numpy(reference.mean_F.astype(np.float64))
        self.register_buffer("mean_F", mean_F, persistent=False)

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """Returns the novelty, B float32, of embeddings; higher is stranger."""
        features_BF = features_BF.double()
        offsets_BF = features_BF - self.mean_F
        placed_BF = features_BF
        if self._method == "normalised_mahalanobis":
            lengths_B1 = torch.linalg.vector_norm(offsets_BF, dim=1, keepdim=True)
            placed_BF = offsets_BF / lengths_B1.clamp_min(1e-12)
        distances_BC = torch.cdist(
            self._within(placed_BF),
            self.centres_CF,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        novelty_B = distances_BC.amin(dim=1) ** 2
        if self._method == "relative_mahalanobis":
            novelty_B = novelty_B - (self._background(offsets_BF) ** 2).sum(dim=1)
        return novelty_B.float()


class _Whitening(nn.Module):
    """`Gaussian.whitened` on a device."""

    axes_KF: torch.Tensor
    gains_K: torch.Tensor

    def __init__(self, gaussian: Gaussian) -> None:
        super().__init__()
        self._ball = 1 / math.sqrt(gaussian.rest)
        axes_KF = torch.from_numpy(gaussian.axes_KF.astype(np.float64))
        variances_K = torch.from_numpy(gaussian.variances_K.astype(np.float64))
        self.register_buffer("axes_KF", axes_KF, persistent=False)
        self.register_buffer("gains_K", variances_K.rsqrt() - self._ball, persistent=False)

    def forward(self, vectors_BF: torch.Tensor) -> torch.Tensor:
        along_BK = (vectors_BF @ self.axes_KF.T) * self.gains_K
        whitened_BF: torch.Tensor = self._ball * vectors_BF + along_BK @ self.axes_KF
        return whitened_BF
