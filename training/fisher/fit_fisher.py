"""Fits a `FisherBackbone` and its linear layer to a training part, in closed steps and no epochs.

Masks give the template, the template the poses, poses the views, views the descriptors, these the
mixture, all without labels; then a multinomial logistic regression on the embeddings of all views
gives the linear layer, by L-BFGS in the span of the training embeddings.

Since only that layer sees labels, the training part can judge itself: the layer is fitted anew
without each fold of it, and that fold's images get their logits from there.

Shapes: N images, V views of each that are fitted to, M = N x V, S side, K classes, F length of the
embedding, H x W the upright view.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from implant_model.errors import UsageError
from implant_model.networks.build import FISHER_BACKBONES
from implant_model.networks.descriptors import Descriptors
from implant_model.networks.fisher import (
    VIEWS,
    FisherBackbone,
    FisherMixture,
    Kind,
    LiteFisherBackbone,
    TrunkMixture,
    resized,
    upright_views,
)
from implant_model.networks.spec import FISHER
from training.fisher.canonical_pose import at_side, find_poses, learn_template, mean_presence
from training.fisher.gmm import fit_mixture, main_axes

RECIPE = 2
"""Of what a network is fitted by; 1 was that of 0.1.0. A training that is resumed takes no network
of another one for its own."""
MAX_IMAGES = 2048
"""That a network is fitted to: some 4 GB, and the time of each fold that calibrates, a minute at
most, grows with the third power."""
SAMPLE = 100
"""Descriptors of each image that axes and mixture are fitted to."""
CHANNEL_IMAGES = 100
"""Images that the deviations of a trunk's channels are taken from, at most."""
DECAY = 5e-6
"""Weight of the squared weights against the mean loss; within a factor of 10 it hardly matters."""
PASSES = 100

State = dict[str, Tensor]


@dataclass(frozen=True)
class FisherTask:
    """What is fitted to.

    Attributes:
        images_NSS: Preprocessed, uint8.
        labels_N: Their classes.
        masks_NSS: Where the implant lies.
        usable_N: Which of the masks teach.
        num_classes: K.
        class_balance: 0 counts images alike, 1 classes alike, as `FitSettings.class_balance`.
        seed: Of the samples and the mixture's start.
        folds_N: Fold of each image by which the training part judges itself; None for no folds.
        architecture: One of `spec.FISHERS`.
        trunks: Weights of each trunk of a `LiteFisherBackbone`, see `lite_trunk.trunk_state`; none
            for another backbone.
    """

    images_NSS: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    masks_NSS: NDArray[np.bool_]
    usable_N: NDArray[np.bool_]
    num_classes: int
    class_balance: float
    seed: int
    folds_N: NDArray[np.int64] | None = None
    architecture: str = FISHER
    trunks: tuple[State, ...] = ()


@dataclass(frozen=True)
class FisherFit:
    """What a fit gives.

    Attributes:
        state: Of an `ImplantClassifier` of this architecture.
        held_out_NK: Logits of each image by a linear layer that was fitted without its fold,
            float32; no rows where the task has no folds.
    """

    state: State
    held_out_NK: NDArray[np.float32]


@torch.no_grad()
def fit_fisher(task: FisherTask) -> FisherFit:
    """Fit everything.

    Raises:
        UsageError: No usable mask shows an implant's head, or hardly an image shows anything.
    """
    images_N1SS = _at_side(task.images_NSS)
    backbone = FISHER_BACKBONES[task.architecture]()
    if isinstance(backbone, LiteFisherBackbone):
        _fill_trunks(backbone, task.trunks)
    posed = _Posed(images_N1SS, _fit_search(backbone, images_N1SS, task))
    if isinstance(backbone, LiteFisherBackbone):
        for mixture in backbone.mixtures:
            _fit_channels(mixture, posed)
    presence_11QQ = backbone.presence_11QQ
    parts = [_fit_kind(kind, posed, presence_11QQ, task.seed) for kind in backbone.kinds]
    vectors_MF = torch.cat(parts, dim=2).flatten(0, 1)
    seen = [
        part_NVF[:, kind.seen].mean(dim=1)
        for kind, part_NVF in zip(backbone.kinds, parts, strict=True)
    ]
    labels_M = torch.from_numpy(task.labels_N).repeat_interleave(len(VIEWS))
    products_MM = vectors_MF @ vectors_MF.T
    shares_MK, bias_K = fit_shares(products_MM, labels_M, task.num_classes, task.class_balance)
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {"head.weight": shares_MK.T @ vectors_MF, "head.bias": bias_K}
    products_NM = torch.cat(seen, dim=1) @ vectors_MF.T
    return FisherFit(state, _held_out(products_NM, products_MM, labels_M, task))


def _at_side(images_NSS: NDArray[np.uint8]) -> Tensor:
    """Return the images in 0..1, one after the other: at a larger side they are many times that."""
    images = (torch.from_numpy(image_SS)[None, None] for image_SS in images_NSS)
    return torch.cat([resized(image_11SS.float() / 255) for image_11SS in images])


@dataclass(frozen=True)
class _Posed:
    """Images and the poses of their implants; views are made anew where they are asked for."""

    images_N1SS: Tensor
    poses_N5: Tensor

    def __len__(self) -> int:
        return len(self.images_N1SS)

    def views(self, index: int) -> Tensor:
        """Return an image's views, VHW."""
        one = slice(index, index + 1)
        return upright_views(self.images_N1SS[one], self.poses_N5[one])[0]


def _fit_kind(kind: Kind, posed: _Posed, presence_11QQ: Tensor, seed: int) -> Tensor:
    """Fit the Gaussians of one kind of descriptor; return the vectors of all views, NVF.

    Also of those that the kind does not see later: more to fit to costs a classifier nothing.
    Descriptors are made twice, since all of them at once would be a megabyte for each image.
    """
    generator = torch.Generator().manual_seed(seed)
    indices = range(len(posed))
    firsts = (kind.describe(posed.views(index)[0], presence_11QQ) for index in indices)
    _fit_mixture(kind.mixture, [_some(found, generator) for found in firsts], seed)
    vectors = [
        torch.stack(
            [kind.mixture.encode(kind.describe(view, presence_11QQ)) for view in posed.views(index)]
        )
        for index in indices
    ]
    return torch.stack(vectors)


def _held_out(
    products_NM: Tensor, products_MM: Tensor, labels_M: Tensor, task: FisherTask
) -> NDArray[np.float32]:
    """Logits of the embeddings as the network makes them, by layers without the fold."""
    if task.folds_N is None:
        return np.empty((0, task.num_classes), np.float32)
    folds_N = torch.from_numpy(task.folds_N)
    folds_M = folds_N.repeat_interleave(len(labels_M) // len(folds_N))
    logits_NK = torch.zeros(len(folds_N), task.num_classes)
    for fold in np.unique(task.folds_N):
        out_N, in_M = (folds_N == fold).nonzero()[:, 0], (folds_M != fold).nonzero()[:, 0]
        inside = products_MM[in_M[:, None], in_M]
        shares, bias_K = fit_shares(inside, labels_M[in_M], task.num_classes, task.class_balance)
        logits_NK[out_N] = products_NM[out_N[:, None], in_M] @ shares + bias_K
    held_out_NK: NDArray[np.float32] = logits_NK.numpy()
    return held_out_NK


def _fill_trunks(backbone: LiteFisherBackbone, trunks: tuple[State, ...]) -> None:
    """Give trunks their weights as they are packed, which descriptors are of."""
    backbone.eval()
    for mixture, state in zip(backbone.mixtures, trunks, strict=True):
        halved = {name: tensor.half().float() for name, tensor in state.items() if tensor.ndim > 1}
        mixture.trunk.load_state_dict(state | halved)
        mixture.trunk.to(memory_format=torch.channels_last)  # a quarter faster on CPUs


def _fit_channels(mixture: TrunkMixture, posed: _Posed) -> None:
    """Set mean and deviation of the maps' channels, by the first views of some of the images."""
    step = -(-len(posed) // CHANNEL_IMAGES)
    maps = [mixture.maps(posed.views(index)[0]).flatten(1) for index in range(0, len(posed), step)]
    maps_RN = torch.cat(maps, dim=1)
    mixture.trunk_mean_R.copy_(maps_RN.mean(dim=1))
    mixture.trunk_scale_R.copy_(1 / (maps_RN.std(dim=1) + 1e-5))


def _fit_search(backbone: FisherBackbone, images_N1SS: Tensor, task: FisherTask) -> Tensor:
    masks_MSS = at_side(task.masks_NSS[task.usable_N])
    usable_N = torch.from_numpy(task.usable_N)
    template_2HW = learn_template(images_N1SS[usable_N], masks_MSS)
    backbone.search.template_2HW.copy_(template_2HW.half())  # as it is packed: poses are the same
    poses_N5 = find_poses(backbone.search, images_N1SS)
    backbone.presence_11QQ.copy_(mean_presence(masks_MSS, poses_N5[usable_N]).half())
    return poses_N5


def _some(found: Descriptors, generator: torch.Generator) -> Descriptors:
    """Draw from one view's descriptors what the mixture is fitted to, rather on the implant."""
    count = min(SAMPLE, len(found.counts_N))
    if not count:
        return found
    chosen = torch.multinomial(found.counts_N, count, generator=generator)
    return Descriptors(*(column[chosen] for column in found))


def _fit_mixture(mixture: FisherMixture, samples: list[Descriptors], seed: int) -> None:
    """Fit axes and Gaussians."""
    sample = Descriptors(*(torch.cat(column) for column in zip(*samples, strict=True)))
    gaussians, numbers = mixture.means_GE.shape
    if len(sample.raw_NR) < gaussians:
        raise UsageError(
            f"The {len(samples):,} images of the training part give {len(sample.raw_NR)} "
            f"descriptors, and {gaussians} or more are needed: they are too few, or hardly show "
            "anything where the masks have the implants. Add images, or take another architecture."
        )
    centre_R, basis_RE, variances_E = main_axes(sample.raw_NR, numbers - 2)  # two are its place
    mixture.centre_R.copy_(centre_R)
    mixture.basis_RE.copy_(basis_RE)
    mixture.spread.copy_(variances_E.mean().sqrt())
    fitted = fit_mixture(mixture.reduce(sample), gaussians, seed)
    mixture.means_GE.copy_(fitted.means_GE)
    mixture.sharpness_GE.copy_(fitted.sharpness_GE)
    mixture.shares_G.copy_(fitted.shares_G)


def fit_shares(
    products_MM: Tensor, labels_M: Tensor, num_classes: int, class_balance: float
) -> tuple[Tensor, Tensor]:
    """Fit a multinomial logistic regression with squared weights held small.

    Works with the M coordinates of the vectors in the space that they span, which loses nothing.

    Args:
        products_MM: Inner products of the vectors.
        labels_M: Their classes.
        num_classes: K.
        class_balance: See `FisherTask`.

    Returns:
        The share of each vector in each class's weights (M, K), and offsets (K,), float32.
    """
    values, axes = torch.linalg.eigh(products_MM.double())
    kept = values > 1e-6
    roots, axes = values[kept].sqrt(), axes[:, kept]
    weights_CK = torch.zeros(int(kept.sum()), num_classes, dtype=torch.double, requires_grad=True)
    bias_K = torch.zeros(num_classes, dtype=torch.double, requires_grad=True)
    counts_K = torch.bincount(labels_M, minlength=num_classes).double()
    share_M = ((counts_K.mean() / counts_K) ** class_balance)[labels_M]
    share_M = share_M / share_M.sum()
    optimiser = torch.optim.LBFGS(
        [weights_CK, bias_K], max_iter=PASSES, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits_MK = (axes * roots) @ weights_CK + bias_K
        losses_M = functional.cross_entropy(logits_MK, labels_M, reduction="none")
        total = (losses_M * share_M).sum() + DECAY / 2 * weights_CK.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    shares_MK = (axes / roots) @ weights_CK.detach()
    return shares_MK.float(), bias_K.detach().float()
