"""Predictions into the rows that wait for one, column by column: a GPU outruns a loop over rows.

Letters: N predictions, C classes (implants), K candidates of all images together.
"""

from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.package.load import ModelPackage
from implant_model.predictions import TOP, Predictions
from jobs.tables.schema import PREDICTION_ROW


def fill_rows(rows: pa.Table, predictions: Predictions, package: ModelPackage) -> pa.Table:
    """Write predictions into the rows that wait for one.

    Args:
        rows: Schema `PREDICTION_ROW`; N of them have no `outcome`.
        predictions: N predictions, in the order of those rows.
        package: Names the implants.

    Returns:
        The rows, each with an outcome.

    Raises:
        ValueError: There is not one prediction for each waiting row.
    """
    waiting = rows["outcome"].is_null().to_numpy()
    if waiting.sum() != len(predictions.outcomes):
        raise ValueError(
            f"{len(predictions.outcomes)} predictions do not fit {waiting.sum()} waiting rows."
        )
    # Row i of the table takes the prediction of this number, or keeps what it has.
    number = pa.array(np.cumsum(waiting) - 1, mask=~waiting)
    for name, values_N in _columns(predictions, package).items():
        place = rows.schema.get_field_index(name)
        filled = values_N.take(number)
        if not waiting.all():
            filled = pc.if_else(pa.array(waiting), filled, rows[name].combine_chunks())
        rows = rows.set_column(place, rows.schema.field(place), filled)
    return rows


def _columns(predictions: Predictions, package: ModelPackage) -> dict[str, pa.Array]:
    """Return the columns of N predictions, in the types of `PREDICTION_ROW`."""
    implants = package.catalogue.implants
    best_first = np.argsort(-predictions.probabilities_NC, axis=1, kind="stable")[:, :TOP]
    probabilities = np.take_along_axis(predictions.probabilities_NC, best_first, axis=1)
    names_C = pa.array([implant.name for implant in implants], pa.string())
    best_N = pa.array(best_first[:, 0])
    columns = {
        "outcome": pa.array([str(outcome) for outcome in predictions.outcomes], pa.string()),
        "implant": names_C.take(best_N),
        "probability": pa.array(probabilities[:, 0]),
        "candidates": _candidates(predictions.candidates, names_C),
        "top": _lists(
            np.full(len(best_first), best_first.shape[1]),
            pa.StructArray.from_arrays(
                [names_C.take(pa.array(best_first.ravel())), pa.array(probabilities.ravel())],
                fields=list(PREDICTION_ROW.field("top").type.value_type),
            ),
        ),
        "novelty": pa.array(predictions.novelty_N),
    }
    for name in ("manufacturer", "product", "joint"):
        values_C = pa.array([getattr(implant, name) for implant in implants], pa.string())
        columns[name] = values_C.take(best_N)
    return columns


def _candidates(candidates: list[list[int]], names_C: pa.Array) -> pa.ListArray:
    places_K = np.fromiter(chain.from_iterable(candidates), np.int64)
    sizes_N = np.fromiter(map(len, candidates), np.int64, len(candidates))
    return _lists(sizes_N, names_C.take(pa.array(places_K)))


def _lists(sizes_N: np.ndarray, values: pa.Array) -> pa.ListArray:
    """List of so many of the values each, one after the other."""
    offsets = np.concatenate(([0], np.cumsum(sizes_N)))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
