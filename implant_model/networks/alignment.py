"""Finds where a long implant lies and how it is turned, and brings it upright at one size.

What is compared is the direction of edges, evened so that a faint edge counts like a strong one. A
template of it (learned, `training.fisher`) is laid over the radiograph in every turn, in six sizes
and mirrored: first over all places at an eighth of the size, by correlation in the frequency
domain, then about the best of these at a quarter. No layer learns such poses from a few hundred
radiographs; a search needs no radiographs at all but for the template.

Shapes: B images, S side (224), Q its quarter (56), E its eighth (28), H x W the template (46 x 36),
P poses, N poses tried in each place, D the side of the transform (56).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE_PX = 224
STEP_PX = 4
QUARTER = SIDE_PX // STEP_PX
TEMPLATE_HW = (46, 36)
HEAD_ROW, HEAD_COLUMN = 14.0, 17.5
"""Middle of the implant's head in the template, whose head has a radius of 6 (24 px)."""
UPRIGHT_HW = (224, 144)
"""The upright picture; its head lies 4 times as far from its corner as the template's."""
SCALES = (0.5, 0.62, 0.78, 0.97, 1.2, 1.5)
TURNS = 32
MARGIN = 1  # places at the rim of the eighth picture that are not searched
_TRANSFORM = QUARTER  # in eighths: no template reaches further than one picture from its head
_BEST = 8  # poses of the first search that the second looks about
_AROUND = (-1.0, 0.0, 1.0)
_TURN_STEP = math.pi / TURNS / 1.5


def gradient_field(images_B1SS: Tensor) -> Tensor:
    """Return evened directions of edges, B2QQ: to the right and down, together 1 at most.

    Args:
        images_B1SS: In 0..1; black is taken for padding, whose edges do not count.
    """
    coarse = functional.avg_pool2d(images_B1SS, STEP_PX)
    padding = functional.max_pool2d((coarse < 0.02).to(coarse.dtype), 5, 1, 2)
    smooth = functional.avg_pool2d(gaussian_blur(images_B1SS, 2.0), STEP_PX)
    framed = functional.pad(torch.log(smooth + 0.1), (1, 1, 1, 1), mode="replicate")
    right = framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]
    down = framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1]
    strength = torch.sqrt(right * right + down * down) * (1 - padding)
    evened = (1 - padding) / (strength + gaussian_blur(strength, 5.0) + 0.02)
    return torch.cat((right * evened, down * evened), dim=1)


def gaussian_blur(maps_BCHW: Tensor, sigma_px: float) -> Tensor:
    """Blur each channel; beyond the rim lies the rim's value."""
    channels, reach = maps_BCHW.shape[1], max(1, int(3 * sigma_px + 0.5))
    offsets = torch.arange(-reach, reach + 1, device=maps_BCHW.device, dtype=maps_BCHW.dtype)
    taps = torch.exp(-(offsets**2) / (2 * sigma_px**2))
    taps = taps / taps.sum()
    wide = functional.pad(maps_BCHW, (reach, reach, 0, 0), mode="replicate")
    rows = functional.conv2d(
        wide, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels
    )
    tall = functional.pad(rows, (0, 0, reach, reach), mode="replicate")
    return functional.conv2d(
        tall, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels
    )


def upright_fields(fields_P2QQ: Tensor, poses_P5: Tensor) -> Tensor:
    """Return what a template sees of each field under each pose, P2HW."""
    height, width = TEMPLATE_HW
    device = fields_P2QQ.device
    rows_HW = (torch.arange(height, device=device) - HEAD_ROW).view(-1, 1).expand(height, width)
    columns_HW = (torch.arange(width, device=device) - HEAD_COLUMN).expand(height, width)
    mirrored, scale, angle, x, y = (part.view(-1, 1, 1) for part in poses_P5.unbind(1))
    sign, cos, sin = 1 - 2 * mirrored, torch.cos(angle), torch.sin(angle)
    across = sign * columns_HW
    places = (
        x + scale * (cos * across - sin * rows_HW),
        y + scale * (sin * across + cos * rows_HW),
    )
    grid = torch.stack(places, dim=-1) / (QUARTER - 1) * 2 - 1
    right, down = functional.grid_sample(fields_P2QQ, grid, align_corners=True).unbind(1)
    return torch.stack((sign * (cos * right + sin * down), -sin * right + cos * down), dim=1)


def upright(images_P1SS: Tensor, poses_P5: Tensor) -> Tensor:
    """Return the pictures that show each pose's implant upright, P1HW of `UPRIGHT_HW`."""
    height, width = UPRIGHT_HW
    rows = torch.arange(height, device=images_P1SS.device).view(-1, 1).expand(height, width)
    columns = torch.arange(width, device=images_P1SS.device).expand(height, width)
    places_PHW2 = in_image(torch.stack((columns, rows), dim=-1), poses_P5)
    grid = (places_PHW2 + 0.5) / SIDE_PX * 2 - 1
    return functional.grid_sample(images_P1SS, grid, align_corners=False)


def in_image(points_2: Tensor, poses_P5: Tensor) -> Tensor:
    """Return where points of the upright picture lie in the image.

    Args:
        points_2: Column and row in pixels, ...2.
        poses_P5: One or more poses.

    Returns:
        Column and row in pixels, P...2.
    """
    head = points_2.new_tensor(
        [HEAD_COLUMN * STEP_PX + STEP_PX / 2, HEAD_ROW * STEP_PX], dtype=torch.float32
    )
    across, down = (points_2 - head)[None].unbind(-1)
    shape = (-1, *(1 for _ in across.shape[1:]))
    mirrored, scale, angle, x, y = (part.view(shape) for part in poses_P5.unbind(1))
    cos, sin, across = torch.cos(angle), torch.sin(angle), (1 - 2 * mirrored) * across
    half = (STEP_PX - 1) / 2  # a quarter pixel's middle lies between its four
    columns = STEP_PX * x + half + scale * (cos * across - sin * down)
    return torch.stack((columns, STEP_PX * y + half + scale * (sin * across + cos * down)), dim=-1)


class PoseSearch(nn.Module):
    """Finds each radiograph's implant.

    Attributes:
        template_2HW: The field of an upright implant; a buffer, 0 until it is learned.
    """

    template_2HW: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("template_2HW", torch.zeros(2, *TEMPLATE_HW))
        self._bank: tuple[Tensor, Tensor, Tensor] | None = None  # template, its spectra, poses

    def forward(self, fields_B2QQ: Tensor) -> Tensor:
        """Return poses, B5: mirrored (0 or 1), scale, turn in rad, column and row in quarters."""
        return torch.stack([self._best(field_2QQ) for field_2QQ in fields_B2QQ])

    def _best(self, field_2QQ: Tensor) -> Tensor:
        poses_P5 = nearby(self._coarse(field_2QQ))
        seen_P2HW = upright_fields(field_2QQ.expand(len(poses_P5), -1, -1, -1), poses_P5)
        # A template of scale s covers s x s times the picture and has s times the length.
        match_P = (seen_P2HW * self.template_2HW).sum(dim=(1, 2, 3)) * poses_P5[:, 1]
        return poses_P5[match_P.argmax()]

    def _coarse(self, field_2QQ: Tensor) -> Tensor:
        """Return the best poses at an eighth of the size, P5, each at its best place."""
        spectra_N2DD, poses_N3 = self._spectra()
        field_2EE = functional.avg_pool2d(field_2QQ, 2)
        spectrum_2DD = torch.fft.rfft2(field_2EE, s=(_TRANSFORM, _TRANSFORM))
        product_NDD = spectra_N2DD[:, 0] * spectrum_2DD[0] + spectra_N2DD[:, 1] * spectrum_2DD[1]
        inner = slice(MARGIN, QUARTER // 2 - MARGIN)
        rows = torch.fft.ifft(product_NDD, dim=1)[:, inner]
        match_Nee = torch.fft.irfft(rows, n=_TRANSFORM, dim=2)[:, :, inner]
        most_N, places_N = match_Nee.flatten(1).max(dim=1)
        chosen_P = most_N.topk(_BEST).indices
        side = match_Nee.shape[2]
        columns_P = 2.0 * (places_N[chosen_P] % side + MARGIN) + 0.5
        rows_P = 2.0 * (places_N[chosen_P] // side + MARGIN) + 0.5
        return torch.cat((poses_N3[chosen_P], torch.stack((columns_P, rows_P), dim=1)), dim=1)

    def _spectra(self) -> tuple[Tensor, Tensor]:
        """Return the template's conjugate spectra in all poses, made anew where it has changed."""
        kept = self._bank
        template = self.template_2HW.float()
        if kept is None or kept[0].device != template.device or not kept[0].equal(template):
            kept = self._bank = (template.clone(), *template_bank(template))
        return kept[1], kept[2]


def nearby(poses_P5: Tensor) -> Tensor:
    """Return poses about the given ones, a third of a turn's step and one quarter pixel away."""
    steps = [
        [0.0, 0.0, turn * _TURN_STEP, column, row]
        for turn in _AROUND
        for column in _AROUND
        for row in _AROUND
    ]
    return (poses_P5[:, None] + poses_P5.new_tensor(steps)).flatten(0, 1)


def template_bank(template_2HW: Tensor) -> tuple[Tensor, Tensor]:
    """Lay a template in all poses around the origin, at an eighth of the picture's size.

    Returns:
        Conjugate spectra, complex (N, 2, D, D / 2 + 1), of templates of length one, and the poses
        (N, 3): mirrored, scale, turn.
    """
    device, half = template_2HW.device, _TRANSFORM // 2
    offsets_D = (torch.arange(_TRANSFORM, device=device) + half) % _TRANSFORM - half
    rows_DD, columns_DD = torch.meshgrid(2.0 * offsets_D, 2.0 * offsets_D, indexing="ij")
    spectra, poses = [], []
    smooth_2HW = gaussian_blur(template_2HW[None], 0.7)[0]
    for mirrored in (0.0, 1.0):
        for scale in SCALES:
            for turn in range(TURNS):
                pose = mirrored, scale, 2 * math.pi * turn / TURNS
                spectra.append(_spectrum(smooth_2HW, rows_DD, columns_DD, *pose))
                poses.append(pose)
    return torch.stack(spectra), torch.tensor(poses, device=device)


def _spectrum(
    template_2HW: Tensor,
    rows_DD: Tensor,
    columns_DD: Tensor,
    mirrored: float,
    scale: float,
    angle: float,
) -> Tensor:
    height, width = TEMPLATE_HW
    sign, cos, sin = 1 - 2 * mirrored, math.cos(angle), math.sin(angle)
    across = sign * (cos * columns_DD + sin * rows_DD) / scale + HEAD_COLUMN
    along = (cos * rows_DD - sin * columns_DD) / scale + HEAD_ROW
    grid = torch.stack((across / (width - 1) * 2 - 1, along / (height - 1) * 2 - 1), dim=-1)
    right, down = functional.grid_sample(template_2HW[None], grid[None], align_corners=True)[0]
    right = sign * right
    laid = torch.stack((cos * right - sin * down, sin * right + cos * down))
    spectrum: Tensor = torch.fft.rfft2(laid / (laid.norm() + 1e-6)).conj().resolve_conj()
    return spectrum
