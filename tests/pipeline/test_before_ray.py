"""What is found before Ray starts: one sentence and exit code 2, and nothing has been written."""

from pathlib import Path

import pytest

from implant_model.errors import UsageError
from jobs import classify, keys
from jobs.entry.command import OK
from jobs.pipeline.plan import Plan
from jobs.tables.loose_names import LooseNames
from tests.support.archive_samples import tar_of
from tests.support.object_store import ObjectStore
from tests.support.pictures import noise_png
from tests.torture.attacks import direct


@pytest.fixture
def call(tmp_path: Path, small_package: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One archive and one loose radiograph, with an output on disk."""
    monkeypatch.delenv("IMPLANT_KEY_FILE", raising=False)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of({"a.png": noise_png(1)}))
    (tmp_path / "in" / "b.png").write_bytes(noise_png(2))
    return [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(small_package)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "NoSuchBucket; check the bucket and the name"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "check AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials"),
    ],
)
def test_store_that_cannot_be_used(
    settings: dict[str, str], words: str, call: list[str], object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {**object_store.environment, **settings}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    call[2] = "s3://no-such-bucket/implants"
    with pytest.raises(UsageError, match=words) as error:
        classify.main([*call, "--dry-run"])
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_key_that_was_forgotten_or_changed(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = (str(keys.make_key(tmp_path / name)) for name in ("key", "other"))
    assert direct.classify([*call, "--key-file", key]) == OK
    with pytest.raises(UsageError, match="and this run has no key: name it by --key-file"):
        classify.main([*call, "--dry-run"])
    capsys.readouterr()
    assert classify.main([*call, "--dry-run", "--key-file", key]) == OK
    assert "Warning" not in capsys.readouterr().out.partition("Model")[0]
    assert classify.main([*call, "--dry-run", "--identifiers", "drop"]) == OK
    assert "rows of this run have none" in capsys.readouterr().out
    assert classify.main([*call, "--dry-run", "--key-file", other]) == OK
    assert "those of this run are by" in capsys.readouterr().out


def test_plan_by_another_key_is_made_once_more(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run puts its key while Ray starts for this one."""
    planned: list[set[str]] = []

    def begin(plan: Plan, *rest: object) -> list[object]:
        planned.append({archive.name for archive in plan.todo})
        names = rest[-1]
        assert isinstance(names, LooseNames)
        if len(planned) == 1:
            direct.classify(call)
        names.keep_key()
        return []

    monkeypatch.setattr(classify, "classify", begin)
    assert classify.main(call) == OK
    assert [len(names) for names in planned] == [2]  # the other run has done them all
