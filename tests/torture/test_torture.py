"""The torture set and the attacks, in a form that fits the time of a test: `tests.torture`."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from implant_model.decode.prepare import decode
from implant_model.limits import Limits
from tests.torture import __main__ as command
from tests.torture.attacks import decoding
from tests.torture.attacks.damage import change_bytes, cut_archives
from tests.torture.attacks.decoding import (
    torture_archives,
    torture_members,
    torture_shipped,
)
from tests.torture.attacks.flips import flip_bits
from tests.torture.cases import catalogue, classes
from tests.torture.cases.case import number_of, reason_in
from tests.torture.protocol.bundles import WRONG, play_bundles, play_wrong_bundles
from tests.torture.protocol.model import MUTANTS
from tests.torture.protocol.play import play_mutants, play_protocol
from tests.torture.tally import Tally, table

VALUES = re.compile("PAT-17|Secret|Sam|ACC-5|1\\.2\\.3")
"""What the torture set's files say of patients and studies."""


def test_every_class_has_a_case_whose_name_says_what_is_expected() -> None:
    members, archives = catalogue.members(thorough=True), catalogue.archives(thorough=True)
    names = [*(case.name for case in members), *(case.name for case in archives)]
    assert len(names) == len(set(names)) >= 150
    assert {number_of(name) for name in names} == set(classes.FILES)
    assert sorted({**classes.FILES, **classes.SITUATIONS}) == list(range(1, 120))
    assert [reason_in(case.name) for case in members] == [case.reason for case in members]
    assert all(case.name.split(".")[1].startswith(case.status) for case in archives)
    assert len(catalogue.bomb_names()) >= 25
    assert len(list(catalogue.pydicom_files())) >= 150


def test_members_get_the_outcome_in_their_names() -> None:
    tally = torture_members()
    assert tally.tried > 200
    assert tally.failures == []


def test_archives_get_the_outcome_in_their_names() -> None:
    tally = torture_archives()
    assert tally.tried > 120
    assert tally.failures == []


def test_files_that_others_ship_get_one_answer() -> None:
    tally = torture_shipped()
    assert tally.tried > 150
    assert tally.failures == []


def test_model_of_publication_holds_under_random_schedules() -> None:
    tally = play_protocol()
    assert tally.tried >= 1_500
    assert tally.failures == []


def test_model_catches_every_wrong_variant_of_the_protocol() -> None:
    tally = play_mutants()
    assert tally.tried == len(MUTANTS) >= 12
    assert tally.failures == []


def test_model_of_bundles_holds_under_random_schedules() -> None:
    tally = play_bundles()
    assert tally.tried >= 1_500
    assert tally.failures == []


def test_model_catches_every_wrong_variant_of_bundling() -> None:
    tally = play_wrong_bundles()
    assert tally.tried == len(WRONG) >= 8
    assert tally.failures == []


@pytest.mark.parametrize("attack", [cut_archives, change_bytes])
def test_no_member_is_lost_without_a_word(attack: Callable[[], Tally]) -> None:
    tally = attack()
    assert tally.tried > 900
    assert tally.failures == []


def test_flipped_bit_is_named(tmp_path: Path) -> None:
    tally = flip_bits(tmp_path)
    assert tally.tried > 60
    assert tally.failures == []


def test_no_value_of_a_file_is_said(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    files = [case.make() for case in catalogue.members(thorough=False)]
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        for data in files:
            decode(data, Limits())
    said = "".join(capfd.readouterr()) + caplog.text
    assert not VALUES.search(said)
    assert not caplog.records


def test_table_has_a_line_for_each_attack_and_names_what_failed() -> None:
    good, bad = Tally("an attack", note="4 MB"), Tally("another")
    good.equal("a", 1, 1)
    bad.check("b", True)
    bad.equal("c", "left", "right")
    lines = table([good, bad]).splitlines()
    assert lines[1].split() == ["an", "attack", "1", "1", "0", "4", "MB"]
    assert lines[2].split() == ["another", "2", "1", "1"]
    assert lines[3].split() == ["all", "3", "2", "1"]
    assert lines[4] == "another: c: left; expected: right"


def test_a_broken_attack_has_failed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Tally:
        raise OSError("no room")

    monkeypatch.setattr(decoding, "torture_shipped", broken)
    assert command.main(["--quick", "--only", "shipped", "bits"]) == command.FAILED
    said = capsys.readouterr()
    assert "shipped files: the attack itself: OSError: no room" in said.out
    assert re.search(r"^flipped bits in tables.* 6\d +6\d +0", said.out, re.MULTILINE)
    assert "Traceback" in said.err
