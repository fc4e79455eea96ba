"""The folder that a job writes to: made where it is missing, refused where it cannot be."""

from pathlib import Path

import pytest

from implant_model.errors import UsageError
from jobs.entry.folder import checked_folder, local_folder


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = checked_folder(str(tmp_path / "new" / "report"))
    assert folder == tmp_path / "new" / "report"
    assert list(folder.iterdir()) == []
    assert checked_folder(str(folder)) == folder


def test_a_relative_name_becomes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_folder("report", "--report") == tmp_path / "report"
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("uri", ["s3://bucket/report", "file:///tmp/report"])
def test_a_uri_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=f"--report is {uri}; a folder of this machine"):
        checked_folder(uri)


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(UsageError, match=f"--to {tmp_path / name} cannot be written: [A-Z]"):
            checked_folder(str(tmp_path / name), "--to")
