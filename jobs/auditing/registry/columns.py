"""Which column of the registry's file is which: as the user states, else by its name."""

from collections.abc import Mapping, Sequence
from typing import Final

from implant_model.errors import UsageError

KEYS: Final = ("instance", "study", "accession", "patient")
"""What records and images can be joined by, the finest first."""
# fmt: off
NAMES: Final[Mapping[str, Sequence[str]]] = {
    "record": (
        "record", "recordid", "recordnumber", "registryid", "caseid", "operationid", "id",
        "fallnummer", "fallnr", "casenumber", "caseno",
    ),
    "instance": ("instance", "instanceuid", "sopinstanceuid", "imageuid"),
    "study": ("study", "studyuid", "studyinstanceuid", "studyid"),
    "accession": ("accession", "accessionnumber"),
    "patient": (
        "patient", "patientid", "patientnumber", "mrn", "nhsnumber", "patientennummer",
        "patientennr", "patientnr", "patientenid",
    ),
    "issuer": ("issuer", "issuerofpatientid", "assigningauthority", "patientidissuer"),
    "side": ("side", "laterality", "seite", "coté", "côté", "lado", "lato", "zijde", "sida"),
    "joint": (
        "joint", "jointname", "bodypart", "region", "gelenk", "articulation", "articulación",
        "gewricht", "articolazione",
    ),
    "component": (
        "component", "componenttype", "componentname", "komponente", "komponententyp",
        "implantcomponent", "implantatkomponente", "composant", "componente", "componententype",
        "komponent", "komponentti",
    ),
    "implant": ("implant", "implantname", "label"),
    "manufacturer": (
        "manufacturer", "maker", "manufacturername", "company", "vendor", "hersteller", "fabricant",
        "fabricante", "produttore", "fabrikant", "tillverkare",
    ),
    "product": (
        "product", "productname", "tradename", "brand", "device", "model", "produkt", "produktname",
        "produit", "producto", "prodotto", "implantat",
    ),
    "hospital": (
        "hospital", "site", "centre", "center", "clinic", "unit", "institution", "klinik",
        "krankenhaus", "hôpital", "ziekenhuis", "ospedale", "sjukhus",
    ),
    "year": (
        "year", "operationyear", "date", "operationdate", "surgerydate", "dateofoperation",
        "opdatum", "operationsdatum", "datum", "jahr", "fecha", "dato",
    ),
}
# fmt: on
"""Names by which a column is found; case, blanks and punctuation make no difference."""
FIELDS: Final = tuple(NAMES)
CLAIMS: Final = ("implant", "manufacturer", "product")
"""Fields of which one at least states what was implanted."""


def find_columns(header: Sequence[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each field that the file has.

    Args:
        header: The file's columns.
        asked: What the user said; nothing else is looked for under another name.

    Raises:
        UsageError: A column that was asked for is not there, or occurs twice.
    """
    found: dict[str, str] = {}
    for field, column in asked.items():
        if column not in header:
            raise UsageError(
                f"The registry's file has no column {column!r}, named for {field}; it has "
                f"{_listed(header)}."
            )
        found[field] = column
    plain: dict[str, str] = {}
    for column in header:
        plain.setdefault(_plain(column), column)
    taken = set(found.values())
    for field, names in NAMES.items():
        there = [plain[name] for name in names if name in plain]
        if field not in found and there and there[0] not in taken:
            found[field] = there[0]
    twice = [column for column in found.values() if list(header).count(column) > 1]
    if twice:
        raise UsageError(f"The registry's file has two columns {twice[0]!r}; rename one of them.")
    return found


def choose_key(columns: Mapping[str, str], key: str | None, header: Sequence[str]) -> str:
    """Return what to join by; all that it needs is there.

    Raises:
        UsageError: The file lacks a column that is needed.
    """
    chosen = key or next((name for name in KEYS if name in columns), None)
    if chosen is None:
        _refuse(f"that states which image is meant ({', '.join(KEYS)})", header)
    needed = (chosen, "side", "joint") if chosen == "patient" else (chosen,)
    for field in needed:
        if field not in columns:
            why = " and records are joined by patient, side and joint" if field != key else ""
            _refuse(f"for {field}{why}", header)
    if not any(field in columns for field in CLAIMS):
        _refuse(f"that states what was implanted ({', '.join(CLAIMS)})", header)
    return str(chosen)


def _refuse(what: str, header: Sequence[str]) -> None:
    raise UsageError(
        f"The registry's file has no column {what}; it has {_listed(header)}. Name it by "
        "--columns FIELD=COLUMN."
    )


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in header[:30])
    return f"{shown}, ..." if len(header) > 30 else shown or "none"


def _plain(column: str) -> str:
    return "".join(c for c in column.casefold() if c.isalnum())
