"""Sides and joints as registries and DICOM write them."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.package.catalogue import folded

NO_SIDE, LEFT, RIGHT, BOTH = range(4)
"""Codes of sides; 0 where it is not known."""
SIDES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("l", "left", "lt", "links", "li", "gauche", "sinister"), LEFT),
    **dict.fromkeys(("r", "right", "rt", "rechts", "re", "droite", "droit", "dexter"), RIGHT),
    **dict.fromkeys(("b", "both", "bilateral", "beidseitig"), BOTH),
}
JOINTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("hip", "tha", "thr", "thp", "pelvis", "hüfte", "hanche"), "hip"),
    **dict.fromkeys(
        ("knee", "tka", "tkr", "tkp", "uka", "ukr", "patella", "knie", "genou"), "knee"
    ),
    **dict.fromkeys(("shoulder", "tsa", "tsr", "rsa", "schulter", "épaule"), "shoulder"),
    **dict.fromkeys(("ankle", "taa", "tar"), "ankle"),
    **dict.fromkeys(("elbow", "tea", "ter"), "elbow"),
    "wrist": "wrist",
}
"""Other words stand for themselves."""
VAGUE: Final = frozenset((
    "LEG", "LOWERLEG", "LOWERLIMB", "LOWEREXTREMITY", "ARM", "UPPERARM", "UPRARM", "UPPERLIMB",
    "UPPEREXTREMITY", "EXTREMITY", "FEMUR", "TIBIA", "HUMERUS", "WHOLEBODY", "ENTIREBODY",
    "PHANTOM",
))  # fmt: skip
"""Body parts that do not say which joint is seen."""


def side_codes(column: pa.ChunkedArray) -> npt.NDArray[np.int8]:
    """Return the side of each text; `NO_SIDE` for null and for words that are not known."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = [SIDES.get(folded(text), NO_SIDE) for text in encoded.dictionary.to_pylist()]
    table = np.array([*codes, NO_SIDE], np.int8)
    return table[places(encoded)]


def joint_names(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return the joint of each text of a registry; null stays null."""
    return _mapped(column, lambda text: JOINTS.get(folded(text), folded(text)))


def body_part_joints(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """Return the joint of each DICOM body part; null where it does not say which."""
    return _mapped(
        column, lambda text: None if text in VAGUE else JOINTS.get(folded(text), folded(text))
    )


def _mapped(
    column: pa.ChunkedArray | pa.Array, name_of: Callable[[str], str | None]
) -> pa.DictionaryArray:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = flat.dictionary_encode()
    names = [name_of(text) for text in encoded.dictionary.to_pylist()]
    distinct = sorted({name for name in names if name is not None})
    indices = pa.array([None if n is None else distinct.index(n) for n in names], pa.int32())
    return pa.DictionaryArray.from_arrays(
        indices.take(encoded.indices), pa.array(distinct, pa.string())
    )


def places(encoded: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """Place in the dictionary, -1 for null."""
    filled = pc.fill_null(encoded.indices, -1)
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.int64)
