import csv
import hashlib
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from implant_model import storage
from implant_model.archives.read import read_members
from implant_model.decode.prepare import decode
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET, Implant
from implant_model.phantoms.files import (
    FORMATS,
    SUFFIXES,
    TRANSFER_SYNTAXES,
    Sample,
    draw_patient,
    sample_archive,
    sample_archives,
    write_dicom,
    write_jpeg,
    write_mask,
    write_png,
)
from implant_model.phantoms.render import (
    OTHERS,
    Phantom,
    render,
    render_unknown,
    render_without_implant,
)
from implant_model.phantoms.shapes import loft, rod, rounded
from implant_model.phantoms.solids import Frame, Map, add_ball, add_bowl, add_loft, add_prism

DRAW: dict[str, Callable[[np.random.Generator, int], Phantom]] = {
    **{implant.name: partial(render, implant) for implant in ORTHONET},
    **{kind: partial(render_unknown, kind=kind) for kind in OTHERS},
    "none": render_without_implant,
}


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def plane(side_mm: int = 100, px_per_mm: float = 4.0) -> tuple[Map, Frame]:
    """An empty map of a square field and a frame with its origin in the middle."""
    side = round(side_mm * px_per_mm)
    matrix = np.array([[px_per_mm, 0, side / 2 - 0.5], [0, px_per_mm, side / 2 - 0.5]])
    return np.zeros((side, side), np.float32), Frame(matrix)


def volume(chords_HW: Map, frame: Frame) -> float:
    return float(chords_HW.sum(dtype=np.float64)) / frame.px_per_mm**2


# --- geometry: the sum of all chords is the body's volume, whatever its pose


def test_ball_has_its_chord_and_volume() -> None:
    chords, frame = plane()
    add_ball(chords, frame.at(5.0, -7.0), 20.0, 1.0)
    assert chords.max() == pytest.approx(40.0, rel=1e-3)
    assert volume(chords, frame) == pytest.approx(4 / 3 * np.pi * 20**3, rel=1e-3)


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_rod_has_its_volume_in_every_direction(degrees: int) -> None:
    chords, frame = plane()
    add_loft(chords, frame.at(0, 0, degrees), loft([(-30, -8, 8), (30, -8, 8)], smooth_mm=0))
    assert chords.max() == pytest.approx(16.0, rel=0.01)
    assert volume(chords, frame) == pytest.approx(np.pi * 8**2 * 60, rel=0.01)


@pytest.mark.parametrize("exponent", [2, 4, 8])
def test_squarer_cross_sections_hold_more(exponent: int) -> None:
    # area of |x/a|^n + |y/b|^n = 1 is 4ab gamma(1+1/n)^2 / gamma(1+2/n): 0.785, 0.927, 0.979 x 4ab
    share = {2: 0.7854, 4: 0.9270, 8: 0.9784}[exponent]
    chords, frame = plane()
    body = loft([(-30, -8, 8, 10), (30, -8, 8, 10)], exponent, smooth_mm=0)
    add_loft(chords, frame, body)
    assert volume(chords, frame) == pytest.approx(share * 16 * 10 * 60, rel=0.01)


def test_turned_body_keeps_its_volume_and_shows_its_depth() -> None:
    flat = loft([(-30, -12, 12, 6), (30, -12, 12, 6)], smooth_mm=0)
    widths, volumes = [], []
    for turn in (0.0, 45.0, 90.0):
        chords, frame = plane()
        add_loft(chords, frame, flat, 1.0, turn)
        widths.append(np.count_nonzero(chords[200] > 0) / 4)
        volumes.append(volume(chords, frame))
    assert widths == pytest.approx([24, np.hypot(12, 3) * np.sqrt(2), 6], abs=0.6)
    assert volumes == pytest.approx([volumes[0]] * 3, rel=0.02)


@pytest.mark.parametrize("tilt", [2.0, 20.0, 60.0])
def test_bowl_is_half_a_shell_that_opens_downwards(tilt: float) -> None:
    chords, frame = plane()
    add_bowl(chords, frame, (25.0, 20.0), tilt, 1.0)
    assert volume(chords, frame) == pytest.approx(2 / 3 * np.pi * (25**3 - 20**3), rel=0.01)
    assert chords.min() > -1e-3
    assert chords[:200].sum() > chords[200:].sum()


def test_prism_covers_its_outline_and_its_bevel_thins_the_edge() -> None:
    square = np.array([(-20.0, -10), (20, -10), (20, 10), (-20, 10)])
    plain, frame = plane()
    add_prism(plain, frame, square, 3.0)
    half = 0.5 / frame.px_per_mm
    most = 3 * (40 + 2 * half) * (20 + 2 * half)
    assert 3 * 40 * 20 <= volume(plain, frame) <= most * 1.01
    bevelled, _ = plane()
    add_prism(bevelled, frame, square, 3.0, bevel_mm=4.0)
    assert bevelled[200, 200] == pytest.approx(3.0)
    assert 0 < bevelled[200, 200 - 78] < 2.0 < plain[200, 200 - 78]


def test_mirrored_part_lies_on_the_other_side() -> None:
    right, frame = plane()
    left, _ = plane()
    add_ball(right, frame.at(20, 5), 8.0, 1.0)
    add_ball(left, frame.at(0, 0, scale=(-1.0, 1.0)).at(20, 5), 8.0, 1.0)
    np.testing.assert_allclose(left, right[:, ::-1], atol=1e-4)


def test_bodies_outside_the_picture_are_cut_off() -> None:
    chords, frame = plane()
    add_ball(chords, frame.at(500, 0), 20.0, 1.0)
    add_loft(chords, frame.at(0, -500), rod(0, 50, 10))
    add_prism(chords, frame.at(-300, 0), rounded([(0, 0), (9, 0), (9, 9), (0, 9)]), 1.0)
    assert not chords.any()


# --- pictures


@pytest.mark.parametrize("name", DRAW)
def test_phantom_is_a_radiograph(name: str) -> None:
    for seed in range(3):
        phantom = DRAW[name](generator(seed, 5), 256)
        pixels = phantom.pixels_HW
        assert pixels.dtype == np.uint16
        assert pixels.shape[0] == 256
        assert 0.55 * 256 <= pixels.shape[1] <= 1.25 * 256
        assert phantom.mask_HW.shape == pixels.shape
        assert pixels.max() <= 4095
        assert np.percentile(pixels, 99) - np.percentile(pixels, 5) > 800
        assert 0.4 < phantom.spacing_mm < 1.5
        assert (phantom.view, phantom.laterality) in {
            (view, side) for view in ("AP", "LL") for side in "LR"
        }
        if name == "none":
            assert not phantom.mask_HW.any()
        else:
            assert 0.004 < phantom.mask_HW.mean() < 0.3
            _metal_is_brighter_than_its_surroundings(phantom)


def _metal_is_brighter_than_its_surroundings(phantom: Phantom) -> None:
    mask = phantom.mask_HW.astype(np.uint8)
    around = (cv2.dilate(mask, np.ones((31, 31), np.uint8)) > 0) & (mask == 0)
    inside = float(np.median(phantom.pixels_HW[phantom.mask_HW]))
    assert inside > np.median(phantom.pixels_HW[around]) + 200


def test_twelve_products_in_two_joints() -> None:
    assert len(ORTHONET) == 12
    assert [implant.joint for implant in ORTHONET].count("knee") == 4
    assert {implant.manufacturer for implant in ORTHONET} == {
        "DePuy", "JRI Orthopaedics", "Smith & Nephew", "Stryker", "Zimmer Biomet",
    }  # fmt: skip


@pytest.mark.parametrize("name", DRAW)
def test_same_generator_same_picture_and_another_one_another(name: str) -> None:
    first, again, other = (DRAW[name](generator(seed), 128) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.pixels_HW, again.pixels_HW)
    np.testing.assert_array_equal(first.mask_HW, again.mask_HW)
    same_shape = first.pixels_HW.shape == other.pixels_HW.shape
    assert not (same_shape and np.array_equal(first.pixels_HW, other.pixels_HW))


def test_global_random_state_has_no_part() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = render(ORTHONET[0], generator(9), 128).pixels_HW
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, render(ORTHONET[0], generator(9), 128).pixels_HW)


def test_products_differ_by_their_masks_alone() -> None:
    """From one seed come the same pose and patient: what is left is the product's shape."""
    for joint in ("hip", "knee"):
        names = [implant for implant in ORTHONET if implant.joint == joint]
        for seed in range(2):
            masks = [render(implant, generator(seed, 77), 256).mask_HW for implant in names]
            for place, mask in enumerate(masks):
                for other in masks[:place]:
                    assert np.count_nonzero(mask ^ other) > 15


@pytest.mark.parametrize("make", ["depuy-corail", "jri-furlong-evolution"])
def test_collar_is_metal_that_the_collarless_twin_lacks(make: str) -> None:
    twins = [ORTHONET[ORTHONET.index(f"{make}-{kind}")] for kind in ("collared", "collarless")]
    for seed in range(6):
        with_collar, without = (render(twin, generator(seed), 384) for twin in twins)
        more = with_collar.mask_HW & ~without.mask_HW
        assert not (without.mask_HW & ~with_collar.mask_HW).any()
        assert 4 < np.count_nonzero(more) * with_collar.spacing_mm**2 < 150  # mm2 of the collar


def test_oxford_fills_one_compartment_and_sigma_both() -> None:
    def share(name: str) -> float:
        shares = []
        for seed in range(30):
            phantom = render(ORTHONET[ORTHONET.index(name)], generator(seed), 128)
            if phantom.view == "AP":
                columns = np.flatnonzero(phantom.mask_HW.any(axis=0))
                shares.append((columns[-1] - columns[0]) * phantom.spacing_mm)
        return float(np.median(shares))

    assert share("zimmer-biomet-oxford") < 0.6 * share("depuy-sigma")


def test_pictures_vary_in_pose_view_and_side() -> None:
    knees = [render(ORTHONET[8], generator(seed), 96) for seed in range(24)]
    assert {knee.view for knee in knees} == {"AP", "LL"}
    assert {knee.laterality for knee in knees} == {"L", "R"}
    centres = [np.argwhere(knee.mask_HW).mean(axis=0) / knee.mask_HW.shape for knee in knees]
    assert (np.std(centres, axis=0) > 0.02).all()
    hips = [render(ORTHONET[0], generator(seed), 96) for seed in range(24)]
    assert {hip.body_part for hip in hips} == {"HIP", "PELVIS"}


def test_unlike_products_are_told_from_the_image_but_not_by_its_nearest_neighbour() -> None:
    """Raw pixels of the nearest of 10 x 12 pictures name fewer than two thirds."""

    def small(implant: Implant, seed: int) -> NDArray[np.float32]:
        grey = render(implant, generator(seed, 11), 128).pixels_HW.astype(np.float32)
        tiny = np.asarray(cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA), np.float32)
        return np.ravel((tiny - tiny.mean()) / tiny.std())

    known = np.stack([small(implant, seed) for implant in ORTHONET for seed in range(10)])
    asked = np.stack([small(implant, seed) for implant in ORTHONET for seed in range(50, 54)])
    nearest = (asked @ known.T).argmax(axis=1) // 10
    hits = float(np.mean(nearest == np.repeat(np.arange(12), 4)))
    assert hits < 2 / 3


@pytest.mark.parametrize("height", [63, 0, -5, 8193])
def test_senseless_height_is_refused(height: int) -> None:
    with pytest.raises(UsageError, match=f"{height} rows .* 64 to 8192"):
        render(ORTHONET[0], generator(1), height)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no phantom of 'acme-hip'; there is one of depuy-corail"):
        render(Implant("acme-hip", "hip", "Acme"), generator(1))
    with pytest.raises(UsageError, match="no phantom of 'pacemaker'"):
        render_unknown(generator(1), kind="pacemaker")


def test_a_picture_takes_less_than_60_ms_of_one_core() -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        times = []
        for implant in ORTHONET:
            start = time.process_time()
            render(implant, generator(2), 512)
            times.append(time.process_time() - start)
    finally:
        cv2.setNumThreads(threads)
    assert np.median(times) < 0.060


# --- files


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return render(ORTHONET[9], generator(21), 192)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("modality", ["CR", "DX"])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_dicom_comes_back_as_it_was(
    phantom: Phantom, syntax: str, modality: str, photometric: str
) -> None:
    data = write_dicom(
        phantom, generator(4), transfer_syntax=syntax, modality=modality, photometric=photometric  # type: ignore[arg-type]
    )  # fmt: skip
    dataset = pydicom.dcmread(BytesIO(data))
    stored = dataset.pixel_array if photometric == "MONOCHROME2" else 4095 - dataset.pixel_array
    np.testing.assert_array_equal(stored, phantom.pixels_HW)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    decoded = decode(data, Limits())
    assert decoded.reason is None
    assert decoded.pixels_HW is not None
    shown = decoded.pixels_HW.astype(np.float64).ravel()
    assert np.corrcoef(shown, phantom.pixels_HW.ravel())[0, 1] > 0.99999
    assert decoded.header.modality == modality
    assert decoded.header.body_part == "KNEE"
    assert decoded.header.laterality == phantom.laterality


def test_dicom_says_who_when_and_how(phantom: Phantom) -> None:
    patient = draw_patient(generator(5))
    data = write_dicom(phantom, generator(6), patient=patient, study_date=date(2024, 2, 29))
    dataset = pydicom.dcmread(BytesIO(data))
    assert (dataset.PatientID, str(dataset.PatientName)) == (patient.identifier, patient.name)
    assert patient.name.startswith("Phantom^")
    assert dataset.PatientBirthDate == f"{patient.birth_date:%Y%m%d}"
    assert dataset.StudyDate == "20240229"
    assert dataset.AccessionNumber.startswith("AC")
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
    assert float(dataset.PixelSpacing[0]) == pytest.approx(phantom.spacing_mm, abs=1e-5)
    low = dataset.WindowCenter - 0.5 - (dataset.WindowWidth - 1) / 2
    assert low == pytest.approx(int(phantom.pixels_HW.min()), abs=1)
    assert dataset.ViewPosition == phantom.view
    uids = [dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID]
    assert len(set(uids)) == 3
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)


def test_dicom_follows_from_its_generator(phantom: Phantom) -> None:
    same = [write_dicom(phantom, generator(seed)) for seed in (7, 7, 8)]
    assert same[0] == same[1]
    assert same[0] != same[2]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("transfer_syntax", "1.2.3"), ("photometric", "RGB"), ("modality", "CT")],
)
def test_dicom_of_another_kind_is_refused(phantom: Phantom, argument: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{value!r}; .* are accepted"):
        write_dicom(phantom, generator(1), **{argument: value})  # type: ignore[arg-type]


def test_png_and_jpeg_show_the_same_picture(phantom: Phantom) -> None:
    wanted = phantom.pixels_HW / 4095
    for data, most in (
        (write_png(phantom), 1 / 65535),
        (write_png(phantom, 8), 0.5 / 255 + 1e-4),
        (write_jpeg(phantom), 0.15),
    ):
        decoded = decode(data, Limits())
        assert decoded.reason is None
        assert decoded.pixels_HW is not None
        shown = decoded.pixels_HW / np.iinfo(decoded.pixels_HW.dtype).max
        assert np.abs(shown - wanted).max() <= most
    mask = np.asarray(Image.open(BytesIO(write_mask(phantom))))
    np.testing.assert_array_equal(mask > 127, phantom.mask_HW)


def test_senseless_picture_files_are_refused(phantom: Phantom) -> None:
    with pytest.raises(UsageError, match="12 bits"):
        write_png(phantom, 12)
    with pytest.raises(UsageError, match="quality 0"):
        write_jpeg(phantom, 0)


# --- archives


def contents(path: Path) -> dict[str, bytes]:
    info = storage.stat(storage.normalise(str(path)))
    with storage.open_object(info) as reader:
        members = list(read_members(reader, path.name, Limits()))
    assert all(member.reason is None for member in members)
    return {member.name: bytes(member.data or b"") for member in members}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archive_holds_what_its_manifest_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sample{suffix}"
    sample = Sample(height_px=96, images_per_patient=2, unknown_rate=0.15, bare_rate=0.15)
    rows = sample_archive(path, 24, 5, sample)
    members = contents(path)
    assert [row["member"] for row in rows] == list(members)
    assert {row["archive"] for row in rows} == {path.name}
    known = [row for row in rows if row["label"] in ORTHONET.names]
    assert 8 < len(known) < 24
    assert any(row["label"].startswith("other-") for row in rows)
    assert any(row["label"] == "no-implant" for row in rows)
    for row in rows:
        decoded = decode(members[row["member"]], Limits())
        assert decoded.reason is None
        assert decoded.header.patient in (None, row["patient"])
    assert len({row["patient"] for row in rows}) == 12
    assert {name.rsplit(".", 1)[1] for name in members} == {"dcm", "png", "jpg"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archive_follows_from_its_seed(tmp_path: Path, suffix: str) -> None:
    digests, manifests = [], []
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        path = tmp_path / folder / f"sample{suffix}"
        manifests.append(sample_archive(path, 4, seed, Sample(height_px=64)))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
    assert manifests[0] == manifests[1] != manifests[2]


def test_archives_of_one_seed_go_on_where_the_other_ended(tmp_path: Path) -> None:
    sample = Sample(height_px=64, formats=("png8",))
    whole = contents_of(tmp_path / "whole.tar", 4, sample, 0)
    parts = contents_of(tmp_path / "one.zip", 2, sample, 0)
    parts += contents_of(tmp_path / "two.tar", 2, sample, 2)
    assert parts == whole
    assert len(set(whole)) == 4


def contents_of(path: Path, count: int, sample: Sample, first: int) -> list[bytes]:
    sample_archive(path, count, 1, sample, first)
    return list(contents(path).values())


def test_masks_lie_beside_their_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sample.tar"
    rows = sample_archive(path, 3, 2, Sample(height_px=64, formats=("png8",), with_masks=True))
    members = contents(path)
    assert len(rows) == 3
    assert len(members) == 6
    for row in rows:
        mask = decode(members[row["member"].replace("images", "masks")], Limits()).pixels_HW
        picture = decode(members[row["member"]], Limits()).pixels_HW
        assert mask is not None
        assert picture is not None
        assert mask.shape == picture.shape


def test_sample_archives_are_of_every_kind_and_balanced(tmp_path: Path) -> None:
    rows = sample_archives(tmp_path / "data", 26, 3, Sample(height_px=64, formats=FORMATS[1:]))
    with (tmp_path / "data" / "labels.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows
    assert len(rows) == 26
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        ["labels.csv", *(f"radiographs-{k}{suffix}" for k, suffix in enumerate(SUFFIXES))]
    )
    counts = [sum(row["label"] == name for row in rows) for name in ORTHONET.names]
    assert min(counts) == 2
    for row in rows:
        assert row["label"] not in row["member"]


def test_archive_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sample.tar"
    path.write_bytes(b"what was there")

    def fail(*_: object) -> Phantom:
        raise MemoryError

    monkeypatch.setattr("implant_model.phantoms.files.render", fail)
    with pytest.raises(MemoryError):
        sample_archive(path, 1, 1, Sample(height_px=64))
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["sample", "sample.rar", ".tar", "sample.tar.xz"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="endings .tar, .tar.gz, .tar.zst, .zip"):
        sample_archive(tmp_path / name, 1, 1)


def test_senseless_samples_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"implants": ()}, "0 implants"),
        ({"images_per_patient": 0}, "0 images a patient"),
        ({"formats": ("gif",)}, "formats gif"),
        ({"formats": ()}, "formats none"),
        ({"unknown_rate": 0.7, "bare_rate": 0.7}, "shares 0.7"),
        ({"unknown_rate": float("nan")}, "shares nan"),
    ):
        with pytest.raises(UsageError, match=message):
            Sample(**options)
    with pytest.raises(UsageError, match="-1 phantoms"):
        sample_archive(tmp_path / "a.tar", -1, 1)
