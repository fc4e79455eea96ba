"""The table `predictions` > arrays, batch by batch, with the columns that the audit needs only.

What is kept of an image is some hundred bytes: ten million of them take about a gigabyte.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import Outcome, UsageError
from jobs.auditing.registry.records import PSEUDONYM
from jobs.auditing.registry.sites import exact_joint, laterality_codes, places
from jobs.tables.schema import PREDICTION_ROW

TOP: Final = 3
"""Candidates in the column `top`."""
OUTCOMES: Final = tuple(Outcome)
NO_KEY: Final = -1
NO_RECORD: Final = -2
_COLUMNS: Final = ("archive", "member_index", "body_part", "laterality", "outcome", "reason")
_MORE: Final = ("joint", "top", "candidates", "content", "study")
_TEXTS: Final = ("archive", "reason", "content", "study", "body_part")


@dataclass(frozen=True)
class Images:
    """All rows of the predictions under one model.

    Attributes:
        key_N: Place of each image's identifier among the registry's; `NO_KEY` or `NO_RECORD`.
        side_N: Side by DICOM's laterality, see `sites`.
        joint_N: Joint by DICOM's body part, an index into `joints`; -1 where it names none.
        said_joint_N: Joint of the best candidate; -1 without one.
        joints: Names of joints.
        outcome_N: Index into `OUTCOMES`.
        top_N3: Indices of the best implants, best first; -1 where there are fewer.
        probability_N3: Their calibrated probabilities, float32; 0 where there are fewer.
        is_candidate_N3: Whether each is in the column `candidates`, the conformal prediction set.
        num_beyond_N: Candidates beyond the best three of each image.
        beyond_B: Their indices, image after image.
        member_index_N: Position in its archive.
        texts: `archive`, `reason`, `content`, `study` and `body_part`; `archive`, `reason` and
            `body_part` as dictionary arrays.
    """

    key_N: npt.NDArray[np.int64]
    side_N: npt.NDArray[np.int8]
    joint_N: npt.NDArray[np.int32]
    said_joint_N: npt.NDArray[np.int32]
    joints: tuple[str, ...]
    outcome_N: npt.NDArray[np.int8]
    top_N3: npt.NDArray[np.int32]
    probability_N3: npt.NDArray[np.float32]
    is_candidate_N3: npt.NDArray[np.bool_]
    num_beyond_N: npt.NDArray[np.int32]
    beyond_B: npt.NDArray[np.int32]
    member_index_N: npt.NDArray[np.int64]
    texts: Mapping[str, pa.ChunkedArray]

    def __len__(self) -> int:
        return len(self.key_N)


def holds_pseudonyms(dataset: Any, model: str, key: str) -> bool:
    """Return whether the identifiers of the predictions are pseudonyms.

    Raises:
        UsageError: They were dropped, or no image has one.
    """
    # Filtered here and not by the dataset: of columns without statistics in Delta's log, pyarrow
    # concludes that a test for null holds for all of a file.
    for batch in dataset.to_batches(columns=[key], filter=pc.field("model") == model):
        keys = pc.drop_null(batch[key])
        if len(keys):
            return bool(pc.all(pc.match_substring_regex(keys, PSEUDONYM)).as_py())
    raise UsageError(
        f"No prediction has an identifier of the kind {key}: classify dropped them, or the images "
        "have none. Classify with --key-file or --identifiers keep, or join by another --key."
    )


def read_images(
    batches: Iterable[pa.RecordBatch], key: str, keys: pa.Array, implants: Mapping[str, int]
) -> Images:
    """Gather the predictions.

    Args:
        batches: With the columns of `columns_of`.
        key: The column that joins.
        keys: The registry's distinct identifiers.
        implants: Index of each implant of the catalogue.
    """
    joints: dict[str, int] = {}
    pieces = [_arrays(batch, key, implants, joints) for batch in batches if batch.num_rows]
    if not pieces:
        pieces = [_arrays(_no_rows(key), key, implants, joints)]
    # Once for all: each call builds a table of all keys, most of the time if done for each batch.
    key_N = _places_of(pa.chunked_array([piece.pop("key") for piece in pieces]), keys)
    joined = {
        name: np.concatenate([piece.pop(name) for piece in pieces])
        for name in list(pieces[0])
        if name not in _TEXTS
    }
    texts = {
        name: pa.chunked_array([piece[name] for piece in pieces]).unify_dictionaries()
        for name in _TEXTS
    }
    return Images(**joined, key_N=key_N, joints=tuple(joints), texts=texts)


def columns_of(key: str) -> list[str]:
    """Return the columns that `read_images` takes."""
    return [*_COLUMNS, *_MORE, *({key} - {*_COLUMNS, *_MORE})]


def _arrays(
    batch: pa.RecordBatch,
    key: str,
    implants: Mapping[str, int],
    joints: dict[str, int],
) -> dict[str, Any]:
    outcomes = {str(outcome): code for code, outcome in enumerate(OUTCOMES)}
    top_N3, probability_N3 = _top(batch["top"], implants)
    is_candidate_N3, num_beyond_N, beyond_B = _candidates(batch["candidates"], top_N3, implants)
    body_part = batch["body_part"].dictionary_encode()
    return {
        "key": batch[key],
        "side_N": laterality_codes(batch["laterality"]),
        "joint_N": _joint_codes(_exact_joints(body_part), joints),
        "said_joint_N": _joint_codes(batch["joint"].dictionary_encode(), joints),
        "outcome_N": _coded(batch["outcome"].dictionary_encode(), outcomes).astype(np.int8),
        "top_N3": top_N3,
        "probability_N3": probability_N3,
        "is_candidate_N3": is_candidate_N3,
        "num_beyond_N": num_beyond_N,
        "beyond_B": beyond_B,
        "member_index_N": np.asarray(batch["member_index"], np.int64),
        "archive": batch["archive"].dictionary_encode(),
        "reason": batch["reason"].dictionary_encode(),
        "content": batch["content"],
        "study": batch["study"],
        "body_part": body_part,
    }


def _exact_joints(body_part: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return the joint of each body part that names one; null for the others."""
    names = [exact_joint(text) for text in body_part.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(body_part.indices).dictionary_encode()


def _places_of(identifiers: pa.ChunkedArray, keys: pa.Array) -> npt.NDArray[np.int64]:
    """Return the place of each identifier among the keys, `NO_KEY` or `NO_RECORD`."""
    found = pc.fill_null(pc.index_in(identifiers, keys), NO_RECORD)
    key_N = np.array(found, np.int64)
    key_N[np.asarray(identifiers.is_null(), bool)] = NO_KEY
    return key_N


def _top(
    top: pa.ListArray, implants: Mapping[str, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return indices and probabilities of the best implants of each image."""
    top_N3 = np.full((len(top), TOP), -1, np.int32)
    probability_N3 = np.zeros((len(top), TOP), np.float32)
    count_N = np.asarray(pc.fill_null(pc.list_value_length(top), 0), np.int64)
    row_E = np.repeat(np.arange(len(top)), count_N)
    place_E = np.arange(len(row_E)) - (np.cumsum(count_N) - count_N)[row_E]
    pairs = top.flatten()
    implant_E = _coded(pairs.field("implant").dictionary_encode(), implants)
    kept_E = place_E < TOP
    row_E, place_E = row_E[kept_E], place_E[kept_E]
    top_N3[row_E, place_E] = implant_E[kept_E]
    probability_N3[row_E, place_E] = np.asarray(pairs.field("probability"), np.float32)[kept_E]
    return top_N3, probability_N3


def _candidates(
    candidates: pa.ListArray, top_N3: npt.NDArray[np.int32], implants: Mapping[str, int]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return which of the best implants are candidates, and the candidates beyond them."""
    count_N = np.asarray(pc.fill_null(pc.list_value_length(candidates), 0), np.int64)
    row_E = np.repeat(np.arange(len(candidates)), count_N)
    implant_E = _coded(candidates.flatten().dictionary_encode(), implants)
    same_E3 = top_N3[row_E] == implant_E[:, None]
    is_candidate_N3 = np.zeros(top_N3.shape, bool)
    entry_S, place_S = np.nonzero(same_E3)
    is_candidate_N3[row_E[entry_S], place_S] = True
    is_beyond_E = ~same_E3.any(axis=1)
    num_beyond_N = np.bincount(row_E[is_beyond_E], minlength=len(candidates))
    return is_candidate_N3, num_beyond_N.astype(np.int32), implant_E[is_beyond_E]


def _coded(encoded: pa.DictionaryArray, codes: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Return a number for each text: its code, -1 for null.

    Raises:
        UsageError: A text that has no code.
    """
    words = encoded.dictionary.to_pylist()
    strange = [word for word in words if word not in codes]
    if strange:
        raise UsageError(
            f"The predictions speak of {str(strange[0])[:80]!r}, which this model's package does "
            "not know; name the package that made them by --model."
        )
    return np.array([*map(codes.__getitem__, words), -1], np.int32)[places(encoded)]


def _joint_codes(encoded: pa.DictionaryArray, joints: dict[str, int]) -> npt.NDArray[np.int32]:
    for name in encoded.dictionary.to_pylist():
        joints.setdefault(name, len(joints))
    return _coded(encoded, joints)


def _no_rows(key: str) -> pa.RecordBatch:
    rows: pa.RecordBatch = pa.RecordBatch.from_pylist([], PREDICTION_ROW)
    return rows.select(columns_of(key))
