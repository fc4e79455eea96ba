"""Rows of one component each (stem, cup, head): which of them the model's catalogue is about.

A registry's library has a row for each component of an operation, and a model names one of them.
The row whose implant the catalogue knows is judged; the others of its operation are left out as
`OTHER_COMPONENT`. Rows are of one operation that share key, side and joint, and their number if
rows of the file share numbers, else their date. Where a column names the component, a row is also
left out if the catalogue knows no implant of such a component, and rows of the same component are
never taken for each other's companions: these are a primary and its revision.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.auditing.registry.claims import Claims
from jobs.auditing.registry.records import Exclusion, Records
from jobs.auditing.registry.sites import places
from jobs.auditing.registry.words import COMPONENTS, kind_of

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
MAX_NAMED_SHARE: Final = 0.05
"""Share of rows of a component that the catalogue may name by mistake."""
MIN_ROWS: Final = 5
"""Rows of a component whose word is not known, from which its share is believed."""


def set_aside(records: Records, claims: Claims) -> Records:
    """Leave out the components that the catalogue is not about, and rows that contradict others.

    Args:
        records: All of the registry's.
        claims: What they claim.
    """
    excluded_M = records.excluded_M.copy()
    in_M = records.is_in_M
    kind_M, is_word_K = _kinds(records)
    operation_M = _operations(records)
    named_M = claims.is_named_M & in_M
    contradicted_M = _is_contradicted(records, claims, operation_M, named_M)
    excluded_M[contradicted_M] = Exclusion.CONFLICTING
    considered_M = in_M & ~contradicted_M | (excluded_M == Exclusion.NO_IMPLANT) & (kind_M >= 0)
    is_other_M = _is_other_kind(records, kind_M, is_word_K, named_M, considered_M)
    is_other_M |= _is_companion(operation_M, kind_M, named_M & ~contradicted_M)
    excluded_M[considered_M & ~named_M & is_other_M] = Exclusion.OTHER_COMPONENT
    follows_M = records.excluded_M == Exclusion.CONTINUED
    for why in (Exclusion.OTHER_COMPONENT, Exclusion.CONFLICTING):
        excluded_M[follows_M & (excluded_M[records.owner_M] == why)] = why
    return replace(records, excluded_M=excluded_M)


def _kinds(records: Records) -> tuple[Places, Flags]:
    """Return the code of each record's kind of component, -1 without; and which are known words.

    Where no column names it, a word in the product's name does (`Trident cup`).
    """
    kinds: dict[str, int] = {}
    parts = records.parts
    of_text = [kinds.setdefault(kind_of(text), len(kinds)) for text in parts.components]
    kind_M = np.array([*of_text, -1], np.int64)[parts.component_M]
    for name in ("product", "implant"):
        if name in records.texts:
            named = [kind_of(text) for text in records.texts[name].dictionary.to_pylist()]
            codes = [kinds.setdefault(k, len(kinds)) if k in COMPONENTS else -1 for k in named]
            by_name_M = np.array([*codes, -1], np.int64)[places(records.texts[name])]
            kind_M = np.where(kind_M < 0, by_name_M, kind_M)
    return kind_M, np.array([kind in COMPONENTS for kind in kinds], bool)


def _operations(records: Records) -> Places:
    """Return a code of each record's operation; -1 without a key.

    It is the number of rows that share one, else key, side, joint and date together.
    """
    key_M = places(records.key.combine_chunks().dictionary_encode())
    code_M = np.zeros(len(records), np.int64)
    for part_M in (key_M, records.side_M, places(records.joint), records.parts.operation_M):
        _, part_M = np.unique(part_M, return_inverse=True)
        code_M = code_M * (int(part_M.max(initial=0)) + 1) + part_M
        _, code_M = np.unique(code_M, return_inverse=True)
    number_M = int(code_M.max(initial=0)) + 1 + records.parts.operation_M
    code_M = np.where(records.parts.is_shared_M, number_M, code_M)
    return np.where(key_M >= 0, code_M, -1)


def _is_contradicted(
    records: Records, claims: Claims, operation_M: Places, named_M: Flags
) -> Flags:
    """Return which rows of one number name different implants of the catalogue."""
    at = named_M & records.parts.is_shared_M & (operation_M >= 0)
    count = int(operation_M.max(initial=0)) + 1
    least_O, most_O = np.full(count, np.iinfo(np.int32).max), np.full(count, -1)
    np.minimum.at(least_O, operation_M[at], claims.claim_M[at])
    np.maximum.at(most_O, operation_M[at], claims.claim_M[at])
    return np.asarray(at & (least_O < most_O)[operation_M], bool)


def _is_other_kind(
    records: Records, kind_M: Places, is_word_K: Flags, named_M: Flags, considered_M: Flags
) -> Flags:
    """Return which rows are of a component of which the catalogue knows no implant of the joint."""
    if not len(is_word_K):
        return np.zeros(len(kind_M), bool)
    joint_M = places(records.joint) + 1
    count, joints = len(is_word_K) + 1, int(joint_M.max(initial=0)) + 1
    code_M = joint_M * count + kind_M + 1
    at = considered_M
    total_JK = np.bincount(code_M[at], minlength=joints * count).reshape(joints, count)
    named_JK = np.bincount(code_M[at & named_M], minlength=joints * count).reshape(joints, count)
    share_JK = named_JK / np.maximum(total_JK, 1)
    best_J = share_JK.max(axis=1, initial=0)
    is_other_JK = (share_JK <= MAX_NAMED_SHARE) & (share_JK < best_J[:, None] / 10)
    is_other_JK[:, 1:] &= is_word_K[None] | (total_JK[:, 1:] >= MIN_ROWS)
    is_other_JK[:, 0] = False  # rows without a component are never known to be another
    return np.asarray(at & is_other_JK[joint_M, kind_M + 1], bool)


def _is_companion(operation_M: Places, kind_M: Places, named_M: Flags) -> Flags:
    """Return which rows have another of their operation that is named, none of the same kind."""
    at = np.flatnonzero(named_M & (operation_M >= 0))
    count = int(operation_M.max(initial=0)) + 1
    has_named_O = np.zeros(count, bool)
    has_named_O[operation_M[at]] = True
    width = int(kind_M.max(initial=-1)) + 2
    same = np.unique(operation_M[at] * width + kind_M[at] + 1)
    is_same_M = (kind_M >= 0) & np.isin(operation_M * width + kind_M + 1, same)
    return np.asarray((operation_M >= 0) & has_named_O[operation_M] & ~is_same_M, bool)
