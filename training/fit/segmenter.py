"""Fits the U-Net that cuts the implant out: OrthoNet's first stage (Patel et al. 2021).

Views are turned, zoomed, sheared, shifted and mirrored together with their masks, and toned with
ramps of brightness, so that the network learns the implant's edge and not a level of grey. The loss
is binary cross-entropy plus 1 - Dice of the batch: the one settles each pixel, the other counts a
small implant as much as a large one (Milletari et al. 2016).

It is one process on one device: a U-Net of masks needs minutes where the classifiers need hours. A
fit repeats itself from its seed, and goes on from its last state where it was broken off.

Shapes: N images, B batch, S side.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from implant_model.errors import UsageError
from implant_model.networks.build import build
from implant_model.storage.local_files import whole_file
from training.config import Augmentation, SegmenterSettings
from training.data.links import Indices
from training.data.shards import PART, Pictures, read_batches
from training.fit.augment import add_noise, affine_matrices, blur, degrade, retone
from training.masks.mask_set import SetOfMasks
from training.masks.objects import clean_up

MIN_MASKS = 8  # fewer teach a U-Net nothing that a threshold did not know

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]


def fit_segmenter(
    images: Pictures,
    masks: SetOfMasks,
    settings: SegmenterSettings,
    augmentation: Augmentation,
    device: str = "cpu",
    state_file: Path | None = None,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
    first_weights: dict[str, Tensor] | None = None,
) -> nn.Module:
    """Fit a U-Net to images and masks.

    Args:
        images: Preprocessed, uint8; of the training part only.
        masks: bool, of the same shape.
        settings: How.
        augmentation: How far its views may go; nothing is erased and no negative is made.
        device: As torch names it.
        state_file: Kept after each epoch; one that is there is gone on from.
        report: Called after each epoch with its number and mean loss.
        first_weights: Of a U-Net of the same width, to start from; None from scratch.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        UsageError: Fewer than `MIN_MASKS` masks that hold anything.
    """
    if images.shape != masks.shape:
        raise ValueError(f"Images are {images.shape}, masks {masks.shape}; one shape is.")
    used = _num_used(masks, len(images))
    if used < MIN_MASKS:
        raise UsageError(
            f"The segmenter has {used} masks to learn from; {MIN_MASKS} are expected. Give masks "
            "made by hand (segmenter.masks), or train without a segmenter (segmenter.width = 0)."
        )
    fit = _Fit(settings, torch.device(device), len(images))
    if first_weights is not None:
        fit.network.load_state_dict(first_weights, strict=False)
    first = fit.resume(state_file)
    for epoch in range(first, settings.epochs):
        report(epoch, fit.epoch(epoch, images, masks, augmentation))
        fit.keep(state_file, epoch)
    return fit.network.cpu().eval().requires_grad_(False)


def _num_used(masks: SetOfMasks, count: int) -> int:
    """Return how many masks hold anything, as far as it takes to know that they are enough."""
    used = 0
    for start in range(0, count, PART):
        part_BSS = masks[np.arange(start, min(start + PART, count))]
        used += int(part_BSS.any(axis=(1, 2)).sum())
        if used >= MIN_MASKS:
            break
    return used


class _Fit:
    """A network with its optimiser, epoch by epoch."""

    def __init__(self, settings: SegmenterSettings, device: torch.device, count: int) -> None:
        self.settings, self.device = settings, device
        self.count = count
        self.batch_size = min(settings.batch_size, count)
        self.steps = count // self.batch_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = build(settings.spec(), 1)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def resume(self, file: Path | None) -> int:
        """Take the kept state, if there is one; return the epoch to go on with."""
        if file is None or not file.is_file():
            return 0
        data = io.BytesIO(file.read_bytes())
        state = torch.load(data, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        return int(state["epoch"]) + 1

    def keep(self, file: Path | None, epoch: int) -> None:
        """Write the state after an epoch, whole or not at all."""
        if file is None:
            return
        network, optimiser = self.network.state_dict(), self.optimiser.state_dict()
        with whole_file(file) as stream:
            torch.save({"epoch": epoch, "network": network, "optimiser": optimiser}, stream)

    def epoch(
        self, epoch: int, images: Pictures, masks: SetOfMasks, augmentation: Augmentation
    ) -> float:
        """Make one pass; return its mean loss."""
        self.network.train()
        seed = self.settings.seed * 1_000_003 + epoch
        generator = torch.Generator(self.device).manual_seed(seed)
        total = torch.zeros((), device=self.device)
        for step, (batch_B, images_BSS) in enumerate(read_batches(images, self._batches(seed))):
            self._set_rate((epoch * self.steps + step) / (self.settings.epochs * self.steps))
            views_B1SS, masks_B1SS = views(
                torch.from_numpy(images_BSS).to(self.device),
                torch.from_numpy(masks[batch_B]).to(self.device),
                augmentation,
                generator,
            )
            logits = self.network(views_B1SS.to(memory_format=torch.channels_last))
            loss = overlap_loss(logits.float(), masks_B1SS)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += loss.detach()
        return float(total) / self.steps

    def _batches(self, seed: int) -> Iterator[Indices]:
        generator = torch.Generator().manual_seed(seed)
        order_N = torch.randperm(self.count, generator=generator).numpy()
        for start in range(0, self.steps * self.batch_size, self.batch_size):
            yield order_N[start : start + self.batch_size]

    def _set_rate(self, done: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def views(
    images_BSS: Tensor, masks_BSS: Tensor, spec: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one random view of each image, and of its mask the same.

    Args:
        images_BSS: uint8.
        masks_BSS: bool.
        spec: How far each change may go; `erase` and `invert` are left out, since a rectangle over
            the implant, or black metal, is not what the mask shows.
        generator: Source of every draw, on the images' device.

    Returns:
        float32 images_B1SS and masks_B1SS within 0..1; masks are soft along their outlines.
    """
    both_B2SS = torch.stack([images_BSS.float() / 255, masks_BSS.float()], dim=1)
    matrices = affine_matrices(spec, generator, len(images_BSS))
    grid = F.affine_grid(matrices, list(both_B2SS.shape), align_corners=False)
    both_B2SS = F.grid_sample(both_B2SS, grid, padding_mode="zeros", align_corners=False)
    images_B1SS, masks_B1SS = both_B2SS[:, :1], both_B2SS[:, 1:]
    images_B1SS = retone(images_B1SS, replace(spec, invert=0.0), generator)
    images_B1SS = degrade(images_B1SS, spec, generator)
    images_B1SS = blur(images_B1SS, spec.blur_px, generator)
    return add_noise(images_B1SS, spec.noise, generator), masks_B1SS


def overlap_loss(logits_B1SS: Tensor, masks_B1SS: Tensor) -> Tensor:
    """Return binary cross-entropy plus 1 - Dice, each image's Dice alike; a scalar."""
    entropy = F.binary_cross_entropy_with_logits(logits_B1SS, masks_B1SS)
    found = torch.sigmoid(logits_B1SS)
    common_B = (found * masks_B1SS).sum(dim=(1, 2, 3))
    total_B = found.sum(dim=(1, 2, 3)) + masks_B1SS.sum(dim=(1, 2, 3))
    return entropy + 1 - ((2 * common_B + 1) / (total_B + 1)).mean()


def segment(
    network: nn.Module, images_NSS: Images, device: str = "cpu", batch_size: int = 32
) -> Masks:
    """Find the implant on preprocessed radiographs, and clean the masks up.

    Args:
        network: As `fit_segmenter` or `weights.load_network` returned it.
        images_NSS: uint8; N may be 0.
        device: As torch names it; the network is moved there.
        batch_size: Images that go through the network at a time.

    Returns:
        bool (N, S, S): the largest one or two objects above one half, without holes.
    """
    network = network.to(device).eval()
    masks_NSS = np.zeros(images_NSS.shape, bool)
    for start in range(0, len(images_NSS), batch_size):
        part = np.ascontiguousarray(images_NSS[start : start + batch_size])
        with torch.inference_mode():
            logits = network(torch.from_numpy(part).to(device)[:, None].float() / 255)
        found = (logits[:, 0] > 0).cpu().numpy()
        for index, mask_SS in enumerate(found):
            masks_NSS[start + index] = clean_up(mask_SS)
    return masks_NSS
