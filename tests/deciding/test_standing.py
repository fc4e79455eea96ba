"""What decisions come to: the last of each reader, conflicts, arbitrations, changed records."""

from jobs.deciding.decisions import Judgement, Kind
from jobs.deciding.standing import NOTHING, last_of, num_stale, stand
from tests.support.workbench.decision_samples import decision, undo

CLAIMS = {"c1": "a", "c2": "b"}
WRONG = Judgement.RECORD_WRONG


def test_last_reading_of_each_reader_counts() -> None:
    first = decision(minutes=0, judgement=WRONG, implant="x")
    second = decision(minutes=1)
    standing = stand([first, second], CLAIMS)["c1"]
    assert standing.readings == {"ann": second}
    assert standing.settled is second
    taken_back = stand([first, second, undo(second, 2)], CLAIMS)["c1"]
    assert taken_back.settled is first, "what was before it holds again"
    assert stand([first, undo(first, 2)], CLAIMS) == {}
    assert last_of([first, second, undo(second, 2)], "Ann") is first
    assert last_of([first], "Ben") is None


def test_conflict_is_settled_by_an_arbitration_alone() -> None:
    ann, ben = decision(), decision(reader="Ben", minutes=1, judgement=WRONG)
    standing = stand([ann, ben], CLAIMS)["c1"]
    assert standing.is_conflict
    assert standing.settled is None
    third = decision(reader="Cy", minutes=2, kind=Kind.ARBITRATION, judgement=WRONG)
    standing = stand([ann, ben, third], CLAIMS)["c1"]
    assert not standing.is_conflict
    assert standing.settled is third
    assert stand([ann, ben, third, undo(third, 3)], CLAIMS)["c1"].is_conflict


def test_readers_who_name_different_implants_disagree() -> None:
    ann = decision(judgement=WRONG, implant="x")
    ben = decision(reader="Ben", judgement=WRONG, implant="y")
    assert stand([ann, ben], CLAIMS)["c1"].is_conflict
    same = decision(reader="Ben", judgement=WRONG, implant="x")
    assert not stand([ann, same], CLAIMS)["c1"].is_conflict


def test_decision_on_a_record_that_has_changed_does_not_count() -> None:
    corrected = decision(claimed="before it was corrected")
    gone = decision("c9")
    assert stand([corrected, gone], CLAIMS) == {}
    assert num_stale([corrected, gone, decision()], CLAIMS) == 2
    assert NOTHING.settled is None
