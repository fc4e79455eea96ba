"""Masks that a labels file names: where they lie, which are taken, and what is refused."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from implant_model import storage
from implant_model.archives.read import BytesReader, read_members
from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.phantoms.files import Sample, sample_archive
from tests.support.object_store import ObjectStore
from tests.support.paths import ROOT
from tests.support.pictures import encoded
from training.data.gather import load_set
from training.data.labelled import LabelledSet
from training.data.labels import read_labels
from training.masks.mask_files import mask_of_radiograph
from training.masks.mask_set import BY_HAND, find_files, gather_masks
from training.masks.overlap import dice
from training.masks.table_masks import TableMasks, place_mask, placed_masks, table_masks

SPEC = Preprocessing(size_px=64)
ROWS, COLUMNS, BORDER = 210, 150, 40
HEADER = ",filenames,labels,masks,valid_mask"
Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def radiograph(seed: int) -> tuple[Grey, Mask]:
    """A bright rod in noise beside a black border that preprocessing cuts off, and its mask."""
    rng = np.random.default_rng(seed)
    pixels_HW = rng.integers(60, 110, (ROWS, COLUMNS), dtype=np.uint8)
    mask_HW = np.zeros((ROWS, COLUMNS), bool)
    top, left = rng.integers(20, 80), rng.integers(60, 100)
    mask_HW[top : top + 90, left : left + 24] = True
    pixels_HW[mask_HW] = 250
    pixels_HW[:, :BORDER] = 0
    return pixels_HW, mask_HW


def make_set(folder: Path) -> Path:
    """Four loose radiographs as OrthoNet names them, and beside the tables their masks."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for number in range(4):
        pixels_HW, mask_HW = radiograph(number)
        (folder / "images" / f"0{number}.png").write_bytes(encoded(pixels_HW))
        white_HW = mask_HW.astype(np.uint8) * (1 if number == 1 else 255)
        (folder / "masks" / f"0{number}_mask.png").write_bytes(encoded(white_HW))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that no test changes, with its prepared images in a cache."""
    return make_set(tmp_path_factory.mktemp("set"))


def table(folder: Path, *rows: str, header: str = HEADER, name: str = "train.csv") -> str:
    path = folder / name
    path.write_bytes("\n".join([header, *rows, ""]).encode())
    return str(path)


def load(folder: Path, labels: str, spec: Preprocessing = SPEC) -> LabelledSet:
    checked = read_labels(labels)
    return load_set([str(folder / "images")], checked, spec, Limits(), str(folder / "cache"))


def masks_of(labels: str, masks: str = "") -> TableMasks:
    found = table_masks(read_labels(labels), masks, SPEC)
    assert found is not None
    return found


def row(number: int, mask: str | None = None, valid: str = "True") -> str:
    """One radiograph of the fixture, with the mask that lies there unless another is named."""
    label = "Hip_Stryker_Exeter" if number % 2 else "Hip_Stryker_AccoladeII"
    mask = f"masks/0{number}_mask.png" if mask is None else mask
    return f"{number},0{number}.png,{label},{mask},{valid}"


ALL = tuple(row(number) for number in range(4))


def test_masks_of_orthonets_table_lie_on_the_implants(folder: Path) -> None:
    """The rod is the only bright thing of the prepared picture: it shows where the mask belongs."""
    labels = table(folder, *ALL)
    labelled, named = load(folder, labels), masks_of(labels)
    masks = gather_masks(labelled, "", str(folder / "cache"), named)
    assert masks.grades_N.tolist() == [BY_HAND] * 4
    for image_SS, mask_SS in zip(labelled.images_NSS[:], masks.masks_NSS[:], strict=True):
        assert dice(mask_SS, image_SS > 160) > 0.95
    assert named.summary(masks.of_table) == (
        "Masks of the labels file: 4 taken, 0 left out as not valid"
    )


def test_a_mask_that_is_not_valid_is_not_used(folder: Path) -> None:
    labels = table(folder, row(0), row(1, valid="False"), row(2, "", "0"), row(3, "/no.png", "0"))
    labelled, named = load(folder, labels), masks_of(labels)
    of = named.of_images(labelled)
    assert [labelled.places_N[at] for at in of] == [("00.png", "")]
    assert named.summary(len(of)) == "Masks of the labels file: 1 taken, 2 left out as not valid"


def test_masks_of_radiographs_that_were_left_out_are_counted(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    (folder / "images" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    labels = table(folder, *ALL)
    labelled, named = load(folder, labels), masks_of(labels)
    assert named.summary(len(named.of_images(labelled))) == (
        "Masks of the labels file: 3 taken, 0 left out as not valid, "
        "1 of radiographs that were left out"
    )


def test_masks_of_a_folder_under_their_images_names_come_behind_those_of_the_table(
    folder: Path, tmp_path: Path
) -> None:
    """One that the table calls not valid is not used under its name either."""
    hand = tmp_path / "masks"
    shutil.copytree(folder / "masks", hand)
    for name in ("00.png", "01.png", "02.png"):
        (hand / name).write_bytes(encoded(np.eye(SPEC.size_px, dtype=np.uint8) * 255))
    labels = table(folder, row(0, "00_mask.png"), row(1, "01.png", "0"), row(2, "", ""), row(3, ""))
    labelled, named = load(folder, labels), masks_of(labels, str(hand))
    of = named.of_images(labelled)
    files, unused = find_files(labelled, str(hand), named, of)
    assert ({labelled.places_N[at][0] for at in of}, [file.name for file in files.values()]) == (
        {"00.png"},
        ["02.png"],
    )
    assert unused == 4  # 00.png, and the masks of three images that no row names


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_masks_of_radiographs_in_archives(tmp_path: Path, suffix: str) -> None:
    """DICOM, PNG and JPEG of phantoms, whose true masks have their size; every second is named."""
    (tmp_path / "images").mkdir()
    archive = tmp_path / "images" / f"hips{suffix}"
    rows = sample_archive(archive, 8, 3, Sample(height_px=200, with_masks=True))
    true = {}
    for member in read_members(BytesReader(archive.read_bytes()), archive.name, Limits()):
        if member.name.startswith("masks/"):
            true[int(member.name[6:11])] = bytes(member.data or b"")
            (tmp_path / f"{member.name[6:11]}.png").write_bytes(bytes(member.data or b""))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["archive", "member", "label", "patient", "masks"])
        for number, each in enumerate(rows):
            writer.writerow([*each.values(), f"{number:05}.png" if number % 2 else ""])
    spec = Preprocessing(size_px=64, trim_borders=False)
    labelled = load(tmp_path, str(tmp_path / "labels.csv"), spec)
    named = table_masks(read_labels(str(tmp_path / "labels.csv")), "", spec)
    assert named is not None
    found = dict(placed_masks(named, labelled, named.of_images(labelled)))
    numbers = {at: int(labelled.places_N[at][1].split("/")[1][:5]) for at in found}
    assert sorted(numbers.values()) == [1, 3, 5, 7]
    plain = Preprocessing(size_px=64, trim_borders=False, low_percent=0.0, high_percent=100.0)
    for at, mask_SS in found.items():
        grey_HW = cv2.imdecode(np.frombuffer(true[numbers[at]], np.uint8), cv2.IMREAD_GRAYSCALE)
        assert grey_HW is not None
        assert np.array_equal(mask_SS, preprocess(grey_HW, plain) > 127)


def parquet_of(folder: Path) -> str:
    path = str(folder / "train.parquet")
    columns = {
        "file": [f"0{number}.png" for number in range(4)],
        "label": ["a", "b", "a", "b"],
        "masks": [None, "masks/01_mask.png", "masks/02_mask.png", None],
        "valid_mask": pa.array([None, True, False, None], pa.bool_()),
    }
    pq.write_table(pa.table(columns), path)
    return path


SPELLINGS = {
    "upper case and spaces": (
        ", Filenames ,LABELS,Masks, Valid_Mask",
        ("0,00.png,a,,", "1,01.png,b, masks/01_mask.png ,1", "2,02.png,a,masks/02_mask.png, 0"),
    ),
    "a spreadsheet's": (
        "\ufeffsep=;\r\nfilenames;labels;masks;valid_mask\r",
        ("00.png;a;;\r", "01.png;b;./masks/01_mask.png;TRUE\r", "02.png;a;x.png;FALSE\r"),
    ),
    "Windows' paths": (
        "\ufefffile;label;masks;valid_mask",
        ("00.png;a;;", ".\\01.png;b;masks\\01_mask.png;1", "02.png;a;masks\\02_mask.png;0"),
    ),
    "pandas' gaps": (
        HEADER,
        ("0,00.png,a,nan,", "1,01.png,b,masks/01_mask.png,1.0", "2,02.png,a,masks/02_mask.png,0.0"),
    ),
    "tabs": (
        "file\tlabel\tmasks\tvalid_mask",
        ("00.png\ta\t\t", "01.png\tb\tmasks/01_mask.png\ttrue", "02.png\ta\tx.png\tfalse"),
    ),
    "whole URIs": (
        HEADER,
        ("0,00.png,a,,", "1,01.png,b,{at}/masks/01_mask.png,1", "2,02.png,a,{at}/x.png,0"),
    ),
}


@pytest.mark.parametrize("spelling", [*SPELLINGS, "parquet"])
def test_tables_are_spelled_in_many_ways(folder: Path, spelling: str) -> None:
    if spelling == "parquet":
        labels = parquet_of(folder)
    else:
        header, rows = SPELLINGS[spelling]
        labels = table(folder, *(line.format(at=folder) for line in rows), header=header)
    labelled, named = load(folder, labels), masks_of(labels)
    of = named.of_images(labelled)
    assert [labelled.places_N[at][0] for at in of] == ["01.png"]
    assert [mask.row for mask in of.values()] == [2]
    assert len(named.not_valid) == 1


REFUSED = {
    "a mask that is not there": (row(1, "masks/9.png"), r"mask of row 2 .* is not there; its path"),
    "a folder": (row(1, "masks"), r"mask of row 2 .* is not there"),
    "a verdict that is neither": (row(1, valid="perhaps"), r"Row 2 .* neither true nor false; tr"),
    "a verdict without a mask": (row(1, "", "perhaps"), r"Row 2 .* neither true nor false; true,"),
    "no verdict": (row(1, valid=""), r"Row 2 .* valid_mask that is empty; true, 1"),
    "another machine's path": (row(1, "/home/other/masks/01.png"), r"Row 2 .* outside of file:///"),
    "another machine's drive": (row(1, "C:\\masks\\01.png"), r"Row 2 .* outside of file:///"),
    "another machine's share": (row(1, "\\\\nas\\masks\\1.png"), r"Row 2 .* outside of file:///"),
    "a web address": (row(1, "https://x.org/1.png"), r"Row 2 .* outside of file:///"),
    "a way out": (row(1, "masks/../../1.png"), r"Row 2 .* outside of file:///"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_row_says_of_its_mask_is_looked_at_before_images_are(
    folder: Path, case: str
) -> None:
    line, message = REFUSED[case]
    with pytest.raises(UsageError, match=message) as caught:
        masks_of(table(folder, row(0), line))
    assert "1.png" not in str(caught.value)  # a path may name a patient
    assert str(caught.value).endswith(".")


def test_a_column_that_is_there_twice_is_refused(folder: Path) -> None:
    for header in ("file,label,masks,masks", "file,label,Masks,MASKS"):
        with pytest.raises(UsageError, match="has the column 'masks' twice; leave one"):
            read_labels(table(folder, "00.png,a,b,c", header=header))
    header = "file,label,masks,Masks"  # one is the heading itself
    (found,) = read_labels(table(folder, "00.png,a,b,c", header=header)).masks
    assert found.mask == "b"


def test_a_table_without_masks_has_none(folder: Path) -> None:
    for rows, header in (((row(0), row(1)), ",filenames,labels,x,y"), (("0,a,b,,",), HEADER)):
        assert table_masks(read_labels(table(folder, *rows, header=header)), "", SPEC) is None
    assert table_masks(None, "", SPEC) is None


def white(rows: int = ROWS, columns: int = COLUMNS, share: float = 0.2) -> Grey:
    pixels_HW = np.zeros((rows, columns), np.uint8)
    pixels_HW[: round(share * rows)] = 255
    return pixels_HW


BAD_PICTURES = {
    "another size": (encoded(white(COLUMNS, ROWS)), "has 150 rows and 210 columns, and its .* 210"),
    "the prepared size": (encoded(white(64, 64)), "has 64 rows and 64 columns, and its radiograph"),
    "a radiograph": (encoded(radiograph(1)[0]), "has many greys, as a radiograph has; the implant"),
    "black": (encoded(white(share=0)), "is of one grey; the implant in white on black is expected"),
    "a negative": (encoded(white(share=0.9)), "is white on more than 75%, as a negative is;"),
    "a JPEG": (encoded(white(), "JPEG"), "is no PNG of at most 16 MiB"),
    "half a file": (encoded(white())[:60], "is no PNG of at most 16 MiB"),
    "a header alone": (encoded(white())[:20], "is no PNG of at most 16 MiB"),
    "nothing": (b"", "is no PNG of at most 16 MiB"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_picture_that_is_no_mask_of_its_radiograph_is_refused(case: str) -> None:
    data, message = BAD_PICTURES[case]
    with pytest.raises(UsageError, match=f"^The mask {message}"):
        mask_of_radiograph(data, (ROWS, COLUMNS), "The mask")


def test_an_implant_in_a_border_that_is_cut_off_is_refused() -> None:
    pixels_HW, mask_HW = radiograph(2)
    assert place_mask(mask_HW, pixels_HW, SPEC, "The mask").any()
    mask_HW[:] = False
    mask_HW[50:100, 5 : BORDER - 5] = True
    with pytest.raises(UsageError, match=r"^The mask is of one grey on the prepared picture: "):
        place_mask(mask_HW, pixels_HW, SPEC, "The mask")


def test_files_that_change_after_the_call_was_checked_are_stated(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    labels = table(folder, *ALL)
    labelled, named = load(folder, labels), masks_of(labels)
    of = {at: mask for at, mask in named.of_images(labelled).items() if mask.row == 1}
    large = folder / "masks" / "00_mask.png"
    for data, fault in ((encoded(white(9, 9)), "has 9 rows"), (bytes(17 << 20), "is no PNG of")):
        large.write_bytes(data)
        with pytest.raises(UsageError, match=f"^The mask of row 1 of the labels file {fault}"):
            [*placed_masks(named, labelled, of)]
    large.unlink()
    with pytest.raises(UsageError, match=r"^The mask of row 1 of the labels file is not there"):
        [*placed_masks(named, labelled, of)]
    (folder / "images" / "00.png").write_bytes(encoded(radiograph(7)[0]))
    with pytest.raises(UsageError, match=r"mask of row 1 .* no radiograph any more: it was repl"):
        [*placed_masks(named, labelled, of)]


@pytest.mark.parametrize(
    "kind", ["0 and 1", "1 bit", "16 bits", "colour", "palette", "soft outline"]
)
def test_masks_are_drawn_in_many_ways(kind: str) -> None:
    _, mask_HW = radiograph(0)
    white_HW = mask_HW.astype(np.uint8) * np.uint8(255)
    grey = Image.fromarray(white_HW)
    pictures: dict[str, np.ndarray | Image.Image] = {
        "0 and 1": mask_HW.astype(np.uint8),
        "16 bits": white_HW.astype(np.uint16) * np.uint16(257),
        "colour": np.stack([white_HW, white_HW * 0, white_HW * 0], axis=-1),
        "palette": grey.convert("P"),
        "soft outline": grey.resize((75, 105)).resize((COLUMNS, ROWS), Image.Resampling.BILINEAR),
        "1 bit": grey.convert("1"),
    }
    found_HW = mask_of_radiograph(encoded(pictures[kind]), (ROWS, COLUMNS), "The mask")
    assert dice(found_HW, mask_HW) > (0.97 if kind == "soft outline" else 0.9999)


def test_masks_beside_a_table_in_a_bucket(
    folder: Path, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there shows when it is read: a request for each would hold up the call."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    here = table(folder, row(0, ""), row(1), row(2, "masks/gone.png"), row(3), name="s3.csv")
    for name in ("s3.csv", "masks/01_mask.png", "masks/03_mask.png"):
        storage.put_if_absent(f"s3://{bucket}/set/{name}", (folder / name).read_bytes())
    labelled, named = load(folder, here), masks_of(f"s3://{bucket}/set/s3.csv")
    of = named.of_images(labelled)
    gone = {at: mask for at, mask in of.items() if mask.row == 3}
    there = {at: mask for at, mask in of.items() if mask.row != 3}
    with pytest.raises(UsageError, match=r"^The mask of row 3 of the labels file is not there"):
        [*placed_masks(named, labelled, gone)]
    found = dict(placed_masks(named, labelled, there))
    images_NSS = labelled.images_NSS[:]
    assert [dice(mask_SS, images_NSS[at] > 160) > 0.95 for at, mask_SS in found.items()] == [
        True
    ] * 2


def test_the_command_ends_with_code_2_before_images_are_read(folder: Path) -> None:
    (folder / "train.toml").write_text("[segmenter]\nwidth = 4\n")
    labels = table(folder, row(0), row(1, "gone.png"))
    words = ["--images", str(folder / "images"), "--labels", labels]
    words += ["--config", str(folder / "train.toml"), "--output", str(folder / "model")]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.train", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "The mask of row 2 of the labels file is not there" in done.stderr
    assert not (folder / "model.work").exists()
