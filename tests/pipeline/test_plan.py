import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import AccessDeniedError, ArchiveReason, ArchiveStatus, UsageError
from implant_model.privacy import IdentifierPolicy
from jobs.pipeline import plan as plan_module
from jobs.pipeline.plan import check_reasons, make_plan
from jobs.tables.loose_names import LooseNames
from jobs.tables.records import ArchiveRecord
from jobs.tables.state.record_index import Records
from tests.support.object_store import ObjectStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tar", "b.tar", "deep/er/c.zip"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def uri(path: Path) -> str:
    return storage.normalise(str(path))


def record(
    path: Path,
    name: str,
    status: ArchiveStatus = ArchiveStatus.COMPLETE,
    reason: ArchiveReason | None = None,
    member_reasons: dict[str, int] | None = None,
) -> Records:
    """The table `archives` after one archive, as it is on the disk now, was done."""
    info = storage.stat(uri(path))
    done = ArchiveRecord(
        name, info.version, info.uri, status, reason, 0, 5, {}, member_reasons or {}
    )
    return Records.of([done])


def test_names_are_relative_to_the_input(folder: Path) -> None:
    plan = make_plan([uri(folder)], Records.of())
    assert [a.name for a in plan.todo] == ["a.tar", "b.tar", "deep/er/c.zip"]
    assert [a.name for a in make_plan([uri(folder / "a.tar")], Records.of()).todo] == ["a.tar"]


def test_what_is_done_is_subtracted_until_its_version_changes(folder: Path) -> None:
    records = record(folder / "a.tar", "a.tar")
    plan = make_plan([uri(folder)], records)
    assert [a.name for a in plan.todo] == ["b.tar", "deep/er/c.zip"]
    assert [r.archive for r in plan.done] == ["a.tar"]
    (folder / "a.tar").write_text("another version")
    assert len(make_plan([uri(folder)], records).todo) == 3


@pytest.mark.parametrize(
    ("status", "reason", "attempt"),
    [
        (ArchiveStatus.FAILED, ArchiveReason.ACCESS_DENIED, 1),
        (ArchiveStatus.FAILED, ArchiveReason.STORAGE_ERROR, 1),
        (ArchiveStatus.CHANGED, ArchiveReason.CHANGED, 1),
        (ArchiveStatus.SALVAGED, ArchiveReason.TRUNCATED, None),
        (ArchiveStatus.FAILED, ArchiveReason.CORRUPT, None),
    ],
)
def test_only_what_lies_outside_the_bytes_is_tried_again(
    folder: Path, status: ArchiveStatus, reason: ArchiveReason, attempt: int | None
) -> None:
    plan = make_plan([uri(folder / "a.tar")], record(folder / "a.tar", "a.tar", status, reason))
    assert [a.attempt for a in plan.todo] == ([] if attempt is None else [attempt])


def test_retry_reads_again_what_has_the_reason(folder: Path) -> None:
    records = record(folder / "a.tar", "a.tar", member_reasons={"decoder_timeout": 2})
    again = frozenset({"decoder_timeout"})
    assert len(make_plan([uri(folder / "a.tar")], records, again).todo) == 1
    assert not make_plan([uri(folder / "a.tar")], records, frozenset({"truncated"})).todo


def test_limit_counts_what_is_to_do(folder: Path) -> None:
    plan = make_plan([uri(folder)], record(folder / "a.tar", "a.tar"), limit=1)
    assert [a.name for a in plan.todo] == ["b.tar"]


def test_input_that_is_not_there_is_refused_with_what_lies_nearest(folder: Path) -> None:
    for missing, nearest in (("none.tar", ""), ("deeep", "/deep"), ("deep/err/c.zip", "/deep/er")):
        with pytest.raises(UsageError) as error:
            make_plan([uri(folder / "a.tar"), uri(folder / missing)], Records.of())
        assert str(error.value) == (
            f"There is nothing at INPUT {uri(folder / missing)}; nearest is {uri(folder)}{nearest}."
        )
    (folder / "empty").mkdir()
    assert not make_plan([uri(folder / "empty")], Records.of()).todo


def test_bucket_or_prefix_that_is_not_there_is_refused(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    object_store.client().put_object(Bucket=bucket, Key="pacs/2026/a.tar", Body=b"a")
    for missing, words in (
        (f"s3://{bucket}-no/pacs", "The bucket of INPUT"),
        (f"s3://{bucket}/pacs/2025", f"nearest is s3://{bucket}/pacs/2026/."),
        (f"s3://{bucket}/pcas/2026/01", f"nearest is s3://{bucket}/pacs/."),
        (f"s3://{bucket}/pacs/2026/b.tar", f"nearest is s3://{bucket}/pacs/2026/."),
        (f"s3://{bucket}/zzz", f"nearest is s3://{bucket}/."),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            make_plan([missing], Records.of())


def test_folder_that_cannot_be_listed_is_planned_as_unreachable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(root: str, **_: bool) -> Iterator[storage.ObjectInfo]:
        raise AccessDeniedError(root)

    monkeypatch.setattr(storage, "list_objects", refused)
    (lost,) = make_plan([uri(folder / "closed.tar")], Records.of()).todo
    assert (lost.name, lost.unreachable) == ("closed.tar", ArchiveReason.ACCESS_DENIED)


def test_one_object_listed_twice_is_read_once(folder: Path) -> None:
    assert len(make_plan([uri(folder / "a.tar"), uri(folder / "a.tar")], Records.of()).todo) == 1


def test_two_archives_of_one_name_are_refused(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "a.tar").write_text("other")
    with pytest.raises(UsageError, match=r"Two inputs have the archive name 'a.tar'"):
        make_plan([uri(folder / "a.tar"), uri(folder / "other" / "a.tar")], Records.of())


def test_archive_of_another_folder_does_not_replace_its_namesake(folder: Path) -> None:
    records = record(folder / "a.tar", "a.tar")
    (folder / "night2").mkdir()
    (folder / "night2" / "a.tar").write_text("other content")
    with pytest.raises(UsageError, match="would replace it"):
        make_plan([uri(folder / "night2")], records)


def test_an_input_within_another_is_refused_where_it_gives_second_names(folder: Path) -> None:
    for inner in (folder / "deep", folder / "deep" / "er" / "c.zip"):
        for inputs in ([folder, inner], [inner, folder]):
            with pytest.raises(UsageError, match=r"lies in the INPUT .* rows be there twice"):
                make_plan([*map(uri, inputs)], Records.of())
    names = [a.name for a in make_plan([uri(folder), uri(folder / "a.tar")], Records.of()).todo]
    assert names == ["a.tar", "b.tar", "deep/er/c.zip"]
    (folder / "de").mkdir()  # the beginning of a name is no folder
    assert len(make_plan([uri(folder / "deep"), uri(folder / "de")], Records.of()).todo) == 1


def test_an_archive_does_not_get_a_second_name_by_a_wider_input(folder: Path) -> None:
    nested = folder / "deep" / "er" / "c.zip"
    with pytest.raises(UsageError, match=r"as the archive 'c.zip'; as 'deep/er/c.zip'"):
        make_plan([uri(folder)], record(nested, "c.zip"))
    nested.write_text("another version")
    with pytest.raises(UsageError, match=r"as 'deep/er/c.zip' all its rows"):
        make_plan([uri(folder)], record(nested, "c.zip"))
    assert len(make_plan([uri(folder)], record(nested, "deep/er/c.zip")).todo) == 2
    (done,) = record(nested, "c.zip")["c.zip"].values()
    assert len(make_plan([uri(folder)], Records.of([replace(done, members=0)])).todo) == 3


def test_a_loose_radiograph_does_not_get_a_second_name(folder: Path) -> None:
    (folder / "deep" / "l.png").write_text("a radiograph")
    names = LooseNames(uri(folder.parent / "out"), IdentifierPolicy.DROP)
    todo = make_plan([uri(folder / "deep")], Records.of(), names=names).todo
    (loose,) = [archive for archive in todo if archive.pseudonym]
    done = ArchiveRecord(
        loose.name, loose.known.version, loose.known.uri, ArchiveStatus.COMPLETE, None, 0, 1, {}, {}
    )
    with pytest.raises(UsageError, match="as a loose radiograph of this INPUT all its rows"):
        make_plan([uri(folder)], Records.of([done]), names=names)
    assert len(make_plan([uri(folder / "deep")], Records.of([done]), names=names).done) == 1


def test_unknown_reason_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"--retry: nonsense is not a reason; accepted are"):
        check_reasons(["truncated", "nonsense"])


def test_many_archives_are_read_in_rounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "ROUND", 2)
    (folder.parent / "another").write_text("beside the folder")
    plan = make_plan([uri(folder)], record(folder.parent / "another", "another"))
    rounds = list(plan.rounds())
    names = [[archive.name for archive in part.todo] for part in rounds]
    assert names == [["a.tar", "b.tar"], ["deep/er/c.zip"]]
    assert all(part.done is plan.done for part in rounds)
    (nothing,) = make_plan([uri(folder)], Records.of(), limit=0).rounds()
    assert nothing.todo == ()


def test_names_that_were_listed_long_before_are_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "LOOKED_UP_AT_ONCE", 1)
    monkeypatch.setattr(plan_module, "NAMED_AT_ONCE", 1)
    (folder / "other").mkdir()
    (folder / "other" / "b.tar").write_text("other")
    inputs = [uri(folder / "deep"), uri(folder / "b.tar"), uri(folder / "a.tar")]
    assert len(make_plan([*inputs, uri(folder / "b.tar")], Records.of()).todo) == 3
    with pytest.raises(UsageError, match=r"Two inputs have the archive name 'b.tar'"):
        make_plan([*inputs, uri(folder / "other" / "b.tar")], Records.of())
