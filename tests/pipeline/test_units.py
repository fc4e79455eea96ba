from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import ArchiveReason
from implant_model.limits import MIB, Limits
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key
from jobs.pipeline.blocks import BLOCK, read_block
from jobs.pipeline.recipe import Recipe
from jobs.pipeline.source import group_archives, large_block_members, read_group
from jobs.tables.receipts import (
    End,
    Fault,
    Piece,
    Unit,
    dump_pieces,
    load_pieces,
)
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTIONS, unit_id
from tests.support.archive_samples import pkware_encrypted, raw_zip, tar_of
from tests.support.dicom_edits import dicom, picture
from tests.support.pictures import noise_png

SIZE_PX = 64
Read = list[tuple[list[Piece], pa.Table, np.ndarray]]


def planned_tar(path: Path, members: dict[str, bytes]) -> PlannedArchive:
    path.write_bytes(tar_of(members))
    return PlannedArchive(path.name, storage.stat(storage.normalise(str(path))))


def recipe(folder: Path, **changes: object) -> Recipe:
    settings: dict[str, object] = {
        "output": storage.normalise(str(folder / "out")),
        "model": "m@0123456789ab",
        "preprocessing": Preprocessing(size_px=SIZE_PX),
        "limits": Limits(),
        "protector": Protector(IdentifierPolicy.KEEP, None),
    }
    return Recipe(**{**settings, **changes})  # type: ignore[arg-type]


def read(group: list[tuple[int, PlannedArchive]], how: Recipe, decoder: DecodeProcess) -> Read:
    tables = list(read_group(group, how, decoder.prepare))
    assert all(table.schema == BLOCK and table.num_rows == 1 for table in tables)
    return [read_block(table, SIZE_PX) for table in tables]


def test_each_member_has_a_row_and_each_picture_waits(
    tmp_path: Path, decoder: DecodeProcess
) -> None:
    members = {
        "a.png": noise_png(1),
        "b.txt": b"no picture",
        ".DS_Store": b"x",
        "c.png": noise_png(2),
    }
    archive = planned_tar(tmp_path / "a.tar", members)
    ((pieces, rows, images),) = read([(7, archive)], recipe(tmp_path), decoder)
    unit, end = pieces
    assert isinstance(unit, Unit)
    assert isinstance(end, End)
    assert (unit.position, unit.first_member, unit.members) == (7, 0, 4)
    assert (end.position, end.members, end.status) == (7, 4, "complete")
    assert rows["outcome"].to_pylist() == [None, "rejected", "ignored", None]
    assert rows["reason"].to_pylist() == [None, "not_an_image", "clutter", None]
    assert rows["member"].to_pylist() == list(members)
    assert rows["rows"].to_pylist() == [80, None, None, 80]
    assert images.shape == (2, SIZE_PX, SIZE_PX)
    assert not np.array_equal(images[0], images[1])


def test_units_are_cut_by_members_and_by_bytes(tmp_path: Path, decoder: DecodeProcess) -> None:
    archive = planned_tar(tmp_path / "a.tar", {f"{n}.png": noise_png(n) for n in range(5)})
    for changes in ({"unit_members": 2}, {"unit_bytes": len(noise_png(0)) + 1}):
        ((pieces, rows, _),) = read([(0, archive)], recipe(tmp_path, **changes), decoder)
        units = [piece for piece in pieces if isinstance(piece, Unit)]
        assert [(u.first_member, u.members) for u in units] == [(0, 2), (2, 2), (4, 1)]
        assert rows["member_index"].to_pylist() == [0, 1, 2, 3, 4]
        assert len({u.path for u in units}) == 3


def test_a_block_takes_archives_until_it_has_its_members(
    tmp_path: Path, decoder: DecodeProcess
) -> None:
    group = [
        (n, planned_tar(tmp_path / f"{n}.tar", {f"{i}.txt": b"x" for i in range(3)}))
        for n in range(4)
    ]
    how = recipe(tmp_path)
    for most, members in ((1, [3, 3, 3, 3]), (4, [6, 6]), (9, [9, 3]), (1024, [12])):
        tables = read_group(group, how, decoder.prepare, block_members=most, block_bytes=0)
        assert [read_block(table, SIZE_PX)[1].num_rows for table in tables] == members


def test_a_block_of_small_members_takes_more_of_them(
    tmp_path: Path, decoder: DecodeProcess
) -> None:
    group = [
        (n, planned_tar(tmp_path / f"{n}.tar", {f"{i}.txt": b"x" for i in range(400)}))
        for n in range(6)
    ]
    for least_bytes, members in ((32 << 20, [1200, 1200]), (600, [800, 800, 800])):
        tables = read_group(group, recipe(tmp_path), decoder.prepare, block_bytes=least_bytes)
        assert [read_block(table, SIZE_PX)[1].num_rows for table in tables] == members


@pytest.mark.parametrize(("size_px", "members"), [(64, 1024), (256, 1024), (384, 455), (1024, 256)])
def test_a_large_block_is_bounded_by_its_pictures(size_px: int, members: int) -> None:
    assert large_block_members(size_px) == members


def test_cut_archive_is_salvaged_with_every_member_it_names(
    tmp_path: Path, decoder: DecodeProcess
) -> None:
    planned_tar(tmp_path / "a.tar", {f"{n}.png": noise_png(n) for n in range(3)})
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(
        data[: 512 * 3 + 2 * (len(noise_png(0)) // 512 + 1) * 512 + 100]
    )
    info = storage.stat(storage.normalise(str(tmp_path / "a.tar")))
    ((pieces, rows, _),) = read([(0, PlannedArchive("a.tar", info))], recipe(tmp_path), decoder)
    end = pieces[-1]
    assert isinstance(end, End)
    assert (end.status, end.reason, end.members) == ("salvaged", "truncated", 3)
    assert rows["reason"].to_pylist() == [None, None, "truncated"]


def test_archive_of_which_nothing_can_be_read_has_failed(
    tmp_path: Path, decoder: DecodeProcess
) -> None:
    """All encrypted, a part of a split archive, or a kind that is not read: no rows, and failed."""
    contents = {
        "all.zip": raw_zip(*(pkware_encrypted(b"%d.dcm" % n, b"x", b"key") for n in range(3))),
        "x.tar.ab": b"\x93 the middle of something" * 100,
        "a.cpio": b"070701" + b"0" * 200,
    }
    for name, reason in zip(contents, ("encrypted", "unsupported", "unsupported"), strict=True):
        (tmp_path / name).write_bytes(contents[name])
        archive = PlannedArchive(name, storage.stat(storage.normalise(str(tmp_path / name))))
        ((pieces, rows, _),) = read([(0, archive)], recipe(tmp_path), decoder)
        (end,) = pieces
        assert isinstance(end, End)
        assert (end.status, end.reason, end.members, rows.num_rows) == ("failed", reason, 0, 0)


def test_replaced_archive_leaves_no_rows(tmp_path: Path, decoder: DecodeProcess) -> None:
    archive = planned_tar(tmp_path / "a.tar", {"a.png": noise_png(1)})
    planned_tar(tmp_path / "a.tar", {"a.png": noise_png(1), "b.png": noise_png(2)})
    ((pieces, rows, images),) = read([(0, archive)], recipe(tmp_path), decoder)
    (end,) = pieces
    assert isinstance(end, End)
    assert (end.status, end.reason, end.members) == ("changed", "changed", 0)
    assert rows.num_rows == len(images) == 0


def test_unreachable_archive_ends_at_once(tmp_path: Path, decoder: DecodeProcess) -> None:
    lost = PlannedArchive(
        "a.tar", storage.ObjectInfo("file:///none", 0, ""), 0, ArchiveReason.NOT_FOUND
    )
    ((pieces, _, _),) = read([(0, lost)], recipe(tmp_path), decoder)
    (end,) = pieces
    assert isinstance(end, End)
    assert (end.status, end.reason) == ("failed", "not_found")


def test_published_unit_is_adopted_without_decoding(tmp_path: Path, decoder: DecodeProcess) -> None:
    archive = planned_tar(tmp_path / "a.tar", {f"{n}.png": noise_png(n) for n in range(4)})
    how = recipe(tmp_path, unit_members=2)
    name = unit_id("a.tar", archive.info.version, how.model, how.configuration_hash, 0, 2)
    path = storage.join(how.output, PREDICTIONS, f"model={how.model}/{name}.parquet")
    assert storage.put_if_absent(path, b"published by another run")
    ((pieces, rows, images),) = read([(0, archive)], how, decoder)
    assert [piece.adopted for piece in pieces if isinstance(piece, Unit)] == [False, True]
    assert rows["member_index"].to_pylist() == [0, 1]
    assert len(images) == 2


def test_identifiers_are_dropped_unless_asked_for(tmp_path: Path, decoder: DecodeProcess) -> None:
    archive = planned_tar(tmp_path / "a.tar", {"Doe^Jane.png": noise_png(1)})
    how = recipe(tmp_path, protector=Protector(IdentifierPolicy.DROP, None))
    ((_, rows, _),) = read([(0, archive)], how, decoder)
    assert b"Doe" not in rows.to_pandas().to_csv().encode()
    assert rows["member"].to_pylist() == rows["content"].to_pylist() == [None]


def test_small_archives_share_a_block(tmp_path: Path, decoder: DecodeProcess) -> None:
    group = [
        (n, planned_tar(tmp_path / f"{n}.tar", {"a.png": noise_png(n), "b.png": noise_png(n + 9)}))
        for n in range(3)
    ]
    ((pieces, rows, images),) = read(group, recipe(tmp_path), decoder)
    assert [type(piece).__name__ for piece in pieces] == ["Unit", "End"] * 3
    assert rows.num_rows == len(images) == 6


def test_groups_hold_each_archive_once_and_become_smaller() -> None:
    archives = [
        PlannedArchive(f"{n}.tar", storage.ObjectInfo(f"file:///{n}.tar", (10 + n) * MIB, "v"))
        for n in range(100)
    ]
    groups = group_archives(archives, 32)
    assert sorted(position for group in groups for position, _ in group) == list(range(100))
    sizes = [sum(archive.info.size for _, archive in group) for group in groups]
    assert 16 <= len(groups) <= 32
    assert max(sizes) <= sum(sizes) / 6
    assert sizes[-1] <= sum(sizes) / 50
    assert group_archives([], 8) == []


def test_few_small_archives_are_one_group() -> None:
    def loose(count: int) -> list[PlannedArchive]:
        infos = [storage.ObjectInfo(f"file:///{n}.jpg", 9000, "v") for n in range(count)]
        return [PlannedArchive(str(n), info) for n, info in enumerate(infos)]

    assert [len(group_archives(loose(count), 8)) for count in (1, 20, 256, 300)] == [1, 1, 1, 2]
    assert len(group_archives(loose(20_000), 32)) >= 16


def test_pieces_survive_their_json(tmp_path: Path, decoder: DecodeProcess) -> None:
    archive = planned_tar(tmp_path / "ü'\".tar", {"a.png": noise_png(1)})
    ((pieces, _, _),) = read([(0, archive)], recipe(tmp_path), decoder)
    pieces.append(Fault("It does not answer.", at_start=True))
    assert load_pieces(dump_pieces(pieces)) == pieces


def test_configuration_hash_follows_what_decides_the_rows(tmp_path: Path) -> None:
    base = recipe(tmp_path).configuration_hash
    assert recipe(tmp_path / "elsewhere").configuration_hash == base
    for changes in (
        {"limits": Limits(frames=1)},
        {"model": "m@ffffffffffff"},
        {"unit_members": 10},
        {"precision": "bfloat16"},
        {"protector": Protector(IdentifierPolicy.DROP, None)},
        {"protector": Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(bytes(range(32))))},
    ):
        assert recipe(tmp_path, **changes).configuration_hash != base


def test_doubts_of_a_picture_are_in_its_row(tmp_path: Path, decoder: DecodeProcess) -> None:
    raw = dicom(picture(), PresentationIntentType="FOR PROCESSING")
    archive = planned_tar(tmp_path / "a.tar", {"1.dcm": raw, "2.dcm": dicom(picture())})
    ((_, rows, _),) = read([(0, archive)], recipe(tmp_path), decoder)
    assert rows["doubts"].to_pylist() == [["for_processing"], None]
