"""Which image speaks of which record, and why an image speaks of none."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import Outcome
from jobs.auditing.images import NO_KEY, OUTCOMES, Images
from jobs.auditing.registry.causes import Miss
from jobs.auditing.registry.records import Exclusion, Records
from jobs.auditing.registry.sites import may_show, places
from jobs.auditing.registry.words import BOTH, LEFT, NO_SIDE, RIGHT

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
READABLE: Final = (Outcome.IDENTIFIED, Outcome.AMBIGUOUS, Outcome.UNKNOWN)


class Use(IntEnum):
    """What became of an image in the audit."""

    USED = 0
    NO_PICTURE = 1
    NO_KEY = 2
    NO_RECORD = 3
    OTHER_SITE = 4
    LOOKS_UNKNOWN = 5
    NOT_IN_CATALOGUE = 6
    SAME_PICTURE = 7
    SEVERAL_RECORDS = 8


USES: Final = {
    Use.USED: "It spoke for or against a record.",
    Use.NO_PICTURE: "It was rejected or ignored: no picture that the model may see.",
    Use.NO_KEY: "It has no identifier of the kind that records are joined by.",
    Use.NO_RECORD: "No audited record has its identifier.",
    Use.OTHER_SITE: "It shows another side or joint than the record, or does not say which.",
    Use.LOOKS_UNKNOWN: "It looks like none of the model's implants.",
    Use.NOT_IN_CATALOGUE: "Its record's implant is not in the catalogue.",
    Use.SAME_PICTURE: "The record has the very same picture once more.",
    Use.SEVERAL_RECORDS: "Its joint has several records, of different implants.",
}


@dataclass(frozen=True)
class Joined:
    """Images beside records.

    Attributes:
        record_P: Place of the record of each pair, ascending.
        image_P: Place of its image; of one record in their order.
        votes_P: Whether the image speaks for or against the record.
        use_N: `Use` of each image.
    """

    record_P: Places
    image_P: Places
    votes_P: Flags
    use_N: npt.NDArray[np.int8]


def is_seen(images: Images, image_P: Places) -> Flags:
    """Return whether the model has seen the image of each pair."""
    return np.isin(images.outcome_N[image_P], [OUTCOMES.index(o) for o in READABLE])


def distinct_keys(records: Records) -> pa.Array:
    """The identifiers of audited records, each once; `read_images` looks images up in them."""
    known = records.is_in_M | (records.excluded_M == Exclusion.CONTINUED)
    return pc.drop_null(pc.unique(records.key.filter(pa.array(known))))


@dataclass(frozen=True)
class Pairs:
    """Records and images that share an identifier and a site, each pair once.

    Attributes:
        record_P: Place of the record, ascending.
        image_P: Place of the image; of one record in their order.
        miss_M: `Miss` of each record.
    """

    record_P: Places
    image_P: Places
    miss_M: npt.NDArray[np.int8]


def pair(records: Records, images: Images, keys: pa.Array, kind: str) -> Pairs:
    """Find the images of each record.

    Args:
        records: All of the registry's.
        images: All images, their keys looked up in `keys`.
        keys: What `distinct_keys` gave.
        kind: The identifier that joins.
    """
    key_M = np.asarray(pc.fill_null(pc.index_in(records.key, keys), -1), np.int64)
    key_M[~(records.is_in_M | (records.excluded_M == Exclusion.CONTINUED))] = -1
    record_P, image_P = _same_key(key_M, images.key_N)
    miss_P = np.zeros(len(record_P), np.int8)
    if kind != "instance":
        miss_P = _misses(records, images, record_P, image_P, key_M, kind == "patient")
    record_P = records.owner_M[record_P]
    miss_M = _miss_of(len(records), record_P, miss_P)
    miss_M[~records.is_in_M] = Miss.NONE
    record_P, image_P = record_P[miss_P == Miss.NONE], image_P[miss_P == Miss.NONE]
    order = np.lexsort((image_P, record_P))
    record_P, image_P = record_P[order], image_P[order]
    is_repeated = (np.diff(record_P, prepend=-1) == 0) & (np.diff(image_P, prepend=-1) == 0)
    return Pairs(record_P[~is_repeated], image_P[~is_repeated], miss_M)


def _miss_of(count: int, record_P: Places, miss_P: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Return why each record has no image: the commonest reason of those with its identifier."""
    code_P = record_P * len(Miss) + miss_P
    counts_MR = np.bincount(code_P, minlength=count * len(Miss)).reshape(count, len(Miss))
    has_M, any_M = counts_MR[:, Miss.NONE] > 0, counts_MR.any(axis=1)
    counts_MR[:, Miss.NO_SITE_SAID] *= 1 - counts_MR[:, Miss.OTHER_SIDE : Miss.NO_SITE_SAID].any(1)
    reason_M = counts_MR.argmax(axis=1)
    return np.where(has_M, Miss.NONE, np.where(any_M, reason_M, Miss.NO_IDENTIFIER)).astype(np.int8)


def exclude_several(records: Records, pairs: Pairs, claim_M: npt.NDArray[np.int32]) -> Records:
    """Leave out records that share an image and claim different implants.

    A primary and its revision are one joint with two right records; against the same images at
    least one of them would look wrong.

    Args:
        records: All of the registry's.
        pairs: Their images.
        claim_M: Index of each record's claim.
    """
    claim_P = claim_M[pairs.record_P]
    num_images = int(pairs.image_P.max(initial=-1)) + 1
    least_N, most_N = np.full(num_images, np.iinfo(np.int32).max), np.full(num_images, -1)
    np.minimum.at(least_N, pairs.image_P, claim_P)
    np.maximum.at(most_N, pairs.image_P, claim_P)
    excluded_M = records.excluded_M.copy()
    excluded_M[pairs.record_P[(least_N < most_N)[pairs.image_P]]] = Exclusion.SEVERAL_RECORDS
    return replace(records, excluded_M=excluded_M)


def join(records: Records, images: Images, pairs: Pairs, known_M: Flags) -> Joined:
    """State which pairs vote; those of records that are left out do not.

    Args:
        records: All of the registry's.
        images: All images.
        pairs: Which are of which record.
        known_M: Whether the catalogue has the implant that the record claims.
    """
    record_P, image_P = pairs.record_P, pairs.image_P
    in_P = records.is_in_M[record_P]
    said_P = np.isin(images.outcome_N[image_P], [OUTCOMES.index(o) for o in READABLE[:2]])
    same_P = _same_picture(images, record_P, image_P, said_P)
    votes_P = said_P & ~same_P & known_M[record_P] & in_P
    use_N = _uses(images, record_P, image_P, votes_P, known_M)
    several_N = np.zeros(len(images), bool)
    several_N[image_P[~in_P]] = True
    several_N[image_P[in_P]] = False
    use_N[several_N & (use_N != Use.NO_PICTURE)] = Use.SEVERAL_RECORDS
    return Joined(record_P, image_P, votes_P, use_N)


def _same_key(key_M: Places, key_N: Places) -> tuple[Places, Places]:
    """Return all pairs of a record and an image that share a key."""
    rows = np.flatnonzero(key_M >= 0)
    rows = rows[np.argsort(key_M[rows], kind="stable")]
    sorted_keys = key_M[rows]
    at_N = np.flatnonzero(key_N >= 0)
    first = np.searchsorted(sorted_keys, key_N[at_N], "left")
    count = np.searchsorted(sorted_keys, key_N[at_N], "right") - first
    image_P = np.repeat(at_N, count)
    within = np.arange(len(image_P)) - np.repeat(np.cumsum(count) - count, count)
    return rows[np.repeat(first, count) + within], image_P


def _misses(
    records: Records,
    images: Images,
    record_P: Places,
    image_P: Places,
    key_M: Places,
    always_strict: bool,
) -> npt.NDArray[np.int8]:
    """Return `Miss` of each pair, 0 where side and joint fit.

    Where one identifier means several sides or joints, an image must say which it shows, and
    the joint of its best candidate replaces a body part that is missing or holds several joints.
    Otherwise what is not said is no obstacle, and neither is a body part that borders on the joint.
    """
    side_M, joint_M = records.side_M, _joints(records, images)
    num_keys = int(key_M.max(initial=-1)) + 1
    sides = np.zeros((num_keys, 4), bool)
    at = np.flatnonzero(key_M >= 0)
    sides[key_M[at], side_M[at]] = True
    joints = np.unique(key_M[at] * (len(images.joints) + 2) + joint_M[at] + 2)
    several_joints = np.bincount(joints // (len(images.joints) + 2), minlength=num_keys) > 1
    key_P = key_M[record_P]
    record_side, image_side = side_M[record_P], images.side_N[image_P]
    strict = always_strict | (sides[key_P, LEFT] & sides[key_P, RIGHT])
    open_side = (record_side == NO_SIDE) | (image_side == NO_SIDE)
    open_side |= (record_side == BOTH) | (image_side == BOTH)
    side_fits = (record_side == image_side) & (record_side != NO_SIDE) | ~strict & open_side
    record_joint, image_joint = joint_M[record_P], images.joint_N[image_P]
    strict = always_strict | several_joints[key_P]
    said = np.where(image_joint < 0, images.said_joint_N[image_P], image_joint)
    is_shown = _may_show(records, images, record_P, image_P)
    is_said = (record_joint == said) & (record_joint != -1)
    joint_fits = is_shown & (is_said | ~strict)
    miss_P = np.where(image_side == NO_SIDE, Miss.NO_SITE_SAID, Miss.OTHER_SIDE)
    miss_P = np.where(side_fits, Miss.NONE, miss_P)
    return np.where(joint_fits, miss_P, Miss.OTHER_JOINT).astype(np.int8)


def _may_show(records: Records, images: Images, record_P: Places, image_P: Places) -> Flags:
    """Return whether the body part of each pair's image may show its record's joint."""
    parts = images.texts["body_part"].combine_chunks()
    joints = records.joint.dictionary.to_pylist()
    table = np.ones((len(parts.dictionary) + 1, len(joints) + 1), bool)
    for row, part in enumerate(parts.dictionary.to_pylist()):
        table[row, :-1] = [may_show(part, joint) for joint in joints]
    return np.asarray(table[places(parts)[image_P], places(records.joint)[record_P]], bool)


def _joints(records: Records, images: Images) -> npt.NDArray[np.int64]:
    """Each record's joint by the images' numbers; -1 if it has none, -2 if no image has it."""
    codes = {name: code for code, name in enumerate(images.joints)}
    names = records.joint.dictionary.to_pylist()
    return np.array([*(codes.get(name, -2) for name in names), -1], np.int64)[places(records.joint)]


def _same_picture(images: Images, record_P: Places, image_P: Places, said_P: Flags) -> Flags:
    """Return whether the record has the same picture in a pair before this one."""
    same_P = np.zeros(len(record_P), bool)
    several = np.bincount(record_P[said_P]) if said_P.any() else np.zeros(1, np.int64)
    at = np.flatnonzero(said_P)
    at = at[several[record_P[at]] > 1]
    content = images.texts["content"].take(pa.array(image_P[at])).combine_chunks()
    codes = places(content.dictionary_encode())
    order = np.lexsort((codes, record_P[at]))
    again = (np.diff(record_P[at][order], prepend=-1) == 0) & (
        np.diff(codes[order], prepend=-2) == 0
    )
    same_P[at[order]] = again & (codes[order] >= 0)
    return same_P


def _uses(
    images: Images, record_P: Places, image_P: Places, votes_P: Flags, known_M: Flags
) -> npt.NDArray[np.int8]:
    """Return the first that holds, in the order of checks."""
    use_N = np.full(len(images), Use.OTHER_SITE, np.int8)
    use_N[image_P] = Use.SAME_PICTURE
    known_N = np.zeros(len(images), bool)
    known_N[image_P[known_M[record_P]]] = True
    paired_N = use_N == Use.SAME_PICTURE
    use_N[paired_N & ~known_N] = Use.NOT_IN_CATALOGUE
    unknown = images.outcome_N == OUTCOMES.index(Outcome.UNKNOWN)
    use_N[paired_N & known_N & unknown] = Use.LOOKS_UNKNOWN
    use_N[image_P[votes_P]] = Use.USED
    use_N[images.key_N < 0] = Use.NO_RECORD
    use_N[images.key_N == NO_KEY] = Use.NO_KEY
    use_N[~np.isin(images.outcome_N, [OUTCOMES.index(o) for o in READABLE])] = Use.NO_PICTURE
    return use_N
