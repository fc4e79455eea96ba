"""Which column of the registry's file is which: as the user states, else by its name."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from implant_model.errors import UsageError

KEYS: Final = ("instance", "study", "accession", "patient")
"""What records and images can be joined by, the finest first."""
# fmt: off
NAMES: Final[Mapping[str, Sequence[str]]] = {
    "record": (
        "record", "recordid", "recordno", "recordnumber", "registryid", "registrynumber", "caseid",
        "caseno", "casenumber", "operationid", "id", "fallnummer", "fallnr", "fallid",
        "operationsnummer", "opnr", "registernummer", "dossiernummer", "numerodedossier",
        "numerodecaso", "numerocaso",
    ),
    "instance": ("instance", "instanceuid", "sopinstanceuid", "imageuid"),
    "study": ("study", "studyuid", "studyinstanceuid", "studyid", "studie", "studienuid"),
    "accession": (
        "accession", "accessionno", "accessionnumber", "accessionnummer", "accessionnr",
        "zugangsnummer", "anforderungsnummer", "auftragsnummer",
    ),
    "patient": (
        "patient", "patientid", "patientno", "patientnumber", "patid", "patno", "mrn", "nhsnumber",
        "pat", "patnr", "patientennummer", "patientennr", "patientnr", "patientenid",
        "patiëntnummer", "pasient", "pasientnr", "pasientnummer", "pasientid",
        "numérodepatient", "numéropatient", "idpatient", "númerodepaciente", "idpaciente",
        "paciente", "paziente", "idpaziente", "numeropaziente",
    ),
    "issuer": ("issuer", "issuerofpatientid", "assigningauthority", "patientidissuer"),
    "side": (
        "side", "laterality", "seite", "operierteseite", "opseite", "lateralität", "côté",
        "latéralité", "lado", "lateralidad", "lato", "lateralità", "zijde", "sida", "puoli",
    ),
    "joint": (
        "joint", "jointname", "bodypart", "region", "gelenk", "körperregion", "articulation",
        "articulación", "gewricht", "articolazione", "led", "ledd",
    ),
    "component": (
        "component", "componenttype", "componentname", "komponente", "komponententyp",
        "implantcomponent", "implantatkomponente", "composant", "componente", "componententype",
        "komponent", "komponentti",
    ),
    "implant": ("implant", "implantname", "label"),
    "manufacturer": (
        "manufacturer", "maker", "manufacturername", "company", "vendor", "supplier", "hersteller",
        "herstellername", "firma", "fabricant", "fabricante", "fabbricante", "produttore",
        "fabrikant", "tillverkare", "produsent", "producent", "leverandør",
    ),
    "product": (
        "product", "productname", "tradename", "brand", "brandname", "device", "devicename",
        "model", "modelname", "prosthesis", "produkt", "produktname", "produktbezeichnung",
        "modell", "modellname", "modellbezeichnung", "typbezeichnung", "handelsname",
        "implantatname", "implantattyp", "implantatbezeichnung", "implantat", "prothese",
        "prothesenmodell", "bezeichnung", "artikelbezeichnung", "artikel", "produit",
        "nomduproduit", "modèle", "désignation", "producto", "modelo", "prótesis",
        "denominación", "prodotto", "modello", "protesi", "denominazione", "productnaam",
        "modelnaam", "produktnamn", "modellnamn", "protes", "produktnavn", "modelnavn",
        "modellnavn", "protese",
    ),
    "hospital": (
        "hospital", "hospitalname", "site", "centre", "center", "clinic", "unit", "institution",
        "klinik", "krankenhaus", "spital", "einrichtung", "standort", "hôpital", "établissement",
        "clinique", "clínica", "centro", "ziekenhuis", "ospedale", "sjukhus",
        "sykehus", "sygehus",
    ),
    "year": (
        "year", "operationyear", "date", "operationdate", "surgerydate", "dateofoperation",
        "dateofsurgery", "opdate", "opdatum", "opjahr", "operationsdatum", "operationsjahr",
        "eingriffsdatum", "datum", "jahr", "dateopération", "datedelopération", "datechirurgie",
        "année", "fecha", "fechadeoperación", "fechadecirugía", "año", "dataintervento",
        "anno", "operatiedatum", "jaar", "år", "dato", "operasjonsdato", "operationsdato",
        "leikkauspäivä",
    ),
}
# fmt: on
"""Names by which a column is found, see `_plain` for what makes no difference."""
FIELDS: Final = tuple(NAMES)
_EXAMPLES: Final = {
    "instance": "SOPInstanceUID",
    "study": "StudyUID",
    "accession": "AccessionNumber",
    "patient": "PatNr",
    "side": "Seite",
    "joint": "Gelenk",
}
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
        there = [plain[key] for name in names if (key := _plain(name)) in plain]
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
        _refuse(f"that states which image is meant ({', '.join(KEYS)})", "patient=PatNr", header)
    needed = (chosen, "side", "joint") if chosen == "patient" else (chosen,)
    for field in needed:
        if field not in columns:
            why = " and records are joined by patient, side and joint" if field != key else ""
            _refuse(f"for {field}{why}", f"{field}={_EXAMPLES[field]}", header)
    if not any(field in columns for field in CLAIMS):
        _refuse(f"that states what was implanted ({', '.join(CLAIMS)})", "product=Modell", header)
    return chosen


def describe_columns(columns: Mapping[str, str], header: Sequence[str]) -> tuple[str, ...]:
    """Return sentences on what was read as what, and on what was not read.

    Args:
        columns: The file's column of each field, as `find_columns` gives it.
        header: The file's columns.
    """
    found = ", ".join(f"{field} from {_shown(column)!r}" for field, column in columns.items())
    left = [column for column in header if column not in columns.values()]
    notes = [f"Columns: {found}; not used: {_listed(left)}."]
    if "product" not in columns and "implant" not in columns:
        notes.append(
            "No column of products was found; makers alone are compared. Where the file has one, "
            "name it by --columns product=COLUMN."
        )
    return tuple(notes)


def _refuse(what: str, example: str, header: Sequence[str]) -> NoReturn:
    raise UsageError(
        f"The registry's file has no column {what}; it has {_listed(header)}. Name it by "
        f"--columns FIELD=COLUMN, such as --columns {example}."
    )


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(_shown(name)) for name in header[:30])
    return f"{shown}, ..." if len(header) > 30 else shown or "none"


def _shown(column: str) -> str:
    return column[:60]


def _plain(column: str) -> str:
    """Return a heading without case, accents, blanks and punctuation."""
    bare = unicodedata.normalize("NFKD", column.casefold())
    return "".join(c for c in bare if c.isalnum())
