"""Random views of radiographs, made in batches on tensors, on the CPU or the GPU alike.

Every view is one affine warp (pose), a tone curve (exposure), a loss of detail (focus, detector,
rescaling) and a rectangle left out (collimator, markers, text). Strengths are the widest a draw can
be; each draw is independent for each image. The order is that of the apparatus: geometry, tone,
sharpness, noise.

Rescaling by random factors and random blur are there so that the sharpness that an image's native
size leaves tells nothing of its class: archives of one maker's implants are often of one size.

Shapes: B images, C channels (1), H rows, W columns.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.settings import Augmentation

BLUR_TAPS = 9
"""Least length of the blur's kernel in pixels, see `blur_taps`."""


def augment(images_BHW: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw one random view of each image.

    Args:
        images_BHW: uint8, as the dataset holds them.
        spec: How far each change may go.
        generator: Source of every draw, on the images' device; its seed fixes the result.

    Returns:
        float32 images_B1HW within 0..1.
    """
    images_B1HW = images_BHW[:, None].float() / 255
    images_B1HW = warp(images_B1HW, spec, generator)
    images_B1HW = retone(images_B1HW, spec, generator)
    images_B1HW = degrade(images_B1HW, spec, generator)
    images_B1HW = blur(images_B1HW, spec.blur_px, generator)
    images_B1HW = add_noise(images_B1HW, spec.noise, generator)
    return erase(images_B1HW, spec.erase, generator)


def uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """Draw `count` float32 numbers from low to high on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def affine_matrices(spec: Augmentation, generator: torch.Generator, count: int) -> Tensor:
    """Draw the warps: float32 (count, 2, 3), from output to input coordinates within -1..1."""
    angle = uniform(generator, count, -1, 1) * math.radians(spec.rotation_deg)
    zoom = torch.exp2(-uniform(generator, count, -spec.scale, spec.scale))
    stretch = torch.exp2(uniform(generator, count, -spec.aspect, spec.aspect) / 2)
    shear = uniform(generator, count, -spec.shear, spec.shear)
    mirror = 1 - 2 * (uniform(generator, count, 0, 1) < spec.flip).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([mirror * zoom * stretch * cos, mirror * zoom * (shear * cos - sin)], dim=1),
        torch.stack([zoom * sin, zoom / stretch * (cos + shear * sin)], dim=1),
    ]
    shift = uniform(generator, 2 * count, -2 * spec.shift, 2 * spec.shift).view(count, 2, 1)
    return torch.cat([torch.stack(rows, dim=1), shift], dim=2)


def warp(images_B1HW: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Turn, zoom, stretch, shear, shift and mirror; what comes from outside is black."""
    matrices = affine_matrices(spec, generator, len(images_B1HW))
    grid = F.affine_grid(matrices, list(images_B1HW.shape), align_corners=False)
    return F.grid_sample(images_B1HW, grid, padding_mode="zeros", align_corners=False)


def retone(images_B1HW: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Change exposure: gamma, contrast, brightness, a grey ramp, and now and then a negative."""
    count = len(images_B1HW)

    def draw(low: float, high: float) -> Tensor:
        return uniform(generator, count, low, high).view(-1, 1, 1, 1)

    toned = images_B1HW.clamp(1e-4, 1) ** torch.exp2(draw(-spec.gamma, spec.gamma))
    mean = toned.mean(dim=(1, 2, 3), keepdim=True)
    toned = (toned - mean) * torch.exp2(draw(-spec.contrast, spec.contrast)) + mean
    toned = toned + draw(-spec.brightness, spec.brightness)
    toned = toned + draw(0, spec.ramp) * ramps(images_B1HW, draw(0, 2 * math.pi))
    toned = torch.where(draw(0, 1) < spec.invert, 1 - toned, toned)
    return toned.clamp(0, 1)


def ramps(images_B1HW: Tensor, direction_B111: Tensor) -> Tensor:
    """A plane through 0 at each image's centre that rises to at most 0.7 in its direction (rad)."""
    height, width = images_B1HW.shape[-2:]
    rows = torch.linspace(-0.5, 0.5, height, device=images_B1HW.device).view(1, 1, -1, 1)
    columns = torch.linspace(-0.5, 0.5, width, device=images_B1HW.device).view(1, 1, 1, -1)
    return torch.cos(direction_B111) * columns + torch.sin(direction_B111) * rows


def degrade(images_B1HW: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Shrink half of the images by a random factor and bring them back to their size."""
    if spec.resolution == 0:
        return images_B1HW
    height, width = images_B1HW.shape[-2:]
    factors = torch.exp2(-uniform(generator, len(images_B1HW), -spec.resolution, spec.resolution))
    degraded = images_B1HW.clone()
    for index, factor in enumerate(factors.tolist()):
        if factor < 1:
            small = (max(8, round(height * factor)), max(8, round(width * factor)))
            image = images_B1HW[index : index + 1]
            image = F.interpolate(image, small, mode="bilinear", antialias=True)
            degraded[index] = F.interpolate(image, (height, width), mode="bilinear")[0]
    return degraded


def blur_taps(largest_px: float) -> int:
    """Return the length of the blur's kernel: odd, two standard deviations to either side."""
    return max(BLUR_TAPS, 2 * math.ceil(2 * largest_px) + 1)


def blur(images_B1HW: Tensor, largest_px: float, generator: torch.Generator) -> Tensor:
    """Blur each image by a Gaussian of a random standard deviation, 0 to `largest_px`."""
    if largest_px == 0:
        return images_B1HW
    count = len(images_B1HW)
    sigma_B1 = uniform(generator, count, 0.05, max(0.05, largest_px)).view(-1, 1)
    half = blur_taps(largest_px) // 2
    taps = torch.arange(-half, half + 1, device=images_B1HW.device)
    kernel_BT = torch.softmax(-(taps**2) / (2 * sigma_B1**2), dim=1)
    images_1BHW = images_B1HW.transpose(0, 1)
    padded = F.pad(images_1BHW, (half, half, half, half), mode="replicate")
    rows = F.conv2d(padded, kernel_BT.view(count, 1, 1, -1), groups=count)
    return F.conv2d(rows, kernel_BT.view(count, 1, -1, 1), groups=count).transpose(0, 1)


def add_noise(images_B1HW: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of a random standard deviation, 0 to `largest`."""
    if largest == 0:
        return images_B1HW
    sigma = uniform(generator, len(images_B1HW), 0, largest).view(-1, 1, 1, 1)
    noise = torch.randn(images_B1HW.shape, generator=generator, device=images_B1HW.device)
    return (images_B1HW + sigma * noise).clamp(0, 1)


def erase(images_B1HW: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Fill a random rectangle of each image, 0 to `largest` of its area, with one random grey."""
    if largest == 0:
        return images_B1HW
    count, _, height, width = images_B1HW.shape
    area = uniform(generator, count, 0, largest)
    aspect = torch.exp2(uniform(generator, count, -1, 1))
    rows = torch.arange(height, device=images_B1HW.device) / height
    columns = torch.arange(width, device=images_B1HW.device) / width

    def within(positions: Tensor, extent: Tensor) -> Tensor:
        start = uniform(generator, count, 0, 1).view(-1, 1) * (1 - extent.view(-1, 1))
        return (positions >= start) & (positions < start + extent.view(-1, 1))

    in_rows = within(rows, (area / aspect).sqrt().clamp(max=1))
    in_columns = within(columns, (area * aspect).sqrt().clamp(max=1))
    hole_B1HW = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    grey = uniform(generator, count, 0, 1).view(-1, 1, 1, 1)
    return torch.where(hole_B1HW, grey, images_B1HW)
