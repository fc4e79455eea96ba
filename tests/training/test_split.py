"""Groups never cross a split, classes keep their proportions, and folds cover every image once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model.errors import UsageError
from training.data.split import (
    Split,
    check_split,
    deal,
    draw_each,
    join_groups,
    split_balanced,
    split_folds,
    split_fractions,
)


def test_groups_join_over_patients_and_duplicates() -> None:
    patients = ["a", "b", None, "a", None, "c"]
    pictures = [0, 1, 1, 3, 4, 4]
    assert join_groups(patients, pictures).tolist() == [0, 1, 1, 0, 2, 2]


def test_unknown_patients_are_not_one_patient() -> None:
    assert join_groups([None, None, None]).tolist() == [0, 1, 2]


SHARES = (0.7, 0.2, 0.1)


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=12, max_size=60))
    num_classes = draw(st.integers(2, 4))
    labels, groups = [], []
    for group, size in enumerate(sizes):
        labels += [group % num_classes] * size
        groups += [group] * size
    return np.array(labels), np.array(groups)


@settings(max_examples=60, deadline=None)
@given(labelled_groups(), st.integers(3, 6), st.integers(0, 5))
def test_folds_cover_every_image_once_and_share_no_group(
    labelled: tuple[np.ndarray, np.ndarray], folds: int, seed: int
) -> None:
    labels_N, groups_N = labelled
    splits = split_folds(labels_N, groups_N, folds, seed)
    tested = np.concatenate([split.test_N for split in splits])
    assert sorted(tested.tolist()) == list(range(len(labels_N)))
    for split in splits:
        parts = [set(groups_N[part].tolist()) for part in vars(split).values()]
        assert sum(map(len, parts)) == len(set().union(*parts))
        assert sum(len(part) for part in vars(split).values()) == len(labels_N)


def test_fractions_keep_each_class_in_proportion() -> None:
    labels_N = np.repeat([0, 1, 2], [200, 100, 60])
    groups_N = np.arange(360) // 2
    split = split_fractions(labels_N, groups_N, 0.2, 0.1, seed=3)
    for part, share in zip((split.train_N, split.calibration_N, split.test_N), SHARES, strict=True):
        wanted = np.array([200, 100, 60]) * share
        assert np.abs(np.bincount(labels_N[part]) - wanted).max() <= 2


def test_the_same_seed_gives_the_same_parts_and_another_other_ones() -> None:
    labels_N, groups_N = np.tile([0, 1], 50), np.arange(100)
    first, again, other = (deal(labels_N, groups_N, [0.5, 0.5], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_part_of_no_share_gets_nothing() -> None:
    parts_N = deal(np.zeros(31, np.int64), np.arange(31), [0.7, 0.3, 0.0], seed=0)
    assert np.bincount(parts_N, minlength=3)[2] == 0


def test_a_class_in_one_group_is_refused() -> None:
    labels_N = np.array([0] * 20 + [1] * 5)
    groups_N = np.array([*range(20), 20, 20, 20, 20, 20])
    split = split_fractions(labels_N, groups_N, 0.25, 0.25, seed=0)
    with pytest.raises(UsageError, match=r"No image .* part of 'rare' \(groups: 1\)"):
        check_split(split, labels_N, groups_N, ("common", "rare"))


def test_one_patient_with_all_images_leaves_nothing_to_measure() -> None:
    labels_N, groups_N = np.array([0, 1] * 6), np.zeros(12, np.int64)
    split = split_fractions(labels_N, groups_N, 0.2, 0.2, seed=0)
    with pytest.raises(UsageError, match=r"for the calibration part of 'a' \(groups: 1\), 'b'"):
        check_split(split, labels_N, groups_N, ("a", "b"))
    with pytest.raises(UsageError, match="for the test part"):
        check_split(split, labels_N, groups_N, ("a", "b"), ("calibration",))
    check_split(split, labels_N, groups_N, ("a", "b"), ("calibration", "test"))


def test_more_folds_than_groups_are_refused_at_once() -> None:
    labels_N, groups_N = np.array([0, 1] * 6), np.repeat(np.arange(4), 3)
    with pytest.raises(UsageError, match=r"folds is 1,000,000,000, and the set has 4 groups"):
        split_folds(labels_N, groups_N, 10**9, seed=0)


def test_a_group_on_two_sides_is_found() -> None:
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    labels_N, groups_N = np.array([0, 1] * 3), np.array([0, 1, 2, 3, 0, 5])
    with pytest.raises(ValueError, match="Group 0 is in training and in test"):
        check_split(split, labels_N, groups_N, ("a", "b"))


def test_a_balanced_split_has_so_many_of_each_class_and_no_group_on_two_sides() -> None:
    rng = np.random.default_rng(0)
    groups_N = np.sort(rng.integers(0, 160, 400))
    _, groups_N = np.unique(groups_N, return_inverse=True)
    labels_N = (groups_N * 7 % 11 % 3).astype(np.int64)  # a group has one class
    split = split_balanced(labels_N, groups_N, 10, 15, 0, ("a", "b", "c"))
    assert np.bincount(labels_N[split.test_N]).tolist() == [15, 15, 15]
    assert np.bincount(labels_N[split.calibration_N]).tolist() == [10, 10, 10]
    assert len(split.train_N) == 400 - 75
    check_split(split, labels_N, groups_N, ("a", "b", "c"))


def test_a_class_that_cannot_fill_a_balanced_part_is_named() -> None:
    labels_N = np.array([0] * 40 + [1] * 12)
    groups_N = np.concatenate([np.arange(40), np.repeat([40, 41, 42], 4)])
    with pytest.raises(UsageError, match=r"Class 'cup' has 4 of the 5 images wanted for the test"):
        split_balanced(labels_N, groups_N, 4, 5, 0, ("stem", "cup"))


def test_of_a_class_each_group_is_drawn_from_before_any_gives_a_second_image() -> None:
    labels_N = np.repeat([0, 1], [500, 100])
    groups_N = np.r_[np.full(480, 7), np.arange(20), np.full(96, 30), np.arange(31, 35)]
    drawn = draw_each(labels_N, 60, 1, groups_N)
    assert np.bincount(labels_N[drawn]).tolist() == [30, 30]
    assert len(np.unique(groups_N[drawn])) == 20 + 1 + 4
    assert len(np.unique(drawn)) == 60
    assert draw_each(labels_N, 600, 1, groups_N).tolist() == [*range(600)]
