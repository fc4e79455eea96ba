"""Predictions get into the rows that wait for one, and change no other."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from implant_model.errors import Outcome
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions
from jobs.pipeline.filled_rows import fill_rows
from jobs.tables.schema import PREDICTION_ROW
from tests.support.package_samples import save_sample

FILLED = (
    "outcome", "implant", "manufacturer", "product", "joint", "probability", "candidates", "top",
    "novelty",
)  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return save_sample(tmp_path_factory.mktemp("package") / "sample")


def row(index: int, outcome: str | None, **values: Any) -> dict[str, Any]:
    must = {"archive": "a.tar", "archive_version": "1", "member_index": index, "frame": 0}
    return dict.fromkeys(PREDICTION_ROW.names) | must | {"outcome": outcome} | values


def predictions(count: int, num_classes: int) -> Predictions:
    """Image n is of implant n; every third has no candidate, every third two."""
    probabilities_NC = np.full((count, num_classes), 0.1, np.float32)
    probabilities_NC[np.arange(count), np.arange(count) % num_classes] = 0.75
    best = [n % num_classes for n in range(count)]
    candidates = [[n, (n + 1) % num_classes][: k % 3] for k, n in enumerate(best)]
    kinds = (Outcome.UNKNOWN, Outcome.IDENTIFIED, Outcome.AMBIGUOUS)
    outcomes = [kinds[len(chosen)] for chosen in candidates]
    novelty_N = np.linspace(0, 2, count).astype(np.float32)
    return Predictions(probabilities_NC, novelty_N, candidates, outcomes)


def by_hand(said: Predictions, i: int, catalogue: Catalogue) -> dict[str, Any]:
    implants: tuple[Implant, ...] = catalogue.implants
    order = sorted(range(len(implants)), key=lambda c: (-said.probabilities_NC[i, c], c))
    best = implants[order[0]]
    return {
        "outcome": str(said.outcomes[i]),
        "implant": best.name,
        "manufacturer": best.manufacturer,
        "product": best.product,
        "joint": best.joint,
        "probability": said.probabilities_NC[i, order[0]],
        "candidates": [implants[c].name for c in said.candidates[i]],
        "top": [
            {"implant": implants[c].name, "probability": said.probabilities_NC[i, c]}
            for c in order[:3]
        ],
        "novelty": said.novelty_N[i],
    }


@pytest.mark.parametrize("settled", [(), (0,), (1, 4, 5), (8,)])
def test_rows_by_hand(settled: tuple[int, ...], package: ModelPackage) -> None:
    rows = [
        row(n, "rejected", reason="no_pixels") if n in settled else row(n, None, content=f"c{n}")
        for n in range(9)
    ]
    said = predictions(9 - len(settled), len(package.catalogue))
    filled = fill_rows(pa.Table.from_pylist(rows, PREDICTION_ROW), said, package)
    assert filled.schema == PREDICTION_ROW
    filled.validate(full=True)
    number = iter(range(len(said.outcomes)))
    wanted = [
        each if each["outcome"] else each | by_hand(said, next(number), package.catalogue)
        for each in rows
    ]
    assert filled.to_pylist() == wanted


def test_rows_in_several_pieces_are_one_table(package: ModelPackage) -> None:
    """A block's units are put together without a copy."""
    pieces = [
        pa.Table.from_pylist([row(n, None), row(n + 1, "rejected", reason="empty")], PREDICTION_ROW)
        for n in (0, 2)
    ]
    said = predictions(2, len(package.catalogue))
    filled = fill_rows(pa.concat_tables(pieces), said, package).to_pylist()
    assert [each["outcome"] for each in filled] == ["unknown", "rejected", "identified", "rejected"]
    assert [each["implant"] is None for each in filled] == [False, True, False, True]


@pytest.mark.parametrize("count", [1, 3])
def test_predictions_that_do_not_fit_are_refused(count: int, package: ModelPackage) -> None:
    rows = pa.Table.from_pylist([row(0, None), row(1, None)], PREDICTION_ROW)
    with pytest.raises(ValueError, match=f"{count} predictions do not fit 2 waiting rows"):
        fill_rows(rows, predictions(count, len(package.catalogue)), package)
