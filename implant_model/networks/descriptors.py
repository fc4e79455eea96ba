"""Describes the edges around points of an upright implant (Lowe 2004, without his search).

The picture's greys are evened first: a stem that hardly shows is described like one that glares.

A descriptor is of 4 x 4 cells around its point; each cell holds how much edge there is in each of
eight directions. Square roots of the shares are compared (Arandjelovic and Zisserman 2012), so that
one strong edge does not drown the others.

Shapes: H x W the upright view, Q its presence map, N descriptors, R raw length (128), D directions.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from implant_model.networks.alignment import gaussian_blur

EVENED_PX = 8
CELLS_PX = (4, 6)
STRIDE_PX = 4
CELLS = 4  # a descriptor is of 4 x 4 cells
DIRECTIONS = 8
RAW = CELLS * CELLS * DIRECTIONS
MIN_EDGE = 0.05
"""Descriptors with less edge are of an even ground and left out."""
MIN_PRESENCE = 0.05
"""Places that the implant covers more seldom are not described."""


class Descriptors(NamedTuple):
    """Descriptors of one upright view.

    Attributes:
        raw_NR: Square roots of shares of the edges around, of length one.
        places_N2: Column and row in 0..1.
        counts_N: How much each counts, 0..1.
    """

    raw_NR: Tensor
    places_N2: Tensor
    counts_N: Tensor


def describe(view_HW: Tensor, presence_11QQ: Tensor, evened: bool = True) -> Descriptors:
    """Describe the points of a view that have an edge near, at two sizes.

    Args:
        view_HW: In 0..1.
        presence_11QQ: How much places count, at any size.
        evened: Whether its greys are evened.
    """
    picture_HW = even_greys(view_HW[None], EVENED_PX)[0] if evened else view_HW
    parts = [_describe(picture_HW, presence_11QQ, cell) for cell in CELLS_PX]
    return Descriptors(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _describe(view_HW: Tensor, presence_11QQ: Tensor, cell: int) -> Descriptors:
    height, width = view_HW.shape
    half, reach = CELLS * cell // 2, [round((n - (CELLS - 1) / 2) * cell) for n in range(CELLS)]
    rows = torch.arange(half, height - half + 1, STRIDE_PX, device=view_HW.device)
    columns = torch.arange(half, width - half + 1, STRIDE_PX, device=view_HW.device)
    y, x = torch.meshgrid(rows / height, columns / width, indexing="ij")
    places_N2 = torch.stack((x.flatten(), y.flatten()), dim=1)
    counts_N = presence_at(places_N2, presence_11QQ)
    smooth = gaussian_blur(view_HW[None, None], max(0.5, cell / 6))
    cells_HWD = gaussian_blur(_directions(smooth), cell / 2)[0].permute(1, 2, 0).contiguous()
    size = STRIDE_PX * len(rows), STRIDE_PX * len(columns)
    blocks = [
        cells_HWD[top : top + size[0] : STRIDE_PX, left : left + size[1] : STRIDE_PX]
        for top in (half + down for down in reach)
        for left in (half + right for right in reach)
    ]
    raw_NR = torch.cat(blocks, dim=2).flatten(0, 1)
    lengths_N = raw_NR.norm(dim=1)
    kept_N = (lengths_N > MIN_EDGE) & (counts_N >= MIN_PRESENCE)
    capped_NR = (raw_NR[kept_N] / (lengths_N[kept_N, None] + 1e-6)).clamp(max=0.2)
    root_NR = torch.sqrt(capped_NR / (capped_NR.sum(dim=1, keepdim=True) + 1e-6))
    return Descriptors(root_NR, places_N2[kept_N], counts_N[kept_N])


def presence_at(places_N2: Tensor, presence_11QQ: Tensor) -> Tensor:
    """Return how much descriptors at these places count, N."""
    grid = (2 * places_N2 - 1).view(1, 1, -1, 2)
    return functional.grid_sample(
        presence_11QQ, grid, padding_mode="border", align_corners=False
    ).flatten()


def _directions(picture_11HW: Tensor) -> Tensor:
    """The gradient's strength, shared between the two nearest of its eight directions, 1DHW."""
    framed = functional.pad(picture_11HW, (1, 1, 1, 1), mode="replicate")
    right = (framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]) / 2
    down = (framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1]) / 2
    strength = torch.sqrt(right * right + down * down + 1e-12)
    turn = torch.atan2(down, right) * (DIRECTIONS / (2 * torch.pi)) % DIRECTIONS
    numbers = torch.arange(DIRECTIONS, device=picture_11HW.device).view(1, -1, 1, 1)
    away = (turn - numbers).abs()
    return strength * (1 - torch.minimum(away, DIRECTIONS - away)).clamp(min=0)


def even_greys(pictures_BHW: Tensor, reach_px: int) -> Tensor:
    """Return each pixel less the mean around it, over the deviation there, about a middle grey.

    A faint implant on an overexposed film then looks like a bright one.

    Args:
        pictures_BHW: In 0..1.
        reach_px: Half the side of the square that mean and deviation are of.
    """
    mean_BHW = _box(pictures_BHW, reach_px)
    offsets_BHW = pictures_BHW - mean_BHW
    deviation_BHW = torch.sqrt(_box(offsets_BHW**2, reach_px))
    return (0.5 + 0.2 * offsets_BHW / (deviation_BHW + 0.03)).clamp(0, 1)


def _box(pictures_BHW: Tensor, reach_px: int) -> Tensor:
    """Average over squares; beyond the rim lies the rim's value."""
    side = 2 * reach_px + 1
    sums = functional.pad(pictures_BHW[:, None], (reach_px,) * 4, mode="replicate")[:, 0]
    for axis in (1, 2):
        totals = functional.pad(sums.cumsum(axis), (1, 0) if axis == 2 else (0, 0, 1, 0))
        count = totals.shape[axis] - side
        sums = totals.narrow(axis, side, count) - totals.narrow(axis, 0, count)
    return (sums / side**2).clamp(min=0)
