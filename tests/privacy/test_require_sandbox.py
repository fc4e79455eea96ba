"""`--require-sandbox`: a machine that cannot confine the decoder is refused before any work."""

from pathlib import Path

import pytest

from implant_model.decode.confine import Confinement
from implant_model.errors import UsageError
from jobs import classify
from jobs.entry.command import OK
from tests.torture.cases.files import png

LACKING = Confinement(seccomp=True, landlock=0, account=True)


@pytest.fixture
def call(tmp_path: Path, small_package: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(classify, "available", lambda: LACKING)
    (tmp_path / "a.png").write_bytes(png(1))
    return [
        str(tmp_path / "a.png"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        str(small_package),
    ]


def test_missing_part_is_named_once_and_the_job_goes_on(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify.main([*call, "--dry-run"]) == OK
    assert capsys.readouterr().out.count("sandbox has no limit on the file system") == 1


def test_missing_part_is_refused_where_it_is_required(call: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--require-sandbox: on .* has no limit on the file"):
        classify.main([*call, "--require-sandbox"])
    assert not (tmp_path / "out").exists()
