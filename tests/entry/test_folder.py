"""The folder that a job writes to: not made before there is a file, refused where it cannot be."""

from pathlib import Path

import pytest

from implant_model.errors import UsageError
from jobs.entry.folder import checked_folder, local_folder


def test_a_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    folder = checked_folder(str(tmp_path / "new" / "report"))
    assert folder == tmp_path / "new" / "report"
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True)
    assert checked_folder(str(folder)) == folder
    assert list(folder.iterdir()) == []


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
