"""Rows of a last layer for new implants, from the mean embeddings of a few images of each.

A new implant's row is that of the known implants that the network takes it for, a blend of their
rows, plus a linear discriminant (Fisher 1936) from the same blend of their centres to the new one's
mean embedding, the prototype (Snell et al. 2017), in the covariance that the package's novelty
reference holds, shrunk to a ball. No covariance is estimated from a few images. Known rows stay as
they are (after Qi et al. 2018, who imprint rows), so the networks, and OpenVINO's conversion of
them, stay, too. What scores become logits by, one scale and one offset for all new implants, is
fitted to the new images, each scored by prototypes that were made without its group, against images
of the known implants that the networks did not learn from. Of an implant without such images points
are drawn around its mean instead: a package holds no radiograph of it. Around means of images that
trained them the networks name nearly every point right, so that rows that are fitted to such points
take known images for new implants. So the points are pulled to the middle of all means until the
networks name as many right as were measured right.

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
from implant_model.novelty import Gaussian, NoveltyReference
from training.data.shards import Pictures, in_parts

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
BATCH: Final = 16
MAX_POINTS: Final = 4096
POINTS_EACH: Final = 64
SHARES: Final = (1.0, 0.3, 0.1, 0.03, 0.0)
"""Of the covariance, the rest being a ball of the same mean variance: at 1 directions in which the
known implants hardly vary count most, and in them a mean of a few images is mostly noise; at 0 the
prototype's own direction is the row. The share of least loss is taken."""
DEVIATIONS: Final = tuple(2.0 ** (step / 2) for step in range(-6, 9))
"""Of the scores times the scale, over the temperature. Others are not looked for, so that images
that are all named right do not make a row sure of everything."""


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
        drawn_logs_PC: Of what stands for the known implants, by the final rows.
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
    networks: Ensemble,
    reference: NoveltyReference,
    temperature: float,
    images: Embedded,
    known: Embedded | None = None,
    accuracy: float | None = None,
) -> Enrolment:
    """Give each network of a package rows for new implants; the networks are changed in place.

    Args:
        networks: Of the package, with heads for C implants.
        reference: Of the package.
        temperature: Of the package.
        images: Of new implants alone; of each at least two groups.
        known: Of known implants, which the networks did not learn from; None or empty without any.
        accuracy: Measured share of images whose best candidate is right; None where it is not
            known.
    """
    num_known = len(reference.centres_CF)
    labels_N = images.labels_N - num_known
    drawn_PF, drawn_labels_P = known_points(networks, reference, images, known, accuracy)
    splits = np.cumsum([network.num_features for network in networks.members])[:-1]
    points = np.split(drawn_PF, splits, axis=1)
    centres = np.split(_known_centres(reference, images.features_NF), splits, axis=1)
    axes = np.split(reference.within.axes_KF.astype(np.float64), splits, axis=1)
    held_out, drawn = [], []
    for network, raw_NF, points_PF, centres_CF, axes_KF, length in zip(
        networks.members, images.raw, points, centres, axes, _lengths(images), strict=True
    ):
        spaces = [
            Space(network, centres_CF, axes_KF, reference.within, length, share) for share in SHARES
        ]
        task = RowTask(raw_NF, labels_N, images.groups_N, points_PF * length, drawn_labels_P)
        rows = fit_rows(spaces, task, temperature)
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
        within: The reference's covariance.
        length: Mean length of embeddings, by which they are divided.
        share: Of that covariance, see `SHARES`.
    """

    def __init__(
        self,
        network: ImplantClassifier,
        centres_CF: Floats,
        axes_KF: Floats,
        within: Gaussian,
        length: float,
        share: float,
    ) -> None:
        self.weights_CF = network.head.weight.detach().numpy().astype(np.float64)
        self.bias_C = network.head.bias.detach().numpy().astype(np.float64)
        self.centres_CF = centres_CF
        self.length = max(length, 1e-12)
        excess_K = share * (within.variances_K.astype(np.float64) - within.rest)
        num_features = centres_CF.shape[1]
        mean = within.rest + float((within.variances_K - within.rest).sum()) / num_features
        self._rest = share * within.rest + (1 - share) * mean
        kept_K = excess_K > 1e-9 * self._rest
        self._axes_KF = axes_KF[kept_K]
        inner_KK = self._axes_KF @ self._axes_KF.T + np.diag(self._rest / excess_K[kept_K])
        self._solved_KF = np.linalg.solve(inner_KK, self._axes_KF)  # Woodbury's identity

    def logits(self, raw_NF: Floats) -> Floats:
        """Return the known logits, NC."""
        return np.asarray(raw_NF @ self.weights_CF.T + self.bias_C, np.float64)

    def new_rows(self, raw_NF: Floats, labels_N: Indices) -> "Discriminants":
        """Return what tells the new implants from those that the network takes them for."""
        prototypes_JF = means(unit(raw_NF), labels_N)
        blends_JC = means(softmax(self.logits(raw_NF)), labels_N)
        middles_JF = blends_JC @ self.centres_CF
        ways_JF = prototypes_JF - middles_JF
        directions_JF = (ways_JF - (ways_JF @ self._axes_KF.T) @ self._solved_KF) / self._rest
        offsets_J = ((prototypes_JF + middles_JF) / 2 * directions_JF).sum(axis=1)
        return Discriminants(directions_JF / self.length, offsets_J, blends_JC)


@dataclass(frozen=True)
class Discriminants:
    """New implants against blends of the known ones.

    Attributes:
        directions_JF: Of the log ratio of a Gaussian's density around the prototype to that of one
            around the blended centre.
        offsets_J: Taken from it.
        blends_JC: Shares of the known implants; a row of each new one.
    """

    directions_JF: Floats
    offsets_J: Floats
    blends_JC: Floats

    def scores(self, raw_NF: Floats) -> Floats:
        """Return those log ratios, NJ."""
        return np.asarray(raw_NF @ self.directions_JF.T - self.offsets_J, np.float64)


@dataclass(frozen=True)
class RowTask:
    """What the rows of one network are made from.

    Attributes:
        raw_NF: Embeddings of the new images.
        labels_N: Of the J new implants.
        groups_N: Their groups.
        drawn_PF: What stands for the known implants, as embeddings.
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
        loss: Of what they were fitted to.
    """

    weights_JF: Floats
    bias_J: Floats
    held_out_NC: Floats
    drawn_PC: Floats
    loss: float


def fit_rows(spaces: Sequence[Space], task: RowTask, temperature: float) -> Rows:
    """Make the rows of one network in the space that gives the least loss."""
    return min((_rows_in(space, task, temperature) for space in spaces), key=lambda x: x.loss)


def _rows_in(space: Space, task: RowTask, temperature: float) -> Rows:
    final = space.new_rows(task.raw_NF, task.labels_N)
    known_NC, known_PC = space.logits(task.raw_NF), space.logits(task.drawn_PF)
    scores_NJ, bases_NJ = _held_out(space, task, known_NC)
    drawn_PJ, drawn_bases_PJ = final.scores(task.drawn_PF), known_PC @ final.blends_JC.T
    fit = ScaleTask(
        np.concatenate((known_NC, known_PC)) / temperature,
        np.concatenate((bases_NJ, drawn_bases_PJ)) / temperature,
        np.concatenate((scores_NJ, drawn_PJ)) / temperature,
        np.concatenate((task.labels_N + known_NC.shape[1], task.drawn_labels_P)),
    )
    loss, scale, offset = fit_scale(fit)
    offset *= temperature
    return Rows(
        final.blends_JC @ space.weights_CF + scale * final.directions_JF,
        final.blends_JC @ space.bias_C + offset - scale * final.offsets_J,
        _joined(known_NC, bases_NJ + scale * scores_NJ + offset),
        _joined(known_PC, drawn_bases_PJ + scale * drawn_PJ + offset),
        loss,
    )


@dataclass(frozen=True)
class ScaleTask:
    """What a scale and an offset are fitted to, all divided by the temperature.

    Attributes:
        known_NC: Known logits.
        bases_NJ: Their blends.
        scores_NJ: Scores of the new implants.
        labels_N: Of all C + J.
    """

    known_NC: Floats
    bases_NJ: Floats
    scores_NJ: Floats
    labels_N: Indices

    @property
    def weights_N(self) -> Floats:
        """Return how much each row counts: all implants alike."""
        counts = np.bincount(self.labels_N)
        return np.asarray(1 / counts[self.labels_N] / (counts > 0).sum(), np.float64)

    def probabilities(self, scale: float, offset: float) -> Floats:
        """Return probabilities, N(C+J)."""
        return softmax(_joined(self.known_NC, self.bases_NJ + scale * self.scores_NJ + offset))


def fit_scale(task: ScaleTask) -> tuple[float, float, float]:
    """Return the least loss, and the scale, one of `DEVIATIONS`, and the offset that give it."""
    found = []
    for deviation in DEVIATIONS:
        scale = deviation / max(float(task.scores_NJ.std()), 1e-12)
        offset = _offset(task, scale)
        probabilities = task.probabilities(scale, offset)
        right_N = probabilities[np.arange(len(probabilities)), task.labels_N]
        loss = -float((task.weights_N * np.log(np.maximum(right_N, 1e-300))).sum())
        found.append((loss, scale, offset))
    return min(found)


def _offset(task: ScaleTask, scale: float) -> float:
    """Return the offset at which the new implants get as much probability as they have weight.

    There the convex loss is least; its slope is bisected.
    """
    num_known = task.known_NC.shape[1]
    weights_N = task.weights_N
    share = float(weights_N[task.labels_N >= num_known].sum())
    reach = float(2 * np.abs(task.known_NC).max() + np.abs(scale * task.scores_NJ).max()) + 50.0
    low, high = -reach, reach
    for _ in range(50):
        middle = (low + high) / 2
        new_N = task.probabilities(scale, middle)[:, num_known:].sum(axis=1)
        if float((weights_N * new_N).sum()) > share:
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


def _held_out(space: Space, task: RowTask, known_NC: Floats) -> tuple[Floats, Floats]:
    """Return scores and bases, NJ, of new images by rows that were made without their group."""
    num_new = int(task.labels_N.max()) + 1
    scores_NJ, bases_NJ = np.zeros((2, len(task.labels_N), num_new))
    for group in np.unique(task.groups_N).tolist():
        inside_N = task.groups_N == group
        rows = space.new_rows(task.raw_NF[~inside_N], task.labels_N[~inside_N])
        scores_NJ[inside_N] = rows.scores(task.raw_NF[inside_N])
        bases_NJ[inside_N] = known_NC[inside_N] @ rows.blends_JC.T
    return scores_NJ, bases_NJ


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


def known_points(
    networks: Ensemble,
    reference: NoveltyReference,
    images: Embedded,
    known: Embedded | None,
    accuracy: float | None,
) -> tuple[Floats, Indices]:
    """Return what stands for the known implants, as embeddings side by side, and whose it is."""
    points_PF, labels_P = draw_known(reference, images.features_NF)
    if accuracy is not None:
        centres_CF = _known_centres(reference, images.features_NF)
        ways_PF = centres_CF[labels_P] - centres_CF.mean(axis=0)
        points_PF = _as_hard(networks, images, points_PF, ways_PF, labels_P, accuracy)
    if known is None or not len(known.labels_N):
        return points_PF, labels_P
    is_drawn_P = ~np.isin(labels_P, known.labels_N)
    own = [raw_NF / length for raw_NF, length in zip(known.raw, _lengths(images), strict=True)]
    return (
        np.concatenate((points_PF[is_drawn_P], np.concatenate(own, axis=1))),
        np.concatenate((labels_P[is_drawn_P], known.labels_N)),
    )


def _as_hard(
    networks: Ensemble,
    images: Embedded,
    points_PF: Floats,
    ways_PF: Floats,
    labels_P: Indices,
    accuracy: float,
) -> Floats:
    """Take so much of a way from each point that the networks name that share of them right."""
    splits = np.cumsum([raw_NF.shape[1] for raw_NF in images.raw])[:-1]

    def is_easy(share: float) -> bool:
        parts = np.split(points_PF - share * ways_PF, splits, axis=1)
        raw = [part * length for part, length in zip(parts, _lengths(images), strict=True)]
        found_P = logs_of(networks, Embedded(raw, labels_P, labels_P)).argmax(axis=1)
        return float((found_P == labels_P).mean()) > accuracy

    low, high = 0.0, 1.0
    for _ in range(12 if is_easy(0.0) else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if is_easy(middle) else (low, middle)
    return points_PF - low * ways_PF


def _lengths(images: Embedded) -> list[float]:
    """Return the mean length of the embeddings of each network."""
    return [float(np.linalg.norm(raw_NF, axis=1).mean()) for raw_NF in images.raw]


def _joined(known_NC: Floats, new_NJ: Floats) -> Floats:
    return np.concatenate((known_NC, new_NJ), axis=1)


def _average(logits: Sequence[Floats]) -> Floats:
    """Return logs of the networks' averaged probabilities, as `Ensemble.average` does."""
    shares = np.mean([softmax(each) for each in logits], axis=0)
    return np.asarray(np.log(np.maximum(shares, 1e-300)), np.float64)


def logs_of(networks: Ensemble, images: Embedded) -> Floats:
    """Return logs of the averaged probabilities, NC, of embeddings by the networks' heads."""
    with torch.inference_mode():
        logs_NC, _ = networks.average([torch.from_numpy(raw_NF).float() for raw_NF in images.raw])
    return np.asarray(logs_NC.numpy().astype(np.float64), np.float64)
