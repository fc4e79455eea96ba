"""References out of a labelled set: as many of each implant as asked for, nothing of patients."""

import csv
from pathlib import Path

import numpy as np
import pytest

from implant_model.classifier import Classifier, measure
from implant_model.errors import UsageError
from implant_model.identification import identify
from implant_model.package.load import load_package
from implant_model.package.references import FILE, load_references
from jobs import gallery as job
from tests.support.archive_samples import tar_of
from tests.support.small_package import save_small_package
from tests.support.workbench.review_samples import NAMES, png, radiograph
from training.reference_pictures import choose, picture_of

STATED = ["--source", "Phantoms of a test", "--licence", "CC0"]


def labelled(folder: Path, count: int = 16) -> list[str]:
    """Makes an archive of radiographs, four of each implant, with a labels file; gives the call."""
    folder.mkdir()
    pictures = {f"{n}.dcm": radiograph(n, 64, dicom=True) for n in range(count)}
    (folder / "01.tar").write_bytes(tar_of(pictures))
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [("01.tar", f"{n}.dcm", NAMES[n % 4], f"SECRET{n // 8}") for n in range(count)]
        csv.writer(file).writerows([("archive", "member", "label", "patient"), *rows])
    return ["--images", str(folder), "--labels", str(folder / "labels.csv")]


def test_references_are_what_the_networks_see_and_hold_no_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = save_small_package(tmp_path / "package")
    call = ["--model", str(tmp_path / "package"), *labelled(tmp_path / "set"), *STATED]
    assert job.main([*call, "--per-class", "2"]) == 0
    assert f"8 references of {made.id}" in capsys.readouterr().out
    package = load_package(str(tmp_path / "package"))
    assert package.id == made.id
    found = load_references(package)
    assert found is not None
    assert found.label_R.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    images = np.stack([np.asarray(png(data)) for data in found.pictures])
    _, features_NF = measure(Classifier(package).networks, images)
    np.testing.assert_allclose(found.features_RF, features_NF, rtol=1e-5)
    seen = [identify(radiograph(n, 64, dicom=True), str(tmp_path / "package")) for n in range(16)]
    inputs = {answer.image_HW.tobytes() for answer in seen if answer.image_HW is not None}
    assert {image.tobytes() for image in images} <= inputs
    data = (tmp_path / "package" / FILE).read_bytes()
    assert b"SECRET" not in data
    for answer in seen:
        assert answer.header.patient
        assert answer.header.patient.encode() not in data
    assert job.main([*call, "--per-class", "2"]) == 0
    assert (tmp_path / "package" / FILE).read_bytes() == data, "the same set gives the same"


def test_each_patient_comes_before_the_second_of_any() -> None:
    patients_N, digests = np.array([0, 0, 0, 1, -1, -1]), ["1", "2", "3", "9", "7", "8"]
    assert choose([0] * 6, patients_N, digests, 4) == [0, 4, 5, 3]
    assert choose([0] * 6, patients_N, digests, 9) == [0, 4, 5, 3, 1, 2]
    assert choose([None, 0, 1, 0, 0, 0], patients_N, digests, 1) == [1, 2]


def test_a_large_picture_is_reduced() -> None:
    assert png(picture_of(np.zeros((600, 600), np.uint8))).size == (256, 256)
    assert png(picture_of(np.zeros((192, 192), np.uint8))).mode == "L"


def test_mistakes_are_sentences_and_nothing_is_written(tmp_path: Path) -> None:
    save_small_package(tmp_path / "package")
    images = labelled(tmp_path / "set", 4)
    labels = tmp_path / "set" / "labels.csv"
    base = ["--model", str(tmp_path / "package")]
    with pytest.raises(UsageError, match="--per-class is 0"):
        job.main([*base, *images, *STATED, "--per-class", "0"])
    with pytest.raises(UsageError, match="20,000 references are accepted"):
        job.main([*base, *images, *STATED, "--per-class", "9999"])
    with pytest.raises(UsageError, match="--licence takes 1 to"):
        job.main([*base, *images, "--source", "x", "--licence", " "])
    with pytest.raises(UsageError, match="a package on this machine is expected"):
        job.main(["--model", "s3://bucket/model", *images, *STATED])
    labels.write_text(labels.read_text().replace("depuy", "x").replace("tornier", "x"))
    labels.write_text(labels.read_text().replace("cofield", "x").replace("zimmer", "x"))
    with pytest.raises(UsageError, match="No image shows an implant of small@"):
        job.main([*base, *images, *STATED])
    assert not (tmp_path / "package" / FILE).exists()
