"""Splits a labelled set so that nothing that is known to belong together lands on two sides.

The grain is the *group*: all images of a patient, and all near duplicates of each other, joined as
far as such links reach. Groups are dealt whole, largest first, each to the part that lacks its
classes most, so that every part's classes keep the set's proportions as nearly as whole groups can.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from training.data.links import Components, Indices
from training.data.set_columns import Rows


@dataclass(frozen=True)
class Split:
    """One division of a set: positions of its images, ascending; no two parts share a group.

    Attributes:
        train_N: What the network is fitted to.
        calibration_N: What temperature, candidates and novelty threshold are set on.
        test_N: What the metrics are measured on.
    """

    train_N: Indices
    calibration_N: Indices
    test_N: Indices


def join_groups(*keys: Sequence[object] | Indices) -> Indices:
    """Join images that share any key into groups.

    Args:
        keys: One or more sequences of the same length N; two images with an equal entry in the
            same sequence belong together. None, or in an array of numbers a negative one, means
            that nothing is known and joins nothing.

    Returns:
        Group numbers int64 (N,), counted from 0 in the order of their first image.
    """
    components = Components(len(keys[0]))
    for sequence in keys:
        key_N = sequence if isinstance(sequence, np.ndarray) else _numbers(sequence)
        at = np.flatnonzero(key_N >= 0)
        _, first_U, of_M = np.unique(key_N[at], return_index=True, return_inverse=True)
        components.link(at, at[first_U[of_M]])
    return renumber(components.all_roots())


def _numbers(keys: Sequence[object]) -> Indices:
    """Return a number for each distinct key, -1 for None."""
    numbers: dict[object, int] = {}
    found = (-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys)
    return np.fromiter(found, np.int64, len(keys))


def renumber(keys_N: NDArray[Any]) -> Indices:
    """Return numbers of distinct keys from 0 in the order of their first appearance."""
    _, first_U, of_N = np.unique(keys_N, return_index=True, return_inverse=True)
    rank_U = np.empty(len(first_U), np.int64)
    rank_U[np.argsort(first_U)] = np.arange(len(first_U))
    return rank_U[of_N]


def draw_each(
    labels_N: Indices, most: int, least_each: int, groups_N: Indices | None = None
) -> Indices:
    """Return positions of all images of a part, or of a larger one of a lot of each class.

    Args:
        labels_N: Classes of the part's images.
        most: Images, where `least_each` allows it.
        least_each: Images of a class that are taken at least.
        groups_N: Their groups, if each is to give a class one image before any gives it two.
    """
    if len(labels_N) <= most:
        return np.arange(len(labels_N))
    shuffled_N = np.random.default_rng(0).permutation(len(labels_N))
    if groups_N is not None:
        by_group_N = shuffled_N[np.lexsort((groups_N[shuffled_N], labels_N[shuffled_N]))]
        turn_N = ranks(by_group_N, labels_N, groups_N)
        shuffled_N = shuffled_N[np.argsort(turn_N[shuffled_N], kind="stable")]
    by_class_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    each = max(most // len(np.unique(labels_N)), least_each)
    return np.flatnonzero(ranks(by_class_N, labels_N) < each)


def ranks(order_N: Indices, *keys: Indices) -> Indices:
    """Return the place of each among those of the same keys, which an order has side by side."""
    is_first_N = np.ones(len(order_N), np.bool_)
    is_first_N[1:] = np.any([np.diff(key[order_N]) != 0 for key in keys], axis=0)
    starts_N = np.flatnonzero(is_first_N)[np.cumsum(is_first_N) - 1]
    rank_N = np.empty(len(order_N), np.int64)
    rank_N[order_N] = np.arange(len(order_N)) - starts_N
    return rank_N


class _Counts:
    """Images of each group by class, kept as what there is: of many classes most have none.

    Args:
        labels_N: Class of each image, from 0.
        groups_N: Group of each image, from 0; each occurs.
    """

    def __init__(self, labels_N: Indices, groups_N: Indices, num_classes: int) -> None:
        keys, self._counts = np.unique(groups_N * num_classes + labels_N, return_counts=True)
        self._labels = keys % num_classes
        self._starts_G = np.searchsorted(keys, np.arange(int(groups_N.max()) + 2) * num_classes)
        self.sizes_G = np.bincount(groups_N)
        self.row_K = np.zeros(num_classes, np.int64)

    def __getitem__(self, group: int) -> Indices:
        """Return the counts of a group: int64 (K,), overwritten by the next."""
        part = slice(*self._starts_G[group : group + 2])
        self.row_K[:] = 0
        self.row_K[self._labels[part]] = self._counts[part]
        return self.row_K


def deal(
    labels_N: Indices, groups_N: Indices, shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Deal whole groups to parts of the given shares, each class in proportion.

    Args:
        labels_N: Class of each image, from 0.
        groups_N: Group of each image.
        shares: Wanted share of each part; together 1. A part of share 0 gets nothing.
        seed: Order of groups of equal size; the same seed gives the same parts.

    Returns:
        Part of each image, int64 (N,).
    """
    num_classes = int(labels_N.max()) + 1
    counts = _Counts(labels_N, groups_N, num_classes)
    lacking_PK = np.outer(np.asarray(shares), np.bincount(labels_N))
    closed_P = np.where(np.asarray(shares) > 0, 0.0, -np.inf)
    shuffled = np.random.default_rng(seed).permutation(len(counts.sizes_G))
    part_of_group = np.empty(len(shuffled), dtype=np.int64)
    for group in shuffled[np.argsort(-counts.sizes_G[shuffled], kind="stable")]:
        wanted_P = lacking_PK @ counts[group].astype(np.float64) / counts.sizes_G[group]
        part = int(np.argmax(wanted_P + 1e-6 * lacking_PK.sum(axis=1) + closed_P))
        part_of_group[group] = part
        lacking_PK[part] -= counts.row_K
    return part_of_group[groups_N]


def split_fractions(
    labels_N: Indices, groups_N: Indices, calibration: float, test: float, seed: int
) -> Split:
    """Divide once: the given shares for calibration and test, the rest to train on."""
    parts_N = deal(labels_N, groups_N, [1 - calibration - test, calibration, test], seed)
    return Split(*(np.flatnonzero(parts_N == part) for part in range(3)))


def split_balanced(
    labels_N: Indices,
    groups_N: Indices,
    calibration_each: int,
    test_each: int,
    seed: int,
    names: Sequence[str],
) -> Split:
    """Divide once: so many images of each class for calibration and test, the rest to train on.

    Groups are taken in random order, as long as they do not overfill a part.

    Raises:
        UsageError: A class has no groups that make up the number, or none left to train on.
    """
    counts = _Counts(labels_N, groups_N, len(names))
    order_G = np.random.default_rng(seed).permutation(len(counts.sizes_G))
    parts_G = np.zeros(len(order_G), dtype=np.int64)
    for part, each, title in ((2, test_each, "test"), (1, calibration_each, "calibration")):
        lacking_K = np.full(len(names), each)
        for group in order_G[parts_G[order_G] == 0]:
            if not lacking_K.any():
                break
            if (counts[group] <= lacking_K).all():
                parts_G[group] = part
                lacking_K -= counts.row_K
        if lacking_K.any():
            worst = int(lacking_K.argmax())
            raise UsageError(
                f"Class {names[worst]!r} has {each - int(lacking_K[worst])} of the {each} images "
                f"wanted for the {title} part: its groups of patients and near duplicates, which "
                "may not be divided, do not make up that number. Ask for fewer, or for a share."
            )
    parts_N = parts_G[groups_N]
    return Split(*(np.flatnonzero(parts_N == part) for part in range(3)))


def deal_folds(labels_N: Indices, groups_N: Indices, folds: int, seed: int) -> Indices:
    """Deal whole groups to so many folds of one size; return each image's fold, int64 (N,)."""
    return deal(labels_N, groups_N, [1 / folds] * folds, seed)


def split_folds(labels_N: Indices, groups_N: Indices, folds: int, seed: int) -> Rows[Split]:
    """Divide into k folds: each is the test part once and the calibration part once.

    In split f fold f tests, fold f + 1 calibrates and the k - 2 others train, so that figures
    pooled over the test parts cover every image once, none by a network or threshold that saw it.
    A split's positions are found when it is asked for: those of all would be the set k times.

    Args:
        labels_N: Class of each image.
        groups_N: Group of each image.
        folds: k, at least 3.
        seed: As of `deal`.

    Raises:
        UsageError: There are more folds than groups.
    """
    num_groups = len(np.unique(groups_N))
    if folds > num_groups:
        raise UsageError(
            f"split.folds is {folds:,}, and the set has {num_groups:,} groups of patients and near "
            "duplicates, which may not be divided; use fewer folds."
        )
    parts_N = deal_folds(labels_N, groups_N, folds, seed).astype(np.int32)

    def split(fold: int) -> Split:
        test_N = parts_N == fold
        calibration_N = parts_N == (fold + 1) % folds
        train_N = ~test_N & ~calibration_N
        return Split(*(np.flatnonzero(x) for x in (train_N, calibration_N, test_N)))

    return Rows(folds, split)


def check_split(
    split: Split,
    labels_N: Indices,
    groups_N: Indices,
    names: Sequence[str],
    spared: Collection[str] = (),
) -> None:
    """Prove that no group is on two sides and that every class can be trained and measured.

    Args:
        split: The division.
        labels_N: Class of each image.
        groups_N: Group of each image.
        names: The classes.
        spared: Parts that nothing is kept for, `calibration` or `test`.

    Raises:
        UsageError: A class has no image in a part that is not spared: it has too few patients or
            groups. One patient who has all images leaves parts without any.
        ValueError: A group is on two sides; no input may cause that.
    """
    parts = {
        "training": split.train_N,
        "calibration": split.calibration_N,
        "test": split.test_N,
    }
    owner_G = np.full(int(groups_N.max()) + 1, -1)
    for number, (part, indices_N) in enumerate(parts.items()):
        before_N = owner_G[groups_N[indices_N]]
        if (before_N >= 0).any():
            at = int(np.argmax(before_N >= 0))
            owner = [*parts][before_N[at]]
            raise ValueError(f"Group {groups_N[indices_N[at]]} is in {owner} and in {part}.")
        owner_G[groups_N[indices_N]] = number
        missing = sorted(set(range(len(names))) - set(np.unique(labels_N[indices_N]).tolist()))
        if missing and part not in spared:
            counts = (len(np.unique(groups_N[labels_N == label])) for label in missing)
            classes = ", ".join(
                f"{names[label]!r} (groups: {count})"
                for label, count in zip(missing, counts, strict=True)
            )
            raise UsageError(
                f"No image is left for the {part} part of {classes}. A group is a patient with all "
                "near duplicates, and may not be divided. Add images of other patients, leave "
                "these classes out, or use fewer folds."
            )
