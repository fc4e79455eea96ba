"""The segmenter: views with their masks, loss, fit, resumption, clean masks, and the ensemble."""

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import UsageError
from implant_model.networks.build import Ensemble, ImplantSegmenter, build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_network, weights_bytes
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render
from training.config import Augmentation, SegmenterSettings
from training.fit.segmenter import (
    MIN_MASKS,
    fit_segmenter,
    overlap_loss,
    segment,
    views,
)
from training.masks.overlap import dice

SIDE = 64
Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
NOTHING = Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})
GENTLE = Augmentation(rotation_deg=8.0, scale=0.1, shift=0.04, blur_px=0.5, resolution=0.0)
TINY = SegmenterSettings(width=3, epochs=2, batch_size=4)


def phantoms(count: int, first: int = 0) -> tuple[Images, Masks]:
    """Prepared phantoms of all products in turn, with their true masks."""
    image = Preprocessing(size_px=SIDE, trim_borders=False)
    plain = Preprocessing(size_px=SIDE, trim_borders=False, low_percent=0.0, high_percent=100.0)
    images, masks = [], []
    for number in range(first, first + count):
        drawn = render(ORTHONET.implants[number % 12], np.random.default_rng(number), 128)
        images.append(preprocess(drawn.pixels_HW, image))
        masks.append(preprocess(drawn.mask_HW.astype(np.uint8) * 255, plain) > 127)
    return np.stack(images), np.stack(masks)


@pytest.fixture(scope="module")
def training_part() -> tuple[Images, Masks]:
    return phantoms(48)


def some(part: tuple[Images, Masks], count: int) -> tuple[Images, Masks]:
    return part[0][:count].copy(), part[1][:count].copy()


def test_views_move_masks_with_their_images() -> None:
    images_BSS = torch.zeros((8, SIDE, SIDE), dtype=torch.uint8)
    images_BSS[:, 20:44, 26:34] = 255
    spec = Augmentation(
        **{
            **{field.name: 0.0 for field in fields(Augmentation)},
            "rotation_deg": 40.0,
            "scale": 0.4,
            "shift": 0.1,
            "flip": 0.5,
            "shear": 0.2,
        }
    )
    generator = torch.Generator().manual_seed(3)
    seen, masks = views(images_BSS, images_BSS > 0, spec, generator)
    assert seen.shape == masks.shape == (8, 1, SIDE, SIDE)
    assert float((seen - masks).abs().max()) < 1e-3
    still = (images_BSS > 0).float()[:, None]
    assert all(float((masks[i] - still[i]).abs().mean()) > 0.005 for i in range(8))


def test_tone_changes_the_image_and_not_its_mask(training_part: tuple[Images, Masks]) -> None:
    images_BSS, masks_BSS = (torch.from_numpy(array[:6]) for array in training_part)
    values = {field.name: 0.0 for field in fields(Augmentation)}
    ramp = Augmentation(**{**values, "ramp": 0.5, "brightness": 0.2, "invert": 1.0, "erase": 1.0})
    seen, masks = views(images_BSS, masks_BSS, ramp, torch.Generator().manual_seed(0))
    assert torch.allclose(masks[:, 0], masks_BSS.float(), atol=1e-5)
    assert float((seen[:, 0] - images_BSS.float() / 255).abs().mean()) > 0.02
    on, off = seen[:, 0][masks_BSS].mean(), seen[:, 0][~masks_BSS].mean()
    assert on > off  # neither made a negative nor erased
    plain, _ = views(images_BSS, masks_BSS, NOTHING, torch.Generator().manual_seed(0))
    assert torch.allclose(plain[:, 0], images_BSS.float() / 255, atol=2e-3)


def test_the_loss_by_hand() -> None:
    masks = torch.zeros(2, 1, 4, 4)
    masks[:, :, 0] = 1
    sure = (masks * 2 - 1) * 50
    assert float(overlap_loss(sure, masks)) == pytest.approx(0, abs=1e-5)
    unsure = float(overlap_loss(torch.zeros_like(masks), masks))
    assert unsure == pytest.approx(math.log(2) + 1 - (2 * 2 + 1) / (8 + 4 + 1), rel=1e-5)
    assert float(overlap_loss(-sure, masks)) > unsure > 0


def test_a_fit_finds_the_implant_on_phantoms_that_it_has_not_seen(
    training_part: tuple[Images, Masks],
) -> None:
    losses: dict[int, float] = {}
    settings = SegmenterSettings(width=4, epochs=8, batch_size=4, learning_rate=2e-2)
    network = fit_segmenter(*training_part, settings, GENTLE, report=losses.__setitem__)
    assert list(losses) == list(range(8))
    assert losses[7] < losses[0] / 2
    images_NSS, true_NSS = phantoms(24, first=100)
    found_NSS = segment(network, images_NSS, batch_size=10)
    overlaps = [dice(*pair) for pair in zip(found_NSS, true_NSS, strict=True)]
    assert np.median(overlaps) > 0.8
    chance = [dice(*pair) for pair in zip(found_NSS, np.roll(true_NSS, 1, axis=0), strict=True)]
    assert np.median(chance) < 0.6  # a mean shape alone would not do

    spec = settings.spec()
    loaded = load_network(spec, 12, weights_bytes(network))
    again_NSS = segment(loaded, images_NSS)
    agree = [dice(*pair) for pair in zip(found_NSS, again_NSS, strict=True)]
    assert min(agree) > 0.97  # float16 moves a pixel or two


def test_a_fit_repeats_itself_and_goes_on_where_it_was_broken_off(
    tmp_path: Path, training_part: tuple[Images, Masks]
) -> None:
    images_NSS, masks_NSS = some(training_part, 12)
    whole = fit_segmenter(images_NSS, masks_NSS, TINY, GENTLE)
    torch.manual_seed(99)  # whatever else draws numbers
    state = tmp_path / "states" / "segmenter.pt"

    def break_off(epoch: int, loss: float) -> None:
        if epoch == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_segmenter(images_NSS, masks_NSS, TINY, GENTLE, state_file=state, report=break_off)
    epochs: list[int] = []
    rest = fit_segmenter(
        images_NSS,
        masks_NSS,
        TINY,
        GENTLE,
        state_file=state,
        report=lambda epoch, loss: epochs.append(epoch),
    )
    assert epochs == [1]
    assert weights_bytes(rest) == weights_bytes(whole)
    other = fit_segmenter(images_NSS, masks_NSS, SegmenterSettings(3, epochs=2, seed=1), GENTLE)
    assert weights_bytes(other) != weights_bytes(whole)
    before = torch.get_rng_state()
    fit_segmenter(images_NSS, masks_NSS, SegmenterSettings(1, epochs=1), NOTHING)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_drawn(training_part: tuple[Images, Masks]) -> None:
    """Ten images in batches of four: the two that are left over change from epoch to epoch."""
    images_NSS, masks_NSS = some(training_part, 10)
    settings = SegmenterSettings(1, epochs=4, batch_size=4)
    weights = {weights_bytes(fit_segmenter(images_NSS, masks_NSS, settings, NOTHING))}
    for index in (8, 9):
        changed_NSS = images_NSS.copy()
        changed_NSS[index] = 255 - changed_NSS[index]
        weights.add(weights_bytes(fit_segmenter(changed_NSS, masks_NSS, settings, NOTHING)))
    assert len(weights) == 3


def test_too_few_masks_are_refused(training_part: tuple[Images, Masks]) -> None:
    images_NSS, masks_NSS = some(training_part, 20)
    masks_NSS[MIN_MASKS - 1 :] = False
    with pytest.raises(UsageError, match=rf"7 masks to learn from; {MIN_MASKS} are expected"):
        fit_segmenter(images_NSS, masks_NSS, TINY, GENTLE)
    with pytest.raises(ValueError, match="one shape is"):
        fit_segmenter(images_NSS, masks_NSS[:5], TINY, GENTLE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 129}, "segmenter.width is 129; 0 to 128"),
        ({"reduction": 0}, "segmenter.reduction is 0; 1 to 8"),
        ({"epochs": 0}, "segmenter.epochs is 0"),
        ({"batch_size": 0}, "segmenter.batch_size is 0"),
        ({"learning_rate": 0.0}, "segmenter.learning_rate is 0.0"),
    ],
)
def test_a_senseless_setting_is_named(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmenterSettings(**values)  # type: ignore[arg-type]


class Threshold(torch.nn.Module):
    """Stands for a network: logits above 0 where the grey is above one half."""

    def forward(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        return images_B1HW - 0.5


def test_masks_are_cleaned_up() -> None:
    images_NSS = np.zeros((3, SIDE, SIDE), np.uint8)
    images_NSS[:2, 20:50, 20:40] = 200
    images_NSS[:2, 30:33, 28:31] = 0  # a hole
    images_NSS[:2, 3:5, 3:6] = 200  # a marker
    found_NSS = segment(Threshold(), images_NSS, batch_size=2)
    assert found_NSS[0, 31, 29]
    assert not found_NSS[0, 4, 4]
    assert found_NSS[1].sum() == 600
    assert not found_NSS[2].any()
    assert segment(Threshold(), images_NSS[:0]).shape == (0, SIDE, SIDE)


def test_a_segmenter_feeds_the_two_channels_of_an_ensemble() -> None:
    spec = SegmenterSettings(width=2, reduction=2).spec()
    segmenter = build(spec, 12)
    assert isinstance(segmenter, ImplantSegmenter)
    one = build(NetworkSpec("one.safetensors", "classifier", "shufflenet_v2_x0_5"), 12)
    two = build(NetworkSpec("two.safetensors", "classifier", "shufflenet_v2_x0_5", channels=2), 12)
    ensemble = Ensemble([segmenter, one, two]).eval()
    images_B1HW = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone, both = ensemble.inputs(images_B1HW)
        expected = images_B1HW * torch.sigmoid(segmenter(images_B1HW))
    assert torch.equal(alone, images_B1HW)
    assert torch.equal(both[:, :1], images_B1HW)
    assert torch.allclose(both[:, 1:], expected)
