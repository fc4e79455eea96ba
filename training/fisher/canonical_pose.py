"""Learns how an upright implant looks from masks: the template that the search for it lays over.

A mask's widest place is taken for the implant's head, and where most of the mask lies from there,
for its stem. Such poses are rough and now and then wrong; the mean over a hundred of them is not.

Shapes: M images with a mask, S side of the image, Q its quarter, H x W the upright picture.
"""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from implant_model.errors import UsageError
from implant_model.networks.alignment import (
    SIDE_PX,
    STEP_PX,
    PoseSearch,
    gaussian_blur,
    gradient_field,
    upright,
    upright_fields,
)

HEAD_RADIUS_PX = 24.0
RADII_PX = (12.0, 36.0)  # of a head of 224 pixels that a mask is believed
STEM = 1.3  # radii from the head's middle at which the stem begins
STEM_HALF_ANGLE = 0.6
MAX_SEEN = 0.5  # share of the implants that cover a place which counts in full
MIN_COUNT = 0.02
DILATION_PX = 9
SOFTENING_PX = 4.0

Masks = NDArray[np.bool_]


def mask_pose(mask_SS: Masks) -> tuple[float, float, float, float] | None:
    """Guess where an implant lies.

    Args:
        mask_SS: True on the implant.

    Returns:
        Radius of its head, direction of its stem (rad, clockwise from the right), column and row
        of the head's middle, in pixels; None where the mask shows no head with a stem.
    """
    inside = np.pad(mask_SS.astype(np.uint8), 1)
    depth_SS = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
    radius = float(depth_SS.max())
    if radius == 0:
        return None
    row, column = np.argwhere(depth_SS >= 0.98 * radius).mean(axis=0)
    down, right = (np.argwhere(mask_SS) - (row, column)).T
    away = np.hypot(down, right) > STEM * radius
    if away.sum() < 0.1 * math.pi * radius**2:
        return None
    angle = math.atan2(down[away].mean(), right[away].mean())
    for _ in range(3):
        turn = (np.arctan2(down, right) - angle + math.pi) % (2 * math.pi) - math.pi
        stem = away & (np.abs(turn) < STEM_HALF_ANGLE)
        if stem.any():
            angle = math.atan2(down[stem].mean(), right[stem].mean())
    return radius, angle, float(column), float(row)


def learn_template(images_M1SS: Tensor, masks_MSS: Masks) -> Tensor:
    """Return the mean field of implants brought upright by their masks, 2HW, of length one.

    Args:
        images_M1SS: In 0..1, of `SIDE_PX`.
        masks_MSS: Their masks; those that show no likely head teach nothing.

    Raises:
        UsageError: No mask shows one.
    """
    chosen, poses = [], []
    for index, mask_SS in enumerate(masks_MSS):
        pose = mask_pose(mask_SS)
        if pose is not None and RADII_PX[0] < pose[0] < RADII_PX[1]:
            chosen.append(index)
            poses.append(_quarter_pose(*pose))
    if not chosen:
        raise UsageError(
            "No mask of the training part shows a head with a stem, which a fisher network looks "
            "for; correct masks by hand and name their folder in segmenter.masks, or take another "
            "architecture."
        )
    poses_P5 = torch.tensor(poses)
    poses_P5[:, 0] = _leans(images_M1SS[chosen], poses_P5)
    fields = torch.cat([gradient_field(images_M1SS[index : index + 1]) for index in chosen])
    template_2HW = upright_fields(fields, poses_P5).mean(dim=0)
    whole_2HW: Tensor = template_2HW / template_2HW.norm()
    return whole_2HW


def _quarter_pose(radius: float, angle: float, column: float, row: float) -> list[float]:
    half = (STEP_PX - 1) / 2
    place = [(column - half) / STEP_PX, (row - half) / STEP_PX]
    return [0.0, radius / HEAD_RADIUS_PX, angle - math.pi / 2, *place]


def _leans(images_P1SS: Tensor, poses_P5: Tensor) -> Tensor:
    """1 where the brighter half below the head is the left one, else 0: mirrors all alike."""
    below = upright(images_P1SS, poses_P5)[:, 0, 70:100]
    left, right = below.chunk(2, dim=2)
    return (left.sum(dim=(1, 2)) > right.sum(dim=(1, 2))).float()


def mean_presence(masks_MSS: Masks, poses_M5: Tensor) -> Tensor:
    """Return how often implants cover each place of the upright view, 11HW at its quarter size.

    Args:
        masks_MSS: Of `SIDE_PX`.
        poses_M5: As found by the search.
    """
    square = np.ones((DILATION_PX, DILATION_PX), np.uint8)
    wide = [torch.from_numpy(cv2.dilate(mask.astype(np.uint8), square)) for mask in masks_MSS]
    seen_M1HW = upright(torch.stack(wide)[:, None].float(), poses_M5)
    mean_11HW = gaussian_blur(seen_M1HW.mean(dim=0, keepdim=True), SOFTENING_PX)
    return (functional.avg_pool2d(mean_11HW, STEP_PX) / MAX_SEEN).clamp(MIN_COUNT, 1)


def find_poses(search: PoseSearch, images_N1SS: Tensor) -> Tensor:
    """Return the pose of each image's implant, N5."""
    poses = [search(gradient_field(image[None])) for image in images_N1SS]
    return torch.cat(poses)


def at_side(masks_NSS: Masks) -> Masks:
    """Return masks at the side that the search works at."""
    if masks_NSS.shape[1] == SIDE_PX or not len(masks_NSS):
        return masks_NSS
    size = (SIDE_PX, SIDE_PX)
    small = [cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_AREA) for m in masks_NSS]
    return np.stack(small) > 0
