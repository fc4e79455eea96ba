"""Automatic masks against phantoms' true ones, their grades, files of masks, and overlap."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render, render_without_implant
from training.data.labelled import LabelledSet
from training.masks.automatic import find_mask, flatten, thresholds
from training.masks.grade import edge_step, grade_mask
from training.masks.mask_files import contact_sheet, mask_file, read_mask, write_masks
from training.masks.mask_set import find_files
from training.masks.objects import clean_up, fill_holes
from training.masks.overlap import dice, iou, overlap_figures, overlaps, pool_overlaps

SIDE = 96
Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def phantom(product: int, seed: int, side: int = SIDE) -> tuple[Grey, Mask]:
    """A prepared phantom with its true mask."""
    drawn = render(ORTHONET.implants[product], np.random.default_rng([product, seed]), 192)
    image = Preprocessing(size_px=side, trim_borders=False)
    plain = Preprocessing(size_px=side, trim_borders=False, low_percent=0.0, high_percent=100.0)
    mask_HW = preprocess(drawn.mask_HW.astype(np.uint8) * 255, plain) > 127
    return preprocess(drawn.pixels_HW, image), mask_HW


def scene() -> tuple[Grey, Mask]:
    """A stem of metal in a thigh with a bone, beside a background that rises to the right."""
    grey_HW = np.tile(np.linspace(20, 215, SIDE), (SIDE, 1))
    grey_HW[:, 30:60] += 25  # bone
    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[20:75, 40:50] = True
    mask_HW[20:32, 34:56] = True
    grey_HW[mask_HW] += 50
    noise_HW = np.random.default_rng(0).normal(0, 2, grey_HW.shape)
    return np.clip(grey_HW + noise_HW, 0, 255).astype(np.uint8), mask_HW


def test_masks_of_phantoms_lie_on_the_implant() -> None:
    """Each product; the whole measurement is in `benchmarks.mask_overlap`."""
    overlaps = []
    for product in range(len(ORTHONET)):
        image_HW, true_HW = phantom(product, 3)
        overlaps.append(dice(find_mask(image_HW).mask_HW, true_HW))
    assert np.median(overlaps) > 0.92
    assert sum(overlap > 0.85 for overlap in overlaps) >= 9


def test_a_background_brighter_than_metal_elsewhere_does_not_hide_it() -> None:
    image_HW, true_HW = scene()
    assert image_HW[:, -1].mean() > image_HW[true_HW].mean()
    found = find_mask(image_HW)
    assert dice(found.mask_HW, true_HW) > 0.93
    assert found.grade.word == "good"
    plain = [dice(clean_up(image_HW > grey), true_HW) for grey in thresholds(image_HW)]
    assert max(plain) < dice(found.mask_HW, true_HW)  # no cut of the whole picture does as well


def test_collimator_and_marker_are_no_implant() -> None:
    image_HW, true_HW = scene()
    image_HW[:6] = 255
    image_HW[:, :5] = 255
    image_HW[84:92, 84:90] = 255
    assert dice(find_mask(image_HW).mask_HW, true_HW) > 0.9


def test_padding_changes_nothing() -> None:
    image_HW, _ = scene()
    padded_HW = np.pad(image_HW, ((0, 0), (14, 20)))
    found_HW = find_mask(padded_HW).mask_HW
    assert np.array_equal(found_HW[:, 14:-20], find_mask(image_HW).mask_HW)
    assert not found_HW[:, :14].any()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_without_anything_has_no_mask(grey: int) -> None:
    found = find_mask(np.full((SIDE, SIDE), grey, np.uint8))
    assert not found.mask_HW.any()
    assert found.grade.score == 0
    assert found.grade.reasons == ("no object",)


def test_bones_without_implant_are_graded_below_implants() -> None:
    spec = Preprocessing(size_px=SIDE, trim_borders=False)
    bare, metal = [], []
    for seed in range(6):
        pixels_HW = render_without_implant(np.random.default_rng(seed), 192).pixels_HW
        bare.append(find_mask(preprocess(pixels_HW, spec)).grade.score)
        metal.append(find_mask(phantom(seed, 3)[0]).grade.score)
    assert np.median(bare) < np.median(metal) - 0.1


def test_each_fault_has_its_reason() -> None:
    image_HW, true_HW = scene()
    whole = grade_mask(image_HW, true_HW)
    assert (whole.word, whole.reasons) == ("good", ())
    shifted_HW = np.roll(true_HW, 25, axis=1)
    assert "edge" in grade_mask(image_HW, shifted_HW).reasons
    cut_HW = true_HW.copy()
    cut_HW[40:] = False  # within the metal: one stretch of the outline has no edge
    cut_HW[:, 45:] = False
    assert "edge" in grade_mask(image_HW, cut_HW).reasons
    speck_HW = np.zeros_like(true_HW)
    speck_HW[25:29, 42:46] = True
    assert "area" in grade_mask(image_HW, speck_HW).reasons
    assert "area" in grade_mask(image_HW, np.ones_like(true_HW)).reasons
    bar_HW = np.zeros_like(true_HW)
    bar_HW[:10] = True
    assert "border" in grade_mask(image_HW, bar_HW).reasons
    star_HW = np.zeros((SIDE, SIDE), np.uint8)
    for angle in np.arange(0, np.pi, np.pi / 4):
        along = (np.array([np.cos(angle), np.sin(angle)]) * 40).astype(int)
        start, end = (48 - along).tolist(), (48 + along).tolist()
        cv2.line(star_HW, start, end, 1, 2)
    assert "solidity" in grade_mask(image_HW, star_HW > 0).reasons
    assert grade_mask(image_HW, shifted_HW).score < whole.score


def test_the_step_of_an_edge_is_in_greys() -> None:
    image_HW = np.full((64, 64), 50, np.uint8)
    mask_HW = np.zeros((64, 64), bool)
    mask_HW[20:40, 20:40] = True
    image_HW[mask_HW] = 130
    mean, weak = edge_step(image_HW, mask_HW, 0.2)
    assert mean == pytest.approx(80)
    assert weak == pytest.approx(80)
    assert edge_step(image_HW, ~mask_HW, 0.2)[0] == pytest.approx(-80)
    assert edge_step(image_HW, np.zeros_like(mask_HW), 0.2) == (0.0, 0.0)


def test_flattening_takes_a_ramp_away() -> None:
    image_HW, true_HW = scene()
    flat_HW = flatten(image_HW, 0.25)
    assert flat_HW.dtype == np.uint8
    assert flat_HW[true_HW].mean() > np.quantile(flat_HW[~true_HW], 0.95)
    assert image_HW[true_HW].mean() < np.quantile(image_HW[~true_HW], 0.95)


def test_the_trough_between_two_peaks_is_among_the_thresholds() -> None:
    rng = np.random.default_rng(0)
    greys = np.concatenate([rng.normal(90, 12, 7000), rng.normal(200, 8, 3000)])
    found = thresholds(np.clip(greys, 0, 255).astype(np.uint8).reshape(100, 100))
    assert any(120 < grey < 180 for grey in found)
    assert found == sorted(set(found))


def test_two_objects_are_kept_and_holes_filled() -> None:
    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[20:60, 30:60] = True
    mask_HW[30:34, 40:44] = False  # a screw hole
    mask_HW[63:75, 35:55] = True  # a second component, near
    mask_HW[40:44, 70:72] = True  # a speck
    mask_HW[30:60, 20:22] = True  # third in size
    clean_HW = clean_up(mask_HW)
    assert clean_HW[31, 41]
    assert clean_HW[70, 40]
    assert not clean_HW[41, 71]
    assert not clean_HW[45, 21]
    far_HW = mask_HW.copy()
    far_HW[63:75, 35:55] = False
    far_HW[30:60, 20:22] = False
    far_HW[72:84, 35:55] = True  # as large, but as far away as no joint is
    assert not clean_up(far_HW)[80, 40]


def test_a_larger_object_within_the_edge_is_a_marker() -> None:
    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[30:50, 40:46] = True
    mask_HW[2:10, 20:60] = True  # a bar beside the edge, not upon it
    clean_HW = clean_up(mask_HW)
    assert clean_HW[40, 42]
    assert not clean_HW[5, 30]


def test_what_reaches_the_border_is_no_hole() -> None:
    mask_HW = np.zeros((40, 40), bool)
    mask_HW[5:, 10:30] = True
    mask_HW[38:, 18:21] = False
    assert not fill_holes(mask_HW)[39, 19]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_cleaning_up_twice_is_cleaning_up_once(seed: int, share: float) -> None:
    noise_HW = np.random.default_rng(seed).random((24, 24)).astype(np.float32)
    mask_HW = cv2.GaussianBlur(noise_HW, (0, 0), 2) > 0.4 + 0.2 * share
    once_HW = clean_up(mask_HW)
    assert np.array_equal(fill_holes(once_HW), once_HW)
    assert cv2.connectedComponents(once_HW.astype(np.uint8), connectivity=4)[0] <= 3


def test_masks_are_written_and_read_back(tmp_path: Path) -> None:
    image_HW, mask_HW = scene()
    names = ["hips.tar/a/001.dcm", "002"]
    write_masks(tmp_path, names, np.stack([image_HW] * 2), np.stack([mask_HW, ~mask_HW]))
    file = mask_file(tmp_path, "hips.tar", "a/001.dcm")
    assert file == tmp_path / "hips.tar" / "a" / "001.dcm.png"
    assert np.array_equal(read_mask(file, SIDE, "The mask"), mask_HW)
    assert mask_file(tmp_path, "knees.tar", "002.png") == tmp_path / "002.png"
    assert mask_file(tmp_path, "hips.tar", "a/003.dcm") is None
    picture = cv2.imread(str(file).replace("001.dcm.png", "001.dcm.picture.png"), 0)
    assert picture is not None
    assert np.array_equal(picture, image_HW)


def labelled_set(*members: str) -> LabelledSet:
    """Black pictures of one archive, which have names."""
    count = len(members)
    places = tuple(("hips.tar", member) for member in members)
    nothing = np.zeros(count, np.int64)
    pictures = np.zeros((count, SIDE, SIDE), np.uint8)
    return LabelledSet(pictures, nothing, nothing, nothing, places, ("a", "b"), (), "f" * 64)


def test_masks_that_belong_to_no_image_are_counted(tmp_path: Path) -> None:
    image_HW, mask_HW = scene()
    names = ["hips.tar/1.dcm", "2", "hips.tar/9.dcm", "old/1"]
    write_masks(tmp_path, names, np.stack([image_HW] * 4), np.stack([mask_HW] * 4))
    files, unused = find_files(labelled_set("0.dcm", "1.dcm", "2.dcm"), str(tmp_path))
    assert files == {1: tmp_path / "hips.tar" / "1.dcm.png", 2: tmp_path / "2.png"}
    assert unused == 2
    assert find_files(labelled_set("0.dcm"), "") == ({}, 0)


def test_a_folder_of_masks_must_be_there_and_be_the_sets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"segmenter.masks is .*/none; a folder of masks"):
        find_files(labelled_set("0.dcm"), str(tmp_path / "none"))
    assert find_files(labelled_set("0.dcm"), str(tmp_path)) == ({}, 0)
    (tmp_path / "knee.png").touch()
    with pytest.raises(UsageError, match=r"None of the 1 masks .* ARCHIVE/MEMBER.png"):
        find_files(labelled_set("0.dcm"), str(tmp_path))


@pytest.mark.parametrize("member", ["../secret", "/etc/secret", "a/../../secret", "", ".", "x\0y"])
def test_a_name_that_leads_outside_has_no_mask(tmp_path: Path, member: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "masks").mkdir()
    assert mask_file(tmp_path / "masks", "", member) is None
    with pytest.raises(UsageError, match="member's name leads out"):
        write_masks(
            tmp_path / "masks",
            ["../secret"],
            np.zeros((1, 8, 8), np.uint8),
            np.zeros((1, 8, 8), bool),
        )


def test_a_mask_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((10, 12), np.uint8))
    with pytest.raises(UsageError, match=r"The mask has 10 rows and 12 columns; 96 of each"):
        read_mask(small, SIDE, "The mask")
    for content in (b"", b"no picture", small.read_bytes()[:40]):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(UsageError, match="The mask is no PNG"):
            read_mask(tmp_path / "broken.png", SIDE, "The mask")
    with pytest.raises(UsageError, match=r"The mask cannot be read: No such file"):
        read_mask(tmp_path / "absent.png", SIDE, "The mask")


def test_a_mask_of_other_greys_is_read_and_one_without_an_implant_is_refused(
    tmp_path: Path,
) -> None:
    _, mask_HW = scene()
    file = tmp_path / "1.png"
    for pixels in (mask_HW.astype(np.uint8), mask_HW.astype(np.uint16), mask_HW * np.uint8(76)):
        cv2.imwrite(str(file), pixels)
        assert np.array_equal(read_mask(file, SIDE, "The mask"), mask_HW)
    for wrong_HW, fault in (
        (np.zeros_like(mask_HW), "is of one grey"),
        (np.ones_like(mask_HW), "is of one grey"),
        (~mask_HW, "is white on more than 75%, as a negative is"),
    ):
        cv2.imwrite(str(file), wrong_HW * np.uint8(255))
        with pytest.raises(UsageError, match=f"The mask {fault}; the implant in white on black"):
            read_mask(file, SIDE, "The mask")


def test_a_contact_sheet_shows_both_outlines() -> None:
    image_HW, mask_HW = scene()
    sheet = contact_sheet([(image_HW, mask_HW, np.roll(mask_HW, 9, axis=1))] * 9)
    pixels = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (2 * 192, 8 * 192, 3)
    for colour in ((0, 0, 255), (0, 200, 0)):
        assert (pixels == colour).all(axis=2).any()


def test_overlap_by_hand() -> None:
    one_HW, other_HW = np.zeros((2, 4, 4), bool)
    one_HW[0] = True
    other_HW[0, :2] = True
    other_HW[1, :2] = True
    assert dice(one_HW, other_HW) == pytest.approx(0.5)
    assert iou(one_HW, other_HW) == pytest.approx(1 / 3)
    empty_HW = np.zeros((4, 4), bool)
    assert dice(empty_HW, empty_HW) == iou(empty_HW, empty_HW) == 1
    assert dice(one_HW, empty_HW) == iou(one_HW, empty_HW) == 0


def test_overlap_has_intervals_over_groups() -> None:
    rng = np.random.default_rng(0)
    true_NHW = rng.random((30, 8, 8)) < 0.5
    predicted_NHW = true_NHW ^ (rng.random((30, 8, 8)) < 0.1)
    halves = [np.arange(15), np.arange(15, 30)]
    parts = [overlaps(predicted_NHW[half], true_NHW[half], half) for half in halves]
    figures = overlap_figures(pool_overlaps(parts), np.arange(30))
    pairs = list(zip(predicted_NHW, true_NHW, strict=True))
    assert figures["dice"].value == pytest.approx(np.mean([dice(*pair) for pair in pairs]))
    assert figures["iou"].value == pytest.approx(np.mean([iou(*pair) for pair in pairs]))
    assert figures["dice"].low < figures["dice"].value < figures["dice"].high
    one_group = overlap_figures(pool_overlaps(parts), np.zeros(30, np.int64))
    assert one_group["dice"].low < 0.3  # of one patient next to nothing is known
    nothing = overlap_figures(overlaps(true_NHW[:0], true_NHW[:0], np.arange(0)), np.arange(30))
    assert np.isnan(nothing["dice"].value)
    with pytest.raises(ValueError, match="masks of one size"):
        overlaps(predicted_NHW, true_NHW, np.arange(5))
