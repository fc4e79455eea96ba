"""Names as registries write them, and what they mean in the catalogue."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from implant_model.decode.kinds import BODY_PARTS
from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET, Catalogue, Implant
from jobs.auditing.registry.claims import (
    Said,
    counted_by,
    describe,
    list_unmatched,
    match,
    read_claim,
)
from jobs.auditing.registry.dates import read_years, years_of
from jobs.auditing.registry.names import Names
from jobs.auditing.registry.proposals import propose
from jobs.auditing.registry.records import Exclusion, Parts, Records
from jobs.auditing.registry.sites import may_show
from jobs.auditing.registry.spelling import maker, plain
from jobs.auditing.registry.synonyms import ANY, Meanings, read_synonyms
from jobs.auditing.registry.words import JOINTS

COLLARED, COLLARLESS = "depuy-corail-collared", "depuy-corail-collarless"
CATALOGUE = Catalogue(
    (
        *ORTHONET.implants,
        Implant("acme-x", "hip", "Acme", None, synonyms=("The X stem", "=X")),
        Implant("acme-y", "knee", "Acme", None),
    )
)
GIVEN = {"JRI Ltd of Sheffield": "JRI Orthopaedics", "My stem": "Exeter"}
NAMES = Names(CATALOGUE, Meanings({ANY: GIVEN}))


def claim(
    implant: str | None = None,
    manufacturer: str | None = None,
    product: str | None = None,
    joint: str | None = None,
) -> tuple[set[str], list[str]]:
    found = read_claim(Said(implant, manufacturer, product, joint), NAMES)
    names = {CATALOGUE[index].name for index in found.claim}
    return names, [problem.field for problem in found.problems]


@pytest.mark.parametrize(
    "text",
    [
        "depuy-corail-collared",
        "DEPUY  Corail_Collared",
        "Corail, with collar",
        "CORAIL - with collar",
        "DePuy Corail with collar",
        "Corail (with collar)",
    ],
)
def test_one_implant_by_any_of_its_names(text: str) -> None:
    assert claim(implant=text) == ({COLLARED}, [])
    assert claim(product=text) == ({COLLARED}, [])
    assert claim(product=text, manufacturer="DePuy International Ltd.") == ({COLLARED}, [])


def test_synonyms_of_the_catalogue_and_of_the_user() -> None:
    assert claim(implant="the x STEM") == ({"acme-x"}, [])
    assert claim(product="My stem", manufacturer="Stryker GmbH") == ({"stryker-exeter"}, [])
    found, problems = claim(manufacturer="JRI Ltd of Sheffield")
    assert problems == []
    assert found == {n for n in ORTHONET.names if n.startswith("jri")}


def test_a_name_of_several_implants_means_any_of_them() -> None:
    assert claim(product="Corail") == ({COLLARED, COLLARLESS}, [])
    assert claim(product="corail", manufacturer="DEPUY") == ({COLLARED, COLLARLESS}, [])
    found, _ = claim(manufacturer="Smith and Nephew", joint="knee")
    assert found == {"smith-nephew-genesis-ii", "smith-nephew-legion"}
    assert claim(manufacturer="Acme", joint="knee") == ({"acme-y"}, [])


def test_what_has_no_meaning_is_listed() -> None:
    assert claim(product="Nonesuch", manufacturer="DePuy") == (set(), ["product"])
    assert claim(manufacturer="Nobody") == (set(), ["manufacturer"])
    assert claim(product="Exeter", manufacturer="Howmedica") == (
        {"stryker-exeter"},
        ["manufacturer"],
    )
    assert claim(product="Exeter", manufacturer="DePuy") == (set(), ["product"])
    assert claim(product="Exeter", joint="knee") == (set(), ["joint"])
    assert claim(implant="?", product="Exeter") == ({"stryker-exeter"}, ["implant"])


def test_names_without_case_punctuation_and_legal_forms() -> None:
    assert plain("Smith & Nephew, Inc.") == "smith and nephew inc"
    assert maker("Smith & Nephew, Inc.") == maker("SMITH AND NEPHEW plc") == "smith and nephew"
    assert maker("Co") == "co"
    assert describe(frozenset(range(5)), CATALOGUE).endswith(" or 2 others")


def records_of(products: list[str | None], excluded: dict[int, Exclusion] | None = None) -> Records:
    count = len(products)
    excluded_M = np.zeros(count, np.int8)
    for place, why in (excluded or {}).items():
        excluded_M[place] = why
    return Records(
        np.arange(1, count + 1),
        None,
        pa.chunked_array([pa.nulls(count, pa.string())]),
        np.zeros(count, np.int8),
        pa.array([None] * count, pa.string()).dictionary_encode(),
        {"product": pa.array(products, pa.string()).dictionary_encode()},
        excluded_M,
        np.arange(count),
        Parts(np.full(count, -1), (), np.full(count, -1), np.zeros(count, bool)),
    )


def test_claims_of_many_records() -> None:
    records = records_of(["Exeter", "Corail", "EXETER", "?", None, "!"], {5: Exclusion.NO_KEY})
    found = match(records, NAMES)
    assert found.claim_M[0] == found.claim_M[2]
    assert found.claim_M[5] == -1
    assert found.sets[found.claim_M[0]] == {CATALOGUE.index("stryker-exeter")}
    assert found.sets[found.claim_M[3]] == frozenset()
    assert [(item.text, item.records) for item in list_unmatched(records, found, NAMES)] == [
        ("?", 1)
    ]


def test_spellings_of_one_name_are_counted_as_one() -> None:
    products = ["Corail", "DePuy CORAIL", "corail", "My stem", "Exeter", "New stem", None]
    records = records_of(products)
    makers = ["DePuy Ltd", "DEPUY", "DePuy", "Stryker", "stryker inc", "Nobody", None]
    implants = ["acme-x", "The X stem", "Acme_X", "Corail", "?", None, None]
    records.texts["manufacturer"] = pa.array(makers).dictionary_encode()
    records.texts["implant"] = pa.array(implants).dictionary_encode()
    records.texts["hospital"] = pa.array(["A", "a"] * 3 + ["B"]).dictionary_encode()
    found = {field: column.to_pylist() for field, column in counted_by(records, NAMES).items()}
    assert found["product"] == ["Corail"] * 3 + ["Exeter"] * 2 + ["New stem", None]
    assert found["manufacturer"] == ["DePuy"] * 3 + ["Stryker"] * 2 + ["Nobody", None]
    both = f"{COLLARED} or {COLLARLESS}"
    assert found["implant"] == ["acme-x"] * 3 + [both, "?", None, None]
    assert found["hospital"] == ["A", "a"] * 3 + ["B"]
    assert len(counted_by(records, NAMES)["product"].dictionary) == 3


def test_a_table_of_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "unmatched.csv"
    path.write_text("field,text,records,why,means\nproduct,'=X,3,,Exeter\nproduct,Y,1,,\n")
    assert [*read_synonyms(path.as_uri())] == [("product", "=X", "Exeter")]
    assert [*read_synonyms(None)] == []
    with pytest.raises(UsageError, match="--synonyms cannot be read"):
        read_synonyms((tmp_path / "none.csv").as_uri())
    refused = "no CSV in UTF-8 or cp1252 with the columns text and means"
    for data in (b"text\nX\n", b"text,means\n\x81\xff,y\n", b'text,means\nX\n"'):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=refused):
            read_synonyms(path.as_uri())
    path.write_text("text,means\nX,Exeter\nZimmer, Inc,Zimmer\nY,Exeter,,\n")
    with pytest.raises(UsageError, match="Row 2 of .* has more values than the header has columns"):
        read_synonyms(path.as_uri())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_synonyms_as_a_spreadsheet_saves_them(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    lines = ["field|text|records|why|means", "product|Hüftschaft|3|Müller, not known.|Exeter"]
    quoted = [line.replace("Müller, not known.", '"Müller, not known."') for line in lines]
    path = tmp_path / "unmatched.csv"
    path.write_bytes("\r\n".join(quoted).replace("|", delimiter).encode(encoding))
    assert read_synonyms(path.as_uri()).of("product") == {"Hüftschaft": "Exeter"}


@pytest.mark.parametrize(
    "text",
    [
        "Exeter V40", "EXETER™", "Exeter®", "Exeter(R)", "ExeterTM", "Exeter℠ V40 N° 2 44 mm",
        "Exeter &reg;", "Stryker Exeter", "Stryker (Howmedica) Exeter V40", "exe ter",
        "Exeter stem, cemented, high offset", "Exeter Schaft zementiert Gr. 2",
    ],
)  # fmt: skip
def test_a_product_among_words_that_leave_it_what_it_is(text: str) -> None:
    assert claim(product=text) == ({"stryker-exeter"}, [])


@pytest.mark.parametrize(
    ("text", "proposal"),
    [
        ("Exetr", "Exeter"), ("Exeter Trauma", "Exeter"), ("Accolade", "Accolade II"),
        ("Accolade TMZF", "Accolade II"), ("Legion Revision", "Legion"),
        ("Corail ohne Kragn", "Corail, without collar"), ("Furlong HAC", "Furlong Evolution"),
        ("Exeter Contemporary cup", None), ("Corail Kopf", None), ("Pinnacle", None), ("LCS", None),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_proposed(text: str, proposal: str | None) -> None:
    assert claim(product=text) == (set(), ["product"])
    found = propose("product", text, NAMES)
    assert (found and found[0]) == proposal
    assert found is None or 0.6 <= found[1] < 1


def test_a_product_among_words_needs_its_maker() -> None:
    assert claim(product="Exeter V40", manufacturer="DePuy") == (set(), ["product"])
    fields = ["manufacturer", "product"]
    assert claim(product="Exeter V40", manufacturer="Aesculap") == (set(), fields)
    assert claim(product="Accolade 2", manufacturer="Stryker") == ({"stryker-accolade-ii"}, [])


@pytest.mark.parametrize("collar", ["ohne Kragen", "collarless", "sans collerette", "sin collar"])
def test_collars_in_other_languages(collar: str) -> None:
    assert claim(product=f"Corail {collar}") == ({COLLARLESS}, [])
    assert claim(product=f"Corail AMT {collar}") == ({COLLARLESS}, [])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("DePuy Synthes", "depuy"), ("J&J DePuy", "depuy"), ("DePuy (J&amp;J)", "depuy"),
        ("De Puy", "depuy"), ("S&N", "smith"), ("S &amp; N", "smith"), ("Biomet", "zimmer"),
        ("Zimmer", "zimmer"), ("Stryker (Howmedica)", "stryker"), ("JRI", "jri"),
        ("Smith & Nephew S.p.A.", "smith"), ("Stryker®", "stryker"),
    ],
)  # fmt: skip
def test_makers_by_former_names_and_with_others_beside(text: str, names: str) -> None:
    found, problems = claim(manufacturer=text)
    assert (found, problems) == ({n for n in ORTHONET.names if n.startswith(names)}, [])


def test_a_maker_that_is_not_sure_is_proposed() -> None:
    for text, proposal in (("Howmedica", "Stryker"), ("J&J", "DePuy"), ("Strycker", "Stryker")):
        assert claim(manufacturer=text) == (set(), ["manufacturer"])
        found = propose("manufacturer", text, NAMES)
        assert found is not None
        assert found[0] == proposal
    assert claim(manufacturer="Stryker / DePuy") == (set(), ["manufacturer"])
    assert propose("manufacturer", "Stryker / DePuy", NAMES) is None


@pytest.mark.parametrize(
    ("texts", "years"),
    [
        (["01192020", "12202015"], [2020, 2015]),
        (["19012020", "20122015"], [2020, 2015]),
        (["20200119", "20151220"], [2020, 2015]),
        (["01192020", "25122019"], [None, None]),
        (["01022015", "03042016"], [2015, 2016]),
        (["43831", "43832.5"], [2020, 2020]),
        (["2015-03-01T10:00:00", "2016-03-01 00:00:00+01:00"], [2015, 2016]),
        (["13.02.2019", "01.02.2018"], [2019, 2018]),
        (["02/13/2019", "01/02/2018", "99/99/2018"], [None, None, None]),
        (["02/13/19", "01/02/98"], [2019, 1998]),
        (["15-03-02"], [None]),
        (["150302", "991231"], [2015, 1999]),
        (["2015", "2016.0", "1789"], [2015, 2016, None]),
        (["12. März 2015", "Jan 2016", "03/2017", "2018-03"], [2015, 2016, 2017, 2018]),
        (["30.02.2020"], [None]),
        (["01.02.2015", "2016-02-01", "n/a"], [2015, 2016, None]),
    ],
)
def test_years_of_a_column_of_dates(texts: list[str], years: list[int | None]) -> None:
    assert [years_of(texts)[text] for text in texts] == years
    column = pa.chunked_array([[*texts, None]])
    expected = [None if year is None else str(year) for year in years]
    read = read_years(column)
    assert read.texts.to_pylist() == [*expected, None]
    assert read.num_unread == years.count(None)


def test_body_parts_that_may_show_a_joint() -> None:
    for part, joints in {
        "PELVIS": {"hip"}, "HIP": {"hip"}, "PATELLA": {"knee"}, "THIGH": {"hip", "knee"},
        "GROIN": {"hip"}, "LOWERLEG": {"knee", "ankle"}, "CLAVICLE": {"shoulder"},
        "HUMERUS": {"shoulder", "elbow"}, "FOREARM": {"elbow", "wrist"}, "SKULL": {"jaw"},
        "BREAST": set(), "HAND": {"wrist", "finger"},
    }.items():  # fmt: skip
        assert part in BODY_PARTS
        assert {joint for joint in {*JOINTS.values()} if may_show(part, joint)} == joints
    assert may_show("SESAMOID", "sesamoid"), "a catalogue's own joint"
