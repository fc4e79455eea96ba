"""Several radiographs of one joint are combined as the audit combines them, and sent by anyone."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from implant_model.errors import UsageError
from implant_model.package.load import load_package
from jobs import audit
from jobs.auditing.package_facts import facts_of
from jobs.reviewing.one_joint import MAX_RADIOGRAPHS, answer_together, parse
from tests.support.audit_samples import write_output, write_registry
from tests.support.small_package import save_small_package
from tests.support.workbench.review_samples import NAMES, predicted


def said(
    shares: dict[str, float], outcome: str = "identified", content: str = "", left: int = 1
) -> dict[str, Any]:
    best = sorted(shares.items(), key=lambda item: -item[1])
    names = [name for name, _ in best[:left]] if outcome != "unknown" else []
    return {
        "outcome": outcome,
        "top": [[name, share] for name, share in best],
        "candidates": names,
        "content": content or str(shares),
    }


SURE = {"zimmer": 0.9, "depuy": 0.06, "tornier": 0.03}
TORN = {"depuy": 0.5, "zimmer": 0.45, "tornier": 0.04}


def test_the_answer_is_that_of_the_audit(tmp_path: Path) -> None:
    package = save_small_package(tmp_path / "package")
    answers = [said(SURE), said(TORN, "ambiguous", left=2), said(SURE, "unknown", content="x")]
    found = answer_together(parse(answers, package.catalogue.names), facts_of(package))
    rows = []
    for number, answer in enumerate(answers):
        top = [{"implant": name, "probability": share} for name, share in answer["top"]]
        row = predicted(answer["top"][0][0], "S", f"I{number}")
        rows.append(row | {"outcome": answer["outcome"], "top": top})
        rows[-1]["candidates"] = answer["candidates"]
    output = write_output(tmp_path / "out", rows, package.id)
    record = {"record": "1", "study": "S", "implant": "Zimmer"}
    registry = write_registry(tmp_path / "records.csv", [record])
    call = ["--predictions", output, "--registry", registry, "--model", str(tmp_path / "package")]
    audit.main([*call, "--report", str(tmp_path / "audit")])
    (verdict,) = pq.read_table(tmp_path / "audit" / "verdicts.parquet").to_pylist()
    assert verdict["images"] == found.num_used == 2
    assert found.top[0][0] == verdict["seen"] == "zimmer"
    assert found.top[0][1] == pytest.approx(verdict["seen_probability"], rel=1e-5)
    assert verdict["verdict"] == ("agrees" if found.candidates == ("zimmer",) else "undecided")
    assert (found.num_unknown, found.num_same, found.num_no_picture) == (1, 0, 0)


def test_what_does_not_vote_is_counted(tmp_path: Path) -> None:
    facts = facts_of(save_small_package(tmp_path / "package"))
    rejected = {"outcome": "rejected", "top": [], "candidates": [], "content": "r"}
    one = answer_together(parse([said(SURE)], NAMES), facts)
    twice = answer_together(parse([said(SURE), said(SURE), rejected], NAMES), facts)
    assert (twice.num_used, twice.num_same, twice.num_no_picture) == (1, 1, 1)
    assert twice.top == one.top, "the same file adds nothing"
    two = answer_together(parse([said(SURE), said(SURE, content="other")], NAMES), facts)
    assert two.num_used == 2
    assert two.top[0][1] > one.top[0][1]
    none = answer_together(parse([rejected, said(SURE, "unknown")], NAMES), facts)
    assert (none.num_used, none.top, none.candidates) == (0, (), ())


@pytest.mark.parametrize(
    "body",
    [
        {}, [], [1], [{}], [said({"nobody": 0.5})], [said({"zimmer": 1.5})],
        [said({"zimmer": float("nan")})], [said(SURE, "nonsense")], [said(SURE)] * 51,
        [said({"zimmer": 0.9, "depuy": 0.9})], [said(SURE) | {"content": 7}],
        [said(SURE) | {"content": "\ud800"}], [said({"zimmer": 10**400})],
        [said(SURE) | {"candidates": ["zimmer", "zimmer"]}], [said(SURE) | {"top": "zimmer"}],
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_sentence(body: object) -> None:
    assert MAX_RADIOGRAPHS == 50
    with pytest.raises(UsageError, match=r"answer"):
        parse(json.loads(json.dumps(body)), NAMES)


def test_package_that_ships_answers(tmp_path: Path) -> None:
    facts = facts_of(load_package("models/phantom", weights=False))
    names = facts.catalogue.names[:3]
    shares = dict(zip(names, (0.98, 0.01, 0.005), strict=True))
    found = answer_together(parse([said(shares), said(shares, content="b")], names), facts)
    assert found.candidates == (names[0],)
    assert found.top[0][1] > 0.98
