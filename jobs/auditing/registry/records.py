"""Registry records ready to be joined, and the reason of each that cannot be."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import UsageError
from implant_model.privacy import Protector
from jobs.auditing.registry.columns import CLAIMS
from jobs.auditing.registry.registry_file import RegistryFile
from jobs.auditing.registry.sites import NO_SIDE, joint_names, places, side_codes

Codes = npt.NDArray[np.int8]
PSEUDONYM: Final = "^[0-9a-f]{32}$"


class Exclusion(IntEnum):
    """Why a record is not audited; 0 for those that are."""

    NONE = 0
    MALFORMED = 1
    NO_KEY = 2
    NO_SIDE_OR_JOINT = 3
    NO_IMPLANT = 4
    DUPLICATE = 5
    CONFLICTING = 6
    CONTINUED = 7
    SEVERAL_RECORDS = 8


EXCLUSIONS: Final = {
    Exclusion.MALFORMED: "The row has more or fewer values than the header.",
    Exclusion.NO_KEY: "Nothing states which image is meant.",
    Exclusion.NO_SIDE_OR_JOINT: "Records are joined by patient, side and joint, and it lacks one.",
    Exclusion.NO_IMPLANT: "Nothing states what was implanted.",
    Exclusion.DUPLICATE: "It states word for word what a record before it states.",
    Exclusion.CONFLICTING: "Another record of the same number states something else.",
    Exclusion.CONTINUED: "It names another image of a record before it, and counts with that one.",
    Exclusion.SEVERAL_RECORDS: (
        "Another record of the same images names another implant, such as before a revision; the "
        "images do not say which of them they show."
    ),
}


@dataclass(frozen=True)
class Records:
    """All rows of a registry's file.

    Attributes:
        row_M: Number in the file, from 1, the header not counted.
        record: The registry's own number of each; None where it has no such column.
        key: Identifier, as the table `predictions` has it; null where there is none.
        side_M: See `sites`.
        joint_M: Folded name of the joint as a dictionary array; null where not known.
        texts: Dictionary arrays of implant, manufacturer, product, hospital and year, those that
            the file has.
        excluded_M: `Exclusion` of each.
        owner_M: Place of the record that the key speaks of: its own, or for `CONTINUED` another.
    """

    row_M: npt.NDArray[np.int64]
    record: pa.ChunkedArray | None
    key: pa.ChunkedArray
    side_M: Codes
    joint: pa.DictionaryArray
    texts: dict[str, pa.DictionaryArray]
    excluded_M: Codes
    owner_M: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row_M)

    @property
    def is_in_M(self) -> npt.NDArray[np.bool_]:
        """Return whether each is audited."""
        return np.asarray(self.excluded_M == Exclusion.NONE, bool)

    def num_excluded(self) -> dict[Exclusion, int]:
        """Record that are not audited, by reason."""
        counts = Counter(self.excluded_M[~self.is_in_M].tolist())
        return {Exclusion(code): count for code, count in sorted(counts.items())}


def make_records(file: RegistryFile, protector: Protector | None, pseudonymous: bool) -> Records:
    """Check and translate what a file holds.

    Args:
        file: As it was read.
        protector: Makes pseudonyms; None without a key.
        pseudonymous: Whether the predictions hold pseudonyms.

    Raises:
        UsageError: The keys of file and predictions cannot be brought together.
    """
    table, count = file.table, file.table.num_rows
    side_M = side_codes(_field(table, "side"))
    joint = joint_names(_field(table, "joint"))
    excluded_M, owner_M = _excluded(file, side_M, joint)
    texts = {
        name: _encoded(table[name]) for name in (*CLAIMS, "hospital") if name in table.column_names
    }
    if "year" in table.column_names:
        year = pc.extract_regex(table["year"], "(?P<year>(?:19|20)[0-9]{2})")
        texts["year"] = _encoded(pc.struct_field(year, "year"))
    return Records(
        row_M=np.arange(1, count + 1),
        record=table["record"] if "record" in table.column_names else None,
        key=translate(table[file.key], file.key, protector, pseudonymous),
        side_M=side_M,
        joint=joint,
        texts=texts,
        excluded_M=excluded_M,
        owner_M=owner_M,
    )


def translate(
    keys: pa.ChunkedArray, kind: str, protector: Protector | None, pseudonymous: bool
) -> pa.ChunkedArray:
    """Return identifiers as the predictions hold them.

    Raises:
        UsageError: Pseudonyms on one side, raw identifiers on the other, and no key to join them.
    """
    are_pseudonyms = bool(pc.all(pc.match_substring_regex(keys, PSEUDONYM)).as_py())
    if are_pseudonyms == pseudonymous:
        return keys
    if are_pseudonyms:
        raise UsageError(
            f"The registry holds pseudonyms for {kind}, the predictions identifiers as they are; "
            "give the registry's identifiers as they are, too."
        )
    if protector is None:
        raise UsageError(
            f"The predictions hold pseudonyms for {kind} and the registry does not; give the key "
            "that classify was given, by --key-file."
        )
    encoded = _encoded(keys)
    names = pa.array(
        [protector.identifier(kind, text) for text in encoded.dictionary.to_pylist()], pa.string()
    )
    return pa.chunked_array([names.take(encoded.indices)])


def _excluded(
    file: RegistryFile, side_M: Codes, joint: pa.DictionaryArray
) -> tuple[Codes, npt.NDArray[np.int64]]:
    """The first reason of each record in the order of the checks, and whom its key speaks of."""
    table = file.table
    excluded_M = np.zeros(table.num_rows, np.int8)

    def exclude(which_M: npt.NDArray[np.bool_], why: Exclusion) -> None:
        excluded_M[which_M & (excluded_M == Exclusion.NONE)] = why

    excluded_M[np.array(file.malformed, np.int64) - 1] = Exclusion.MALFORMED
    exclude(_is_null(table[file.key]), Exclusion.NO_KEY)
    if file.key == "patient":
        exclude((side_M == NO_SIDE) | _is_null(joint), Exclusion.NO_SIDE_OR_JOINT)
    claims = [_is_null(table[name]) for name in CLAIMS if name in table.column_names]
    exclude(np.logical_and.reduce(claims), Exclusion.NO_IMPLANT)
    owner_M = np.arange(table.num_rows)
    for rows in _repeated(file, excluded_M):
        _judge(rows, excluded_M, owner_M)
    return excluded_M, owner_M


Told = tuple[int, object, tuple[object, ...]]
"""A row's place, its key, and all else that it states."""


def _repeated(file: RegistryFile, excluded_M: Codes) -> Iterable[list[Told]]:
    """Rows that share a number, or where there are no numbers, a key with all that they say."""
    names = file.table.column_names
    codes_M = _codes(file.table["record" if "record" in names else file.key])
    considered_M = (excluded_M == Exclusion.NONE) & (codes_M >= 0)
    counts = np.bincount(codes_M[considered_M], minlength=codes_M.max(initial=0) + 1)
    rows = np.flatnonzero(considered_M & (counts[codes_M] > 1))
    some = file.table.take(rows)
    keys = some[file.key].to_pylist()
    said = [some[name].to_pylist() for name in names if name != file.key]
    groups: dict[object, list[Told]] = {}
    for row, code, key, texts in zip(
        rows.tolist(), codes_M[rows].tolist(), keys, zip(*said, strict=True), strict=True
    ):
        group = code if "record" in names else (code, texts)
        groups.setdefault(group, []).append((row, key, texts))
    return groups.values()


def _judge(rows: list[Told], excluded_M: Codes, owner_M: npt.NDArray[np.int64]) -> None:
    """Keep one of several rows that say the same, and none of those that differ."""
    first, _, texts_of_first = rows[0]
    if any(texts != texts_of_first for _, _, texts in rows):
        excluded_M[[row for row, _, _ in rows]] = Exclusion.CONFLICTING
        return
    seen = {rows[0][1]}
    for row, key, _ in rows[1:]:
        excluded_M[row] = Exclusion.DUPLICATE if key in seen else Exclusion.CONTINUED
        owner_M[row] = first
        seen.add(key)


def _field(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name in table.column_names:
        return table[name]
    return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return equal texts have equal codes from 0; null has -1."""
    return places(_encoded(column))


def _is_null(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return ~np.asarray(column.is_valid(), bool)
