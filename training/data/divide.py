"""Groups a labelled set by patient and near duplicate, and makes the splits of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates import near_groups
from training.data.labelled import LabelledSet
from training.data.set_columns import Rows
from training.data.split import (
    Split,
    check_split,
    join_groups,
    split_balanced,
    split_folds,
    split_fractions,
)
from training.settings import SplitSettings


@dataclass(frozen=True)
class Division:
    """What is trained, and on what.

    Attributes:
        groups_N: Group of each image, int64.
        duplicates: Images that are near duplicates of an earlier one.
        shipped: The split of the network that goes into the package; with folds it has no test
            part of its own.
        folds: The splits that are measured instead; empty without folds.
    """

    groups_N: NDArray[np.int64]
    duplicates: int
    shipped: Split
    folds: Sequence[Split]


def divide(labelled: LabelledSet, settings: SplitSettings, calibrate: bool = True) -> Division:
    """Make groups and splits, and prove that no group is on two sides.

    Args:
        labelled: The set.
        settings: How it is divided.
        calibrate: Whether a part is kept for calibration; without, it trains, too.

    Raises:
        UsageError: A class is missing from a part, or there are fewer groups than folds.
    """
    pictures_N = near_groups(labelled.hashes(), settings.duplicate_bits)
    groups_N = join_groups(labelled.patients_N, pictures_N)
    labels_N = labelled.labels_N
    folds: Sequence[Split] = ()
    if settings.folds:
        folds = split_folds(labels_N, groups_N, settings.folds, settings.seed)
        first = folds[0]
        nothing = np.empty(0, dtype=np.int64)
        kept = np.sort(np.concatenate([first.train_N, first.test_N]))
        shipped = Split(kept, first.calibration_N, nothing)
    elif settings.test_each:
        each = settings.calibration_each, settings.test_each
        shipped = split_balanced(labels_N, groups_N, *each, settings.seed, labelled.names)
    else:
        shares = settings.calibration, settings.test
        shipped = split_fractions(labels_N, groups_N, *shares, settings.seed)
    if not calibrate:
        whole = folds
        folds = Rows(len(whole), lambda fold: _without_calibration(whole[fold]))
        shipped = _without_calibration(shipped)
    spared = () if calibrate else ("calibration",)
    for split in folds:
        check_split(split, labels_N, groups_N, labelled.names, spared)
    shipped_spares = (*spared, "test") if settings.folds else spared
    check_split(shipped, labels_N, groups_N, labelled.names, shipped_spares)
    duplicates = int((pictures_N != np.arange(len(pictures_N))).sum())
    return Division(groups_N, duplicates, shipped, folds)


def _without_calibration(split: Split) -> Split:
    train_N = np.union1d(split.train_N, split.calibration_N)
    return Split(train_N, split.calibration_N[:0], split.test_N)
