"""Tables as real registries have them: read as they are meant, and nothing lost in silence."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key
from jobs import audit as job
from jobs.auditing.registry.columns import NAMES, _plain, find_columns
from jobs.auditing.registry.identifiers import plainer
from jobs.auditing.registry.registry_file import read_file
from tests.support.audit_samples import IMPLANTS, sure, write_output, write_registry
from tests.support.paths import ROOT

CORAIL, EXETER, OXFORD = "depuy-corail-collared", "stryker-exeter", "zimmer-biomet-oxford"
KEY = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
HIP: dict[str, Any] = {"body_part": "HIP", "laterality": "L"}
Rows = list[dict[str, object]]


def audit(
    folder: Path, images: list[dict[str, Any]], registry: str | Rows, *more: str
) -> tuple[int, dict[str, Any], list[tuple[str, str | None]]]:
    """Audits once; returns exit code, summary, and verdict and reason of each row."""
    folder.mkdir()
    named = {row["implant"] for row in images}
    # Without its package, a model's catalogue is what the predictions name.
    others = [
        sure(name, archive="02.tar") for name in (CORAIL, EXETER, OXFORD) if name not in named
    ]
    output = write_output(folder / "out", [*images, *others])
    if not isinstance(registry, str):
        registry = write_registry(folder / "registry.csv", registry)
    report = folder / "report"
    base = ["--predictions", output, "--registry", registry, "--report", str(report)]
    code = job.main([*base, *more])
    rows = pq.read_table(report / "verdicts.parquet", columns=["verdict", "why"]).to_pylist()
    summary = json.loads((report / "summary.json").read_text())
    return code, summary, [(row["verdict"], row["why"]) for row in rows]


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def said(folder: Path) -> dict[str, dict[str, str]]:
    """The lines of unmatched.csv by text."""
    return {row["text"]: row for row in cells(folder / "report" / "unmatched.csv")}


AGREES, OTHER = ("agrees", None), ("excluded", "other_component")


def operation(**more: object) -> Rows:
    """Stem, cup and head of one operation, as a registry's library has them."""
    names = (("Schaft", "Exeter V40"), ("Pfanne", "Trident PSL"), ("Kopf", "V40 CoCr"))
    base = {"patient": "P1", "side": "L", "joint": "hip"} | more
    return [{**base, "Komponente": part, "product": name} for part, name in names]


@pytest.mark.parametrize("has_column", [True, False])
@pytest.mark.parametrize("more", [{}, {"record": "C7"}, {"date": "2020-01-02"}])
def test_one_row_a_component(tmp_path: Path, has_column: bool, more: dict[str, object]) -> None:
    rows = operation(**more)
    if not has_column:
        rows = [{k: v for k, v in row.items() if k != "Komponente"} for row in rows]
    code, summary, found = audit(tmp_path / "1", [sure(EXETER, patient="P1", **HIP)], rows)
    assert found == [AGREES, OTHER, OTHER]
    assert (code, summary["error_rate"]["count"]) == (0, 1)
    assert summary["unmatched"] == [], "the catalogue need not have cups and heads"


def test_a_component_by_its_column_where_numbers_and_dates_differ(tmp_path: Path) -> None:
    """A cup is changed years later: the stem is still the one that the image shows."""
    rows = operation(date="2010-05-05", record="1")
    later = {**rows[1], "date": "2018-01-01", "record": "2", "product": "Tritanium"}
    rows = [{**row, "record": str(n)} for n, row in enumerate([*rows, later])]
    columns = ("--columns", "component=Komponente")
    images = [sure(EXETER, patient="P1", **HIP)]
    _, _, found = audit(tmp_path / "1", images, rows, *columns)
    assert found == [AGREES, OTHER, OTHER, OTHER]
    for row in rows:
        row["Komponente"] = ""
    _, _, found = audit(tmp_path / "2", images, rows)
    several = ("excluded", "several_records")
    assert found == [several, OTHER, OTHER, several], "nothing tells a cup from another stem"


def test_a_revised_stem_is_no_companion(tmp_path: Path) -> None:
    rows = [*operation(record="1", date="2010"), *operation(record="2", date="2018")]
    rows[3]["product"] = "Corail"
    code, summary, found = audit(tmp_path / "1", [sure(EXETER, patient="P1", **HIP)], rows)
    several = ("excluded", "several_records")
    assert found == [several, OTHER, OTHER] * 2
    rows[3]["product"] = "Nonesuch"
    _, summary, found = audit(tmp_path / "2", [sure(EXETER, patient="P1", **HIP)], rows)
    assert found[0] == found[3] == several
    assert [item["text"] for item in summary["unmatched"]] == ["Nonesuch"]
    assert code == 3, "no image spoke for or against any record"


def test_components_by_the_words_of_their_names(tmp_path: Path) -> None:
    """Each row has a number of its own, and neither date nor column tells a component."""
    rows, names = operation(), ("Exeter", "Trident cup", "V40 Kopf")
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        row |= {"record": str(number), "product": name, "Komponente": ""}
    _, _, found = audit(tmp_path / "1", [sure(EXETER, patient="P1", **HIP)], rows)
    assert found == [AGREES, OTHER, OTHER]


def test_one_number_of_both_hips_is_no_conflict(tmp_path: Path) -> None:
    other = {**HIP, "laterality": "R"}
    images = [sure(EXETER, patient="P1", **HIP), sure(EXETER, patient="P1", **other)]
    rows = [*operation(record="1"), *operation(record="1", side="R")]
    code, _, found = audit(tmp_path / "1", images, rows)
    assert (code, found) == (0, [AGREES, OTHER, OTHER] * 2)


def test_most_joints_with_several_records_are_no_revisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [sure(EXETER, patient=f"P{n}", **HIP) for n in range(12)]
    base = {"side": "L", "joint": "hip"}
    rows: Rows = [
        {"record": f"{n}.{m}", "patient": f"P{n}", **base, "product": name}
        for n in range(10)
        for m, name in enumerate(("Exeter", "Trident", "V40 head"))
    ]
    rows += [
        {"record": f"{n}.0", "patient": f"P{n}", **base, "product": "Exeter"} for n in (10, 11)
    ]
    code, summary, _ = audit(tmp_path / "1", images, rows)
    assert (code, summary["error_rate"]["count"]) == (3, 2)
    assert "--columns component=COLUMN" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("part", ["THIGH", "GROIN", "ABDOMENPELVIS", "FEMUR", "ILIUM", "BUTTOCK"])
def test_a_body_part_that_borders_on_the_joint_is_no_contradiction(
    tmp_path: Path, part: str
) -> None:
    rows: Rows = [{"study": "S", "joint": "hip", "product": "Exeter"}]
    code, _, found = audit(tmp_path / "1", [sure(EXETER, study="S", body_part=part)], rows)
    assert (code, found) == (0, [AGREES])
    rows = [{"patient": "P", "side": "L", "joint": "hip", "product": "Exeter"}]
    image = sure(EXETER, patient="P", laterality="L", body_part=part)
    assert audit(tmp_path / "2", [image], rows)[2] == [AGREES], "the candidate states the joint"


def test_images_of_another_site_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [sure(EXETER, study="S", body_part=part) for part in ("SKULL", "SKULL", "HAND")]
    rows: Rows = [{"study": "S", "joint": "hip", "product": "Exeter"}]
    code, summary, found = audit(tmp_path / "1", images, rows)
    assert (code, found) == (3, [("no_image", "other_joint")])
    assert summary["images_of_another_site"] == {"SKULL": 2, "HAND": 1}
    out = capsys.readouterr().out
    assert "Images of another side or joint, or of none: 3 (SKULL 2, HAND 1)." in out
    assert "the likeliest cause is the column 'joint'" in out.splitlines()[-1]
    page = (tmp_path / "1" / "report" / "audit.html").read_text()
    assert "Body parts of images of another side or joint" in page


WRITTEN = {"100001": "100001", "100002.0": "100002", '="100004"': "100004", "'100005": "100005"}
WRITTEN |= {"1.00006E+05": "100006", "100007,0": "100007", "'0042": "0042"}


@pytest.mark.parametrize("is_hidden", [False, True])
def test_identifiers_as_spreadsheets_write_them(
    tmp_path: Path, is_hidden: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY))
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    numbers = [*WRITTEN.values()]
    names = [protector.identifier("study", n) for n in numbers] if is_hidden else numbers
    images = [sure(EXETER, study=name) for name in names]
    rows: Rows = [{"study": text, "product": "Exeter"} for text in WRITTEN]
    more = ("--key-file", str(tmp_path / "key")) if is_hidden else ()
    code, summary, found = audit(tmp_path / "1", images, rows, *more)
    assert (code, found) == (0, [AGREES] * len(WRITTEN))
    assert (
        "study: 6 identifiers are read as they were before a spreadsheet" in summary["readings"][1]
    )
    out = capsys.readouterr().out
    assert "6 identifiers are read" in out
    assert "10000" not in out, "no identifier is printed"


def test_what_cannot_be_undone_exactly_stays() -> None:
    assert [*plainer("1.23457E+11")] == [], "digits are lost"
    assert [*plainer("1E+05")] == []
    assert [*plainer("42")] == [], "zeros are never put back"
    assert [*plainer("A.0")] == []
    assert [*plainer("1,00002e5")] == ["100002"]


def test_an_identifier_that_matches_as_it_is_stays(tmp_path: Path) -> None:
    images = [sure(EXETER, study="7.0"), sure(CORAIL, study="7")]
    rows: Rows = [{"study": "7.0", "product": "Exeter"}, {"study": "7", "product": "Corail"}]
    _, summary, found = audit(tmp_path / "1", images, rows)
    assert (found, summary["readings"][1:]) == ([AGREES, AGREES], [])


def test_lost_zeros_are_named_and_not_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [sure(EXETER, study=f"{n:06d}") for n in range(1, 40)]
    rows: Rows = [{"study": str(n), "product": "Exeter"} for n in range(1, 40)]
    code, _, found = audit(tmp_path / "1", images, rows)
    assert (code, {*found}) == (3, {("no_image", None)})
    last = capsys.readouterr().out.splitlines()[-1]
    assert "the likeliest cause is the column 'study'" in last
    assert "zeros at the front, up to 6 digits: write the column as text." in last


LANGUAGES = [
    ("R", "L"), ("D", "I"), ("D", "S"), ("D", "G"), ("D", "E"), ("dx", "sin"), ("re.", "li."),
    ("H", "V"), ("O", "V"), ("P", "L"), ("rechts", "links"), ("droite", "gauche"),
    ("Höger", "vänster"), ("højre", "venstre"), ("oikea", "vasen"), ("prawa", "lewa"),
    ("destro", "sinistro"), ("direita", "esquerda"), ("rechter", "linker"), ("Dcha.", "Izda."),
    ("DX", "SX"), ("right hip", "Hüfte links"), ("R.", "L."), ("pravá", "levá"), ("jobb", "bal"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "left"), LANGUAGES)
def test_sides_of_many_languages(tmp_path: Path, right: str, left: str) -> None:
    images = [
        sure(EXETER, patient="P", body_part="HIP", laterality="R"),
        sure(CORAIL, patient="P", body_part="HIP", laterality="L"),
    ]
    base: dict[str, object] = {"patient": "P", "joint": "hip"}
    rows: Rows = [{**base, "side": right, "product": "Exeter"}]
    rows.append({**base, "side": left, "product": "Corail"})
    code, _, found = audit(tmp_path / "1", images, rows)
    assert (code, found) == (0, [AGREES, AGREES])


def test_an_unknown_side_is_named_and_settled(tmp_path: Path) -> None:
    image = sure(EXETER, patient="P", **HIP)
    rows: Rows = [
        {"patient": "P", "joint": "hip", "side": "left", "product": "Exeter"},
        {"patient": "P", "joint": "hip", "side": "lefft", "product": "Exeter "},
    ]
    code, summary, found = audit(tmp_path / "1", [image], rows)
    assert (code, found[1]) == (3, ("excluded", "unknown_side"))
    (line,) = cells(tmp_path / "1" / "report" / "excluded.csv")
    assert (line["why"], line["text"]) == ("unknown_side", "lefft")
    line = said(tmp_path / "1")["lefft"]
    assert (line["field"], line["proposal"]) == ("side", "left")
    filled = tmp_path / "filled.csv"
    filled.write_text(f"field,text,proposal,means\nside,lefft,{line['proposal']},y\n")
    code, summary, found = audit(tmp_path / "2", [image], rows, "--synonyms", str(filled))
    assert (code, [verdict for verdict, _ in found]) == (0, ["agrees", "agrees"])
    assert summary["unmatched"] == []


@pytest.mark.parametrize("sides", [("1", "2"), ("D", "D"), ("foo", "bar"), ("S", "B")])
def test_sides_of_which_nothing_is_known_are_refused_until_they_are_mapped(
    tmp_path: Path, sides: tuple[str, str]
) -> None:
    images = [sure(EXETER, patient="P", **HIP), sure(EXETER, patient="Q", **HIP)]
    rows: Rows = [
        {"patient": name, "joint": "hip", "Seite": side, "product": "Exeter"}
        for name, side in zip("PQ", sides, strict=True)
    ]
    with pytest.raises(UsageError, match="'Seite' is read as side, and none of its texts is known"):
        audit(tmp_path / "1", images, rows)
    assert not [*(tmp_path / "1" / "report").glob("*")]
    filled = tmp_path / "sides.csv"
    filled.write_text("field,text,means\n" + "".join(f"side,{s},left\n" for s in {*sides}))
    code, _, found = audit(tmp_path / "2", images, rows, "--synonyms", str(filled))
    assert (code, found) == (0, [AGREES, AGREES])


def test_a_side_that_is_known_to_be_nothing_is_listed_no_more(tmp_path: Path) -> None:
    rows: Rows = [
        {"study": "S", "side": side, "product": "Exeter"} for side in ("left", "mid", "unknown", "")
    ]
    filled = tmp_path / "filled.csv"
    filled.write_text("field,text,means\nside,mid,none\n")
    image = sure(EXETER, study="S")
    code, summary, found = audit(tmp_path / "1", [image], rows, "--synonyms", str(filled))
    assert (code, [verdict for verdict, _ in found]) == (0, ["agrees"] * 4)
    assert summary["unmatched"] == []


def test_a_letter_is_read_by_the_others_of_its_column(tmp_path: Path) -> None:
    images = [sure(EXETER, patient="P", **HIP)]
    base: dict[str, object] = {"patient": "P", "joint": "hip", "product": "Exeter"}
    _, summary, found = audit(tmp_path / "1", images, [{**base, "side": s} for s in "IDB"])
    assert [verdict for verdict, _ in found] == ["agrees", "no_image", "no_image"]
    assert summary["readings"][1:] == [
        "side: I and D are read as left and right (izquierda and derecha)."
    ]
    _, _, found = audit(tmp_path / "2", images, [{**base, "side": s} for s in "LRS"])
    assert found[2] == ("excluded", "unknown_side"), "S is sinister only beside D"
    _, _, found = audit(tmp_path / "3", images, [{**base, "side": s} for s in "LE"])
    assert found == [AGREES, ("excluded", "unknown_side")]


JOINTS = ["Total hip", "Huefte", "Hüfte", "heup", "cadera", "höfte", "hofte", "anca", "lonkka"]
JOINTS += ["Hüft-TEP", "Hüftgelenkersatz", "hanche droite", "Primary THA", "biodro", "HIP"]


@pytest.mark.parametrize("joint", JOINTS)
def test_joints_of_many_languages(tmp_path: Path, joint: str) -> None:
    image = sure(EXETER, patient="P", **HIP)
    rows: Rows = [{"patient": "P", "side": "L", "joint": joint, "product": "Exeter"}]
    assert audit(tmp_path / "1", [image], rows)[::2] == (0, [AGREES])


def test_an_unknown_joint_is_named_and_settled(tmp_path: Path) -> None:
    image = sure(EXETER, patient="P", **HIP)
    base: dict[str, object] = {"patient": "P", "side": "L", "product": "Exeter"}
    rows: Rows = [{**base, "joint": "hip"}, {**base, "joint": "Gelenk A"}]
    code, _, found = audit(tmp_path / "1", [image], rows)
    assert (code, found[1]) == (3, ("excluded", "unknown_joint"))
    filled = tmp_path / "filled.csv"
    filled.write_text("field,text,means\njoint,Gelenk A,Hüfte\n")
    code, _, found = audit(tmp_path / "2", [image], rows, "--synonyms", str(filled))
    assert (code, found) == (0, [AGREES, AGREES])


def test_a_contradiction_within_a_record_is_settled_by_its_meaning(tmp_path: Path) -> None:
    """In the catalogue another maker makes it, or for another joint: `means` has the last word."""
    image = sure(EXETER, study="S")
    rows: Rows = [{"study": "S", "manufacturer": "DePuy", "product": "Exeter"}]
    assert audit(tmp_path / "1", [image], rows)[2] == [("not_in_catalogue", None)]
    (text,) = said(tmp_path / "1")
    assert text == "DePuy: Exeter"
    filled = tmp_path / "filled.csv"
    filled.write_text(f"field,text,means\nproduct,{text},Exeter\n")
    assert audit(tmp_path / "2", [image], rows, "--synonyms", str(filled))[2] == [AGREES]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("product,X,Corail ohne Kragn", r"the nearest is 'Corail, without collar'\); these may be"),
        ("product,X,Exetr", r"the nearest is 'Exeter'"),
        ("manufacturer,X,Strycker", r"the nearest is 'Stryker'"),
        ("side,1,lefft", r"the nearest is 'left'\); these may be written: left; right; both"),
        ("joint,H,hipp", r"the nearest is 'hip'"),
        ("size,X,3", "implant, manufacturer, product, side and joint are accepted"),
        ("product,X,Exeter\nproduct,X,Corail", "gives 'X' two meanings, 'Exeter' and 'Corail'"),
    ],
)
def test_a_meaning_that_is_none_is_refused(tmp_path: Path, line: str, message: str) -> None:
    filled = tmp_path / "filled.csv"
    filled.write_text(f"field,text,means\n{line}\n")
    images = [sure(name, study=name) for name in (EXETER, "depuy-corail-collarless")]
    rows: Rows = [{"study": EXETER, "product": "Exeter"}]
    with pytest.raises(UsageError, match=message):
        audit(tmp_path / "1", images, rows, "--synonyms", str(filled))
    assert not [*(tmp_path / "1" / "report").glob("*")]


def test_meanings_are_kept_where_the_audit_is_written_over(tmp_path: Path) -> None:
    images = [sure(EXETER, study="S")]
    rows: Rows = [{"study": "S", "product": "Ex."}, {"study": "T", "product": "Nonesuch"}]
    audit(tmp_path / "1", images, rows)
    own = tmp_path / "1" / "report" / "unmatched.csv"
    own.write_text("field,text,means\nproduct,Ex.,Exeter\n")
    base = ["--predictions", str(tmp_path / "1" / "out"), "--synonyms", str(own)]
    base += ["--registry", str(tmp_path / "1" / "registry.csv"), "--report", str(own.parent)]
    for _ in range(2):
        job.main(base)
        lines = {text: line["means"] for text, line in said(tmp_path / "1").items()}
        assert lines == {"Nonesuch": "", "Ex.": "Exeter"}


def test_a_first_line_of_a_spreadsheet_states_the_separator(tmp_path: Path) -> None:
    images = [sure(EXETER, study="S,1")]
    for number, (first, encoding) in enumerate(
        (("sep=;", "utf-8-sig"), ("SEP=;", "cp1252"), ('"sep=;"', "utf-16"))
    ):
        path = tmp_path / f"{number}.csv"
        text = f"{first}\r\nstudy;product;hospital\r\nS,1;Exeter;Köln\r\nx\r\nS,1;Exeter;Ulm\r\n"
        path.write_bytes(text.encode(encoding))
        more = ("--encoding", encoding)
        _, _, found = audit(tmp_path / f"a{number}", images, str(path), *more)
        assert found == [AGREES, ("excluded", "malformed"), AGREES]


@pytest.mark.parametrize("key", ["patient", "accession"])
def test_a_number_of_two_issuers_is_left_out(tmp_path: Path, key: str) -> None:
    numbers: list[dict[str, Any]] = [{key: "1"}, {key: "2"}]
    images = [sure(EXETER, **number, **HIP) for number in numbers]
    base: dict[str, object] = {"side": "L", "joint": "hip", "product": "Exeter"}
    rows: Rows = [
        {key: "1", "IssuerOfPatientID": "A", **base},
        {key: "1", "IssuerOfPatientID": "B", **base},
        {key: "2", "IssuerOfPatientID": "A", **base},
    ]
    code, _, found = audit(tmp_path / "1", images, rows)
    issuers = ("excluded", "several_issuers")
    assert (code, found) == (3, [issuers, issuers, AGREES])


@pytest.mark.parametrize(
    ("column", "text", "why"),
    [
        ("patient", "X{}", None),
        ("side", "right", "other_side"),
        ("joint", "knee", "other_joint"),
        ("hospital", "B", None),
    ],
)
def test_a_group_that_lost_its_images_ends_with_the_likeliest_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, text: str, why: str | None
) -> None:
    images = [sure(EXETER, patient=f"{n}", **HIP) for n in range(100)]
    rows: Rows = []
    for n in range(100):
        row: dict[str, object] = {
            "patient": f"{n}",
            "side": "left",
            "joint": "hip",
            "hospital": "A",
        }
        row["product"] = "Exeter" if column != "joint" or n < 80 else ""
        row["implant"] = EXETER
        if n >= 80:
            row[column] = text.format(n)
            if column == "hospital":
                row["patient"] = f"{n}-7"
        rows.append(row)
    code, summary, found = audit(tmp_path / "1", images, rows)
    if column == "joint":
        assert ("not_in_catalogue", None) in found
    else:
        assert found[80:] == [("no_image", why)] * 20
    assert code == 3
    last = capsys.readouterr().out.splitlines()[-1]
    named = "patient" if column == "hospital" else column
    assert last == summary["likeliest_cause"]
    assert "None of the 20 records" in last
    assert f"the likeliest cause is the column '{named}'" in last
    page = (tmp_path / "1" / "report" / "audit.html").read_text()
    assert "the likeliest cause is the column" in page


def test_what_chance_explains_has_no_cause(tmp_path: Path) -> None:
    images = [sure(EXETER, study=f"{n}") for n in range(50)]
    rows: Rows = [
        {"study": f"{n}", "product": "Exeter", "hospital": f"H{n // 2}"} for n in range(100)
    ]
    code, summary, _ = audit(tmp_path / "1", images, rows)
    assert (code, summary["likeliest_cause"]) == (0, None)


HEADER = ["Fallnummer", "Patientennummer", "Seite", "Gelenk", "Komponente", "Hersteller"]
HEADER += ["Produkt", "Klinik", "Operationsdatum"]
MAKERS: dict[str, tuple[str, ...]] = {"JRI Orthopaedics": ("JRI",)}
MAKERS |= {"DePuy": ("DePuy Synthes", "J&J DePuy", "DePuy Orthopädie GmbH")}
MAKERS |= {"Smith & Nephew": ("S&N", "Smith &amp; Nephew"), "Stryker": ("Stryker (Howmedica)",)}
MAKERS |= {"Zimmer Biomet": ("Biomet", "Zimmer Biomet®")}
CUPS, HEADS = ("Pinnacle™", "Trident PSL", "R3"), ("Articul/eze 32 mm", "V40 CoCr 28 mm")
EXTRA = {"Exeter": "Exeter V40", "Sigma": "P.F.C. Sigma", "Oxford": "Oxford Partial Knee"}


def real_table(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes 3,000 rows as a German registry has them; returns predictions and expected reasons.

    A thousand operations of a stem or femoral part and two companions. One in 200 names another
    implant than its image shows.
    """
    images: list[dict[str, Any]] = []
    expected: list[str] = []
    lines = ["sep=;", ";".join(HEADER)]
    for n in range(1000):
        implant = IMPLANTS[n % len(IMPLANTS)]
        is_hip, is_left = implant.joint == "hip", n % 2 == 0
        shown = implant.name if n % 200 else IMPLANTS[(n + 1) % len(IMPLANTS)].name
        part = ("PELVIS", "THIGH", "HIP", None) if is_hip else ("KNEE", "THIGH", "LOWERLEG", None)
        site: dict[str, Any] = {"laterality": "L" if is_left else "R", "body_part": part[n % 4]}
        images.append(sure(shown, patient=f"{200_000 + n}", **site))
        number = (f"{200_000 + n}", f"{200_000 + n}.0", f'="{200_000 + n}"', f"'{200_000 + n}")
        side = ("li.", "Links", "sin") if is_left else ("re.", "RECHTS", "dx")
        joint = ("Hüfte", "Hüft-TEP", "Total hip") if is_hip else ("Knie", "Kniegelenk", "TKR")
        product = str(implant.product).replace(", with collar", " mit Kragen")
        product = product.replace(", without collar", " ohne Kragen")
        named = (product, product.upper(), EXTRA.get(product, f"{product}®"))
        row = [f"F{n}", number[n % 4], side[n % 3], joint[n % 3]]
        known = "Schaft" if is_hip else "Femur"
        makers = MAKERS[implant.manufacturer]
        date = f"{n % 12 + 1:02d}{n % 27 + 1:02d}{2010 + n % 12}"
        others = (
            (("Pfanne", CUPS), ("Kopf", HEADS)) if is_hip else (("Inlay", CUPS), ("Zement", HEADS))
        )
        rows = [(known, makers[n % len(makers)], named[n % 3])]
        rows += [(name, "Stryker", names[n % len(names)]) for name, names in others]
        for component, manufacturer, name in rows:
            texts = [*row, component, manufacturer, name, f"Klinik Köln {n % 9}", date]
            lines.append(";".join(f'"{text.replace(chr(34), 2 * chr(34))}"' for text in texts))
        expected += ["agrees" if n % 200 else "contradicts", "excluded", "excluded"]
    path.write_bytes("\r\n".join(lines).encode("cp1252"))
    return images, expected


def test_a_registrys_table_with_all_of_it_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, expected = real_table(tmp_path / "Endoprothesen.csv")
    table = str(tmp_path / "Endoprothesen.csv")
    code, summary, found = audit(tmp_path / "1", images, table, "--encoding", "cp1252")
    assert code == 0
    assert len(found) == summary["records"] == 3000
    assert [verdict for verdict, _ in found] == expected
    assert {why for verdict, why in found if verdict == "excluded"} == {"other_component"}
    assert summary["unmatched"] == []
    assert summary["error_rate"]["count"] == 1000
    assert len(summary["groups"]["year"]) == 12
    assert {group["name"] for group in summary["groups"]["manufacturer"]} == {*MAKERS}
    columns, note = summary["readings"]
    assert columns.startswith("Columns: record from ")
    assert "Patientennummer: 2,250 identifiers are read" in note
    assert "Other components: 2,000 records, see excluded.csv." in capsys.readouterr().out


def test_columns_that_are_read_and_those_that_are_not_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [sure(EXETER, patient="P1", **HIP), sure(EXETER, patient="P2", **HIP)]
    table = tmp_path / "german.csv"
    head = "Fallnr;Pat.-Nr.;Seite;Gelenk;Hersteller;{};Klinik;OP-Datum;Bemerkung\n"
    rows = "1;P1;links;H\u00fcfte;Stryker;Exeter V40;A;01.02.2020;x\n"
    rows += "2;P2;links;H\u00fcfte;Stryker;Trident;A;13.02.2020;y\n"
    table.write_text(head.format("Modell") + rows, encoding="utf-8")
    _, summary, _ = audit(tmp_path / "1", images, str(table))
    assert summary["readings"][0] == (
        "Columns: record from 'Fallnr', patient from 'Pat.-Nr.', side from 'Seite', joint from "
        "'Gelenk', manufacturer from 'Hersteller', product from 'Modell', hospital from 'Klinik', "
        "year from 'OP-Datum'; not used: 'Bemerkung'."
    )
    out = capsys.readouterr().out
    assert out.startswith(f"Audit of {table.as_uri()}\n")
    assert f"Read: {summary['readings'][0]}\n" in out
    table.write_text(head.format("Sorte") + rows, encoding="utf-8")
    _, summary, found = audit(tmp_path / "2", images, str(table))
    assert summary["readings"][0].endswith("not used: 'Sorte', 'Bemerkung'.")
    assert summary["readings"][1].startswith("No column of products was found; makers alone")
    assert "makers alone are compared" in capsys.readouterr().out
    assert len(found) == 2


@pytest.mark.parametrize(
    ("field", "heading"),
    [
        ("patient", "PatNr"), ("patient", "Patientnummer"), ("patient", "Num\u00e9ro patient"),
        ("patient", "ID paziente"), ("product", "Bezeichnung"), ("product", "Mod\u00e8le"),
        ("product", "Protesi"), ("product", "PRODUKTNAVN"), ("manufacturer", "Tillverkare"),
        ("side", "C\u00f4te\u0301"), ("side", "Zijde"), ("hospital", "Sygehus"),
        ("year", "A\u00f1o"),
        ("record", "Fall-Nr."), ("accession", "Accession No."), ("study", "Study UID"),
    ],
)  # fmt: skip
def test_a_heading_is_found(field: str, heading: str) -> None:
    assert find_columns([heading, "other"], {}) == {field: heading}


def test_no_heading_is_of_two_fields_and_the_docs_have_all() -> None:
    plain = [_plain(name) for names in NAMES.values() for name in names]
    assert len(plain) == len({*plain})
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    for field, names in NAMES.items():
        assert f"| `{field}` | {', '.join(names)} |" in page


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Wer,Hersteller", "which image is meant .* such as --columns patient=PatNr"),
        ("PatNr,Wo,Gelenk,Hersteller", "for side and .* such as --columns side=Seite"),
        ("PatNr,Seite,Gelenk,Was", "what was implanted .* such as --columns product=Modell"),
    ],
)
def test_a_column_that_is_missing_is_named_with_an_example(
    header: str, words: str, tmp_path: Path
) -> None:
    table = tmp_path / "records.csv"
    table.write_text(f"{header}\n{','.join('x' * len(header.split(',')))}\n")
    with pytest.raises(UsageError, match=words):
        read_file(table.as_uri(), {}, None)
