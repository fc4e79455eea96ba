"""Sides and joints of a registry's columns, and the region that an image is said to show.

Words have the meanings of `words.py`, unless the user gave another. Single letters are decided by
the whole column: `D` is right where the column also has `I` (derecha, izquierda), and means nothing
where it stands alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.package.catalogue import folded
from jobs.auditing.registry.words import (
    BOTH,
    LEFT,
    MISSING,
    NO_SIDE,
    PAIRS,
    RIGHT,
    SIDES,
    bare,
    joint_of,
    side_of,
)

_LATERALITIES: Final[Mapping[str, int]] = {"L": LEFT, "R": RIGHT, "B": BOTH}
_LEG: Final = "LEG EXTREMITY LOWEREXTREMITY LOWERLIMB PELVISLOWEXTREMT WHOLEBODY ENTIREBODY PHANTOM"
_ARM: Final = "ARM EXTREMITY UPPEREXTREMITY UPPERLIMB WHOLEBODY ENTIREBODY PHANTOM"
_REGIONS: Final[Mapping[str, str]] = {
    "hip": f"""
        {_LEG} HIP PELVIS GROIN BUTTOCK ILIUM ILIACA SIJOINT COCCYX SSPINE LSSPINE BLADDER ABDOMEN
        ABDOMENPELVIS CHESTABDPELVIS NECKCHESTABDPELV THIGH FEMUR FEMORALA
    """,
    "knee": f"""
        {_LEG} KNEE PATELLA THIGH FEMUR FEMORALA LOWERLEG CALF TIBIA TIBIAFIBULA ANTTIBIALA
    """,
    "ankle": f"""
        {_LEG} ANKLE FOOT CALCANEUS TARSUS LOWERLEG CALF TIBIA TIBIAFIBULA ANTTIBIALA
    """,
    "toe": "EXTREMITY LOWEREXTREMITY LOWERLIMB TOE FOOT METATARSUS WHOLEBODY ENTIREBODY PHANTOM",
    "shoulder": f"""
        {_ARM} SHOULDER CLAVICLE SCAPULA AXILLA AXILLARYA BRACHIALA HUMERUS UPRARM UPPERARM CHEST
        THORAX CHESTABDOMEN CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV RIB
    """,
    "elbow": f"{_ARM} ELBOW HUMERUS UPRARM UPPERARM BRACHIALA FOREARM RADIUS ULNA RADIUSULNA",
    "wrist": f"{_ARM} WRIST FOREARM RADIUS ULNA RADIUSULNA HAND METACARPUS",
    "finger": f"{_ARM} FINGER THUMB HAND METACARPUS",
    "spine": """
        SPINE CSPINE CTSPINE TSPINE TLSPINE LSPINE LSSPINE SSPINE SIJOINT COCCYX NECK BACK BODYBACK
        ABDOMEN ABDOMENPELVIS CHEST THORAX CHESTABDOMEN CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN
        NECKCHESTABDPELV PELVIS WHOLEBODY ENTIREBODY PHANTOM
    """,
    "jaw": "JAW TMJ MANDIBLE MAXILLA FACE HEAD HEADNECK SKULL NECK WHOLEBODY ENTIREBODY PHANTOM",
}
"""Body parts (PS3.16 Annex L) that hold the joint or border on it."""
_SHOWN_BY: Final = {joint: frozenset(parts.split()) for joint, parts in _REGIONS.items()}
_EXACT: Final = {"HIP": "hip", "PELVIS": "hip", "PATELLA": "knee", "THUMB": "finger", "TMJ": "jaw"}


@dataclass(frozen=True)
class SiteColumn:
    """What the texts of a column of sides or of joints mean.

    Attributes:
        meaning: Of each text that is known; None or `NO_SIDE` for one that states that nothing is.
        unknown: How many rows have each text that is not known.
        notes: Sentences on what was decided by the column as a whole.
    """

    meaning: Mapping[str, int | str | None]
    unknown: Counter[str]
    notes: tuple[str, ...] = ()


def read_sides(column: pa.ChunkedArray, meanings: Mapping[str, str] | None = None) -> SiteColumn:
    """Find what each text of a column of sides means.

    Args:
        column: Text.
        meanings: Texts and the words that the user gave for them.
    """
    counts = _counts(column)
    given = {
        bare(text): side_of_word(means)
        for text, means in (meanings or {}).items()
        if side_of_word(means) != NO_SIDE or bare(means) in MISSING
    }
    letters = {bare(text) for text in counts if len(bare(text)) == 1} - given.keys() - MISSING
    decided, notes = _letters(letters, {bare(text) for text in counts})
    meaning: dict[str, int | str | None] = {}
    for text in counts:
        said = bare(text)
        side = given.get(said, decided.get(said, side_of(text)))
        if side != NO_SIDE or said in MISSING or said in given:
            meaning[text] = side
    return SiteColumn(meaning, _left_over(counts, meaning), notes)


def read_joints(
    column: pa.ChunkedArray,
    meanings: Mapping[str, str] | None = None,
    catalogue: Sequence[str] = (),
) -> SiteColumn:
    """Find which joint each text of a column means.

    Args:
        column: Text.
        meanings: Texts and the words that the user gave for them.
        catalogue: Joints as the model's catalogue names them; these are known, too.
    """
    counts = _counts(column)
    own = {bare(joint): joint for joint in catalogue}
    given = {bare(text): means for text, means in (meanings or {}).items()}
    meaning: dict[str, int | str | None] = {}
    for text in counts:
        said = given.get(bare(text), text)
        joint = own.get(bare(said)) or joint_of(said)
        if joint is not None or bare(said) in MISSING:
            meaning[text] = joint
    return SiteColumn(meaning, _left_over(counts, meaning))


def side_of_word(text: str) -> int:
    """Return the side that a user's word means, single letters of English among them."""
    return {"l": LEFT, "r": RIGHT, "b": BOTH}.get(bare(text)) or side_of(text)


def side_codes(column: pa.ChunkedArray, read: SiteColumn) -> npt.NDArray[np.int8]:
    """Return the side of each row; `NO_SIDE` where nothing states it."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = [read.meaning.get(text, NO_SIDE) for text in encoded.dictionary.to_pylist()]
    return np.array([*codes, NO_SIDE], np.int8)[places(encoded)]


def joint_names(column: pa.ChunkedArray, read: SiteColumn) -> pa.DictionaryArray:
    """Return the joint of each row; null where nothing states it."""
    encoded = column.combine_chunks().dictionary_encode()
    names = [read.meaning.get(text) for text in encoded.dictionary.to_pylist()]
    distinct = sorted({str(name) for name in names if name is not None})
    indices = pa.array([None if n is None else distinct.index(str(n)) for n in names], pa.int32())
    return pa.DictionaryArray.from_arrays(
        indices.take(encoded.indices), pa.array(distinct, pa.string())
    )


def laterality_codes(column: pa.Array) -> npt.NDArray[np.int8]:
    """Return the side of each DICOM laterality (`L`, `R`, `B`); `NO_SIDE` for any other."""
    encoded = column.dictionary_encode()
    codes = [_LATERALITIES.get(text, NO_SIDE) for text in encoded.dictionary.to_pylist()]
    return np.array([*codes, NO_SIDE], np.int8)[places(encoded)]


def exact_joint(body_part: str) -> str | None:
    """Return the joint that a body part names; None where it is no joint or holds several."""
    return _EXACT.get(body_part) or (body_part.lower() if body_part.lower() in _REGIONS else None)


def may_show(body_part: str, joint: str) -> bool:
    """Return whether an image of a body part may show a joint: one that it holds or borders on."""
    exact = exact_joint(body_part)
    if exact is not None:
        return exact == joint
    if joint in _SHOWN_BY:
        return body_part in _SHOWN_BY[joint]
    return folded(body_part) == folded(joint)


def places(encoded: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """Place in the dictionary, -1 for null."""
    filled = pc.fill_null(encoded.indices, -1)
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.int64)


def _letters(letters: set[str], texts: set[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Decide single letters by the letters and words beside them, and say so where it is no L, R.

    A letter is left alone where the column's languages do not agree on it.
    """
    beside = {(word[0], SIDES[word]) for word in texts if word in SIDES and len(word) > 1}
    pairs = [
        (left, right, words)
        for left, right, words in PAIRS
        if {left, right} <= letters
        or (left in letters and (right, RIGHT) in beside and left + right in _BESIDE_WORDS)
        or (right in letters and (left, LEFT) in beside and left + right in _BESIDE_WORDS)
    ]
    if any(pair[:2] == ("l", "r") for pair in pairs) or letters <= {"l", "r", "b"}:
        pairs = [PAIRS[0]]
    sides: dict[str, set[int]] = {}
    for left, right, _ in pairs:
        sides.setdefault(left, set()).add(LEFT)
        sides.setdefault(right, set()).add(RIGHT)
    if any(len(found) > 1 for found in sides.values()):
        return {}, ()
    decided = {letter: found.pop() for letter, found in sides.items() if letter in letters}
    decided["r"] = RIGHT
    if "l" in letters and "k" not in letters:
        decided.setdefault("l", LEFT)
    if "b" in letters and "b" not in decided and {LEFT, RIGHT} <= _sides_of(decided, texts):
        decided["b"] = BOTH
    notes = [
        f"{left.upper()} and {right.upper()} are read as left and right ({words})"
        for left, right, words in pairs
        if (left, right) != ("l", "r") and {left, right} & letters
    ]
    return decided, tuple(notes)


_BESIDE_WORDS: Final = frozenset(("lr", "id", "sd", "gd", "ed", "vh", "vo"))
"""Pairs of which one may be a letter and the other a word."""


def _sides_of(decided: Mapping[str, int], texts: set[str]) -> set[int]:
    return {*decided.values(), *(SIDES[text] for text in texts if text in SIDES)}


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    listed = pc.value_counts(column.drop_null().combine_chunks()).to_pylist()
    return Counter({str(item["values"]): int(item["counts"]) for item in listed})


def _left_over(counts: Counter[str], meaning: Mapping[str, object]) -> Counter[str]:
    return Counter({text: count for text, count in counts.items() if text not in meaning})
