"""The U-Net that cuts the implant out: its views, its loss and its masks.

It is OrthoNet's first stage (Patel et al. 2021).

Views are turned, zoomed, sheared, shifted and mirrored together with their masks, and toned with
ramps of brightness, so that the network learns the implant's edge and not a level of grey. The loss
is binary cross-entropy plus 1 - Dice of the batch: the one settles each pixel, the other counts a
small implant as much as a large one (Milletari et al. 2016).

`training.fit.loop` fits it, on any number of workers.

Shapes: N images, B batch, S side.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.fit.augment import add_noise, affine_matrices, blur, degrade, retone
from training.masks.objects import clean_up
from training.settings import Augmentation

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]


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
        network: As `weights.load_network` returned it.
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
