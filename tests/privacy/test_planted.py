"""Marks in every attribute that DICOM knows, in names and in pictures' texts: where do they go?

Each mark is a number between two words. What a job writes is searched for them: its output with
Parquet's values decoded, its pages and lists, what it prints, and the files of the Ray cluster that
it ran on.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.privacy.conftest import Tell, modes
from tests.support.archive_samples import tar_of, zip_of
from tests.support.deadly_members import KILLS_READER
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.object_store import ObjectStore
from tests.support.ray_cluster import RayCluster

MARK = re.compile(rb"(?i)qzx(\d{4})xzq")
IDENTIFIERS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
UNUSED = {  # a mark there makes the file another kind of file
    *("SpecificCharacterSet", "PhotometricInterpretation", "SOPClassUID", "Modality"),
    *("BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality", "ImageType"),
    *(
        "PixelIntensityRelationship",
        "PresentationLUTShape",
        "VOILUTFunction",
        "LossyImageCompression",
    ),
    *("NumberOfFrames", "PresentationIntentType"),
}


class Marks:
    """Gives marks, and knows how many there are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return self.last

    @property
    def last(self) -> str:
        """The one that was given last."""
        return f"QZX{self.count:04}XZQ"


def marked(marks: Marks, **given: str) -> Dataset:
    """A radiograph with a mark in each attribute of text that the standard knows."""
    ds = dataset(picture())
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if vr in TEXT_VRS and keyword and keyword not in UNUSED and tag >> 16 not in (0, 2, 4):
            setattr(ds, keyword, marks())
    inner = Dataset()
    inner.PatientName, inner.InstitutionName = marks(), marks()
    ds.RequestAttributesSequence = Items([inner])
    ds.private_block(0x0099, f"MAKER {marks()}", create=True).add_new(1, "LO", marks())
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    return ds


def png_with_texts(marks: Marks, pixels: np.ndarray) -> bytes:
    out, texts = io.BytesIO(), PngInfo()
    for key in ("Title", "Author", "Comment", marks()):
        texts.add_text(key, marks())
    texts.add_itxt("Description", marks())
    Image.fromarray(pixels).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def jpeg_with_texts(marks: Marks, pixels: np.ndarray) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = marks(), marks(), marks()
    Image.fromarray(pixels).save(out, "JPEG", exif=exif, comment=marks().encode())
    return out.getvalue()


def members(marks: Marks) -> dict[str, bytes]:
    """Members of every outcome, each with marks in its name and in what it holds."""
    grey = (picture(bits=8) & 0xFF).astype(np.uint8)
    whole = to_bytes(marked(marks))
    return {
        f"{marks()}/{marks()}.dcm": whole,
        f"{marks()}.cut.dcm": to_bytes(marked(marks))[:-2000],
        f"{marks()}.report.dcm": dicom(picture(), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
                                       PatientID=marks(), PatientName=marks()),
        f"{marks()}.png": png_with_texts(marks, grey),
        f"{marks()}.jpg": jpeg_with_texts(marks, grey),
        f"{marks()}.txt": f"{marks()} {marks()}".encode(),
        f"{marks()}.broken.png": png_with_texts(marks, grey)[:300],
        f"__MACOSX/{marks()}": marks().encode(),
        f"{marks()}.empty": b"",
    }  # fmt: skip


def found_in(*places: bytes | str) -> set[bytes]:
    """The marks that occur in texts or bytes."""
    data = [place.encode(errors="replace") if isinstance(place, str) else place for place in places]
    return {mark for each in data for mark in MARK.findall(each)}


def texts_below(folder: Path) -> Iterator[bytes]:
    """The names and bytes of files below a folder; of Parquet its values, too."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode(errors="replace")
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()
            if path.suffix == ".parquet":
                yield repr(pq.read_table(path, partitioning=None).to_pylist()).encode()


def check_rights(output: Path, identifiers: str) -> None:
    """Identifiers are for the owner alone, also what workers of a cluster wrote that was there."""
    alone = {("folder", 0o700), ("file", 0o600)}
    found = modes(output)
    if identifiers == "keep":
        assert found == alone
    else:
        assert modes(output / "_private") == alone
        assert found - alone == {("folder", 0o755), ("file", 0o644)}


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Marks]:
    marks = Marks()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(members(marks)))
    (tmp_path / "in" / "b.zip").write_bytes(zip_of(members(marks)))
    (tmp_path / "in" / marks()).mkdir()
    (tmp_path / "in" / marks.last / f"{marks()}.dcm").write_bytes(to_bytes(marked(marks)))
    (tmp_path / "in" / f"{marks()}.broken").write_bytes(marks().encode())
    assert marks.count >= 150
    return tmp_path / "in", marks


@pytest.mark.cluster
@pytest.mark.parametrize(
    "identifiers",
    [
        pytest.param("drop", marks=pytest.mark.long),
        "pseudonymise",
        pytest.param("keep", marks=pytest.mark.slow),
    ],
)
def test_marks_leave_in_no_mode_but_where_they_are_kept(
    identifiers: str,
    planted: tuple[Path, Marks],
    small_package: Path,
    ray_cluster: RayCluster,
    tmp_path: Path,
    tell: Tell,
) -> None:
    archives, marks = planted
    (tmp_path / "key").write_text(
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )
    (tmp_path / "key").chmod(0o600)
    command = ["jobs.classify", str(archives), "--output", str(tmp_path / "out")]
    command += ["--model", str(small_package), "--identifiers", identifiers]
    command += ["--metrics-file", str(tmp_path / "out" / "metrics.prom")]
    command += ["--key-file", str(tmp_path / "key")] if identifiers == "pseudonymise" else []
    before = os.umask(0o022)
    try:
        done = ray_cluster.run(*command)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    check_rights(tmp_path / "out", identifiers)
    rows = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert rows.height == 2 * len(members(Marks())) + 2
    printed = found_in(done.stdout, done.stderr, *texts_below(ray_cluster.folder))
    written = found_in(*texts_below(tmp_path / "out"))
    if identifiers == "keep":
        kept = ("patient", "study", "series", "instance", "accession", "member", "archive")
        texts = [str(value) for name in kept for value in rows[name].drop_nulls()]
        assert written == found_in(*texts)
        assert len(written) > 10
        written = set()
    tell(f"planted marks that leave classify, --identifiers {identifiers}", marks.count,
         len(written | printed))  # fmt: skip
    assert (written, printed) == (set(), set())


@pytest.mark.slow  # make privacy
@pytest.mark.cluster
def test_marks_leave_no_submitted_job_nor_one_whose_decoders_die(
    object_store: ObjectStore,
    bucket: str,
    small_package: Path,
    ray_cluster: RayCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tell: Tell,
) -> None:
    marks = Marks()
    held = members(marks)
    deadly = {**held, f"{marks()}.deadly.dcm": to_bytes(marked(marks)) + KILLS_READER}
    s3 = object_store.client()
    s3.put_object(Bucket=bucket, Key="in/a.tar", Body=tar_of(held))
    loose = to_bytes(marked(marks))
    etag = s3.put_object(Bucket=bucket, Key=f"in/{marks()}.dcm", Body=loose)["ETag"].strip('"')
    command = ["jobs.classify", f"s3://{bucket}/in/", "--model", str(small_package)]
    done = ray_cluster.submit(*command, "--output", f"s3://{bucket}/out")
    assert done.returncode == 0, done.stdout + done.stderr
    s3.put_object(Bucket=bucket, Key="in/b.tar", Body=tar_of(deadly))
    hook = "tests.support.deadly_members.deadly"
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", hook)
    monkeypatch.setenv("DEADLY_MEMBERS_TALLY", str(tmp_path / "deaths"))
    died = ray_cluster.run(*command, "--output", f"s3://{bucket}/died")
    assert died.returncode == 3, died.stderr
    assert (tmp_path / "deaths").stat().st_size > 0
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    for key in keys:
        if not key.startswith("in/"):
            copy = tmp_path / "copy" / key
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    found = found_in(
        *(done.stdout, done.stderr, died.stdout, died.stderr),
        *texts_below(tmp_path / "copy"),
        *texts_below(ray_cluster.folder),
    )
    tell("planted marks that leave a submitted job, or deaths", marks.count, len(found))
    assert found == set()
    assert etag == hashlib.md5(loose, usedforsecurity=False).hexdigest()
    assert not any(etag.encode() in text for text in texts_below(tmp_path / "copy"))


@pytest.mark.slow  # make privacy
@pytest.mark.cluster
def test_marks_leave_train_evaluate_audit_and_explain_in_lists_alone(
    small_package: Path, ray_cluster: RayCluster, tmp_path: Path, tell: Tell
) -> None:
    """What is printed and what is passed on, package and pages, has none; private lists may."""
    marks = Marks()
    images = tmp_path / "images"
    labels = ["archive,member,label,patient"]
    files = {}
    for number in range(24):
        name = f"{marks()}.dcm"
        pixels = np.roll(picture(), 3 * number, axis=1) >> (number % 2)
        files[name] = dicom(pixels, PatientID=marks(), PatientName=marks(), AccessionNumber=marks())
        labels.append(f"set.tar,{name},{('cofield', 'depuy')[number % 2]},{marks()}")
    files[f"{marks()}.broken.dcm"] = b"\0" * 200
    labels.append(f"set.tar,{list(files)[-1]},cofield,")
    images.mkdir()
    (images / "set.tar").write_bytes(tar_of(files))
    (images / "one.dcm").write_bytes(to_bytes(marked(marks)))
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(labels) + "\n")
    evaluated = ray_cluster.run(
        *("jobs.evaluate", "--model", str(small_package), "--images", str(images / "set.tar")),
        *("--labels", str(table), "--report", str(tmp_path / "evaluation"), "--robustness", "0"),
    )
    assert evaluated.returncode in (0, 3), evaluated.stderr
    explained = ray_cluster.run(
        *("jobs.explain", str(images / "one.dcm"), "--model", str(small_package)),
        *("--output", str(tmp_path / "explained.png")),
    )
    assert explained.returncode == 0, explained.stderr
    broken = ray_cluster.run(
        *("jobs.train", "--images", str(images / "set.tar"), "--labels", str(table)),
        *("--output", str(tmp_path / "model"), "--config", str(tmp_path / "none.toml")),
    )
    assert broken.returncode == 2
    registry = tmp_path / "registry.csv"
    registry.write_text(f"record,patient,side,joint,implant\n1,{marks()},L,shoulder,{marks()}\n")
    classified = ray_cluster.run(
        *("jobs.classify", str(images), "--model", str(small_package)),
        *("--output", str(tmp_path / "out"), "--identifiers", "keep"),
    )
    assert classified.returncode == 0, classified.stderr
    audited = ray_cluster.run(
        *("jobs.audit", "--predictions", str(tmp_path / "out"), "--registry", str(registry)),
        *("--report", str(tmp_path / "audit"), "--key", "patient"),
    )
    printed = [
        text
        for each in (evaluated, explained, broken, classified, audited)
        for text in (each.stdout, each.stderr)
    ]
    pages = [
        path.read_bytes()
        for path in (*(tmp_path / "evaluation").iterdir(), tmp_path / "explained.png")
        if path.name != "excluded.csv"
    ]
    found = found_in(*printed, *pages)
    tell("planted marks in what other jobs print, and in pages", marks.count, len(found))
    assert found == set()
    assert found_in((tmp_path / "evaluation" / "excluded.csv").read_bytes())
    assert (tmp_path / "evaluation" / "excluded.csv").stat().st_mode & 0o077 == 0


def test_search_finds_a_mark(tmp_path: Path) -> None:
    pl.DataFrame({"a": [f"QZX{7:04}XZQ"] * 3}).write_parquet(
        tmp_path / "a.parquet", compression="zstd"
    )
    (tmp_path / f"QZX{8:04}XZQ").mkdir()
    assert found_in(*texts_below(tmp_path)) == {b"0007", b"0008"}
