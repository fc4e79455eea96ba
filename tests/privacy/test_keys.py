"""`jobs.keys`: a new key is one that the job takes, and none is written over."""

from pathlib import Path

import pytest

from implant_model.errors import UsageError
from implant_model.pseudonym_key import Key
from jobs import keys


def test_new_key_is_private_and_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pseudonyms.key"
    assert keys.main(["new", str(path)]) == 0
    said = capsys.readouterr().out
    assert path.stat().st_mode & 0o777 == 0o600
    assert Key.load(str(path)).key_id in said
    assert path.read_text().strip() not in said
    assert keys.main(["id", str(path)]) == 0
    assert Key.load(str(path)).key_id in capsys.readouterr().out


def test_key_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = keys.make_key(tmp_path / "key")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is not written over"):
        keys.main(["new", str(path)])
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="cannot be written"):
        keys.main(["new", str(tmp_path / "nowhere" / "key")])
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        keys.main(["new", str(tmp_path / "link")])
    assert not (tmp_path / "elsewhere").exists()


def test_two_keys_differ(tmp_path: Path) -> None:
    first, second = (keys.make_key(tmp_path / name).read_bytes() for name in "ab")
    assert first != second
