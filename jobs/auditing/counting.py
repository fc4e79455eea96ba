"""Counts by hospital, maker, product and year, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.auditing.registry.sites import places
from jobs.auditing.verdicts import Verdict
from training.metrics import Figure, wilson

NOT_SAID: Final = "not said"
GROUPINGS: Final = ("hospital", "manufacturer", "product", "implant", "year")


@dataclass(frozen=True)
class Group:
    """Records of one hospital, maker, product or year.

    Attributes:
        name: As the catalogue writes it where it knows it, else as the registry does.
        records: All of them.
        verdicts: Number by verdict.
        contradicted: Share of contradictions among those that agree or contradict.
        wrong: Sum of the probabilities that records are wrong, over those with a voting image.
        audited: Number of these.
    """

    name: str
    records: int
    verdicts: Mapping[Verdict, int]
    contradicted: Figure
    wrong: float
    audited: int


def count_groups(
    texts: Mapping[str, pa.DictionaryArray],
    verdict_M: npt.NDArray[np.int8],
    wrong_M: npt.NDArray[np.float64],
) -> dict[str, list[Group]]:
    """Count by each of `GROUPINGS` that there are texts of, most records first."""
    return {name: _count(texts[name], verdict_M, wrong_M) for name in GROUPINGS if name in texts}


def _count(
    column: pa.DictionaryArray,
    verdict_M: npt.NDArray[np.int8],
    wrong_M: npt.NDArray[np.float64],
) -> list[Group]:
    names = [*map(str, column.dictionary.to_pylist()), NOT_SAID]
    code_M = places(column)
    code_M = np.where(code_M < 0, len(names) - 1, code_M)
    kinds = len(Verdict)
    counts_GV = np.bincount(code_M * kinds + verdict_M, minlength=len(names) * kinds)
    counts_GV = counts_GV.reshape(len(names), kinds)
    has_M = ~np.isnan(wrong_M)
    wrong_G = np.bincount(code_M[has_M], wrong_M[has_M], len(names))
    audited_G = np.bincount(code_M[has_M], minlength=len(names))
    groups = [
        _group(name, counts_GV[g].tolist(), float(wrong_G[g]), int(audited_G[g]))
        for g, name in enumerate(names)
        if counts_GV[g].any()
    ]
    return sorted(groups, key=lambda group: (-group.records, group.name))


def _group(name: str, counts: Sequence[int], wrong: float, audited: int) -> Group:
    against = counts[Verdict.CONTRADICTS]
    return Group(
        name=name,
        records=sum(counts),
        verdicts={verdict: counts[verdict] for verdict in Verdict},
        contradicted=wilson(against, against + counts[Verdict.AGREES]),
        wrong=wrong,
        audited=audited,
    )
