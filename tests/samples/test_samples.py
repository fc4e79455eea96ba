"""The demo's sample archives: their kinds, their contents, and that they are made once."""

import json
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.archives.read import read_members
from implant_model.decode.prepare import decode
from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import ArchiveError, ArchiveReason, MemberError, Reason, UsageError
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from jobs.samples.sample_archives import CUT, LOOSE, PACKED, Samples, make_samples
from training.data.labels import read_labels


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"), 3)


def read(samples: Samples, name: str) -> tuple[dict[int, tuple[str, Reason | None]], object]:
    """What reading and decoding an archive gives: name and reason by index; how it ended."""
    limits, found = Limits(), {}
    info = storage.stat(storage.normalise(str(samples.archives / name)))
    try:
        with storage.open_object(info) as reader:
            for member in read_members(reader, name, limits):
                reason = member.reason
                if member.data is not None:
                    reason = _decoded(bytes(member.data), limits)
                found[member.index] = (member.name, reason)
    except ArchiveError as error:
        return found, error.reason
    return found, None


def _decoded(data: bytes, limits: Limits) -> Reason | None:
    decoded = decode(data, limits)
    if decoded.pixels_HW is None:
        return decoded.reason
    try:
        preprocess(decoded.pixels_HW, Preprocessing())
    except MemberError as error:
        return error.reason
    return None


def test_every_member_is_what_the_record_says(samples: Samples) -> None:
    for name in {truth.archive for truth in samples.truths}:
        found, ended = read(samples, name)
        expected = {t.member_index: t for t in samples.truths if t.archive == name}
        assert found.keys() == expected.keys()
        assert ended == (ArchiveReason.TRUNCATED if name == CUT else None)
        for index, (member, reason) in found.items():
            assert reason == expected[index].reason, (name, member)
            assert expected[index].member in (member, "")


def test_samples_show_every_kind_of_archive_and_many_reasons(samples: Samples) -> None:
    archives = {truth.archive for truth in samples.truths}
    assert archives.issuperset({*PACKED, CUT})
    assert any(name.startswith(f"{LOOSE}/") for name in archives)
    magics = [(samples.archives / name).read_bytes()[:4] for name in PACKED]
    assert magics[1][:2] == b"\x1f\x8b"
    assert magics[2] == b"\x28\xb5\x2f\xfd"
    assert magics[3] == b"PK\x03\x04"
    assert (samples.archives / PACKED[0]).read_bytes()[257:262] == b"ustar"
    reasons = {truth.reason for truth in samples.truths}
    assert len(reasons) >= 9
    endings = {Path(truth.member).suffix for truth in samples.truths if truth.label}
    assert {".dcm", ".png", ".jpg"} <= endings


def test_phantoms_are_balanced_and_some_are_of_other_implants(samples: Samples) -> None:
    labels = [truth.label for truth in samples.truths if truth.label]
    counts = {name: labels.count(name) for name in ORTHONET.names}
    assert set(counts.values()) <= {2, 3}  # one phantom is cut with its archive
    assert sum(label.startswith("other-") for label in labels) >= 6


def test_labels_file_is_one_that_training_reads(samples: Samples) -> None:
    read_back = read_labels(str(samples.labels))
    pairs = {(t.archive, t.member): t.label for t in samples.truths if t.label}
    assert pairs == {
        (archive, member): label.label
        for archive, members in read_back.by_archive.items()
        for member, label in members.items()
    }


def test_second_call_leaves_the_archives_as_they_are(samples: Samples) -> None:
    files = [path for path in samples.archives.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = make_samples(samples.archives.parent, 3)
    assert not again.are_new
    assert list(again.truths) == list(samples.truths)
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_samples_of_another_make_are_not_mixed_in(samples: Samples) -> None:
    with pytest.raises(UsageError, match="holds samples of .*'num_each': 3.*Name another folder"):
        make_samples(samples.archives.parent, 4)


def test_record_cut_off_is_made_again(tmp_path: Path) -> None:
    first = make_samples(tmp_path, 1)
    contents = {path: path.read_bytes() for path in first.archives.rglob("*") if path.is_file()}
    record = tmp_path / "samples.json"
    record.write_bytes(record.read_bytes()[:1000])
    (first.archives / CUT).write_bytes(b"")
    again = make_samples(tmp_path, 1)
    assert again.are_new
    assert {path: path.read_bytes() for path in contents} == contents
    assert json.loads(record.read_bytes())["recipe"]["num_each"] == 1
