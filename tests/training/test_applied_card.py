"""The card by CHAI's schema and CLAIM's items, of the packages that ship."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from implant_model.package.load import load_package
from tests.support.paths import ROOT
from training.applied_card import CLAIM, FILE, applied_card, check_card, write_applied_card


@pytest.mark.parametrize("name", ["phantom", "shoulder"])
def test_cards_that_ship_are_those_of_their_packages(name: str) -> None:
    folder = ROOT / "models" / name
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    package = load_package(str(folder), weights=False)
    assert document == json.loads(json.dumps(applied_card(package)))
    check_card(document["AppliedModelCard"])
    metrics = document["AppliedModelCard"]["KeyMetrics"]
    results = {r["Label"]: r["ValueJson"] for part in metrics.values() for r in part["Results"]}
    assert results == package.manifest.metrics["figures"]


def test_each_item_of_claim_has_a_line() -> None:
    assert list(CLAIM) == list(range(1, 45))
    text = (ROOT / "models" / "shoulder" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for _, where in CLAIM.values():
        if where.startswith("MODEL_CARD.md"):
            assert where.split(", ")[1].split(" and ")[0] in text, where


def test_a_card_without_an_element_or_of_another_type_is_refused() -> None:
    package = load_package(str(ROOT / "models" / "shoulder"), weights=False)
    card = applied_card(package)["AppliedModelCard"]
    lacking, wrong = copy.deepcopy(card), copy.deepcopy(card)
    del lacking["Warnings"]["ClinicalRiskLevel"]
    wrong["KeyMetrics"]["FairnessEquity"]["Results"] = "none"
    with pytest.raises(ValueError, match=r"card\.Warnings has .*ClinicalRiskLevel'\] is expected"):
        check_card(lacking)
    with pytest.raises(ValueError, match=r"FairnessEquity\.Results is 'none'; list is expected"):
        check_card(wrong)


def test_a_card_beside_a_package_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shoulder"
    shutil.copytree(ROOT / "models" / "shoulder", folder)
    package = load_package(str(folder))
    (folder / FILE).unlink()
    write_applied_card(folder, package)
    assert load_package(str(folder)).id == package.id
