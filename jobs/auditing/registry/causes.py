"""Why whole groups of records have no image: the column that is the likeliest to be misread.

Records are grouped by the form of their key, by side, by joint and by hospital. A group that lost
all of its images, so many that chance does not explain it beside the other records, has a cause:
the key, where the predictions lack its identifiers; side or joint, where they have them for others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.auditing.registry.identifiers import Known, lost_zeros
from jobs.auditing.registry.records import Exclusion, Records
from jobs.auditing.registry.registry_file import RegistryFile
from jobs.auditing.registry.sites import places

CHANCE: Final = 1e-6
"""Probability below which a group's loss is no chance."""
MIN_RECORDS: Final = 5
MAX_FOUND: Final = 0.99
"""Share of the other records with an image that is believed at most."""
SEVERAL_SHARE: Final = 0.5
"""Share of rows with several records for a joint, above which it is no matter of revisions."""


class Miss(IntEnum):
    """Why a record has no image; 0 for those that have one."""

    NONE = 0
    NO_IDENTIFIER = 1
    OTHER_SIDE = 2
    OTHER_JOINT = 3
    NO_SITE_SAID = 4


@dataclass(frozen=True)
class Cause:
    """Why records have no image.

    Attributes:
        column: The file's column that is the likeliest to be misread.
        records: How many have none.
        keys: Their identifiers, where the predictions have none of these; else empty.
        sentence: What was found, and what to do.
    """

    column: str
    records: int
    keys: tuple[str, ...]
    sentence: str


_WHYS: Final[Mapping[Miss, str]] = {
    Miss.NO_IDENTIFIER: "the predictions have none of their identifiers",
    Miss.OTHER_SIDE: "the images with their identifiers show the other side",
    Miss.OTHER_JOINT: "the images with their identifiers show another joint",
    Miss.NO_SITE_SAID: "the images with their identifiers do not state a side",
}
_FIELDS: Final[Mapping[Miss, str]] = {
    Miss.OTHER_SIDE: "side",
    Miss.NO_SITE_SAID: "side",
    Miss.OTHER_JOINT: "joint",
}
_REMEDIES: Final[Mapping[Miss, str]] = {
    Miss.NO_IDENTIFIER: (
        "compare its identifiers with those of the images, and the key file with that of classify"
    ),
    Miss.OTHER_SIDE: "see whether left and right are what it states, or name another column",
    Miss.OTHER_JOINT: "see whether it states the joint, or name another column",
    Miss.NO_SITE_SAID: "join by --key study or accession, whose images need not state one",
}


def find_cause(
    records: Records,
    miss_M: npt.NDArray[np.int8],
    file: RegistryFile,
) -> Cause | None:
    """Return the cause of the greatest loss, or None where chance explains what was lost.

    Args:
        records: All of the registry's.
        miss_M: Why each audited record has no image.
        file: The registry's, for its keys as they are written.
    """
    keys, key, columns = file.table[file.key], file.key, file.columns
    if several := _of_several(records, columns):
        return several
    in_M = records.is_in_M
    member_M, words = in_M, ""
    if (miss_M[in_M] == Miss.NONE).any():
        member_M, words = _greatest_loss(records, miss_M, keys, key, columns)
    count = int(member_M.sum())
    if not count:
        return None
    miss = Miss(int(np.bincount(miss_M[member_M], minlength=len(Miss)).argmax()))
    column = columns.get(_FIELDS.get(miss, key), key)
    lost = keys.filter(pa.array(member_M)).to_pylist() if miss is Miss.NO_IDENTIFIER else []
    sentence = (
        f"None of the {count:,} records{words} has an image: {_WHYS[miss]}; the likeliest cause "
        f"is the column {column!r}, {_REMEDIES[miss]}."
    )
    return Cause(column, count, tuple(dict.fromkeys(lost)), sentence)


def explain(cause: Cause | None, known: Known) -> str | None:
    """Return the sentence on a cause, and whether zeros are lost at the front of its keys."""
    if cause is None:
        return None
    digits = lost_zeros(cause.keys, known)
    if not digits:
        return cause.sentence
    return (
        f"{cause.sentence[:-1]}; most would fit with zeros at the front, up to {digits} digits: "
        "write the column as text."
    )


def _greatest_loss(
    records: Records,
    miss_M: npt.NDArray[np.int8],
    keys: pa.ChunkedArray,
    key: str,
    columns: Mapping[str, str],
) -> tuple[npt.NDArray[np.bool_], str]:
    """Return the largest group that lost all of its images by no chance, and words for it."""
    in_M, has_M = records.is_in_M, miss_M == Miss.NONE
    num_in, num_found = int(in_M.sum()), int((in_M & has_M).sum())
    best, member_M, words = 0, np.zeros(len(in_M), bool), ""
    for field, column in _groupings(records, keys, key).items():
        code_M = np.where(in_M, places(column), -1)
        total = np.bincount(code_M + 1, minlength=2)[1:]
        found = np.bincount(code_M[has_M] + 1, minlength=len(total) + 1)[1:]
        code = int(np.where(found == 0, total, 0).argmax())
        count = int(total[code]) if found[code] == 0 else 0
        share = min(num_found / max(num_in - count, 1), MAX_FOUND)
        if count >= max(MIN_RECORDS, best + 1) and (1 - share) ** count < CHANCE:
            text = column.dictionary[code].as_py()
            what = "of the form" if field == key else "with"
            best, member_M = count, code_M == code
            words = f" {what} {text[:60]!r} in the column {columns.get(field, field)!r}"
    return member_M, words


def _groupings(records: Records, keys: pa.ChunkedArray, key: str) -> dict[str, pa.DictionaryArray]:
    """Return what records are grouped by: the form of the key, side, joint and hospital."""
    encoded = keys.combine_chunks().dictionary_encode()
    forms = pa.array([_form(text) for text in encoded.dictionary.to_pylist()], pa.string())
    grouped = {key: forms.take(encoded.indices).dictionary_encode()}
    grouped |= {n: c.combine_chunks().dictionary_encode() for n, c in records.said.items()}
    if "hospital" in records.texts:
        grouped["hospital"] = records.texts["hospital"]
    return grouped


def _form(text: str) -> str:
    """Return the form of an identifier: its digits as 9, its letters as A."""
    return re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", text))


def _of_several(records: Records, columns: Mapping[str, str]) -> Cause | None:
    """Return the cause where most joints have records of several implants."""
    several = int((records.excluded_M == Exclusion.SEVERAL_RECORDS).sum())
    if several < MIN_RECORDS or several <= SEVERAL_SHARE * len(records):
        return None
    column = columns.get("component", columns.get("product", columns.get("implant", "implant")))
    return Cause(
        column,
        several,
        (),
        f"{several:,} of {len(records):,} rows share their images with rows that name another "
        f"implant; if each is one component, name the column that states which by --columns "
        f"component=COLUMN, since {column!r} alone does not tell it.",
    )
