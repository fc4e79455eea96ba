"""Rows of one network's head for new implants: their directions, and one scale and one offset.

`Space` makes a discriminant for each new implant, see `prototypes`; what its scores become logits
by is fitted to images or points of all implants.

Letters: N images, C known implants, J new ones, F features of the network, K axes, P what stands
for the known implants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from implant_model.calibration import softmax
from implant_model.networks.build import ImplantClassifier
from implant_model.novelty import Gaussian
from training.enrolment.embedded import Floats, Indices, means, unit

SHARES: Final = (1.0, 0.3, 0.1, 0.03, 0.0)
"""Of the covariance, the rest being a ball of the same mean variance: at 1 directions in which the
known implants hardly vary count most, and in them a mean of a few images is mostly noise; at 0 the
prototype's own direction is the row. The share of least loss is taken."""
DEVIATIONS: Final = tuple(2.0 ** (step / 2) for step in range(-6, 9))
"""Of the scores times the scale, over the temperature. Others are not looked for, so that images
that are all named right do not make a row sure of everything."""


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


def _joined(known_NC: Floats, new_NJ: Floats) -> Floats:
    return np.concatenate((known_NC, new_NJ), axis=1)
