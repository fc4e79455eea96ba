"""Registries and predictions whose truth is known, drawn from a simulated classifier; no Ray.

The classifier gives Gaussian scores around the truth, so that its probabilities are exactly those
of the implants given the image: what the audit makes of them can be checked.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from implant_model import storage
from implant_model.package.catalogue import ORTHONET
from jobs.tables import delta
from jobs.tables.file_statistics import statistics_of
from jobs.tables.schema import ARCHIVE_ROW, ARCHIVES, PREDICTION_ROW, PREDICTIONS, with_model

MODEL = "simulated@0123456789ab"
IMPLANTS = ORTHONET.implants
"""Twelve implants of four makers; no package of the model exists."""


def probabilities(
    truth_N: npt.NDArray[np.int64], rng: np.random.Generator, strength: float = 4.5
) -> npt.NDArray[np.float64]:
    """Exact posteriors of a flat prior, N x 12, for images of these implants.

    A score is drawn of each implant, normal around `strength` for the true one and 0 for the
    others; the log of its likelihood ratio is `strength` times the score, less a constant.
    """
    scores_NK = rng.normal(size=(len(truth_N), len(IMPLANTS)))
    scores_NK[np.arange(len(truth_N)), truth_N] += strength
    powers_NK = np.exp(strength * (scores_NK - scores_NK.max(axis=1, keepdims=True)))
    return np.asarray(powers_NK / powers_NK.sum(axis=1, keepdims=True), np.float64)


def prediction(
    probability_K: Sequence[float] | npt.NDArray[np.float64], **more: Any
) -> dict[str, Any]:
    """A row of the table `predictions` as the classifier writes it, with a quantile of 0.5."""
    probability_K = np.asarray(probability_K, np.float64)
    order = np.argsort(-probability_K, kind="stable")[:3].tolist()
    best = IMPLANTS[order[0]]
    is_left = probability_K[order[0]] >= 0.5
    return {
        "outcome": "identified" if is_left else "unknown",
        "implant": best.name,
        "manufacturer": best.manufacturer,
        "product": best.product,
        "joint": best.joint,
        "probability": probability_K[order[0]],
        "candidates": [best.name] if is_left else [],
        "top": [{"implant": IMPLANTS[k].name, "probability": probability_K[k]} for k in order],
        "novelty": 1.0,
        **more,
    }


def sure(implant: str, probability: float = 0.99, **more: Any) -> dict[str, Any]:
    """A row that is so sure of an implant."""
    rest = (1 - probability) / (len(IMPLANTS) - 1)
    names = ORTHONET.names
    return prediction([probability if name == implant else rest for name in names], **more)


def write_output(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    model: str = MODEL,
    key_id: str | None = None,
) -> str:
    """Publishes predictions as one archive; returns the URI of the output."""
    output = storage.normalise(str(folder))
    places = {"archive": "01.tar", "archive_version": "v1", "frame": 0}
    table = pa.Table.from_pylist(
        [{**places, "member_index": i, **row} for i, row in enumerate(rows)], PREDICTION_ROW
    )
    write_tables(output, [table], model)
    if key_id is not None:
        archives = storage.join(output, ARCHIVES)
        delta.commit(archives, lambda t: delta.write_rows(t, archive_row(model, key_id)))
    return output


def archive_row(model: str, key_id: str) -> pa.Table:
    """The row of the archive of `write_output`, under a key."""
    now = datetime(2026, 1, 31, tzinfo=UTC)
    numbers = [field.name for field in ARCHIVE_ROW if pa.types.is_integer(field.type)]
    row: dict[str, Any] = dict.fromkeys(numbers, 0)
    row |= {"archive": "01.tar", "archive_version": "v1", "source": "file:///01.tar", "run": "r"}
    row |= {"status": "complete", "model": model, "software_version": "0", "key_id": key_id}
    row |= {"configuration_hash": "c", "started_at": now, "finished_at": now, "units": []}
    return pa.Table.from_pylist([row], schema=ARCHIVE_ROW)


def write_tables(output: str, units: Sequence[pa.Table], model: str = MODEL) -> None:
    """Publishes units, each of an archive of its own name, as the two Delta tables."""
    predictions, archives = (storage.join(output, name) for name in (PREDICTIONS, ARCHIVES))
    delta.create_table(predictions, with_model(PREDICTION_ROW))
    delta.create_table(archives, ARCHIVE_ROW)
    actions: list[AddAction | RemoveAction] = []
    for number, unit in enumerate(units):
        path = f"model={model}/{number:06d}.parquet"
        file = pa.BufferOutputStream()
        pq.write_table(unit, file)
        data = file.getvalue().to_pybytes()
        storage.put_if_absent(storage.join(predictions, path), data)
        actions.append(delta.add_action(path, len(data), statistics_of(unit), model))
    delta.commit(
        predictions,
        lambda table: delta.replace_files(table, actions),
    )


def write_registry(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """Writes rows, all of the same columns, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@dataclass(frozen=True)
class Simulated:
    """A registry whose errors are known.

    Attributes:
        predictions: One row an image.
        records: One row a record.
        is_wrong_M: Which records are wrong.
    """

    predictions: list[dict[str, Any]]
    records: list[dict[str, object]]
    is_wrong_M: npt.NDArray[np.bool_]


def simulate(
    count: int, rate: float, seed: int, strength: float = 4.5, most_images: int = 1
) -> Simulated:
    """Draws a registry of so many records, a share of which names another implant of the joint."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(len(IMPLANTS), 3.0))
    truth_M = rng.choice(len(IMPLANTS), count, p=shares)
    is_wrong_M = rng.random(count) < rate
    predictions: list[dict[str, Any]] = []
    records: list[dict[str, object]] = []
    for m, truth in enumerate(truth_M.tolist()):
        same_joint = [
            k
            for k, implant in enumerate(IMPLANTS)
            if implant.joint == IMPLANTS[truth].joint and k != truth
        ]
        claim = int(rng.choice(same_joint)) if is_wrong_M[m] else truth
        num_images = int(rng.integers(1, most_images + 1))
        for row in probabilities(np.full(num_images, truth), rng, strength):
            predictions.append(prediction(row, study=f"S{m}", instance=f"S{m}.{len(predictions)}"))
        records.append(
            {
                "record": f"R{m}",
                "study": f"S{m}",
                "manufacturer": IMPLANTS[claim].manufacturer,
                "product": IMPLANTS[claim].product,
                "hospital": f"Hospital {m % 7}",
                "year": 2015 + m % 5,
            }
        )
    return Simulated(predictions, records, is_wrong_M)
