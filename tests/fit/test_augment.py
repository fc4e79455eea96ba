"""Augmented views: range, shape, repeatability, independence, and each change on its own."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from training.fit.augment import BLUR_TAPS, augment, blur, blur_taps
from training.settings import Augmentation

NOTHING = Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})


def pictures(count: int = 6, side: int = 48) -> Tensor:
    """A bright rod in the left half of a dark grey ground, uint8."""
    images_BHW = torch.full((count, side, side), 60, dtype=torch.uint8)
    images_BHW[:, 10:40, 12:18] = 220
    return images_BHW


def view(spec: Augmentation, seed: int = 0, images_BHW: Tensor | None = None) -> Tensor:
    images_BHW = pictures() if images_BHW is None else images_BHW
    return augment(images_BHW, spec, torch.Generator().manual_seed(seed))


def test_nothing_changes_nothing() -> None:
    assert torch.allclose(view(NOTHING)[:, 0], pictures().float() / 255, atol=2e-3)


def test_views_are_in_range_and_of_the_images_shape() -> None:
    wild = Augmentation(
        rotation_deg=180, scale=1, brightness=1, contrast=2, gamma=2, ramp=1, noise=0.5, erase=1
    )
    views = view(wild)
    assert views.shape == (6, 1, 48, 48)
    assert views.dtype == torch.float32
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    assert torch.isfinite(views).all()


def test_the_seed_decides() -> None:
    assert torch.equal(view(Augmentation(), 7), view(Augmentation(), 7))
    assert not torch.equal(view(Augmentation(), 7), view(Augmentation(), 8))


def test_each_image_has_a_draw_of_its_own() -> None:
    views = view(Augmentation())
    assert all(not torch.equal(views[0], other) for other in views[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"rotation_deg": 90.0}, {"scale": 0.5}, {"aspect": 0.5}, {"shear": 0.5}, {"shift": 0.2},
        {"flip": 1.0}, {"brightness": 0.3}, {"contrast": 1.0}, {"gamma": 1.0}, {"ramp": 0.5},
        {"invert": 1.0}, {"noise": 0.2}, {"blur_px": 2.0}, {"resolution": 2.0}, {"erase": 0.5},
    ],
)  # fmt: skip
def test_each_setting_changes_the_picture(change: dict[str, float]) -> None:
    difference = (view(replace(NOTHING, **change)) - view(NOTHING)).abs().amax(dim=(1, 2, 3))
    assert float(difference.max()) > 0.05


def test_a_mirror_image_is_exact() -> None:
    assert torch.allclose(view(replace(NOTHING, flip=1.0)), view(NOTHING).flip(-1), atol=1e-4)


def test_a_negative_is_exact() -> None:
    assert torch.allclose(view(replace(NOTHING, invert=1.0)), 1 - view(NOTHING), atol=1e-4)


def test_zoom_keeps_a_rods_aspect_and_stretch_does_not() -> None:
    def sides(spec: Augmentation, seed: int) -> float:
        bright = view(spec, seed, pictures(1))[0, 0] > 0.5
        return float(bright.any(dim=1).sum()) / float(bright.any(dim=0).sum())

    plain = [sides(replace(NOTHING, scale=0.3), seed) for seed in range(8)]
    stretched = [sides(replace(NOTHING, aspect=0.8), seed) for seed in range(8)]
    assert max(abs(aspect - 5) for aspect in plain) < 1
    assert max(stretched) > 6


def test_blur_takes_away_detail_and_keeps_the_mean() -> None:
    before, after = view(NOTHING), view(replace(NOTHING, blur_px=2.0))
    assert float(after.std()) < float(before.std())
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.01)


@pytest.mark.parametrize("largest_px", [1.0, 2.0, 3.0, 5.0])
def test_the_blurs_kernel_holds_its_widest_draw(largest_px: float) -> None:
    """By how far a dot's light is spread along a row; cut at two deviations it is 0.88 of one."""
    dots_B1HW = torch.zeros(64, 1, 65, 65)
    dots_B1HW[:, :, 32, 32] = 1
    spread_BHW = blur(dots_B1HW, largest_px, torch.Generator().manual_seed(0))[:, 0]
    assert blur_taps(largest_px) >= max(BLUR_TAPS, 4 * largest_px)
    offsets_W = torch.arange(65) - 32
    deviations_B = (spread_BHW.sum(dim=1) * offsets_W**2).sum(dim=1).sqrt()
    assert 0.85 * largest_px < float(deviations_B.max()) < largest_px


def test_erased_area_is_bounded() -> None:
    changed = (view(replace(NOTHING, erase=0.25)) - view(NOTHING)).abs() > 1e-3
    assert float(changed.float().mean(dim=(1, 2, 3)).max()) <= 0.25 * 1.15  # whole pixels


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"noise": -0.1}, {"gamma": float("nan")}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"augment.{next(iter(wrong))} is"):
        Augmentation(**wrong)
