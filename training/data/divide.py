"""Groups a labelled set by patient and near duplicate, makes the splits of a training, checks them.

What a fit or a calibration would fail for in the end, hours later, is found here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from training.data.duplicates import near_groups
from training.data.labelled import LabelledSet
from training.data.set_columns import Rows
from training.data.split import (
    Split,
    check_split,
    deal,
    deal_folds,
    draw_each,
    join_groups,
    renumber,
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


def divide(
    labelled: LabelledSet, settings: SplitSettings, calibrate: bool = True, most: int = 0
) -> Division:
    """Make groups and splits, and prove that no group is on two sides.

    Args:
        labelled: The set.
        settings: How it is divided.
        calibrate: Whether a part is kept for calibration; without, it trains, too.
        most: Images of a training part: of a larger one a lot of each class trains, and the rest
            is in no part; 0 for all.

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

    def trained(split: Split) -> Split:
        whole = split if calibrate else _without_calibration(split)
        return _drawn(whole, labels_N, groups_N, most) if most else whole

    dealt = folds
    folds, shipped = Rows(len(dealt), lambda fold: trained(dealt[fold])), trained(shipped)
    spared = () if calibrate else ("calibration",)
    for split in folds:
        check_split(split, labels_N, groups_N, labelled.names, spared)
    shipped_spares = (*spared, "test") if settings.folds else spared
    check_split(shipped, labels_N, groups_N, labelled.names, shipped_spares)
    duplicates = int((pictures_N != np.arange(len(pictures_N))).sum())
    return Division(groups_N, duplicates, shipped, folds)


def watch(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.bool_]:
    """Return which images of a training part early stopping watches instead, whole groups of them.

    Args:
        labels_N: Class of each image of the part.
        groups_N: Their groups.
        share: `fit.validation`.
        seed: Order in which groups are dealt.
    """
    return np.asarray(deal(labels_N, renumber(groups_N), [1 - share, share], seed) == 1)


def check_watched(labelled: LabelledSet, division: Division, share: float, seed: int) -> None:
    """Find before anything is fitted that early stopping would take a class, or get no image.

    Args:
        labelled: The set.
        division: Its parts.
        share: `fit.validation`; 0 for no early stopping.
        seed: As of `watch`.

    Raises:
        UsageError: See above.
    """
    for split in (*division.folds, division.shipped) if share else ():
        labels_N = labelled.labels_N[split.train_N]
        watched_N = watch(labels_N, division.groups_N[split.train_N], share, seed)
        left_K = np.bincount(labels_N[~watched_N], minlength=len(labelled.names))
        if not watched_N.any() or not left_K.all():
            fault = "no image to watch"
            if not left_K.all():
                fault = f"no image of {labelled.names[int(left_K.argmin())]!r} to train on"
            raise UsageError(
                f"fit.validation is {share}, and leaves {fault}: the training part has too few "
                "groups of patients and near duplicates, which may not be divided. Use another "
                "share, or 0 with fit.patience = 0."
            )


def check_held_out(
    labelled: LabelledSet, division: Division, numbers: Sequence[int], seed: int
) -> None:
    """Find before anything is fitted that a training part cannot be held out from itself.

    What novelty is measured from needs an image of each class, and one image more.

    Args:
        labelled: The set.
        division: Its parts.
        numbers: Of folds that a training part is dealt to; () for none: it is used whole.
        seed: Order in which groups are dealt.

    Raises:
        UsageError: A class has too few groups.
    """
    for split in (*division.folds, division.shipped):
        labels_N = labelled.labels_N[split.train_N]
        groups_N = renumber(division.groups_N[split.train_N])
        _check_enough(labels_N, labelled.names, "training part")
        for folds in numbers:
            folds_N = deal_folds(labels_N, groups_N, folds, seed)
            for fold in np.unique(folds_N).tolist():
                title = f"training part without one of its {folds} folds (calibration.folds)"
                _check_enough(labels_N[folds_N != fold], labelled.names, title)


def _check_enough(labels_N: NDArray[np.int64], names: Sequence[str], title: str) -> None:
    counts_K = np.bincount(labels_N, minlength=len(names))
    if counts_K.all() and len(labels_N) > len(names):
        return
    few = names[int(counts_K.argmin())]
    raise UsageError(
        f"The {title} has {len(labels_N):,} images, {int(counts_K.min())} of them of {few!r}; each "
        "class and more images than classes are needed. Groups of patients and near duplicates "
        "may not be divided: add images of other patients, or leave the class out."
    )


def _without_calibration(split: Split) -> Split:
    train_N = np.union1d(split.train_N, split.calibration_N)
    return Split(train_N, split.calibration_N[:0], split.test_N)


def _drawn(
    split: Split, labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], most: int
) -> Split:
    train_N = split.train_N
    drawn = draw_each(labels_N[train_N], most, 1, groups_N[train_N])
    return Split(train_N[drawn], split.calibration_N, split.test_N)
