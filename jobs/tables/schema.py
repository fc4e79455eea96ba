"""The two tables that a run publishes: their schemas, and the identity of a unit of work.

`predictions` has exactly one row for each member of each archive, `archives` one for each archive
version and model; `members` of the latter is the number of rows of the former. Both are Delta
tables, partitioned by `model`, a column that Delta keeps outside the data files.

Both carry the version of their schema as a table property. A column that is added gets the next
version in `_ADDED`; a run adds it to the tables that it finds, whose older rows are null there. A
unit's file names the version that it was written under, and is checked against that one.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from implant_model.errors import Outcome

PREDICTIONS: Final = "predictions"
ARCHIVES: Final = "archives"
SCHEMA_VERSION: Final = 2
FIRST_SCHEMA_VERSION: Final = 1
"""Of tables and unit files from before the version was recorded."""
SCHEMA_PROPERTY: Final = "implant.schemaVersion"
"""Property of both tables, and key of the metadata of a unit's Parquet file."""
BUNDLE: Final = "bundle-"
"""Begins the name of a file that small archives share; others are of one unit."""
COPY: Final = "copy-"
"""Begins the name of a copy of a shared file, without the rows of some archives."""
UNIT_MEMBERS: Final = 1000
"""Most members of a unit; the contract with those who read the tables."""

PREDICTION_ROW: Final = pa.schema(
    [
        pa.field("archive", pa.string(), nullable=False),
        pa.field("archive_version", pa.string(), nullable=False),
        pa.field("member_index", pa.int64(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("patient", pa.string()),
        pa.field("study", pa.string()),
        pa.field("series", pa.string()),
        pa.field("instance", pa.string()),
        pa.field("accession", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("body_part", pa.string()),
        pa.field("view", pa.string()),
        pa.field("laterality", pa.string()),
        pa.field("rows", pa.int32()),
        pa.field("columns", pa.int32()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("implant", pa.string()),
        pa.field("manufacturer", pa.string()),
        pa.field("product", pa.string()),
        pa.field("joint", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("candidates", pa.list_(pa.string())),
        pa.field(
            "top",
            pa.list_(pa.struct([("implant", pa.string()), ("probability", pa.float32())])),
        ),
        pa.field("novelty", pa.float32()),
        pa.field("content", pa.string()),
        pa.field("doubts", pa.list_(pa.string())),
    ]
)
"""One row of a unit's file. The Delta table adds the partition column `model`."""

_ADDED: Final[dict[str, int]] = {"doubts": 2}
"""Columns of `PREDICTION_ROW` that the first version lacks, with the version that added them."""


def prediction_row(version: int) -> pa.Schema:
    """Return the schema of unit files under a version of the schema, up to `SCHEMA_VERSION`."""
    return pa.schema([f for f in PREDICTION_ROW if _ADDED.get(f.name, 1) <= version])


def version_of(file: pa.Schema) -> int:
    """Return the version of the schema that a unit's Parquet file was written under."""
    return int((file.metadata or {}).get(SCHEMA_PROPERTY.encode(), FIRST_SCHEMA_VERSION))


_UNIT = pa.struct(
    [
        ("path", pa.string()),
        ("first_member", pa.int64()),
        ("members", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)

ARCHIVE_ROW: Final = pa.schema(
    [
        pa.field("archive", pa.string(), nullable=False),
        pa.field("archive_version", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("members", pa.int64(), nullable=False),
        *(pa.field(str(outcome), pa.int64(), nullable=False) for outcome in Outcome),
        pa.field(
            "reasons", pa.list_(pa.struct([("reason", pa.string()), ("members", pa.int64())]))
        ),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("units", pa.list_(_UNIT)),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("software_version", pa.string(), nullable=False),
        pa.field("configuration_hash", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("decode_version", pa.int32()),  # since version 2
        pa.field("key_id", pa.string()),  # since version 2
    ]
)
"""One row of the table `archives`; `units` names the files that hold the archive's predictions."""


FIRST_ARCHIVE_ROW: Final = pa.schema(
    [f for f in ARCHIVE_ROW if f.name not in ("decode_version", "key_id")]
)
"""Of the first version."""


def with_model(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the Delta table whose data files have `schema`."""
    return schema.append(pa.field("model", pa.string(), nullable=False))


def unit_id(
    archive: str, version: str, model: str, configuration: str, attempt: int, first_member: int
) -> str:
    """Name of the unit that starts at `first_member`: the same in every run, 32 hex digits."""
    identity = [archive, version, model, configuration, attempt, first_member]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def bundle_id(units: Iterable[str]) -> str:
    """Name of the file that units share: the same for the same units."""
    return BUNDLE + hashlib.sha256("".join(units).encode()).hexdigest()[:32]


def is_bundle(path: str) -> bool:
    """Whether a file below the predictions table was written for several archives."""
    return path.rpartition("/")[2].startswith(BUNDLE)


def is_shared(path: str) -> bool:
    """Whether a file below the predictions table may hold rows of several archives."""
    return path.rpartition("/")[2].startswith((BUNDLE, COPY))


def unit_path(model: str, unit: str) -> str:
    """Return where a unit's file lies below the predictions table, as the Delta log names it."""
    return f"model={model}/{unit}.parquet"
