"""What is said of a labelled set before it is trained on."""

from dataclasses import replace

import numpy as np
import pytest

from implant_model.errors import UsageError
from training.data.divide import Division, check_held_out, check_watched, divide
from training.data.labelled import LabelledSet
from training.data.set_report import describe_classes, describe_links, describe_shortcuts
from training.data.shortcuts import probe_shortcuts
from training.data.split import Split
from training.settings import SplitSettings


@pytest.fixture(scope="module")
def labelled() -> LabelledSet:
    """80 pictures of two classes: two alike, a patient of both, one class larger than the other."""
    pictures = np.random.default_rng(0).integers(60, 200, (80, 32, 32), dtype=np.uint8)
    pictures[41] = pictures[43]
    patients_N = np.arange(80)
    patients_N[10] = patients_N[15]
    patients_N[20] = -1
    labels_N = np.where(np.arange(80) < 60, np.arange(80) % 2, 1)
    sizes_N2 = np.where(labels_N[:, None] == 1, 900, 250).repeat(2, axis=1)
    sizes_N2[0] = 300
    places = tuple(("a.tar", f"{number}.png") for number in range(80))
    return LabelledSet(pictures, labels_N, patients_N, sizes_N2, places, ("cup", "stem"), (), "f")


@pytest.fixture(scope="module")
def division(labelled: LabelledSet) -> Division:
    return divide(labelled, SplitSettings())


def test_classes_come_with_groups_and_sizes_the_smallest_first(
    labelled: LabelledSet, division: Division
) -> None:
    assert describe_classes(labelled, division) == [
        "  cup: 30 images in 30 groups; 250 x 250 in 29, 1 other sizes",
        "  stem: 50 images in 49 groups; 900 x 900 in 50, 0 other sizes",
    ]


def test_duplicates_and_patients_of_two_classes_are_counted(
    labelled: LabelledSet, division: Division
) -> None:
    assert describe_links(labelled, division, named=True) == [
        "80 images of 2 classes in 78 groups of patients and near duplicates; of 79 the patient is "
        "known.",
        "Near duplicates of an earlier image: 1",
        "Patients with images of two classes or more: 1, such as that of a.tar 10.png",
        "Groups with images of two classes or more: 1, such as that of a.tar 10.png",
    ]


def test_early_stopping_takes_neither_a_class_nor_nothing(labelled: LabelledSet) -> None:
    """Of 18 cups all but one are a patient's; all of a part may be one's, too."""
    labels_N, patients_N = np.repeat([0, 1], [18, 62]), np.arange(80)
    patients_N[2:16] = 0
    few = replace(labelled, labels_N=labels_N, patients_N=patients_N)
    division = divide(few, SplitSettings(duplicate_bits=0, calibration=0.1, test=0.1))
    check_watched(few, division, 0.0, 0)
    with pytest.raises(UsageError, match=r"validation is 0.95, .* no image of 'cup' to train on"):
        check_watched(few, division, 0.95, 0)
    check_watched(labelled, divide(labelled, SplitSettings()), 0.2, 0)
    with pytest.raises(UsageError, match=r"validation is 0.001, and leaves no image to watch"):
        check_watched(labelled, divide(labelled, SplitSettings()), 0.001, 0)


def test_a_class_that_one_patient_has_is_not_held_out_from_itself(labelled: LabelledSet) -> None:
    labels_N, groups_N = np.repeat([0, 1], [20, 60]), np.arange(80)
    groups_N[:12] = 0
    few = replace(labelled, labels_N=labels_N)
    split = Split(np.r_[0:12, 20:60], np.zeros(0, np.int64), np.r_[12:20, 60:80])
    division = Division(groups_N, 0, split, ())
    check_held_out(few, division, (), 0)
    with pytest.raises(UsageError, match=r"without one of its 5 folds .* 0 of them of 'cup'"):
        check_held_out(few, division, (5,), 0)
    one_each = replace(division, shipped=replace(split, train_N=np.array([0, 20])))
    with pytest.raises(UsageError, match=r"The training part has 2 images, .* more images than"):
        check_held_out(few, one_each, (), 0)


def test_the_same_file_under_two_labels_is_warned_of(
    labelled: LabelledSet, division: Division
) -> None:
    digests = [f"{number:016x}" for number in range(80)]
    assert len(describe_links(replace(labelled, digests=digests), division, named=True)) == 4
    digests[7], digests[10] = digests[6], digests[12]  # of two classes, and of one
    last = describe_links(replace(labelled, digests=digests), division, named=True)[-1]
    assert last.startswith("WARNING: 1 radiographs are there more than once, under different")
    assert "labels, such as a.tar 6.png. Correct" in last
    last = describe_links(replace(labelled, digests=digests), division, named=False)[-1]
    assert ".png" not in last


def test_a_cue_that_gives_classes_away_is_warned_of(
    labelled: LabelledSet, division: Division
) -> None:
    def lines(sizes_N2: np.ndarray) -> list[str]:
        found = probe_shortcuts(labelled.cues(), sizes_N2, labelled.labels_N, division.groups_N)
        return list(describe_shortcuts(found))

    told = lines(labelled.sizes_N2)
    assert told[2].startswith("  stored size: 1.000 (0.95")
    assert [line for line in told if "WARNING" in line][0].startswith("WARNING: stored size give")
    assert not [line for line in lines(np.full((80, 2), 250)) if "WARNING" in line]


def test_what_is_drawn_to_train_is_what_must_be_held_out_from_itself(
    labelled: LabelledSet,
) -> None:
    settings = SplitSettings(duplicate_bits=0)
    check_held_out(labelled, divide(labelled, settings, calibrate=False), (2,), 0)
    drawn = divide(labelled, settings, calibrate=False, most=4)
    with pytest.raises(UsageError, match=r"without one of its 2 folds .* has 2 images, 1 of them"):
        check_held_out(labelled, drawn, (2,), 0)
    one_each = divide(labelled, settings, calibrate=False, most=3)
    with pytest.raises(UsageError, match=r"training part has 2 images, 1 of them of 'cup'"):
        check_held_out(labelled, one_each, (), 0)
