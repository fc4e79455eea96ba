from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import PackageError, UsageError
from implant_model.package.catalogue import Catalogue, Implant, folded

CORAIL = Implant(
    "depuy-corail",
    "hip",
    "DePuy Synthes",
    product="Corail",
    mr_safety="MR conditional",
    mr_safety_source="Maker's leaflet 2021-03, page 4",
    synonyms=("Corail stem", "CORAIL AMT"),
)
TRIATHLON = Implant("stryker-triathlon", "knee", "Stryker")


def test_order_and_fields_survive_json() -> None:
    catalogue = Catalogue((TRIATHLON, CORAIL))
    assert Catalogue.from_json(catalogue.to_json()) == catalogue
    assert catalogue.to_json()[0] == {
        "name": "stryker-triathlon",
        "joint": "knee",
        "manufacturer": "Stryker",
    }
    assert [implant.name for implant in catalogue] == list(catalogue.names)
    assert catalogue[1] is CORAIL


def test_index_is_the_place_of_the_exact_name() -> None:
    catalogue = Catalogue((TRIATHLON, CORAIL))
    assert (catalogue.index("stryker-triathlon"), catalogue.index("depuy-corail")) == (0, 1)
    with pytest.raises(UsageError, match="no implant 'Corail stem'; it has stryker-triathlon"):
        catalogue.index("Corail stem")


@pytest.mark.parametrize(
    "text", ["Corail  Stem", "corail_stem", " DEPUY CORAIL", "corail\u00a0amt"]
)
def test_find_takes_what_registries_write(text: str) -> None:
    assert Catalogue((TRIATHLON, CORAIL)).find(text) == 1


def test_find_does_not_guess() -> None:
    assert Catalogue((TRIATHLON, CORAIL)).find("corail") is None


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@pytest.mark.parametrize(
    "second",
    [
        Implant("depuy-corail", "hip", "x"),
        Implant("Depuy Corail", "hip", "x"),
        Implant("x", "hip", "x", synonyms=("corail stem",)),
        Implant("CORAIL-stem", "hip", "x"),
    ],
)
def test_a_name_stands_for_one_implant(second: Implant) -> None:
    with pytest.raises(UsageError, match="means two implants, 'depuy-corail' and"):
        Catalogue((CORAIL, second))


@pytest.mark.parametrize("number", [0, 10_001])
def test_number_of_implants_is_bounded(number: int) -> None:
    with pytest.raises(UsageError, match=f"has {number} implants; 1 to 10000"):
        Catalogue(tuple(Implant(f"i{place}", "hip", "x") for place in range(number)))


@pytest.mark.parametrize("text", ["", " x", "x\n", "a\x00b", "a\u202eb", "x" * 201, "\ud800"])
@pytest.mark.parametrize("field", ["name", "joint", "manufacturer", "product"])
def test_unprintable_texts_are_refused(field: str, text: str) -> None:
    values: dict[str, Any] = {"name": "a", "joint": "hip", "manufacturer": "x", field: text}
    with pytest.raises(UsageError, match=f"has {field} "):
        Implant(**values)


def test_an_mr_note_needs_its_source() -> None:
    with pytest.raises(UsageError, match="MR-safety note without a source"):
        Implant("a", "hip", "x", mr_safety="MR safe")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a list of 1 to 10000 items is expected"),
        ({"a": 1}, "a list of 1 to 10000 items is expected"),
        ([1], r"implants\[0\] is 1; an object is expected"),
        ([{"name": "a", "joint": "hip"}], "lacks the field 'manufacturer'"),
        ([{"name": "a", "joint": "hip", "manufacturer": "x", "colour": "b"}], "unknown fields"),
        ([{"name": 3, "joint": "hip", "manufacturer": "x"}], "name is 3"),
    ],
)
def test_other_json_is_refused(document: object, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        Catalogue.from_json(document)


def test_synonyms_that_are_not_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="has synonyms '3'"):
        Implant.from_json({"name": "a", "joint": "hip", "manufacturer": "x", "synonyms": [3]})
