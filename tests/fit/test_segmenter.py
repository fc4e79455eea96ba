"""The segmenter: views with their masks, loss, fit, resumption, clean masks, and the ensemble."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import UsageError
from implant_model.networks.build import Ensemble, ImplantSegmenter, build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_network, weights_bytes
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render
from training.config import TrainConfig
from training.fit.loop import Training
from training.fit.objectives import objective_of
from training.fit.segmenter import overlap_loss, segment, views
from training.fit.segmenting import MIN_MASKS, masked_examples, segmenter_task
from training.fit.trainer import num_useful
from training.fit.worker_inputs import Examples, Material
from training.masks.mask_set import GOOD, POOR, MaskSet
from training.masks.overlap import dice
from training.settings import Augmentation, SegmenterSettings

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


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a worker has: sums of another number of threads are others in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def in_this_process(act: Callable[[], Any]) -> Any:
    """What `act` returns as the only worker of a training of Ray's, which runs it right here."""
    returned: list[Any] = []

    def train() -> None:
        returned.append(act())

    TorchTrainer(train, scaling_config=ScalingConfig(num_workers=0)).fit()
    return returned[0]


def training_of(
    part: tuple[Images, Masks], settings: SegmenterSettings, spec: Augmentation, curve: Path
) -> Training:
    task = segmenter_task(TrainConfig(segmenter=settings, augment=spec))
    return Training(task, Material(Examples(*part)), curve)


def fit(
    part: tuple[Images, Masks], settings: SegmenterSettings, spec: Augmentation, curve: Path
) -> ImplantSegmenter:
    """The network that a training of one worker ships."""

    def run() -> dict[str, torch.Tensor]:
        training = training_of(part, settings, spec, curve)
        training.run()
        return training.average

    network = build(settings.spec(), 12)
    assert isinstance(network, ImplantSegmenter)
    network.load_state_dict(in_this_process(run))
    return network.eval()


def fit_plainly(
    part: tuple[Images, Masks], settings: SegmenterSettings, spec: Augmentation
) -> ImplantSegmenter:
    """The same fit in one plain loop, without workers."""
    torch.manual_seed(settings.seed)
    network = build(settings.spec(), 1)
    assert isinstance(network, ImplantSegmenter)
    network.to(memory_format=torch.channels_last)
    rate, decay = settings.learning_rate, settings.weight_decay
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    steps = len(part[0]) // settings.batch_size
    for epoch in range(settings.epochs):
        seed = settings.seed * 1_000_003 + epoch
        order_N = torch.randperm(len(part[0]), generator=torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        for step in range(steps):
            batch_B = order_N[step * settings.batch_size :][: settings.batch_size]
            done = (epoch * steps + step) / (settings.epochs * steps)
            optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
            images_BSS, masks_BSS = (torch.from_numpy(array)[batch_B] for array in part)
            seen, masks = views(images_BSS, masks_BSS, spec, generator)
            logits = network(seen.to(memory_format=torch.channels_last))
            optimiser.zero_grad()
            overlap_loss(logits, masks).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network


def test_a_fit_finds_the_implant_on_phantoms_that_it_has_not_seen(
    tmp_path: Path, training_part: tuple[Images, Masks]
) -> None:
    settings = SegmenterSettings(width=4, epochs=8, batch_size=4, learning_rate=2e-2)
    network = fit(training_part, settings, GENTLE, tmp_path / "curve.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(8))
    assert lines[7]["loss"] < lines[0]["loss"] / 2
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


def test_one_worker_fits_what_a_plain_loop_fits_and_another_seed_another(
    tmp_path: Path, training_part: tuple[Images, Masks]
) -> None:
    part, curve = some(training_part, 14), tmp_path / "curve.jsonl"
    shipped = weights_bytes(fit(part, TINY, GENTLE, curve))
    assert shipped == weights_bytes(fit_plainly(part, TINY, GENTLE))
    assert shipped != weights_bytes(fit(part, replace(TINY, seed=1), GENTLE, curve))


def test_a_fit_goes_on_where_it_was_broken_off(
    tmp_path: Path, training_part: tuple[Images, Masks]
) -> None:
    part, file = some(training_part, 12), tmp_path / "state.pt"

    def broken_off() -> list[dict[str, torch.Tensor]]:
        first, second = (training_of(part, TINY, GENTLE, tmp_path / "curve") for _ in range(2))
        first.train_epoch(0)
        torch.save(first.state(0), file)
        second.take(torch.load(file, weights_only=True))
        assert second.first_epoch == 1
        for training in (first, second):
            training.train_epoch(1)
        return [first.average, second.average]

    whole, rest = in_this_process(broken_off)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_workers_share_each_step_and_see_views_of_their_own(
    tmp_path: Path, training_part: tuple[Images, Masks]
) -> None:
    """Ten images in batches of four: the two that are left over change from epoch to epoch."""
    settings = SegmenterSettings(1, epochs=4, batch_size=4)

    def draw() -> list[list[list[int]]]:
        training = training_of(some(training_part, 10), settings, NOTHING, tmp_path / "curve")
        drawn = []
        for training.rank, training.num_workers in ((0, 1), (0, 2), (1, 2)):
            steps = (share for epoch in range(4) for share in training.shares(epoch))
            drawn.append([share.tolist() for share in steps])
        return drawn

    alone, *both = in_this_process(draw)
    assert [len(step) for step in alone] == [4] * 8
    assert {position for step in alone for position in step} == set(range(10))
    for whole, first, second in zip(alone, *both, strict=True):
        assert len(first) == len(second) == 2
        assert sorted(first + second) == sorted(whole)

    task = segmenter_task(TrainConfig(segmenter=settings))
    learned = objective_of(task, Material(Examples(*training_part)), torch.device("cpu"))
    seeds = {learned.views_seed(epoch, rank) for epoch in range(40) for rank in range(64)}
    assert len(seeds) == 40 * 64


@pytest.mark.parametrize(
    ("batch_size", "images", "useful"), [(16, 48, 8), (4, 48, 2), (16, 9, 4), (1, 48, 1)]
)
def test_each_worker_gets_two_images_of_a_step_with_masks(
    training_part: tuple[Images, Masks], batch_size: int, images: int, useful: int
) -> None:
    settings = SegmenterSettings(width=4, batch_size=batch_size)
    task = segmenter_task(TrainConfig(segmenter=settings))
    material = Material(Examples(*some(training_part, images)))
    assert num_useful(material, task) == useful


def test_too_few_masks_are_refused(training_part: tuple[Images, Masks]) -> None:
    images_NSS, masks_NSS = some(training_part, 20)
    masks_NSS[MIN_MASKS - 1 :] = False
    masks = MaskSet(masks_NSS, np.full(20, GOOD, np.uint8), "digest")
    with pytest.raises(UsageError, match=rf"7 masks to learn from; {MIN_MASKS} are expected"):
        masked_examples(images_NSS, masks, np.arange(20))


def test_poor_masks_teach_nothing(training_part: tuple[Images, Masks]) -> None:
    images_NSS, masks_NSS = some(training_part, 20)
    grades_N = np.where(np.arange(20) == 3, POOR, GOOD).astype(np.uint8)
    masks = MaskSet(masks_NSS, grades_N, "digest")
    examples = masked_examples(images_NSS, masks, np.arange(1, 20))
    assert len(examples) == 18
    images_BSS, masks_BSS = examples[np.array([2, 1])]  # 0 does not train, and 3 is poor
    assert (images_BSS == images_NSS[[4, 2]]).all()
    assert (masks_BSS == masks_NSS[[4, 2]]).all()


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
