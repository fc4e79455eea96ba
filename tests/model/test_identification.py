"""One call for a notebook: the same answer as the job's, and sentences for mistakes."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import implant_model
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import LINUX_ONLY, Outcome, PackageError, Reason, UsageError
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.files import write_dicom, write_jpeg, write_png
from implant_model.phantoms.render import render
from jobs.entry.command import OK
from tests.support.archive_samples import tar_of
from tests.support.paths import ROOT
from tests.torture.attacks import direct


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what the job may meet: pictures of each kind, a cut one, clutter, no picture."""
    folder = tmp_path_factory.mktemp("radiographs")
    drawn = [render(ORTHONET[n], np.random.default_rng(n), 160) for n in range(3)]
    (folder / "0.png").write_bytes(write_png(drawn[0]))
    (folder / "1.jpg").write_bytes(write_jpeg(drawn[1]))
    (folder / "2.dcm").write_bytes(write_dicom(drawn[2], np.random.default_rng(0)))
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:3000])
    (folder / "note.txt").write_bytes(b"no picture")
    return folder


def test_answers_are_those_of_the_job(
    radiographs: Path, small_package: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    call = [str(radiographs), "--output", str(output), "--model", str(small_package)]
    call += ["--identifiers", "keep"]
    assert direct.classify(call) == OK
    rows = pl.read_delta(str(output / "predictions")).to_dicts()
    assert len(rows) == 5
    for row in rows:
        file = radiographs / row["archive"]
        for given in (file, str(file), file.read_bytes()):
            found = implant_model.identify(given, small_package)
            assert (str(found.outcome), found.reason and str(found.reason)) == (
                row["outcome"], row["reason"],
            )  # fmt: skip
            assert (found.implant and found.implant.name) == row["implant"]
            assert list(found.candidates) == (row["candidates"] or [])
            assert (found.header.rows, found.header.modality) == (row["rows"], row["modality"])
            if row["probability"] is None:
                assert found.probability is None
                assert found.image_HW is None
            else:
                assert math.isclose(found.probability or 0, row["probability"], abs_tol=1e-6)
                assert math.isclose(found.novelty or 0, row["novelty"], rel_tol=1e-4)
                assert [name for name, _ in found.top] == [top["implant"] for top in row["top"]]


def test_rejection_has_its_reason(radiographs: Path, small_package: Path) -> None:
    found = implant_model.identify(radiographs / "cut.png", small_package)
    assert (found.outcome, found.reason) == (Outcome.REJECTED, Reason.TRUNCATED)
    assert implant_model.identify(b"", small_package).reason is Reason.EMPTY


def test_identifiers_are_not_shown(radiographs: Path, small_package: Path) -> None:
    found = implant_model.identify(radiographs / "2.dcm", small_package)
    assert found.header.patient
    assert found.header.patient not in repr(found)


def test_mistakes_are_sentences(radiographs: Path, small_package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The radiograph cannot be read"):
        implant_model.identify(tmp_path / "missing.dcm", small_package)
    with pytest.raises(PackageError, match="model package"):
        implant_model.identify(radiographs / "0.png", tmp_path / "nowhere")
    picture = (radiographs / "0.png").read_bytes()
    (tmp_path / "two.tar").write_bytes(tar_of({"a.png": picture, "b.png": picture}))
    with pytest.raises(UsageError, match="an archive of several members"):
        implant_model.identify(tmp_path / "two.tar", small_package)


def test_another_system_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodeProcess(Preprocessing(size_px=16), Limits()) as decoder:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(UsageError, match="runs on Linux alone"):
            decoder.prepare(b"x")
    assert "memfd" in LINUX_ONLY


def test_import_is_light_and_needs_no_ray() -> None:
    program = (
        "import sys, implant_model; assert callable(implant_model.identify);"
        "sys.exit(bool({'torch', 'ray', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.long
def test_repository_can_be_installed(tmp_path: Path, radiographs: Path) -> None:
    """The wheel that `pip install .` builds holds implant_model, and works without the tree."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    subprocess.run([*build, "-w", str(tmp_path / "wheels"), str(copy)], check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True
    )
    program = (
        "import sys, implant_model; found = implant_model.identify(*sys.argv[1:]);"
        "print(implant_model.__file__, found.outcome, found.implant.joint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(radiographs / "0.png"), str(ROOT / "models/phantom")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
