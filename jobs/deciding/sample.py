"""A sample of an audit's records to be looked at: stratified, its probabilities known.

Contradictions alone say nothing of the records that the images agree with, so the sample is drawn
over all verdicts. Strata are verdicts; contradictions are cut at the probability that the record is
wrong. Half of the sample is dealt to them by their sizes, so that no weight explodes if the model
is mistaken, and half by size times the expected standard deviation (Neyman 1934, 10.2307/2342192).
Within a stratum each record has the same probability, which is in its row. The seed follows from
the data that were audited: the same audit draws the same sample, and nobody chooses it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from implant_model.errors import UsageError

SAMPLE: Final = "sample.parquet"
CONSTANT: Final = 0.5
"""Share of the sample that is dealt by size alone."""
MIN_DRAWN: Final = 2
"""Of a stratum, so that its variance can be estimated."""
LEAST_CHANCE: Final = 0.005
UNKNOWN_CHANCE: Final = 0.1
"""Of a record to be wrong, where the audit has no probability of it."""
_DATA: Final = b"audit data"


@dataclass(frozen=True)
class Stratum:
    """Records that are drawn with one probability.

    Attributes:
        name: The verdict and where it was cut.
        records: How many there are.
        drawn: How many of them were drawn.
        predicted: Mean probability that a record is wrong, by the audit.
    """

    name: str
    records: int
    drawn: int
    predicted: float

    @property
    def inclusion_probability(self) -> float:
        """Return with which probability each was drawn."""
        return self.drawn / self.records


@dataclass(frozen=True)
class Drawn:
    """A sample.

    Attributes:
        places: Of the drawn records, in the order in which they are served: random, of all
            strata in turn.
        stratum_S: Index of the stratum of each.
        strata: All of them.
        seed: Of the generator.
    """

    places: npt.NDArray[np.int64]
    stratum_S: npt.NDArray[np.int64]
    strata: tuple[Stratum, ...]
    seed: int


def stratify(
    verdicts: Sequence[str], wrong_M: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the stratum of each record, and their names.

    Args:
        verdicts: The audit's, of each record.
        wrong_M: Probability that each is wrong; NaN where the audit has none.
    """
    words = np.array(verdicts, dtype=str)
    stratum_M = np.zeros(len(words), np.int64)
    names: list[str] = []
    for verdict in sorted(set(words.tolist())):
        at = np.flatnonzero(words == verdict)
        for name, part in _cut(verdict, at, wrong_M[at]):
            stratum_M[part] = len(names)
            names.append(name)
    return stratum_M, names


def _cut(
    verdict: str, at: npt.NDArray[np.int64], wrong: npt.NDArray[np.float64]
) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Cut contradictions at one half.

    Agreements are not cut: each stratum in which no error is found widens the interval.
    """
    if verdict != "contradicts" or np.isnan(wrong).any():
        return [(verdict, at)]
    is_likely = wrong > 0.5
    parts = [(f"{verdict}, likelier wrong", at[is_likely]), (verdict, at[~is_likely])]
    return [(name, part) for name, part in parts if len(part)]


def allocate(
    records_H: npt.NDArray[np.int64], chance_H: npt.NDArray[np.float64], num: int
) -> npt.NDArray[np.int64]:
    """Deal a sample to strata.

    Args:
        records_H: Records of each.
        chance_H: Expected share of wrong ones in each.
        num: Of the sample; all records where there are no more.

    Returns:
        How many to draw of each: at least `MIN_DRAWN`, or all.
    """
    chance_H = np.clip(chance_H, LEAST_CHANCE, 1 - LEAST_CHANCE)
    size_H = records_H / records_H.sum()
    neyman_H = records_H * np.sqrt(chance_H * (1 - chance_H))
    wanted_H = CONSTANT * size_H + (1 - CONSTANT) * neyman_H / neyman_H.sum()
    least_H = np.minimum(records_H, MIN_DRAWN)
    drawn_H = np.minimum(least_H, records_H)
    for _ in range(len(records_H) + 1):  # what a full stratum cannot take goes to the others
        is_open_H = drawn_H < records_H
        left = num - int(drawn_H.sum())
        if left <= 0 or not is_open_H.any():
            break
        share_H = np.where(is_open_H, wanted_H, 0)
        share_H = share_H / share_H.sum()
        target_H = np.maximum(share_H * (left + drawn_H[is_open_H].sum()), drawn_H)
        more_H = np.where(is_open_H, target_H - drawn_H, 0)
        more_H = _rounded(more_H * left / max(more_H.sum(), 1e-12), left)
        drawn_H = np.minimum(drawn_H + more_H, records_H)
    return drawn_H


def _rounded(parts_H: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Round to whole numbers with this sum, largest remainders first."""
    whole_H = np.floor(parts_H + 1e-9).astype(np.int64)
    order = np.argsort(-(parts_H - whole_H), kind="stable")
    whole_H[order[: max(total - int(whole_H.sum()), 0)]] += 1
    return whole_H


def draw(verdicts: Sequence[str], wrong_M: npt.NDArray[np.float64], num: int, seed: int) -> Drawn:
    """Draw a sample.

    Args:
        verdicts: The audit's, of each record that can be looked at.
        wrong_M: Probability that each is wrong; NaN where the audit has none.
        num: How many to draw; all where there are no more.
        seed: Of the generator.
    """
    if not len(verdicts):
        return Drawn(np.array([], np.int64), np.array([], np.int64), (), seed)
    rng = np.random.default_rng(seed)
    stratum_M, names = stratify(verdicts, wrong_M)
    chance_M = np.where(np.isnan(wrong_M), UNKNOWN_CHANCE, wrong_M)
    records_H = np.bincount(stratum_M, minlength=len(names))
    chance_H = np.bincount(stratum_M, chance_M, len(names)) / records_H
    drawn_H = allocate(records_H, chance_H, min(num, len(verdicts)))
    places = [
        rng.choice(np.flatnonzero(stratum_M == h), drawn, replace=False)
        for h, drawn in enumerate(drawn_H.tolist())
    ]
    chosen = _in_turn(places, rng)
    strata = tuple(
        Stratum(name, int(records), int(drawn), float(chance))
        for name, records, drawn, chance in zip(names, records_H, drawn_H, chance_H, strict=True)
    )
    return Drawn(chosen, stratum_M[chosen], strata, seed)


def _in_turn(
    places: Sequence[npt.NDArray[np.int64]], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return all strata's records mixed, so that whoever stops early has read of each its share."""
    turn = np.concatenate([np.arange(len(part)) / max(len(part), 1) for part in places])
    order = np.lexsort((rng.random(len(turn)), turn))
    return np.concatenate(places)[order]


def seed_of(data: str) -> int:
    """Return the seed of an audit's sample.

    Args:
        data: Hash of what is audited, hexadecimal.
    """
    return int(data[:8], 16)


def sample_table(
    verdict_rows: pa.Table, places: Sequence[int], drawn: Drawn, data: str
) -> pa.Table:
    """Return the drawn rows of the verdicts, with strata and probabilities, as they are served.

    Args:
        verdict_rows: One row for each record.
        places: Of the records that were drawn from, in it.
        drawn: The sample, of these.
        data: Hash of what was audited; kept in the file.
    """
    rows = verdict_rows.take(pa.array(np.asarray(places, np.int64)[drawn.places]))
    strata = [drawn.strata[h] for h in drawn.stratum_S.tolist()]
    for name, values in {
        "stratum": [s.name for s in strata],
        "stratum_records": [s.records for s in strata],
        "stratum_drawn": [s.drawn for s in strata],
        "stratum_predicted": [s.predicted for s in strata],
        "inclusion_probability": [s.inclusion_probability for s in strata],
    }.items():
        rows = rows.append_column(name, pa.array(values))
    return rows.replace_schema_metadata({_DATA: data.encode()})


def read_sample(folder: Path, data: str) -> pa.Table | None:
    """Return the sample of an audit; None where there is none, or it is of other data.

    Raises:
        UsageError: It cannot be read.
    """
    path = folder / SAMPLE
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}); make the audit again."
        ) from error
    return table if (table.schema.metadata or {}).get(_DATA) == data.encode() else None


def describe(drawn: Drawn, asked: int) -> Mapping[str, Any]:
    """Return the sample for the audit's document."""
    return {
        "asked": asked,
        "drawn": len(drawn.places),
        "seed": drawn.seed,
        "constant_share": CONSTANT,
        "strata": [
            {
                **vars(stratum),
                "predicted": None if math.isnan(stratum.predicted) else round(stratum.predicted, 6),
                "inclusion_probability": round(stratum.inclusion_probability, 9),
            }
            for stratum in drawn.strata
        ],
    }
