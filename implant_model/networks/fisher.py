"""Names an implant by its local shapes: upright views, descriptors, Fisher vectors of them.

Descriptors of edges around many points, or places of a pretrained network's maps, each with its
place on the upright implant, are compared with a mixture of Gaussians that was fitted to training
descriptors. How far they lie from each Gaussian's mean, on average, is the embedding (Fisher vector
of first order, Perronnin et al. 2010), and a linear layer on it tells the classes. Everything but
that layer is fitted without labels, so that a few hundred radiographs suffice where a network
learned from scratch tells nothing.

Shapes: B images, S side, V views, N descriptors, R raw length of a descriptor (128), E its reduced
length with its place (66), G Gaussians, F = G x E length of the embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from implant_model.networks.alignment import (
    SIDE_PX,
    STEP_PX,
    UPRIGHT_HW,
    PoseSearch,
    gaussian_blur,
    gradient_field,
    in_image,
    upright,
)
from implant_model.networks.descriptors import (
    CELLS_PX,
    MIN_PRESENCE,
    RAW,
    Descriptors,
    describe,
    even_greys,
    presence_at,
)
from implant_model.networks.lite_trunk import LITE1, LITE2, STRIDE_PX, LiteSize, LiteTrunk
from implant_model.networks.spec import GREY_MEAN, GREY_STD

VIEWS = ((0.0, 1.0), (6.0, 0.94), (-6.0, 1.07))
"""Turn in degrees and zoom of each view of the upright implant; the embedding is their mean."""
REDUCED = 64
GAUSSIANS = 256
PLACE = 3.0
"""How much of a descriptor's spread its place makes, in deviations from one side to the other."""

HEAD_PX = (8, 16, 120, 136)
"""Top, left, bottom and right of the upright view's part that a `LiteTrunk` sees."""
ZOOM = 2
EVENED_PX = 24  # of the enlarged part


class FisherMixture(nn.Module):
    """Gaussians among the descriptors of one kind; all buffers are 0 until they are fitted.

    Attributes:
        centre_R: Mean descriptor.
        basis_RE: Main axes of the descriptors.
        spread: Deviation of a reduced descriptor's number; scales its place.
        means_GE: Of the Gaussians.
        sharpness_GE: One over their deviations.
        shares_G: Their shares.
    """

    centre_R: Tensor
    basis_RE: Tensor
    spread: Tensor
    means_GE: Tensor
    sharpness_GE: Tensor
    shares_G: Tensor

    def __init__(self, raw: int, reduced: int, gaussians: int) -> None:
        super().__init__()
        self.register_buffer("centre_R", torch.zeros(raw))
        self.register_buffer("basis_RE", torch.zeros(raw, reduced))
        self.register_buffer("spread", torch.zeros(1))
        self.register_buffer("means_GE", torch.zeros(gaussians, reduced + 2))
        self.register_buffer("sharpness_GE", torch.ones(gaussians, reduced + 2))
        self.register_buffer("shares_G", torch.full((gaussians,), 1 / gaussians))

    def reduce(self, found: Descriptors) -> Tensor:
        """Return descriptors on their main axes with their places, NE."""
        shape = (found.raw_NR - self.centre_R) @ self.basis_RE
        # A view is half as high again as it is wide.
        place = (
            (found.places_N2 - 0.5) * (PLACE * self.spread) * found.places_N2.new_tensor([1, 1.5])
        )
        return torch.cat((shape, place), dim=1)

    def encode(self, found: Descriptors, shares_N: Tensor | None = None) -> Tensor:
        """Return the Fisher vector of one view, of length one; 0 where nothing was found.

        Args:
            found: Of the view.
            shares_N: Multiplies how much each descriptor counts; None: 1 for all.
        """
        points_NE = self.reduce(found)
        counts_N = found.counts_N if shares_N is None else found.counts_N * shares_N
        belongs_NG = counts_N[:, None] * responsibilities(
            points_NE, self.means_GE, self.sharpness_GE, self.shares_G.log()
        )
        sums_GE = belongs_NG.T @ points_NE - belongs_NG.sum(dim=0)[:, None] * self.means_GE
        vector_F = (sums_GE * self.sharpness_GE / self.shares_G.sqrt()[:, None]).flatten()
        even_F = vector_F / (counts_N.sum() + 1e-3)
        rooted_F = even_F.sign() * torch.sqrt(even_F.abs() + 1e-12)
        return functional.normalize(rooted_F, dim=0)


class EdgeMixture(FisherMixture):
    """Gaussians among the descriptors of edges.

    Attributes:
        evened: 1: the greys that they are of are evened; 0 in packages of version 0.1.0.
    """

    evened: Tensor

    def __init__(self, reduced: int, gaussians: int) -> None:
        super().__init__(RAW, reduced, gaussians)
        self.register_buffer("evened", torch.ones(1))

    def describe(self, view_HW: Tensor, presence_11QQ: Tensor) -> Descriptors:
        """Describe the edges of a view where the implant is now and then."""
        return describe(view_HW, presence_11QQ, bool(self.evened))


class TrunkMixture(FisherMixture):
    """Gaussians among the places of a `LiteTrunk`'s maps.

    The trunk sees the implant's upper part, where manufacturers differ, at twice the size and with
    evened greys. It is not fitted.

    Attributes:
        trunk: Gives the descriptors.
        trunk_mean_R: Mean of each of the maps' channels.
        trunk_scale_R: One over their deviation; descriptors are of length one after it.
    """

    trunk_mean_R: Tensor
    trunk_scale_R: Tensor

    def __init__(self, size: LiteSize, reduced: int, gaussians: int) -> None:
        super().__init__(size.channels, reduced, gaussians)
        self.trunk = LiteTrunk(size)
        self.register_buffer("trunk_mean_R", torch.zeros(size.channels))
        self.register_buffer("trunk_scale_R", torch.ones(size.channels))

    def describe(self, view_HW: Tensor, presence_11QQ: Tensor) -> Descriptors:
        """Describe the places of the maps that the implant covers now and then."""
        maps_RHW = self.maps(view_HW)
        raw_NR = maps_RHW.flatten(1).T
        places_N2 = _places(*maps_RHW.shape[1:]).to(raw_NR)
        counts_N = presence_at(places_N2, presence_11QQ)
        kept_N = counts_N >= MIN_PRESENCE
        even_NR = (raw_NR[kept_N] - self.trunk_mean_R) * self.trunk_scale_R
        return Descriptors(
            functional.normalize(even_NR, dim=1), places_N2[kept_N], counts_N[kept_N]
        )

    def maps(self, view_HW: Tensor) -> Tensor:
        """Return the trunk's last maps of a view's upper part, RHW."""
        top, left, bottom, right = HEAD_PX
        part_11HW = view_HW[None, None, top:bottom, left:right]
        large_1HW = functional.interpolate(part_11HW, scale_factor=ZOOM, mode="bilinear")[0]
        even_1HW = even_greys(large_1HW, EVENED_PX)
        maps_1RHW: Tensor = self.trunk((even_1HW[None] - GREY_MEAN) / GREY_STD)
        return maps_1RHW[0]


def _places(height: int, width: int) -> Tensor:
    """Return column and row of the maps' places in the view, in 0..1, row by row."""
    top, left, bottom, right = HEAD_PX
    rows = (top + (torch.arange(height) + 0.5) / height * (bottom - top)) / UPRIGHT_HW[0]
    columns = (left + (torch.arange(width) + 0.5) / width * (right - left)) / UPRIGHT_HW[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)


@dataclass(frozen=True)
class Kind:
    """One kind of descriptor that a backbone encodes.

    Attributes:
        mixture: Encodes them.
        describe: Describes a view, HW, by where the implant is, 11QQ.
        seen: Views of an image that are described.
        cell_px: That the heat of a descriptor is spread over.
    """

    mixture: FisherMixture
    describe: Callable[[Tensor, Tensor], Descriptors]
    seen: slice
    cell_px: float


class FisherBackbone(nn.Module):
    """Radiograph in, embedding out; all buffers are 0 until `training.fisher.fit_fisher` fits them.

    Attributes:
        num_views: Of each image.
        num_features: F.
        search: Finds the implant.
        presence_11QQ: How often the implant covers a place of the upright view, at its quarter
            size; what it seldom covers counts little.
    """

    num_views: int
    num_features: int
    presence_11QQ: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.search = PoseSearch()
        quarter = tuple(side // STEP_PX for side in UPRIGHT_HW)
        self.register_buffer("presence_11QQ", torch.ones(1, 1, *quarter))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of descriptors, in the order of their parts of the embedding."""
        raise NotImplementedError

    def forward(self, images_B1SS: Tensor) -> Tensor:
        """Return embeddings, BF; each image for itself, so that none depends on another."""
        with torch.autocast(images_B1SS.device.type, enabled=False):
            return torch.stack([self.embed(image[None].float()) for image in images_B1SS])

    def embed(self, image_11SS: Tensor) -> Tensor:
        """Return one image's embedding, F: of each kind the mean over its views."""
        views_VHW = self.views(image_11SS)
        parts = []
        for kind in self.kinds:
            found = [kind.describe(view, self.presence_11QQ) for view in views_VHW[kind.seen]]
            vectors_VF = torch.stack([kind.mixture.encode(each) for each in found])
            parts.append(vectors_VF.mean(dim=0))
        return torch.cat(parts)

    def views(self, image_11SS: Tensor) -> Tensor:
        """Return the views of the upright implant, VHW."""
        return self._posed(resized(image_11SS))[0]

    def _posed(self, image_11SS: Tensor) -> tuple[Tensor, Tensor]:
        return upright_views(image_11SS, self.search(gradient_field(image_11SS)), self.num_views)

    def evidence(self, image_11SS: Tensor, weights_F: Tensor) -> Tensor:
        """Return where on an image that speaks for a class which lifts its logit, SS.

        Each descriptor's part is the logit's gradient by how much the descriptor counts. Parts are
        laid on the image where the descriptors lie, and softened by a descriptor's cell.

        Args:
            image_11SS: One image.
            weights_F: The linear layer's weights of the class.
        """
        views_VHW, poses_V5 = self._posed(resized(image_11SS))
        sizes = [kind.mixture.means_GE.numel() for kind in self.kinds]
        heat_11QQ = torch.zeros(())
        for kind, part_F in zip(self.kinds, torch.split(weights_F, sizes), strict=True):
            found = [kind.describe(view, self.presence_11QQ) for view in views_VHW[kind.seen]]
            heat_11QQ = heat_11QQ + _heat(kind, found, poses_V5[kind.seen], part_F)
        side = image_11SS.shape[-1]
        return functional.interpolate(heat_11QQ, (side, side), mode="bilinear")[0, 0]


def _heat(kind: Kind, found_V: list[Descriptors], poses_V5: Tensor, weights_F: Tensor) -> Tensor:
    """Return what the descriptors of one kind add to a logit, 11QQ; see `evidence`."""
    quarter = SIDE_PX // STEP_PX
    heat = torch.zeros(quarter * quarter, device=poses_V5.device)
    for found, pose_5 in zip(found_V, poses_V5, strict=True):
        shares_N = torch.ones(len(found.raw_NR), device=heat.device, requires_grad=True)
        with torch.enable_grad():
            logit = kind.mixture.encode(found, shares_N) @ weights_F / len(found_V)
        (parts_N,) = torch.autograd.grad(logit, shares_N)
        size = found.places_N2.new_tensor(UPRIGHT_HW[::-1])
        places_N2 = in_image(found.places_N2 * size, pose_5[None])[0] / STEP_PX
        column_N, row_N = places_N2.long().clamp(0, quarter - 1).unbind(1)
        heat.index_add_(0, row_N * quarter + column_N, parts_N)
    return gaussian_blur(heat.view(1, 1, quarter, quarter), kind.cell_px / STEP_PX)


class EdgeFisherBackbone(EdgeMixture, FisherBackbone):
    """By descriptors of edges; is the mixture of them."""

    num_views = len(VIEWS)
    num_features = GAUSSIANS * (REDUCED + 2)

    def __init__(self) -> None:
        super().__init__(REDUCED, GAUSSIANS)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Edges, in all views."""
        return (Kind(self, self.describe, slice(None), float(CELLS_PX[1])),)


class LiteFisherBackbone(FisherBackbone):
    """By places of the maps of two pretrained networks, each of which sees a view of its own.

    They err on different images: on 477 shoulders each alone was right in 0.82, both in 0.84.

    Attributes:
        lite1: Of the first view.
        lite2: Of the second.
    """

    num_views = 2
    num_features = 64 * (48 + 2) + 128 * (64 + 2)

    def __init__(self) -> None:
        super().__init__()
        self.lite1 = TrunkMixture(LITE1, 48, 64)
        self.lite2 = TrunkMixture(LITE2, 64, 128)

    @property
    def mixtures(self) -> tuple[TrunkMixture, ...]:
        """Both, in the order of their parts of the embedding."""
        return self.lite1, self.lite2

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Places of each network's maps."""
        return tuple(
            Kind(mixture, mixture.describe, slice(place, place + 1), STRIDE_PX / ZOOM)
            for place, mixture in enumerate(self.mixtures)
        )


def resized(images_B1HW: Tensor) -> Tensor:
    """Return the images at the side that the search and the views are made for."""
    if images_B1HW.shape[-1] == SIDE_PX:
        return images_B1HW
    size = (SIDE_PX, SIDE_PX)
    return functional.interpolate(images_B1HW, size, mode="bilinear", antialias=True)


def upright_views(
    image_11SS: Tensor, pose_15: Tensor, views: int = len(VIEWS)
) -> tuple[Tensor, Tensor]:
    """Return the first views, VHW, and their poses, V5, around the one that was found."""
    turns = [torch.deg2rad(pose_15.new_tensor(turn)) for turn, _ in VIEWS[:views]]
    poses_V5 = pose_15.repeat(views, 1)
    poses_V5[:, 2] += torch.stack(turns)
    poses_V5[:, 1] *= pose_15.new_tensor([zoom for _, zoom in VIEWS[:views]])
    return upright(image_11SS.expand(views, -1, -1, -1), poses_V5)[:, 0], poses_V5


def responsibilities(
    points_NE: Tensor, means_GE: Tensor, sharpness_GE: Tensor, logs_G: Tensor
) -> Tensor:
    """Return the share of each Gaussian in each point, NG.

    Args:
        points_NE: Reduced descriptors.
        means_GE: Of the Gaussians, whose axes are independent.
        sharpness_GE: One over their deviations.
        logs_G: Logs of their shares.
    """
    inverse_GE = sharpness_GE**2
    fixed_G = logs_G + sharpness_GE.log().sum(dim=1) - (means_GE**2 * inverse_GE).sum(dim=1) / 2
    likelihood_NG = points_NE @ (means_GE * inverse_GE).T - (points_NE**2) @ inverse_GE.T / 2
    return torch.softmax(likelihood_NG + fixed_G, dim=1)
