"""Registry records ready to be joined, and the reason of each that cannot be."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import UsageError
from implant_model.privacy import Protector
from jobs.auditing.registry.columns import CLAIMS
from jobs.auditing.registry.dates import read_years
from jobs.auditing.registry.registry_file import RegistryFile
from jobs.auditing.registry.sites import (
    SiteColumn,
    joint_names,
    places,
    read_joints,
    read_sides,
    side_codes,
)
from jobs.auditing.registry.synonyms import Meanings
from jobs.auditing.registry.words import NO_SIDE

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
    OTHER_COMPONENT = 9
    UNKNOWN_SIDE = 10
    UNKNOWN_JOINT = 11
    SEVERAL_ISSUERS = 12


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
    Exclusion.OTHER_COMPONENT: (
        "It is another component, such as cup or head, than that which the model knows."
    ),
    Exclusion.UNKNOWN_SIDE: "Its side is no word that is known; unmatched.csv names it.",
    Exclusion.UNKNOWN_JOINT: "Its joint is no word that is known; unmatched.csv names it.",
    Exclusion.SEVERAL_ISSUERS: (
        "Its patient's number is given by several issuers, and the predictions hold none."
    ),
}


@dataclass(frozen=True)
class Parts:
    """What tells rows of one component each apart from other rows of a joint.

    Attributes:
        component_M: Code of the component's text, see `components`; -1 where the row has none.
        components: The texts.
        operation_M: Code of the row's operation: its number if rows share numbers, else its date.
        is_shared_M: Whether the row shares its number with rows that name another implant.
    """

    component_M: npt.NDArray[np.int64]
    components: tuple[str, ...]
    operation_M: npt.NDArray[np.int64]
    is_shared_M: npt.NDArray[np.bool_]


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
        parts: How the rows belong together, where one is of one component.
        said: Texts of side and joint as the registry writes them, those that are read.
        unknown: Field, reason and rows of the texts of side and joint that are not known.
        notes: Sentences on how columns were read.
    """

    row_M: npt.NDArray[np.int64]
    record: pa.ChunkedArray | None
    key: pa.ChunkedArray
    side_M: Codes
    joint: pa.DictionaryArray
    texts: dict[str, pa.DictionaryArray]
    excluded_M: Codes
    owner_M: npt.NDArray[np.int64]
    parts: Parts
    said: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    unknown: tuple[tuple[str, str, Counter[str]], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row_M)

    @property
    def is_in_M(self) -> npt.NDArray[np.bool_]:
        """Return whether each is audited."""
        return np.asarray(self.excluded_M == Exclusion.NONE, bool)

    @property
    def is_listed_M(self) -> npt.NDArray[np.bool_]:
        """Return whether the texts of each without a meaning are listed."""
        listed = (Exclusion.NONE, Exclusion.SEVERAL_RECORDS, Exclusion.CONFLICTING)
        return np.isin(self.excluded_M, listed)

    def num_excluded(self) -> dict[Exclusion, int]:
        """Record that are not audited, by reason."""
        counts = Counter(self.excluded_M[~self.is_in_M].tolist())
        return {Exclusion(code): count for code, count in sorted(counts.items())}


def make_records(
    file: RegistryFile,
    protector: Protector | None,
    pseudonymous: bool,
    meanings: Meanings | None = None,
    joints: Sequence[str] = (),
) -> Records:
    """Check and translate what a file holds.

    Args:
        file: As it was read.
        protector: Makes pseudonyms; None without a key.
        pseudonymous: Whether the predictions hold pseudonyms.
        meanings: What the user said that texts mean.
        joints: As the model's catalogue names them.

    Raises:
        UsageError: The keys of file and predictions cannot be brought together, or no text of a
            column of sides or joints is known.
    """
    table, count = file.table, file.table.num_rows
    sites = _read_sites(file, meanings or Meanings(), joints)
    excluded_M, owner_M, is_shared_M = _excluded(file, sites)
    texts = {
        name: _encoded(table[name]) for name in (*CLAIMS, "hospital") if name in table.column_names
    }
    notes = sites.notes
    if "year" in table.column_names:
        years = read_years(table["year"])
        texts["year"] = years.texts
        if years.num_unread:
            shown = ", ".join(repr(shape) for shape in years.examples)
            notes += (
                f"{file.columns['year']}: {years.num_unread:,} rows have no date that is sure "
                f"({shown}, digits as 9).",
            )
    return Records(
        row_M=np.arange(1, count + 1),
        record=table["record"] if "record" in table.column_names else None,
        key=translate(table[file.key], file.key, protector, pseudonymous),
        side_M=sites.side_M,
        joint=sites.joint,
        texts=texts,
        excluded_M=excluded_M,
        owner_M=owner_M,
        parts=_parts(table, is_shared_M),
        said={name: table[name] for name in ("side", "joint") if name in table.column_names},
        unknown=sites.unknown,
        notes=notes,
    )


@dataclass(frozen=True)
class _Sites:
    """Sides and joints of all rows, and what of them is not known."""

    side_M: Codes
    joint: pa.DictionaryArray
    is_unknown_side_M: npt.NDArray[np.bool_]
    is_unknown_joint_M: npt.NDArray[np.bool_]
    unknown: tuple[tuple[str, str, Counter[str]], ...]
    notes: tuple[str, ...]


def _read_sites(file: RegistryFile, meanings: Meanings, joints: Sequence[str]) -> _Sites:
    """Read both columns; one of which nothing is known is refused, or if it was not named, left."""
    side, joint = _field(file.table, "side"), _field(file.table, "joint")
    sides = read_sides(side, meanings.of("side"))
    if _is_foreign(sides):
        _refuse_site(file, "side", sides, "left, right or both")
    named = read_joints(joint, meanings.of("joint"), joints)
    notes = tuple(f"{file.columns['side']}: {note}." for note in sides.notes)
    if _is_foreign(named) and (file.key == "patient" or file.is_asked("joint")):
        _refuse_site(file, "joint", named, f"a joint such as {', '.join(joints[:3]) or 'hip'}")
    if _is_foreign(named):
        notes += (f"{file.columns['joint']}: it is left out, none of its texts is a joint.",)
        joint = _field(file.table, "")
        named = read_joints(joint)
    unknown: tuple[tuple[str, str, Counter[str]], ...] = (
        ("side", "This is no word for a side that is known.", sides.unknown),
        ("joint", "This is no word for a joint that is known.", named.unknown),
    )
    if file.key == "instance":
        unknown = ()
    return _Sites(
        side_codes(side, sides),
        joint_names(joint, named),
        _is_one_of(side, sides.unknown),
        _is_one_of(joint, named.unknown),
        unknown,
        notes,
    )


def _is_foreign(read: SiteColumn) -> bool:
    return bool(read.unknown) and not any(read.meaning.values())


def _refuse_site(file: RegistryFile, name: str, read: SiteColumn, accepted: str) -> None:
    texts = [text[:40] for text, _ in read.unknown.most_common(5)]
    raise UsageError(
        f"The registry's column {file.columns[name]!r} is read as {name}, and none of its texts is "
        f"known ({', '.join(map(repr, texts))}); name another by --columns {name}=COLUMN, or give "
        f"by --synonyms a CSV with the columns field, text and means and a row such as "
        f"'{name},{texts[0]},...' for each text, where means is {accepted}."
    )


def _is_one_of(column: pa.ChunkedArray, texts: Counter[str]) -> npt.NDArray[np.bool_]:
    if not texts:
        return np.zeros(len(column), bool)
    return np.asarray(pc.is_in(column, pa.array([*texts], pa.string())), bool)


def _parts(table: pa.Table, is_shared_M: npt.NDArray[np.bool_]) -> Parts:
    component = _encoded(_field(table, "component"))
    number_M, day_M = _codes(_field(table, "record")), _codes(_field(table, "year"))
    by_number = is_shared_M.any() or "year" not in table.column_names
    return Parts(
        component_M=places(component),
        components=tuple(component.dictionary.to_pylist()),
        operation_M=number_M if by_number else day_M,
        is_shared_M=is_shared_M,
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
    file: RegistryFile, sites: _Sites
) -> tuple[Codes, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return each record's first reason in the order of checks, its owner, and `is_shared_M`."""
    table = file.table
    excluded_M = np.zeros(table.num_rows, np.int8)

    def exclude(which_M: npt.NDArray[np.bool_], why: Exclusion) -> None:
        excluded_M[which_M & (excluded_M == Exclusion.NONE)] = why

    excluded_M[np.array(file.malformed, np.int64) - 1] = Exclusion.MALFORMED
    exclude(_is_null(table[file.key]), Exclusion.NO_KEY)
    if "issuer" in table.column_names and file.key in ("patient", "accession"):
        exclude(_of_several(table[file.key], table["issuer"]), Exclusion.SEVERAL_ISSUERS)
    if file.key != "instance":
        exclude(sites.is_unknown_side_M, Exclusion.UNKNOWN_SIDE)
        exclude(sites.is_unknown_joint_M, Exclusion.UNKNOWN_JOINT)
    if file.key == "patient":
        is_lacking_M = (sites.side_M == NO_SIDE) | _is_null(sites.joint)
        exclude(is_lacking_M, Exclusion.NO_SIDE_OR_JOINT)
    claims = [_is_null(table[name]) for name in CLAIMS if name in table.column_names]
    exclude(np.logical_and.reduce(claims), Exclusion.NO_IMPLANT)
    owner_M = np.arange(table.num_rows)
    is_shared_M = np.zeros(table.num_rows, bool)
    for rows in _repeated(file, excluded_M):
        _judge(rows, excluded_M, owner_M, is_shared_M)
    return excluded_M, owner_M, is_shared_M


def _of_several(keys: pa.ChunkedArray, issuers: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return whether each key occurs with several issuers."""
    key_M, issuer_M = _codes(keys), _codes(issuers)
    at = np.flatnonzero((key_M >= 0) & (issuer_M >= 0))
    pairs = np.unique(np.stack([key_M[at], issuer_M[at]]), axis=1)
    counts = np.bincount(pairs[0], minlength=int(key_M.max(initial=0)) + 1)
    return np.asarray((key_M >= 0) & (counts[key_M] > 1), bool)


@dataclass(frozen=True)
class _Told:
    """A row's place, its key, what it states of the implant, and all else."""

    row: int
    key: object
    implant: tuple[object, ...]
    others: tuple[object, ...]


def _repeated(file: RegistryFile, excluded_M: Codes) -> Iterable[list[_Told]]:
    """Rows that share number, side and joint, or without numbers a key with all that they say."""
    names = file.table.column_names
    codes_M = _codes(file.table["record" if "record" in names else file.key])
    considered_M = (excluded_M == Exclusion.NONE) & (codes_M >= 0)
    counts = np.bincount(codes_M[considered_M], minlength=codes_M.max(initial=0) + 1)
    rows = np.flatnonzero(considered_M & (counts[codes_M] > 1))
    some = file.table.take(rows)
    of_implant = [name for name in (*CLAIMS, "component") if name in names]
    sites = [name for name in ("side", "joint") if name in names]
    others = [name for name in names if name not in (file.key, *of_implant)]
    groups: dict[object, list[_Told]] = {}
    for row, code, key, site, implant, other in zip(
        rows.tolist(),
        codes_M[rows].tolist(),
        some[file.key].to_pylist(),
        _tuples(some, sites),
        _tuples(some, of_implant),
        _tuples(some, others),
        strict=True,
    ):
        group = (code, site) if "record" in names else (code, implant, other)
        groups.setdefault(group, []).append(_Told(row, key, implant, other))
    return groups.values()


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[object, ...]]:
    if not names:
        return [()] * table.num_rows
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _judge(
    rows: list[_Told],
    excluded_M: Codes,
    owner_M: npt.NDArray[np.int64],
    is_shared_M: npt.NDArray[np.bool_],
) -> None:
    """Keep one of several rows that say the same, and none of those that contradict each other.

    Rows that differ in the implant alone are perhaps components of one operation, and are kept.
    """
    if any(told.others != rows[0].others for told in rows):
        excluded_M[[told.row for told in rows]] = Exclusion.CONFLICTING
        return
    kinds: dict[tuple[object, ...], list[_Told]] = {}
    for told in rows:
        kinds.setdefault(told.implant, []).append(told)
    for same in kinds.values():
        seen: set[object] = set()
        for told in same:
            if seen:
                is_again = told.key in seen
                excluded_M[told.row] = Exclusion.DUPLICATE if is_again else Exclusion.CONTINUED
                owner_M[told.row] = same[0].row
            seen.add(told.key)
            is_shared_M[told.row] = len(kinds) > 1


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
