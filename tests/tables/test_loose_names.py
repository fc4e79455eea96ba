"""Names of loose radiographs: keyed unless identifiers are kept, the same in every run."""

import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from implant_model import storage
from implant_model.errors import ArchiveStatus, BusyError, UsageError
from implant_model.privacy import IdentifierPolicy
from implant_model.storage import ObjectInfo
from jobs import keys
from jobs.pipeline.plan import make_plan
from jobs.tables.loose_names import LooseNames, find_files, is_archive_name, is_loose
from jobs.tables.records import ArchiveRecord
from jobs.tables.state.record_index import Records
from tests.support.archive_samples import tar_of
from tests.support.pictures import noise_png

DROP, KEEP = IdentifierPolicy.DROP, IdentifierPolicy.KEEP
ROOT = "s3://pacs/2026"


def info(name: str = "MUSTERMANN.dcm", content: bytes = b"pixels") -> ObjectInfo:
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return ObjectInfo(f"{ROOT}/{name}", 4097, etag)


def held(name: str) -> Records:
    complete = ArchiveStatus.COMPLETE
    return Records.of([ArchiveRecord(name, "v", "source", complete, None, 0, 1, {}, {})])


@pytest.fixture
def output(tmp_path: Path) -> str:
    return storage.normalise(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "is_archive"),
    [
        ("a.tar", True),
        ("a.TAR.GZ", True),
        ("a.tgz", True),
        ("a.tar.zst", True),
        ("a.zip", True),
        ("a.7z", True),
        ("a.7z.001", True),
        ("a.part2.rar", True),
        ("a.tar.ab", True),
        ("a.z01", True),
        ("a.dcm", False),
        ("a.dcm.gz", False),
        ("a.png", False),
        ("1.2.840.113619.2", False),
        ("tar", False),
        ("a.tar/1", False),
        ("", False),
    ],
)
def test_what_ends_like_an_archive_is_named_as_it_is(name: str, is_archive: bool) -> None:
    assert is_archive_name(name) == is_archive


def test_name_version_place_and_size_are_keyed(output: str) -> None:
    names = LooseNames(output, DROP)
    planned = names.planned(info(), ROOT)
    said = repr((planned.name, planned.known))
    assert "MUSTERMANN" not in said
    # As whole words: digits come up within a random key's HMAC now and then.
    assert {"2026", info().version, "4097"}.isdisjoint(re.findall(r"[^\W_]+", said))
    assert is_loose(planned.name)
    assert planned.info == info()
    assert planned.known.size == 8192
    assert names.planned(info("a.tar"), ROOT).name == "a.tar"
    assert names.planned(info(content=b"other"), ROOT).name == planned.name
    assert names.planned(info(content=b"other"), ROOT).known.version != planned.known.version
    assert names.planned(info("2.dcm"), ROOT).known.version == planned.known.version
    assert LooseNames(output, KEEP).planned(info(), ROOT).known == info()


def test_a_later_run_knows_them_and_another_output_does_not(output: str) -> None:
    first = LooseNames(output, DROP)
    first.keep_key()
    assert storage.exists(f"{output}/_private/key") is None  # nothing needed it
    planned = first.planned(info(), ROOT)
    first.keep_key()
    assert LooseNames(output, DROP).planned(info(), ROOT) == planned
    assert LooseNames(output, IdentifierPolicy.PSEUDONYMISE).planned(info(), ROOT) == planned
    assert LooseNames(f"{output}2", DROP).planned(info(), ROOT).name != planned.name
    folder = Path(storage.uri.local_path(output)) / "_private"
    assert [folder.stat().st_mode & 0o777, (folder / "key").stat().st_mode & 0o777] == [
        0o700,
        0o600,
    ]


def test_what_the_tables_hold_keeps_its_name(output: str) -> None:
    names = LooseNames(output, DROP)
    pseudonym = names.pseudonym("MUSTERMANN.dcm")
    assert names.planned(info(), ROOT, held("MUSTERMANN.dcm")).pseudonym is None
    names.planned(info(), ROOT)
    names.keep_key()
    assert LooseNames(output, KEEP).planned(info(), ROOT, held(pseudonym)).name == pseudonym


def test_of_two_first_runs_one_goes_on(output: str) -> None:
    one, two = LooseNames(output, DROP), LooseNames(output, DROP)
    for names in (one, two):
        names.planned(info(), ROOT)
    one.keep_key()
    with pytest.raises(BusyError, match="at the same time"):
        two.keep_key()


def test_a_key_that_is_none_is_refused(output: str) -> None:
    storage.put_if_absent(f"{output}/_private/key", b"abc\n")
    with pytest.raises(UsageError, match="is no key of 32 bytes"):
        LooseNames(output, DROP)


def test_an_input_that_is_a_radiograph_is_keyed_in_the_trail(output: str, tmp_path: Path) -> None:
    for name in ("MEIER.png", "a.tar"):
        (tmp_path / name).write_bytes(noise_png(1))
    names = LooseNames(output, DROP)
    folder, radiograph, archive = (
        storage.normalise(str(path))
        for path in (tmp_path, tmp_path / "MEIER.png", tmp_path / "a.tar")
    )
    assert names.shown_input(folder) == folder
    assert names.shown_input(archive) == archive
    assert "MEIER" not in names.shown_input(radiograph)
    assert LooseNames(output, KEEP).shown_input(radiograph) == radiograph


def test_the_plan_takes_them_and_messages_of_clashes_do_not_name_them(
    output: str, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "MEIER.png").write_bytes(noise_png(1))
    (tmp_path / "a" / "1.tar").write_bytes(tar_of({"1.png": noise_png(1)}))
    roots = [storage.normalise(str(tmp_path / folder)) for folder in ("a", "b")]
    names = LooseNames(output, DROP)
    plan = make_plan(roots[:1], Records.of(), names=names)
    assert [a.name for a in plan.todo] == ["1.tar", names.pseudonym("MEIER.png")]
    with pytest.raises(UsageError, match="one archive name") as clash:
        make_plan(roots, Records.of(), names=names)
    assert "MEIER" not in str(clash.value)


def test_names_lists_which_file_is_which(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "MEIER.png").write_bytes(noise_png(1))
    (folder / "1.tar").write_bytes(tar_of({"1.png": noise_png(1)}))
    root = storage.normalise(str(folder))
    with pytest.raises(UsageError, match="has no _private/key"):
        list(find_files(output, [root]))
    names = LooseNames(output, DROP)
    (_, planned) = make_plan([root], Records.of(), names=names).todo
    names.keep_key()
    table = tmp_path / "names.csv"
    assert keys.main(["names", output, str(folder), "--csv", str(table)]) == 0
    assert capsys.readouterr().out == f"1 loose radiographs: {table}\n"
    assert table.stat().st_mode & 0o777 == 0o600
    assert pa_csv.read_csv(table).to_pylist() == [
        {
            "archive": planned.name,
            "archive_version": planned.known.version,
            "file": f"{root}/MEIER.png",
        }
    ]
    assert pa.types.is_string(pa_csv.read_csv(table).schema.field("archive").type)
    with pytest.raises(UsageError, match="an OUTPUT and at least one INPUT"):
        keys.main(["names", output])
    with pytest.raises(UsageError, match="takes one key"):
        keys.main(["id", "a", "b"])
