"""What the audit needs of the model: catalogue, thresholds, and how well it was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.calibration import MIN_QUANTILE
from implant_model.errors import UsageError
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.load import ModelPackage, load_package
from jobs.pages.run_page import shipped

_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class PackageFacts:
    """A model as the audit sees it.

    Attributes:
        id: `name@hash`, as in the column `model`.
        catalogue: Its implants.
        quantiles_K: Largest 1 - probability at which each implant is a candidate.
        shares_K: Share of each implant in the images that it was measured on; adds up to 1.
        num_measured: Held-out images that its accuracy was measured on; 0 where that is not known.
        accuracy: Measured top-1 accuracy; NaN where it is not known.
        measured_on: What it was measured on, in the package's words.
        package: The package itself; None where the audit has none.
    """

    id: str
    catalogue: Catalogue
    quantiles_K: npt.NDArray[np.float64]
    shares_K: npt.NDArray[np.float64]
    num_measured: int
    accuracy: float
    measured_on: str
    package: ModelPackage | None

    @property
    def accuracy_sd(self) -> float | None:
        """Return standard deviation of the measured accuracy; None where nobody measured it.

        With Laplace's two images more, so that 20 right ones of 20 do not give 0.
        """
        if not self.num_measured:
            return None
        hits = self.accuracy * self.num_measured
        share = (hits + 1) / (self.num_measured + 2)
        return math.sqrt(share * (1 - share) / (self.num_measured + 2))


def choose_model(models: Sequence[str], uri: str | None, dataset: Any) -> PackageFacts:
    """Return the model whose predictions are audited.

    Args:
        models: Those that the table `predictions` has rows of.
        uri: The package that the user named; None looks among those that ship with this software,
            and takes names alone from the predictions where it is none of them.
        dataset: The predictions.

    Raises:
        UsageError: The table holds other models only, or several and none was named.
        PackageError: The package is missing or damaged.
    """
    if not models:
        raise UsageError(
            "The output has no predictions yet: no archive of it is finished. The same "
            "jobs.classify command goes on."
        )
    if uri is not None:
        package = load_package(uri, weights=False)
        if package.id not in models:
            raise UsageError(
                f"The predictions are of {', '.join(models)}; --model names "
                f"{package.id}. Classify with it, or name the package that made them."
            )
        return facts_of(package)
    if len(models) != 1:
        raise UsageError(
            f"The predictions are of {len(models)} models ({', '.join(models)}); name "
            "the package of one of them by --model."
        )
    at_hand = shipped(models[0])
    return _named_alone(models[0], dataset) if at_hand is None else facts_of(at_hand)


def facts_of(package: ModelPackage) -> PackageFacts:
    """Return what a package states of itself."""
    metrics = package.manifest.metrics
    figures = metrics.get("figures")
    figures = figures if isinstance(figures, Mapping) else {}
    top_1 = figures.get("top_1")
    count, accuracy = _count(top_1), _value(top_1)
    counts = [_count(figures.get(f"sensitivity: {name}")) for name in package.catalogue.names]
    shares = np.array(counts, np.float64) + 1.0  # an implant without a test image is not impossible
    if not any(counts):
        shares = np.ones(len(package.catalogue))
    return PackageFacts(
        id=package.id,
        catalogue=package.catalogue,
        quantiles_K=package.quantiles_C,
        shares_K=shares / shares.sum(),
        num_measured=count if 0 <= accuracy <= 1 else 0,
        accuracy=accuracy,
        measured_on=str(metrics.get("measured_on", _UNKNOWN)),
        package=package,
    )


def _named_alone(model: str, dataset: Any) -> PackageFacts:
    """A catalogue of the implants that predictions name: no synonyms, notes or measurements."""
    columns = ["implant", "manufacturer", "product", "joint"]
    of_model = pc.field("model") == model
    tables = []
    for batch in dataset.to_batches(columns=columns, filter=of_model):
        named = batch.filter(batch["implant"].is_valid())
        if named.num_rows:
            tables.append(pa.Table.from_batches([named]).group_by(columns).aggregate([]))
    if not tables:
        raise UsageError(f"The predictions of {model} name no implant; there is nothing to audit.")
    rows = pa.concat_tables(tables).group_by(columns).aggregate([]).to_pylist()
    implants = {row["implant"]: row for row in sorted(rows, key=lambda row: str(row["implant"]))}
    for name in _also_ran(dataset, model) - implants.keys():
        row = {"implant": name, "joint": _UNKNOWN, "manufacturer": _UNKNOWN, "product": None}
        implants[name] = row
    catalogue = Catalogue(
        tuple(
            Implant(name, row["joint"], row["manufacturer"], row["product"])
            for name, row in implants.items()
        )
    )
    shares = np.full(len(catalogue), 1 / len(catalogue))
    quantiles = np.full(len(catalogue), MIN_QUANTILE)
    return PackageFacts(model, catalogue, quantiles, shares, 0, math.nan, _UNKNOWN, None)


def _also_ran(dataset: Any, model: str) -> set[str]:
    """Return implants that are second or third best somewhere, or a candidate."""
    names: set[str] = set()
    columns = ["top", "candidates"]
    for batch in dataset.to_batches(columns=columns, filter=pc.field("model") == model):
        names.update(pc.unique(batch["top"].flatten().field("implant")).to_pylist())
        names.update(pc.unique(batch["candidates"].flatten()).to_pylist())
    return names


def _count(figure: object) -> int:
    value = figure.get("count") if isinstance(figure, Mapping) else 0
    return value if isinstance(value, int) and value > 0 else 0


def _value(figure: object) -> float:
    value = figure.get("value") if isinstance(figure, Mapping) else None
    return float(value) if isinstance(value, int | float) else math.nan
