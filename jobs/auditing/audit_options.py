"""The command line of `audit`, checked and frozen."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import KEY_VARIABLE, Key
from jobs.auditing.registry.columns import FIELDS, KEYS
from jobs.entry.command import Parser
from jobs.entry.folder import checked_folder
from jobs.pipeline.classify_options import KEY_HELP

_COLUMNS = (
    f"which column is what: FIELD is one of {', '.join(FIELDS)}; may be given several times, and a "
    "pair with a comma in it is in double quotes: '\"product=Brand, full\"'"
)

_IMAGES = "the INPUTs of classify: finds loose radiographs, whose names are keyed, for --pictures"


_SAMPLE = (
    "draw so many records over all verdicts, for jobs.review: what people find in them gives the "
    "rate of errors; default 0"
)


@dataclass(frozen=True)
class AuditOptions:
    """What a user asked of `audit`.

    Attributes:
        predictions: Normalised URI of the --output of classify.
        registry: Normalised URI of the registry's file.
        report: Folder to write to.
        columns: The registry's column of each field that was named.
        key: What records and images are joined by; None takes the finest that the file has.
        protector: Makes pseudonyms of raw identifiers; None without a key.
        model: Normalised URI of the package; None for one that ships with this software.
        synonyms: Normalised URI of a table of names; None without one.
        previous: Normalised URI of an earlier summary; None for the one in the folder.
        encoding: Of a CSV file.
        pictures: Radiographs with saliency to show in the page.
        images: Normalised URIs that loose radiographs are found below, for the pictures.
        sample: Records to draw, for people to look at; 0 draws none.
    """

    predictions: str
    registry: str
    report: Path
    columns: Mapping[str, str]
    key: str | None
    protector: Protector | None
    model: str | None
    synonyms: str | None
    previous: str | None
    encoding: str
    pictures: int
    images: tuple[str, ...]
    sample: int = 0

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise UsageError(f"--pictures is {self.pictures}; 0 or more are accepted.")
        if self.sample < 0:
            raise UsageError(f"--sample is {self.sample}; 0 or more are accepted.")
        try:
            "a".encode(self.encoding)
        except LookupError as error:
            raise UsageError(
                f"--encoding is {self.encoding!r}, which is none that is known; utf-8, cp1252 and "
                "latin-1 are."
            ) from error


def parse_audit(arguments: Sequence[str] | None, description: str | None) -> AuditOptions:
    """Read the command line.

    Raises:
        UsageError: It is not of the contract's form; one sentence explains why.
    """
    parser = Parser("audit", description)
    add = parser.add_argument
    add("--predictions", required=True, metavar="OUTPUT", help="the --output of classify")
    add("--registry", required=True, metavar="FILE", help="the registry's table, CSV or Parquet")
    add("--report", required=True, metavar="DIR", help="where to write")
    add("--columns", action="append", default=[], metavar="FIELD=COLUMN[,...]", help=_COLUMNS)
    add("--key", choices=KEYS, help="join by this; default: the finest that the file has")
    add("--key-file", metavar="PATH", help=KEY_HELP)
    add("--model", metavar="URI", help="the package: its synonyms, thresholds and MR-safety notes")
    add("--synonyms", metavar="FILE", help="CSV of text and means, such as unmatched.csv filled in")
    add("--previous", metavar="FILE", help="summary.json to compare with; default: DIR's own")
    add("--encoding", default="utf-8", metavar="NAME", help="of a CSV file; default utf-8")
    add("--pictures", type=int, default=0, metavar="N", help="show so many radiographs; default 0")
    add("--images", nargs="+", default=[], metavar="INPUT", help=_IMAGES)
    add("--sample", type=int, default=0, metavar="N", help=_SAMPLE)
    call = parser.parse_args(arguments)
    columns = parse_columns(call.columns)
    path = call.key_file or os.environ.get(KEY_VARIABLE)
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, Key.load(path)) if path else None
    uris = (call.predictions, call.registry, call.model, call.synonyms, call.previous)
    predictions, registry, model, synonyms, previous = (u and storage.normalise(u) for u in uris)
    return AuditOptions(
        predictions,
        registry,
        checked_folder(call.report),
        columns,
        call.key,
        protector,
        model,
        synonyms,
        previous,
        call.encoding,
        call.pictures,
        tuple(map(storage.normalise, call.images)),
        call.sample,
    )


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Read `FIELD=COLUMN[,FIELD=COLUMN ...]`.

    Raises:
        UsageError: Not of this form, an unknown field, or one that is named twice.
    """
    columns: dict[str, str] = {}
    try:
        pairs = [pair for row in csv.reader(texts) for pair in row]
    except csv.Error as error:
        raise UsageError(
            f"--columns has {', '.join(texts)[:200]!r}, which has a line end or is too long; "
            "FIELD=COLUMN is accepted, and a pair with a line end in it in double quotes."
        ) from error
    for pair in pairs:
        field, equals, column = pair.partition("=")
        field, column = field.strip(), column.strip()
        if not equals or field not in FIELDS or not column:
            raise UsageError(
                f"--columns has {pair!r}; FIELD=COLUMN is accepted, with FIELD one of "
                f"{', '.join(FIELDS)}."
            )
        if field in columns:
            raise UsageError(f"--columns names {field!r} twice; one column each is accepted.")
        columns[field] = column
    return columns
