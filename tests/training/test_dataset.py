"""Labelled sets: read by the main job's own code, nothing dropped unseen, faults in a sentence."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import StorageError, UsageError
from implant_model.limits import Limits
from implant_model.storage.uri import ObjectInfo, ObjectReader
from tests.support.archive_samples import tar_of, zip_of
from tests.support.dicom_edits import dicom
from tests.support.pictures import encoded
from training.data.gather import load_set
from training.data.labelled import (
    Excluded,
    LabelledSet,
    content_digest,
    num_missing,
    unread_archives,
)
from training.data.labels import folder_label, label_of_name, labels_of_names, read_labels

SPEC = Preprocessing(size_px=32)


def picture(seed: int, side: int = 48, detail: int = 6) -> bytes:
    """A PNG with a random pattern of its own."""
    coarse = np.random.default_rng(seed).integers(20, 235, (detail, detail), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return encoded(image)


def pattern(seed: int) -> np.ndarray:
    """Pixels of 12 bits that are like those of no other seed."""
    return np.random.default_rng(seed).integers(0, 4000, (40, 40), dtype=np.uint16)


def labels_file(folder: Path, *rows: str, header: str = "archive,member,label,patient") -> str:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A tar with a broken picture, clutter and an unlabelled one, and a zip one folder deeper."""
    folder = tmp_path / "archives"
    (folder / "deep").mkdir(parents=True)
    members = {
        "a.png": picture(1),
        "broken.png": picture(2)[:200],
        "b.png": picture(3),
        "extra.png": picture(4),
        ".DS_Store": b"\0\0\0\1Bud1",
    }
    (folder / "first.tar").write_bytes(tar_of(members))
    stored = zip_of({"a.png": picture(5, side=64)}, zipfile.ZIP_STORED)
    (folder / "deep" / "second.zip").write_bytes(stored)
    return folder


def load(folder: Path, labels: str | None, tmp_path: Path) -> LabelledSet:
    checked = read_labels(labels) if labels else None
    return load_set([str(folder)], checked, SPEC, Limits(), str(tmp_path / "cache"))


ROWS = (
    "first.tar,a.png,stem,p1",
    "first.tar,broken.png,stem,p2",
    "first.tar,b.png,cup,p3",
    "first.tar,gone.png,cup,p4",
    "deep/second.zip,a.png,stem,p1",
)


def test_images_with_their_labels_and_all_that_is_left_out(archives: Path, tmp_path: Path) -> None:
    labelled = load(archives, labels_file(tmp_path, *ROWS), tmp_path)
    assert labelled.names == ("cup", "stem")
    assert labelled.images_NSS.shape == (3, 32, 32)
    assert labelled.images_NSS[:].dtype == np.uint8
    assert sorted(labelled.labels_N.tolist()) == [0, 1, 1]
    stems = labelled.labels_N == 1
    assert len(set(labelled.patients_N[stems].tolist())) == 1
    assert labelled.patients_N[~stems][0] not in labelled.patients_N[stems]
    assert sorted(labelled.sizes_N2.tolist()) == [[48, 48], [48, 48], [64, 64]]
    assert set(labelled.excluded) == {
        Excluded("first.tar", "broken.png", "truncated"),
        Excluded("first.tar", "extra.png", "no_label"),
        Excluded("first.tar", ".DS_Store", "clutter"),
        Excluded("first.tar", "gone.png", "not_in_archive"),
    }


@pytest.mark.parametrize(
    ("inside", "labelled"),
    [
        ("./a.png", "a.png"),
        ("./left/a.png", "left\\a.png"),
        ("left\\a.png", "left/a.png"),
        ("a.png", "./a.png"),
        ("./a.png", "./a.png"),
    ],
)
def test_a_member_is_found_in_another_spelling(inside: str, labelled: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.tar").write_bytes(tar_of({inside: picture(1), "./b.png": picture(2)}))
    rows = (f"x.tar,{labelled},stem,p1", "x.tar,b.png,cup,p2", "x.tar,gone.png,cup,p3")
    found = load(folder, labels_file(tmp_path, *rows), tmp_path)
    assert set(found.excluded) == {Excluded("x.tar", "gone.png", "not_in_archive")}
    assert set(found.places_N) == {("x.tar", labelled), ("x.tar", "b.png")}
    assert found.names == ("cup", "stem")


def test_the_same_spelling_goes_before_another(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    both = {"a.png": picture(1), "./a.png": picture(2), "c.png": picture(3)}
    (folder / "x.tar").write_bytes(tar_of(both))
    rows = ("x.tar,./a.png,stem,p1", "x.tar,a.png,cup,p2", "x.tar,c.png,cup,p3")
    found = load(folder, labels_file(tmp_path, *rows), tmp_path)
    assert [member for _, member in found.places_N] == ["a.png", "./a.png", "c.png"]
    assert found.labels_N.tolist() == [0, 1, 0]
    assert not found.excluded


def no_reading(*_: object) -> Iterator[tuple[int, pa.Table]]:
    """Stands for a reader where all is in the cache."""
    raise AssertionError


def test_the_cache_is_used_until_something_changes(archives: Path, tmp_path: Path) -> None:
    labels = labels_file(archives, *ROWS)  # beside the archives, and yet no image
    first, cache = load(archives, labels, tmp_path), str(tmp_path / "cache")
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    again = load_set([str(archives)], read_labels(labels), SPEC, Limits(), cache, read=no_reading)
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "cache").iterdir()} == kept
    assert np.array_equal(first.images_NSS[:], again.images_NSS[:])
    for name in ("labels_N", "patients_N", "sizes_N2", "hashes_NB", "cues_NC"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert (first.names, first.excluded) == (again.names, again.excluded)
    assert [*first.digests] == [*again.digests]
    contents = (picture(1), picture(3), picture(5, side=64))
    assert sorted(first.digests) == sorted(map(content_digest, contents))
    other = load(archives, labels_file(tmp_path, *ROWS[:3]), tmp_path)
    assert other.fingerprint != first.fingerprint


def test_what_the_store_did_not_give_is_read_again(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labels_file(tmp_path, *ROWS)
    with monkeypatch.context() as broken:
        broken.setattr(storage, "open_object", failing_on("second.zip"))
        first = load(archives, labels, tmp_path)
    assert Excluded("deep/second.zip", "", "storage_error") in first.excluded
    assert unread_archives(first) == ("deep/second.zip",)
    assert num_missing(first) == 4  # broken.png, gone.png, the archive and its member
    again = load(archives, labels, tmp_path)
    assert (len(first), len(again)) == (2, 3)
    assert again.fingerprint != first.fingerprint  # a network of the one is not the other's
    assert unread_archives(again) == ()
    assert num_missing(again) == 2


def failing_on(name: str) -> Callable[[ObjectInfo], ObjectReader]:
    """`storage.open_object` of a store that gives all objects but those of a name."""
    opened = storage.open_object

    def open_object(info: ObjectInfo) -> ObjectReader:
        if info.uri.endswith(name):
            raise StorageError(f"{info.uri} cannot be read.")
        return opened(info)

    return open_object


def test_no_patient_reaches_the_cache(archives: Path, tmp_path: Path) -> None:
    load(archives, labels_file(tmp_path, *[row.replace(",p", ",MRN-") for row in ROWS]), tmp_path)
    assert all(b"MRN-" not in file.read_bytes() for file in (tmp_path / "cache").iterdir())


def test_parquet_labels(archives: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    rows = [dict(zip(("archive", "member", "label"), row.split(","), strict=False)) for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), path)
    labelled = load(archives, str(path), tmp_path)
    assert len(labelled) == 3
    assert labelled.patients_N.tolist() == [-1, -1, -1]


def test_a_folder_a_class_loose_and_in_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name, seed in [("cup/1.png", 1), ("cup/2.png", 2), ("stem/1.png", 3)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(seed))
    more = {"x/stem/9.png": picture(9), "loose.png": picture(8)}
    (folder / "more.tar").write_bytes(tar_of(more))
    labelled = load(folder, None, tmp_path)
    assert labelled.names == ("cup", "stem")
    assert labelled.labels_N.tolist() == [0, 0, 1, 1] or len(labelled) == 4
    assert labelled.excluded == (Excluded("more.tar", "loose.png", "no_label"),)


@pytest.mark.parametrize(
    ("name", "member", "label"),
    [
        ("more.tar", "x/stem/9.png", "stem"),
        ("stem/9.png", "9.png", "stem"),
        ("9.png", "9.png", None),
        ("hospital/more.tar", "9.png", None),
        ("stem/.ipynb_checkpoints/9.png", "9.png", None),
        ("more.tar", "stem/@eaDir/9.png", None),
    ],
)
def test_the_folder_that_counts(name: str, member: str, label: str | None) -> None:
    assert folder_label(name, member) == label


@pytest.mark.parametrize(
    ("name", "member", "label"),
    [
        ("01_0001.png", "01_0001.png", "depuy-corail-collared"),
        ("all.zip", "08_0306.PNG", "stryker-exeter"),
        ("all.zip", "24_7.png", "zimmer-biomet-oxford"),
        ("all.zip", "09_0001.png", None),  # no implant of OrthoNet's has this number
        ("all.zip", "01_0001.jpg", None),
        ("stem/01_0001.png", "01_0001.png", "stem"),  # a folder states it first
    ],
)
def test_orthonets_own_names(name: str, member: str, label: str | None) -> None:
    assert label_of_name(name, member) == label


FURLONGS = ("jri-furlong-evolution-collared", "jri-furlong-evolution-collarless")  # 03 and 04


def test_where_all_names_are_orthonets_they_are_the_classes(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number, name in enumerate(["train/03_0001.png", "train/04_0001.png", "test/03_0002.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    (folder / "more.tar").write_bytes(tar_of({"test/04_0002.png": picture(9)}))
    labelled = load(folder, None, tmp_path)
    assert labelled.names == FURLONGS
    by_member = dict(zip(labelled.places_N, labelled.labels_N.tolist(), strict=True))
    assert {member: label for (_, member), label in by_member.items()} == {
        "03_0001.png": 0,
        "04_0001.png": 1,
        "03_0002.png": 0,
        "test/04_0002.png": 1,
    }
    (folder / "test" / "x.png").write_bytes(picture(10))
    assert load(folder, None, tmp_path).names == ("test", "train")


def test_orthonets_hips_with_and_without_a_collar_stay_two() -> None:
    assert labels_of_names(["train/03_0001.png", "04_0001.png"]) == list(FURLONGS)
    assert labels_of_names(["03_0001.png", "09_0001.png"]) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("first.tar,a.png,stem,", "first.tar,a.png,cup,"), r"Rows 1 and 2 .* the same image"),
        (("first.tar,a.png,stem,P7", "first.tar,a.png,cup,P7"), r"Rows 1 and 2 .* the same image"),
        (("first.tar,a.png,,",), r"Row 1 .* has no label"),
        (
            ("third.tar,a.png,stem,",),
            r"The archive or file of the labels file's row 1 is not among",
        ),
        ((), r"has no rows"),
        ((ROWS[0], ROWS[2], "first.tar,broken.png,screw,"), r"'screw' has no readable image"),
        ((ROWS[0],), r"fewer than two"),
    ],
)
def test_a_fault_is_one_sentence(
    archives: Path, tmp_path: Path, rows: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(archives, labels_file(tmp_path, *rows), tmp_path)
    assert "P7" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("archive,label", "member"),
        ("file,manufacturer", "label"),
        ("image,label", "archive"),
        ("file,member,label", "archive"),  # a member is of an archive
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, header: str, lacking: str) -> None:
    path = labels_file(tmp_path, "x,y,z", header=header)
    loose = r"where all radiographs lie loose, file \(the path below --images\) and label"
    with pytest.raises(UsageError, match=f"no column '{lacking}'; .*{loose}"):
        read_labels(path)


@pytest.mark.parametrize("form", ["csv", "parquet", "archive alone"])
def test_loose_radiographs_are_labelled_by_their_files(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "images"
    (folder / "hips").mkdir(parents=True)
    names = ["hips/1.png", "hips/2.png", "3.png"]
    for seed, name in enumerate(names):
        (folder / name).write_bytes(picture(seed))
    rows = [*zip(names, ("cup", "stem", "stem"), ("P1", "P2", ""), strict=True)]
    path = str(tmp_path / "labels.parquet")
    if form == "parquet":
        table = [dict(zip(("file", "label", "patient"), row, strict=True)) for row in rows]
        pq.write_table(pa.Table.from_pylist(table), path)
    elif form == "csv":
        path = labels_file(tmp_path, *map(",".join, rows), header="file,label,patient")
    else:
        lines = (f"{file},,{label},{patient}" for file, label, patient in rows)
        path = labels_file(tmp_path, *lines)
    labelled = load(folder, path, tmp_path)
    assert {
        place: labelled.names[label]
        for (place, _), label in zip(labelled.places_N, labelled.labels_N.tolist(), strict=True)
    } == {"hips/1.png": "cup", "hips/2.png": "stem", "3.png": "stem"}
    assert sorted(labelled.patients_N.tolist()) == [-1, 0, 1]


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", ""])
def test_a_labels_file_of_a_spreadsheet_says_its_separator_first(
    tmp_path: Path, first: str
) -> None:
    """As Excel writes and reads it; a patient may have a hip and a knee, two classes."""
    path = tmp_path / "labels.csv"
    rows = "archive;member;label;patient\na.tar;1.dcm;stem, cemented;p1\na.tar;2.dcm;knee;p1\n"
    path.write_text(first + rows, encoding="utf-8")
    labels = read_labels(str(path))
    assert labels.names == ("knee", "stem, cemented")
    (members,) = labels.by_archive.values()
    assert [(row.label, row.patient) for row in members.values()] == [
        ("stem, cemented", "p1"),
        ("knee", "p1"),
    ]


FILES = [f"{number}.dcm" for number in range(5)]


def test_a_patient_is_one_in_headers_and_in_a_table_that_pandas_wrote(tmp_path: Path) -> None:
    """Numbers with a gap are floats there, and the zeros before them are lost."""
    folder = tmp_path / "images"
    folder.mkdir()
    headers = ("000123", "000123", "000124", "000125", "000125")
    for number, (name, patient) in enumerate(zip(FILES, headers, strict=True)):
        (folder / name).write_bytes(dicom(pattern(number), PatientID=patient))
    table = {
        "file": FILES,
        "label": ["cup", "stem", "cup", "stem", "cup"],
        "patient": [123.0, None, 124.0, float("nan"), None],
    }
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    labelled = load(folder, str(tmp_path / "labels.parquet"), tmp_path)
    assert labelled.patients_N.tolist() == [0, 0, 1, 2, 2]


def test_a_row_without_a_patient_is_of_whom_the_rows_name_for_its_header(tmp_path: Path) -> None:
    """Pseudonyms in half of the rows; a header of two pseudonyms was made anonymous."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (name, patient) in enumerate(zip(FILES, ("A", "A", "X", "X", "X"), strict=True)):
        (folder / name).write_bytes(dicom(pattern(number), PatientID=patient))
    rows = zip(
        FILES, ("cup", "stem", "cup", "stem", "cup"), ("p1", "", "p2", "p3", ""), strict=True
    )
    labels = labels_file(tmp_path, *map(",".join, rows), header="file,label,patient")
    assert load(folder, labels, tmp_path).patients_N.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("unknown", ["nan", "NaN", "None", "<NA>", "NULL", "n/a", "Unknown"])
def test_a_patient_who_is_not_known_is_not_one_patient(tmp_path: Path, unknown: str) -> None:
    rows = (f"a.png,cup,{unknown}", f"b.png,stem,{unknown}", "c.png,stem,p1")
    labels = read_labels(labels_file(tmp_path, *rows, header="file,label,patient"))
    patients = [row.patient for of in labels.by_archive.values() for row in of.values()]
    assert patients == [None, None, "p1"]


def test_what_a_parquet_file_holds_is_read_as_csv_has_it(tmp_path: Path) -> None:
    path, files = tmp_path / "labels.parquet", ["a.png", "b.png", "c.png"]

    def labels_of(**columns: Any) -> tuple[str, ...]:
        pq.write_table(pa.table({"file": files, **columns}), path)
        return read_labels(str(path)).names

    assert labels_of(label=[1.0, 2.0, 2.0]) == ("1", "2")
    assert labels_of(label=pa.array(["x", "y", "y"]).dictionary_encode()) == ("x", "y")
    for label, message in (
        ([1.0, 2.0, float("nan")], "Row 3 of the labels file .* has no label"),
        (["x", "nan", "y"], "Row 2 of the labels file .* has no label"),
        ([b"x", b"y", b"y"], "has binary in its column 'label'; text is expected"),
        ([["x"], ["y"], []], "has list<.*> in its column 'label'; text is expected"),
    ):
        with pytest.raises(UsageError, match=message):
            labels_of(label=label)
    broken = pa.array([b"x\xff", b"y", b"y"], pa.binary()).view(pa.string())
    with pytest.raises(UsageError, match="holds a text that is not UTF-8; write it anew"):
        labels_of(label=broken)


def test_blank_rows_at_the_end_of_a_table_are_no_rows(tmp_path: Path) -> None:
    rows = ("a.png,cup,1", "b.png,stem,2", ",,", " ,,")
    labels = read_labels(labels_file(tmp_path, *rows, header="file,label,patient"))
    assert len(labels.by_archive) == 2
    path = labels_file(tmp_path, *rows, "c.png,cup,3", header="file,label,patient")
    with pytest.raises(UsageError, match="Row 3 of the labels file .* has no archive or file"):
        read_labels(path)


def test_a_patient_may_have_implants_of_two_classes(archives: Path, tmp_path: Path) -> None:
    rows = ("first.tar,a.png,stem,p1", "first.tar,b.png,cup,p1", "deep/second.zip,a.png,stem,p2")
    labelled = load(archives, labels_file(tmp_path, *rows), tmp_path)
    of = dict(zip(labelled.places_N, labelled.patients_N.tolist(), strict=True))
    assert labelled.names == ("cup", "stem")
    assert of["first.tar", "a.png"] == of["first.tar", "b.png"] != of["deep/second.zip", "a.png"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (b"\xff\xfea\x00", "is not UTF-8 at its line 1; save it as CSV in UTF-8, or as Parquet"),
        ("file,label\na.png,x\n".encode("utf-16-le"), "is not UTF-8 at its line 1; save it"),
        (b"PK\x03\x04\x14\x00", "is a workbook of a spreadsheet; save its sheet as CSV in UTF-8"),
        (b"archive,member,label\na.tar,1,x\na.tar,2,caf\xe9\n", "is not UTF-8 at its line 3"),
        (b'archive,member,label\n"a.tar,1,x\n', "is not CSV behind its line 1; a quotation mark"),
        (
            b"archive,member,label\na.tar,1,x\na.tar,2,stem, cemented\n",
            "Line 3 of the labels file .* has more values than the header",
        ),
    ],
)
def test_a_labels_file_that_is_no_table_is_refused_with_its_line(
    tmp_path: Path, rows: bytes, sentence: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(rows)
    with pytest.raises(UsageError, match=sentence):
        read_labels(str(path))


def test_empty_values_behind_the_last_column_are_a_spreadsheets(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("archive,member,label\na.tar,1,x,,\na.tar,2,y\n")
    assert read_labels(str(path)).names == ("x", "y")


def test_orthonets_tables_are_read_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("01_0001.png", "08_0002.png", "01_0003.png")):
        (folder / name).write_bytes(picture(number))
    header = ",filenames,labels,masks,valid_mask"
    rows = (
        "0,01_0001.png,Hip_DepuySynthes_Corail_Collar,01_0001_mask.png,True",
        "1,08_0002.png,Hip_Stryker_Exeter,,False",
    )
    train = labels_file(tmp_path, *rows, header=header)
    labelled = load(folder, train, tmp_path)
    assert labelled.names == ("Hip_DepuySynthes_Corail_Collar", "Hip_Stryker_Exeter")
    assert {
        place: labelled.names[label]
        for (place, _), label in zip(labelled.places_N, labelled.labels_N.tolist(), strict=True)
    } == {
        "01_0001.png": "Hip_DepuySynthes_Corail_Collar",
        "08_0002.png": "Hip_Stryker_Exeter",
    }
    assert [(left.archive, left.reason) for left in labelled.excluded] == [
        ("01_0003.png", "no_label")
    ]
    with pytest.raises(UsageError, match="has no column 'archive'; it has 'filenames'"):
        read_labels(labels_file(tmp_path, "a.png", header="filenames"))
