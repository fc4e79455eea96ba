"""Rows of a last layer for new implants, from the mean embeddings of a few images of each.

A new implant's row is a linear discriminant (Fisher 1936): the way from the middle of the known
implants to the new one's mean embedding, the prototype (Snell et al. 2017), in the covariance that
the package's novelty reference holds. No covariance is estimated from a few images. Known rows stay
as they are (after Qi et al. 2018, who imprint rows), so the networks, and OpenVINO's conversion of
them, stay, too. What scores become logits by, one scale and one offset for all new implants, is
fitted to the new images, each scored by prototypes that were made without its group, against points
that are drawn around the known implants' means: a package holds no radiograph of them.

Letters: N images, G groups, C known implants, J new ones, M networks, F features of one network (of
all of them side by side in the novelty reference), K axes, P drawn points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from implant_model.calibration import softmax
from implant_model.networks.build import Ensemble, ImplantClassifier
from implant_model.novelty import NoveltyReference
from training.data.shards import Pictures, in_parts

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
BATCH: Final = 16
MAX_POINTS: Final = 4096
POINTS_EACH: Final = 64
FACTORS: Final = tuple(2.0 ** (step / 2) for step in range(-6, 5))
"""Of the scale at which prototypes of the known implants give the known logits; others are not
looked for, so that images that are all named right do not make a row sure of everything."""


@dataclass(frozen=True)
class Embedded:
    """Images as the networks see them.

    Attributes:
        raw: Of each network its embeddings, NF, as its head takes them.
        labels_N: Of each image, C known implants first, the new ones behind.
        groups_N: Images of one patient, or near duplicates, have one number.
    """

    raw: Sequence[Floats]
    labels_N: Indices
    groups_N: Indices

    @property
    def features_NF(self) -> Floats:
        """Return what `Ensemble` gives: each embedding of length one, side by side."""
        return np.concatenate([unit(raw_NF) for raw_NF in self.raw], axis=1)

    def at(self, chosen_N: NDArray[np.bool_]) -> "Embedded":
        """Return the images that are chosen."""
        raw = [raw_NF[chosen_N] for raw_NF in self.raw]
        return Embedded(raw, self.labels_N[chosen_N], self.groups_N[chosen_N])


@dataclass(frozen=True)
class Enrolment:
    """New implants in a package.

    Attributes:
        reference: The novelty reference with the new implants' centres behind the known ones.
        logs_NC: Of the new images by rows that were made without their group, as `Ensemble` gives.
        novelty_N: Of the new images, from centres that were made without their group.
        drawn_logs_PC: Of points around the known implants, by the final rows.
    """

    reference: NoveltyReference
    logs_NC: Floats
    novelty_N: Floats
    drawn_logs_PC: Floats


def unit(vectors_NF: Floats) -> Floats:
    """Return vectors of length one."""
    lengths_N1 = np.linalg.norm(vectors_NF, axis=1, keepdims=True)
    return np.asarray(vectors_NF / np.maximum(lengths_N1, 1e-12), np.float64)


@torch.inference_mode()
def embed(networks: Ensemble, images: Pictures, positions_N: Indices) -> list[Floats]:
    """Return the embeddings of each network, NF, of images at some positions.

    Args:
        networks: In evaluation mode, on the CPU.
        images: Preprocessed.
        positions_N: Which.
    """
    parts = [[torch.zeros(0, network.num_features) for network in networks.members]]
    for part_BSS in in_parts(images, positions_N):
        for start in range(0, len(part_BSS), BATCH):
            batch_BSS = torch.from_numpy(np.ascontiguousarray(part_BSS[start : start + BATCH]))
            parts.append(networks.embeddings(batch_BSS[:, None].float() / 255))
    return [
        np.concatenate([part[place].numpy() for part in parts]).astype(np.float64)
        for place in range(len(networks.members))
    ]


def enrol_implants(
    networks: Ensemble, reference: NoveltyReference, temperature: float, images: Embedded
) -> Enrolment:
    """Give each network of a package rows for new implants; the networks are changed in place.

    Args:
        networks: Of the package, with heads for C implants.
        reference: Of the package.
        temperature: Of the package.
        images: Of new implants alone; of each at least two groups.
    """
    num_known = len(reference.centres_CF)
    labels_N = images.labels_N - num_known
    drawn_PF, drawn_labels_P = draw_known(reference, images.features_NF)
    splits = np.cumsum([network.num_features for network in networks.members])[:-1]
    points = np.split(drawn_PF, splits, axis=1)
    centres = np.split(_known_centres(reference, images.features_NF), splits, axis=1)
    axes = np.split(reference.within.axes_KF.astype(np.float64), splits, axis=1)
    held_out, drawn = [], []
    for network, raw_NF, points_PF, centres_CF, axes_KF in zip(
        networks.members, images.raw, points, centres, axes, strict=True
    ):
        length = float(np.linalg.norm(raw_NF, axis=1).mean())
        space = Space(network, centres_CF, axes_KF, reference, length)
        task = RowTask(raw_NF, labels_N, images.groups_N, points_PF * length, drawn_labels_P)
        rows = fit_rows(space, task, temperature)
        held_out.append(rows.held_out_NC)
        drawn.append(rows.drawn_PC)
        append_rows(network, rows)
    placed_NF = placed(reference, images.features_NF)
    return Enrolment(
        _with_centres(reference, means(placed_NF, labels_N)),
        _average(held_out),
        held_out_novelty(reference, images.features_NF, labels_N, images.groups_N),
        _average(drawn),
    )


class Space:
    """Where one network's embeddings of known implants lie.

    Args:
        network: With its head.
        centres_CF: Mean embedding of each known implant, embeddings of length one.
        axes_KF: This network's part of the axes of the reference's covariance.
        reference: Of the package.
        length: Mean length of embeddings, by which they are divided.
    """

    def __init__(
        self,
        network: ImplantClassifier,
        centres_CF: Floats,
        axes_KF: Floats,
        reference: NoveltyReference,
        length: float,
    ) -> None:
        self.weights_CF = network.head.weight.detach().numpy().astype(np.float64)
        self.bias_C = network.head.bias.detach().numpy().astype(np.float64)
        self.centres_CF = centres_CF
        self.length = max(length, 1e-12)
        self._rest = reference.within.rest
        excess_K = reference.within.variances_K.astype(np.float64) - self._rest
        kept_K = excess_K > 1e-9 * self._rest
        self._axes_KF = axes_KF[kept_K]
        inner_KK = self._axes_KF @ self._axes_KF.T + np.diag(self._rest / excess_K[kept_K])
        self._solved_KF = np.linalg.solve(inner_KK, self._axes_KF)  # Woodbury's identity

    def logits(self, raw_NF: Floats) -> Floats:
        """Return the known logits, NC."""
        return np.asarray(raw_NF @ self.weights_CF.T + self.bias_C, np.float64)

    def discriminants(self, prototypes_JF: Floats) -> tuple[Floats, Floats]:
        """Return directions, JF, and offsets, J, of log ratios of two Gaussians' densities.

        One is around each prototype, the other around the middle of the known implants.
        """
        middle_F = self.centres_CF.mean(axis=0)
        ways_JF = prototypes_JF - middle_F
        directions_JF = (ways_JF - (ways_JF @ self._axes_KF.T) @ self._solved_KF) / self._rest
        return directions_JF, ((prototypes_JF + middle_F) / 2 * directions_JF).sum(axis=1)

    def scores(self, raw_NF: Floats, prototypes_JF: Floats) -> Floats:
        """Return that log ratio, NJ."""
        directions_JF, offsets_J = self.discriminants(prototypes_JF)
        return np.asarray(raw_NF / self.length @ directions_JF.T - offsets_J, np.float64)


@dataclass(frozen=True)
class RowTask:
    """What the rows of one network are made from.

    Attributes:
        raw_NF: Embeddings of the new images.
        labels_N: Of the J new implants.
        groups_N: Their groups.
        drawn_PF: Points around the known implants, as embeddings.
        drawn_labels_P: Whose they are.
    """

    raw_NF: Floats
    labels_N: Indices
    groups_N: Indices
    drawn_PF: Floats
    drawn_labels_P: Indices


@dataclass(frozen=True)
class Rows:
    """New rows of one head.

    Attributes:
        weights_JF: Weights.
        bias_J: Offsets.
        held_out_NC: All logits of the new images, the new ones by rows made without their group.
        drawn_PC: All logits of the drawn points.
    """

    weights_JF: Floats
    bias_J: Floats
    held_out_NC: Floats
    drawn_PC: Floats


def fit_rows(space: Space, task: RowTask, temperature: float) -> Rows:
    """Make the rows of one network."""
    prototypes_JF = means(unit(task.raw_NF), task.labels_N)
    new_NJ = _held_out_scores(space, task)
    drawn_PJ = space.scores(task.drawn_PF, prototypes_JF)
    known_NC, known_PC = space.logits(task.raw_NF), space.logits(task.drawn_PF)
    num_known = known_NC.shape[1]
    fit = ScaleTask(
        np.concatenate((known_NC, known_PC)) / temperature,
        np.concatenate((new_NJ, drawn_PJ)) / temperature,
        np.concatenate((task.labels_N + num_known, task.drawn_labels_P)),
    )
    scale, offset = fit_scale(fit, usual_scale(space, task))
    offset *= temperature
    directions_JF, offsets_J = space.discriminants(prototypes_JF)
    return Rows(
        space.weights_CF.mean(axis=0) + scale * directions_JF / space.length,
        space.bias_C.mean() + offset - scale * offsets_J,
        _joined(known_NC, scale * new_NJ + offset),
        _joined(known_PC, scale * drawn_PJ + offset),
    )


def usual_scale(space: Space, task: RowTask) -> float:
    """Return by what scores of the known implants' own centres become their logits.

    By least squares over the drawn points.
    """
    scores_PC = space.scores(task.drawn_PF, space.centres_CF)
    logits_PC = space.logits(task.drawn_PF)
    logits_PC = logits_PC - logits_PC.mean(axis=1, keepdims=True)
    scores_PC = scores_PC - scores_PC.mean()
    spread = float((scores_PC**2).sum())
    slope = float((scores_PC * (logits_PC - logits_PC.mean())).sum()) / max(spread, 1e-12)
    return slope if slope > 0 else float(logits_PC.std() / max(scores_PC.std(), 1e-12))


@dataclass(frozen=True)
class ScaleTask:
    """What a scale and an offset are fitted to; logits are divided by the temperature.

    Attributes:
        known_NC: Known logits.
        scores_NJ: Scores of the new implants.
        labels_N: Of all C + J.
    """

    known_NC: Floats
    scores_NJ: Floats
    labels_N: Indices

    @property
    def weights_N(self) -> Floats:
        """Return how much each row counts: all implants alike."""
        counts = np.bincount(self.labels_N)
        return np.asarray(1 / counts[self.labels_N] / (counts > 0).sum(), np.float64)

    def probabilities(self, scale: float, offset: float) -> Floats:
        """Return probabilities, N(C+J)."""
        return softmax(_joined(self.known_NC, scale * self.scores_NJ + offset))


def fit_scale(task: ScaleTask, usual: float) -> tuple[float, float]:
    """Return the scale, a factor of `FACTORS` times the usual one, and the offset of least loss."""
    found = []
    for factor in FACTORS:
        offset = _offset(task, factor * usual)
        probabilities = task.probabilities(factor * usual, offset)
        right_N = probabilities[np.arange(len(probabilities)), task.labels_N]
        loss = -float((task.weights_N * np.log(np.maximum(right_N, 1e-300))).sum())
        found.append((loss, factor * usual, offset))
    _, scale, offset = min(found)
    return scale, offset


def _offset(task: ScaleTask, scale: float) -> float:
    """Return the offset at which the new implants get as much probability as they have weight.

    There the convex loss is least; its slope is bisected.
    """
    num_known = task.known_NC.shape[1]
    share = float(task.weights_N[task.labels_N >= num_known].sum())
    reach = float(np.abs(task.known_NC).max() + np.abs(scale * task.scores_NJ).max()) + 50.0
    low, high = -2 * reach, 2 * reach
    for _ in range(60):
        middle = (low + high) / 2
        new_N = task.probabilities(scale, middle)[:, num_known:].sum(axis=1)
        if float((task.weights_N * new_N).sum()) > share:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def append_rows(network: ImplantClassifier, rows: Rows) -> None:
    """Put new rows behind those of a network's head."""
    known = network.head
    head = torch.nn.Linear(network.num_features, len(known.bias) + len(rows.bias_J))
    with torch.no_grad():
        weights_JF = torch.from_numpy(rows.weights_JF).float()
        head.weight.copy_(torch.cat((known.weight, weights_JF)))
        head.bias.copy_(torch.cat((known.bias, torch.from_numpy(rows.bias_J).float())))
    network.head = head.eval().requires_grad_(False)


def means(vectors_NF: Floats, labels_N: Indices) -> Floats:
    """Return the mean of each label's vectors, JF."""
    return np.stack([vectors_NF[labels_N == label].mean(axis=0) for label in np.unique(labels_N)])


def _means_without(vectors_NF: Floats, labels_N: Indices, groups_N: Indices, group: int) -> Floats:
    others_N = groups_N != group
    return means(vectors_NF[others_N], labels_N[others_N])


def _held_out_scores(space: Space, task: RowTask) -> Floats:
    unit_NF = unit(task.raw_NF)
    scores_NJ = np.zeros((len(unit_NF), int(task.labels_N.max()) + 1))
    for group in np.unique(task.groups_N).tolist():
        prototypes_JF = _means_without(unit_NF, task.labels_N, task.groups_N, group)
        inside_N = task.groups_N == group
        scores_NJ[inside_N] = space.scores(task.raw_NF[inside_N], prototypes_JF)
    return scores_NJ


def held_out_novelty(
    reference: NoveltyReference, features_NF: Floats, labels_N: Indices, groups_N: Indices
) -> Floats:
    """Return the novelty of new images from centres that were made without their group."""
    placed_NF = placed(reference, features_NF)
    novelty_N = np.zeros(len(features_NF))
    for group in np.unique(groups_N).tolist():
        centres_JF = _means_without(placed_NF, labels_N, groups_N, group)
        inside_N = groups_N == group
        novelty_N[inside_N] = _with_centres(reference, centres_JF).score(features_NF[inside_N])
    return novelty_N


def placed(reference: NoveltyReference, features_NF: Floats) -> Floats:
    """Return embeddings in the space of the reference's centres."""
    if reference.method != "normalised_mahalanobis":
        return features_NF
    return unit(features_NF - reference.mean_F.astype(np.float64))


def _with_centres(reference: NoveltyReference, centres_JF: Floats) -> NoveltyReference:
    centres = np.concatenate((reference.centres_CF, centres_JF.astype(np.float32)))
    return replace(reference, centres_CF=centres)


def _from_placed(reference: NoveltyReference, features_NF: Floats) -> tuple[Floats, float]:
    """Return origin and scale that bring the space of the centres back to embeddings."""
    if reference.method != "normalised_mahalanobis":
        return np.zeros(features_NF.shape[1]), 1.0
    mean_F = reference.mean_F.astype(np.float64)
    return mean_F, float(np.median(np.linalg.norm(features_NF - mean_F, axis=1)))


def _known_centres(reference: NoveltyReference, features_NF: Floats) -> Floats:
    origin_F, scale = _from_placed(reference, features_NF)
    return np.asarray(origin_F + scale * reference.centres_CF.astype(np.float64), np.float64)


def draw_known(reference: NoveltyReference, features_NF: Floats) -> tuple[Floats, Indices]:
    """Draw points around the known implants' centres, as embeddings side by side, and their labels.

    Args:
        reference: Of the package.
        features_NF: Of new images, for the scale of embeddings that are measured by direction.
    """
    origin_F, scale = _from_placed(reference, features_NF)
    centres_CF, within = reference.centres_CF.astype(np.float64), reference.within
    each = max(2, min(POINTS_EACH, MAX_POINTS // len(centres_CF)))
    labels_P = np.repeat(np.arange(len(centres_CF)), each)
    rng = np.random.default_rng(0)
    excess_K = np.maximum(within.variances_K.astype(np.float64) - within.rest, 0.0)
    along_PK = rng.standard_normal((len(labels_P), len(excess_K))) * np.sqrt(excess_K)
    points_PF = rng.standard_normal((len(labels_P), centres_CF.shape[1])) * np.sqrt(within.rest)
    points_PF += centres_CF[labels_P] + along_PK @ within.axes_KF.astype(np.float64)
    return origin_F + scale * points_PF, labels_P


def _joined(known_NC: Floats, new_NJ: Floats) -> Floats:
    return np.concatenate((known_NC, new_NJ), axis=1)


def _average(logits: Sequence[Floats]) -> Floats:
    """Return logs of the networks' averaged probabilities, as `Ensemble.average` does."""
    shares = np.mean([softmax(each) for each in logits], axis=0)
    return np.log(np.maximum(shares, 1e-300))


@torch.inference_mode()
def logs_of(networks: Ensemble, images: Embedded) -> Floats:
    """Return logs of the averaged probabilities, NC, of embeddings by the networks' heads."""
    raw = [torch.from_numpy(raw_NF).float() for raw_NF in images.raw]
    logs_NC, _ = networks.average(raw)
    return np.array(logs_NC.numpy(), np.float64)
