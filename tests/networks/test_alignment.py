"""The search for an implant and the upright picture, on drawn implants of known pose."""

import math

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.networks.alignment import (
    SIDE_PX,
    UPRIGHT_HW,
    PoseSearch,
    gradient_field,
    in_image,
    upright,
)
from training.fisher.canonical_pose import at_side, learn_template, mask_pose, mean_presence

HEAD = (105.0, 60.0)
RADIUS_PX = 24


def drawn(turn_deg: float = 0.0, mirrored: bool = False) -> NDArray[np.uint8]:
    """A head that leans to the right on a stem that points down, turned about the head."""
    column, row = (round(x) for x in HEAD)
    image = np.full((SIDE_PX, SIDE_PX), 60, np.uint8)
    cv2.circle(image, (column, row), RADIUS_PX, 230, -1)
    cv2.ellipse(image, (column + 22, row - 4), (18, 22), 0, 0, 360, 230, -1)
    stem = np.array([(-16, 10), (14, 10), (7, 110), (-7, 110)]) + (column, row)
    cv2.fillPoly(image, [stem.astype(np.int32)], 230)
    if mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    middle = (SIDE_PX / 2, SIDE_PX / 2)
    matrix = cv2.getRotationMatrix2D(middle, -turn_deg, 1)
    turned = cv2.warpAffine(image, matrix, image.shape[::-1], borderValue=60)
    return np.asarray(turned, np.uint8)


def as_tensor(*images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))[:, None].float() / 255


@pytest.fixture(scope="module")
def search() -> PoseSearch:
    image = drawn()
    search = PoseSearch()
    search.template_2HW.copy_(learn_template(as_tensor(image), image[None] > 150))
    return search


def test_a_masks_widest_place_is_the_head_and_its_length_the_stem() -> None:
    pose = mask_pose(drawn(30) > 150)
    upright_pose = mask_pose(drawn() > 150)
    assert pose is not None
    assert upright_pose is not None
    assert pose[0] == pytest.approx(upright_pose[0], abs=1.5)
    assert math.degrees(pose[1] - upright_pose[1]) == pytest.approx(30, abs=3)


def test_a_mask_without_a_stem_gives_no_pose() -> None:
    disc = cv2.circle(np.zeros((SIDE_PX, SIDE_PX), np.uint8), (100, 100), 30, 1, -1) > 0
    assert mask_pose(disc) is None
    assert mask_pose(np.zeros_like(disc)) is None
    with pytest.raises(UsageError, match="No mask of the training part shows a head"):
        learn_template(as_tensor(drawn()), disc[None])


@pytest.mark.parametrize("turn_deg", [-140, -45, 0, 20, 90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_search_finds_a_turned_and_mirrored_implant(
    search: PoseSearch, turn_deg: float, mirrored: bool
) -> None:
    straight, moved = drawn(), drawn(turn_deg, mirrored)
    poses = search(gradient_field(as_tensor(straight, moved)))
    away = float(poses[1, 2] - poses[0, 2]) - math.radians(turn_deg)
    assert bool(poses[1, 0] != poses[0, 0]) == mirrored
    # A drawn stem that leans by 3 degrees leans to the other side in the mirror.
    assert abs(math.remainder(away, 2 * math.pi)) < math.radians(8)
    pictures = upright(as_tensor(straight, moved), poses)[:, 0].numpy()
    assert pictures.shape[1:] == UPRIGHT_HW
    both = np.corrcoef(pictures[0, 20:170, 30:114].ravel(), pictures[1, 20:170, 30:114].ravel())
    assert both[0, 1] > 0.85


def test_points_of_the_upright_picture_lie_where_its_pixels_come_from() -> None:
    pose = torch.tensor([[1.0, 0.9, 0.7, 25.0, 30.0]])
    image = torch.zeros(1, 1, SIDE_PX, SIDE_PX)
    column, row = in_image(torch.tensor([80.0, 100.0]), pose)[0].tolist()
    image[0, 0, round(row), round(column)] = 1
    picture = upright(image, pose)[0, 0]
    found = divmod(int(picture.argmax()), UPRIGHT_HW[1])
    assert abs(found[0] - 100) <= 1
    assert abs(found[1] - 80) <= 1


def test_presence_is_full_on_the_implant_and_least_away_from_it(search: PoseSearch) -> None:
    image = drawn(35)
    poses = search(gradient_field(as_tensor(image)))
    presence = mean_presence(image[None] > 150, poses)[0, 0]
    assert presence[14, 17] == 1
    assert presence[2, 2] == pytest.approx(0.02)


def test_masks_of_another_side_are_brought_to_the_searchs() -> None:
    mask = drawn() > 150
    large = np.kron(mask, np.ones((2, 2), bool))
    assert (at_side(large[None])[0] == mask).all()
    assert at_side(mask[None])[0] is not large
