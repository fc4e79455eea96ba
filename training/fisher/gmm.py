"""Fits main axes and a mixture of Gaussians to descriptors, without labels.

Shapes: N points, R raw length, E reduced length, G Gaussians.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from implant_model.networks.fisher import responsibilities

NEAREST_PASSES, PASSES = 8, 15
MIN_VARIANCE = 0.01
"""Smallest variance of a Gaussian, as a part of that of all points."""


class Mixture(NamedTuple):
    """Gaussians with independent axes: means and 1 / deviation (G, E), shares (G,)."""

    means_GE: Tensor
    sharpness_GE: Tensor
    shares_G: Tensor


def main_axes(points_NR: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (R,), the `kept` axes of most variance (R, E), and the variances (E,)."""
    centre_R = points_NR.mean(dim=0)
    offsets_NR = points_NR - centre_R
    variances, axes = torch.linalg.eigh(offsets_NR.T @ offsets_NR / len(points_NR))
    return centre_R, axes[:, -kept:].flip(1), variances[-kept:].flip(0)


def fit_mixture(points_NE: Tensor, count: int, seed: int) -> Mixture:
    """Fit Gaussians by k-means from random points, then by expectation and maximisation.

    Args:
        points_NE: Many more than `count`.
        count: Gaussians, G.
        seed: Of the first means; the same seed gives the same mixture.
    """
    generator = torch.Generator().manual_seed(seed)
    means_GE = points_NE[torch.randperm(len(points_NE), generator=generator)[:count]].clone()
    for _ in range(NEAREST_PASSES):
        nearest_N = torch.cdist(points_NE, means_GE).argmin(dim=1)
        counts_G = torch.bincount(nearest_N, minlength=count)
        sums_GE = torch.zeros_like(means_GE).index_add_(0, nearest_N, points_NE)
        filled_G = counts_G > 0
        means_GE[filled_G] = sums_GE[filled_G] / counts_G[filled_G, None]
    spread_E = points_NE.var(dim=0)
    mixture = Mixture(
        means_GE, spread_E.rsqrt().expand_as(means_GE), torch.full((count,), 1 / count)
    )
    for _ in range(PASSES):
        mixture = _improved(points_NE, mixture, MIN_VARIANCE * spread_E)
    return mixture


def _improved(points_NE: Tensor, mixture: Mixture, least_E: Tensor) -> Mixture:
    belongs_NG = responsibilities(
        points_NE, mixture.means_GE, mixture.sharpness_GE, mixture.shares_G.log()
    )
    counts_G = belongs_NG.sum(dim=0) + 1e-6
    means_GE = belongs_NG.T @ points_NE / counts_G[:, None]
    variances_GE = belongs_NG.T @ points_NE**2 / counts_G[:, None] - means_GE**2
    sharpness_GE = torch.maximum(variances_GE, least_E).rsqrt()
    return Mixture(means_GE, sharpness_GE, counts_G / counts_G.sum())
