"""What may hold identifiers or radiographs is for its owner alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from implant_model.storage.local_files import write_whole
from jobs.entry.folder import checked_folder
from tests.privacy.conftest import modes
from tests.support.archive_samples import tar_of
from tests.support.paths import ROOT
from tests.support.pictures import noise_png


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_of({"1.png": noise_png(1), "2.png": noise_png(2)}))
    return folder


def test_pages_and_lists_are_private_and_so_are_their_folders(tmp_path: Path) -> None:
    folder = checked_folder(str(tmp_path / "reports" / "of" / "today"))
    write_whole(folder / "below" / "page.html", b"a page")
    assert modes(tmp_path / "reports") == {("folder", 0o700), ("file", 0o600)}


def test_picture_of_explain_is_private(small_package: Path, tmp_path: Path) -> None:
    (tmp_path / "radiograph.png").write_bytes(noise_png(1))
    command = ["jobs.explain", str(tmp_path / "radiograph.png"), "--model", str(small_package)]
    picture = tmp_path / "explained.png"
    command += ["--output", str(picture)]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600


def test_nothing_is_written_where_ray_does_not_start(
    archives: Path, small_package: Path, tmp_path: Path
) -> None:
    """Exit code 2 says so."""
    command = ["jobs.classify", str(archives), "--output", str(tmp_path / "out")]
    command += ["--model", str(small_package)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be joined" in done.stderr
    assert not (tmp_path / "out").exists()
