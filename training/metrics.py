"""Metrics as pure functions: labels and probabilities in, named numbers with intervals out.

Intervals are 95 %. Shares have Wilson's (Wilson 1927; sound for small counts and for shares near 0
and 1) at the number of images that the *groups* are worth, since images of one patient are not
independent. What is no share (macro F1, calibration error, areas, means) has the percentile
bootstrap over groups, joined with what groups may do of which none was drawn: no interval of finite
data is without width.

Shapes: N images, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.calibration import blocks

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]
Statistic = Callable[[Indices], float]
"""Of images that count so many times each, int64 (N,)."""
MAX_DRAWN = 200_000_000
"""Images drawn in all resamplings of a statistic, as far as there are 200 of them."""
MIN_ROUNDS = 200
MAX_RANKS = 1 << 27
"""Ranks of images in classes that are kept from one resampling to the next: 512 MB."""
Z_95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        value: The estimate; NaN where the data cannot give one.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: Number of images that it rests on.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain numbers for JSON, None in the place of NaN."""
        return {k: None if math.isnan(v) else round(v, 6) for k, v in asdict(self).items()}


def wilson(hits: int, count: int) -> Figure:
    """Return a share of independent images with Wilson's score interval; (NaN, 0, 1) of nothing."""
    if count == 0:
        return Figure(math.nan, 0.0, 1.0, 0)
    return _wilson_of(hits / count, count, count)


def share(hits_N: NDArray[np.bool_], groups_N: Indices) -> Figure:
    """Return a share with Wilson's interval, widened where images of a group agree with each other.

    The number of images is divided by the design effect, the variance of the share over groups
    by that over independent images, where it is above 1 (Dean and Pagano 2015,
    doi:10.1093/jssam/smv024); of a share of 0 or 1 every group counts once.
    """
    count = len(hits_N)
    _, of_N = np.unique(groups_N, return_inverse=True)
    num_groups = int(of_N.max()) + 1 if count else 0
    plain = wilson(int(hits_N.sum()), count)
    if num_groups in (0, count):
        return plain
    effective = float(num_groups)
    if 0 < plain.value < 1 and num_groups > 1:
        sums = np.bincount(of_N, weights=hits_N - plain.value)
        variance = num_groups / (num_groups - 1) * float((sums**2).sum()) / count**2
        alone = plain.value * (1 - plain.value) / count
        effective = count / max(1.0, variance / alone)
    return _wilson_of(plain.value, effective, count)


def _wilson_of(value: float, effective: float, count: int) -> Figure:
    squared = Z_95**2
    centre = (value + squared / (2 * effective)) / (1 + squared / effective)
    spread = math.sqrt(value * (1 - value) / effective + squared / (4 * effective**2))
    half = Z_95 * spread / (1 + squared / effective)
    # min and max with the value: at 0 and 1 rounding puts the end 1e-18 beyond it.
    low, high = max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))
    return Figure(value, low, high, count)


def bootstrap(
    statistic: Statistic,
    groups_N: Indices,
    rounds: int = 1000,
    seed: int = 0,
    centred: bool = False,
    span: tuple[float, float] = (0.0, 1.0),
    num_units: int | None = None,
) -> Figure:
    """Return a statistic with its percentile interval over resampled groups, and over unseen ones.

    Resampling shows only what some group shows, and shows nothing of one group, or where all are
    alike (a macro F1 of 1). So the interval is joined with what it would be if as many more as may
    have gone unseen lay at either end of the span: the share u = z^2 / (G + z^2) of G groups, the
    upper end of Wilson's interval of 0 of G. Of a figure of 0 or 1 in 0..1 this is Wilson's own.

    Args:
        statistic: From how often each image counts to a number; NaN where undefined. `mean_of`
            and its siblings make such.
        groups_N: Group of each image; groups are drawn whole.
        rounds: Number of resamplings; of a million images there are fewer, down to 200.
        seed: The same seed gives the same interval.
        centred: Move the interval so that the resamplings' median lies on the estimate, and cut it
            at 0: for a sum of absolute gaps, which resampling widens.
        span: Least and greatest value that the statistic can take.
        num_units: G, where the statistic rests on fewer groups than there are, see `scarcer`.
    """
    count = len(groups_N)
    names, of_N = np.unique(groups_N, return_inverse=True)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(min(rounds, max(MIN_ROUNDS, MAX_DRAWN // count)) if count else 0):
        drawn = rng.integers(len(names), size=len(names))
        values.append(statistic(np.bincount(drawn, minlength=len(names))[of_N]))
    finite = [value for value in values if not math.isnan(value)]
    low, high = np.quantile(finite, [0.025, 0.975]).tolist() if finite else (math.nan, math.nan)
    value = statistic(np.ones(count, np.int64)) if count else math.nan
    if centred and finite:
        shift = float(np.median(finite)) - value
        low, high = max(0.0, low - shift), max(0.0, high - shift)
    unseen = Z_95**2 / ((len(names) if num_units is None else num_units) + Z_95**2)
    least, most = value + unseen * (span[0] - value), value + unseen * (span[1] - value)
    return Figure(value, float(np.fmin(low, least)), float(np.fmax(high, most)), len(groups_N))


def scarcer(positive_N: NDArray[np.bool_], groups_N: Indices) -> int:
    """Group on the side, positive or negative, that fewer are on: what an AUROC rests on."""
    return min(len(np.unique(groups_N[side_N])) for side_N in (positive_N, ~positive_N))


def top_k_hits(labels_N: Indices, probabilities_NK: Floats, k: int) -> NDArray[np.bool_]:
    """Return whether the label is among the k most probable classes; ties go to the lower class."""
    hits_N = np.zeros(len(labels_N), np.bool_)
    for part in blocks(*probabilities_NK.shape):
        order_BK = np.argsort(-probabilities_NK[part], axis=1, kind="stable")[:, :k]
        hits_N[part] = (order_BK == labels_N[part, None]).any(axis=1)
    return hits_N


def confusion(labels_N: Indices, predicted_N: Indices, num_classes: int) -> Indices:
    """Count int64 (K, K): row the true class, column the predicted one."""
    matrix_KK = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix_KK, (labels_N, predicted_N), 1)
    return matrix_KK


def mean_of(values_N: NDArray[np.float64]) -> Statistic:
    """Return the statistic that is the mean of a value of each image."""
    return lambda weights_N: float(weights_N @ values_N) / float(weights_N.sum())


def macro_f1(labels_N: Indices, predicted_N: Indices) -> float:
    """Return mean over the classes among the labels of 2 TP / (2 TP + FP + FN)."""
    return macro_f1_of(labels_N, predicted_N)(np.ones(len(labels_N), np.int64))


def macro_f1_of(labels_N: Indices, predicted_N: Indices) -> Statistic:
    """Return the statistic that is `macro_f1`."""
    count = int(max(labels_N.max(initial=-1), predicted_N.max(initial=-1))) + 1
    right_N = np.flatnonzero(labels_N == predicted_N)

    def statistic(weights_N: Indices) -> float:
        truth_K = np.bincount(labels_N, weights_N, count)
        claim_K = np.bincount(predicted_N, weights_N, count)
        both_K = np.bincount(labels_N[right_N], weights_N[right_N], count)
        there_K = truth_K > 0
        if not there_K.any():
            return math.nan
        return float(np.mean(2 * both_K[there_K] / (truth_K + claim_K)[there_K]))

    return statistic


def calibration_error(labels_N: Indices, probabilities_NK: Floats, bins: int = 10) -> float:
    """Return expected calibration error of the best candidate's probability, equal-count bins.

    The count-weighted mean of |share right - mean probability| (Naeini et al. 2015) over bins of
    equal count, which do not leave almost empty bins at the low end as bins of equal width do.
    """
    return calibration_error_of(labels_N, probabilities_NK, bins)(np.ones(len(labels_N), np.int64))


def calibration_error_of(labels_N: Indices, probabilities_NK: Floats, bins: int = 10) -> Statistic:
    """Return the statistic that is `calibration_error`."""
    confidence_N = probabilities_NK.max(axis=1, initial=0).astype(np.float64)
    order_N = np.argsort(confidence_N, kind="stable")
    right_N = probabilities_NK.argmax(axis=1) == labels_N if len(labels_N) else confidence_N > 0
    excess_N = (right_N - confidence_N)[order_N]

    def statistic(weights_N: Indices) -> float:
        sorted_N = weights_N[order_N]
        ends_N = np.concatenate([[0], np.cumsum(sorted_N)])
        total = int(ends_N[-1])
        if not total:
            return math.nan
        sums_N = np.concatenate([[0.0], np.cumsum(sorted_N * excess_N)])
        parts = min(bins, total)
        sizes = np.full(parts, total // parts)
        sizes[: total % parts] += 1
        edges = np.concatenate([[0], np.cumsum(sizes)])
        return float(np.abs(np.diff(np.interp(edges, ends_N, sums_N))).sum()) / total

    return statistic


def auroc(scores_N: Floats, positive_N: NDArray[np.bool_]) -> float:
    """Return area under the ROC curve: how often a positive scores above a negative, ties half."""
    return auroc_of(scores_N, positive_N)(np.ones(len(scores_N), np.int64))


def auroc_of(scores_N: Floats, positive_N: NDArray[np.bool_]) -> Statistic:
    """Return the statistic that is `auroc`."""
    rank_N = _ranks(scores_N)
    return lambda weights_N: _area(rank_N, positive_N, weights_N)


def _ranks(scores_N: Floats) -> NDArray[np.int32]:
    _, rank_N = np.unique(scores_N, return_inverse=True)
    return rank_N.astype(np.int32)


def _area(rank_N: NDArray[np.int32], positive_N: NDArray[np.bool_], weights_N: Indices) -> float:
    count = int(rank_N.max(initial=-1)) + 1
    at = np.flatnonzero(positive_N)
    positive_R = np.bincount(rank_N[at], weights_N[at], count)
    negative_R = np.bincount(rank_N, weights_N, count) - positive_R
    pairs = float(positive_R.sum()) * float(negative_R.sum())
    if not pairs:
        return math.nan
    return float(positive_R @ (np.cumsum(negative_R) - negative_R / 2)) / pairs


def mean_auroc(labels_N: Indices, probabilities_NK: Floats) -> float:
    """Return mean over the classes among the labels of each class against the rest."""
    return mean_auroc_of(labels_N, probabilities_NK)(np.ones(len(labels_N), np.int64))


def mean_auroc_of(labels_N: Indices, probabilities_NK: Floats) -> Statistic:
    """Return the statistic that is `mean_auroc`."""
    is_kept = probabilities_NK.size <= MAX_RANKS
    kept: dict[int, NDArray[np.int32]] = {}

    def ranks(label: int) -> NDArray[np.int32]:
        if label in kept:
            return kept[label]
        rank_N = _ranks(probabilities_NK[:, label])
        if is_kept:
            kept[label] = rank_N
        return rank_N

    def statistic(weights_N: Indices) -> float:
        there = np.flatnonzero(np.bincount(labels_N, weights_N))
        areas = [_area(ranks(int(k)), labels_N == k, weights_N) for k in there]
        return float(np.mean(areas)) if areas else math.nan

    return statistic


def covered(labels_N: Indices, candidates: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    """Return whether each label is in its candidate set."""
    pairs = zip(labels_N, candidates, strict=True)
    return np.fromiter((label in members for label, members in pairs), np.bool_, len(labels_N))


def evaluate(
    labels_N: Indices,
    probabilities_NK: Floats,
    candidates: Sequence[Sequence[int]],
    groups_N: Indices,
    names: tuple[str, ...],
) -> dict[str, Figure]:
    """Return all figures of one test set.

    Args:
        labels_N: True classes.
        probabilities_NK: Calibrated probabilities.
        candidates: Conformal set of each image.
        groups_N: Patient and duplicate group of each image.
        names: Class names, in order.

    Returns:
        top_1, top_3, macro_f1, mean_auroc, calibration_error, coverage, set_size and
        `sensitivity: NAME` of each class.
    """
    predicted_N = probabilities_NK.argmax(axis=1).astype(np.int64)
    sizes_N = np.fromiter(map(len, candidates), np.float64, len(candidates))

    figures = {
        f"top_{k}": share(top_k_hits(labels_N, probabilities_NK, k), groups_N) for k in (1, 3)
    }
    figures["macro_f1"] = bootstrap(macro_f1_of(labels_N, predicted_N), groups_N)
    figures["mean_auroc"] = bootstrap(mean_auroc_of(labels_N, probabilities_NK), groups_N)
    figures["calibration_error"] = bootstrap(
        calibration_error_of(labels_N, probabilities_NK), groups_N, centred=True
    )
    figures["coverage"] = share(covered(labels_N, candidates), groups_N)
    # One class more than in any set that was seen: of thousands of classes the greatest value that
    # a mean size can take gives no information.
    most = min(probabilities_NK.shape[1], sizes_N.max(initial=0) + 1)
    figures["set_size"] = bootstrap(mean_of(sizes_N), groups_N, span=(0.0, float(most)))
    for label, name in enumerate(names):
        truth_N = labels_N == label
        figures[f"sensitivity: {name}"] = share(predicted_N[truth_N] == label, groups_N[truth_N])
    return figures
