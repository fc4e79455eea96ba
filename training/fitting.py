"""One training from its split to calibrated, measured outputs; done work is not done again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from implant_model.errors import UsageError
from implant_model.network_spec import NetworkSpec
from implant_model.networks import build
from implant_model.package import load_package
from implant_model.weights import load_network, weights_bytes
from training.config import TrainConfig
from training.labelled import LabelledSet
from training.loop import Recipe, State, fit_network
from training.measure import Calibrated, Measured, calibrate, measure, run_networks
from training.split import Split

WEIGHTS_FILE = "classifier.safetensors"


@dataclass(frozen=True)
class Fitted:
    """A network with all that was set and measured on it.

    Attributes:
        spec: The network.
        weights: Content of its file in the package.
        calibrated: Temperature, candidates' threshold, novelty.
        measured: Predictions on the test part; no rows where that is empty.
    """

    spec: NetworkSpec
    weights: bytes
    calibrated: Calibrated
    measured: Measured


@dataclass(frozen=True)
class Workplace:
    """Where trainings run and leave what a resumed one needs.

    Attributes:
        folder: Reached by every worker under the same path.
        num_workers: Of each training.
        use_gpu: Whether each worker holds a GPU.
    """

    folder: Path
    num_workers: int
    use_gpu: bool

    def weights_file(self, name: str) -> Path:
        """Where the weights of a finished training lie."""
        return self.folder / f"{name}.safetensors"


def fit_split(
    labelled: LabelledSet, split: Split, config: TrainConfig, name: str, place: Workplace
) -> Fitted:
    """Fits a network to a split's training part, calibrates and measures it.

    Args:
        labelled: The set.
        split: What of it trains, calibrates and tests.
        config: All settings.
        name: Of this training in `place`; one that is finished there is taken as it is.
        place: Where it runs.
    """
    spec = NetworkSpec(
        WEIGHTS_FILE,
        "classifier",
        config.network.architecture,
        mean=config.network.mean,
        std=config.network.std,
    )
    file = place.weights_file(name)
    if not file.is_file():
        state = _fit(labelled, split, config, spec, name, place)
        network = build(spec, len(labelled.names))
        network.load_state_dict(state)
        part = file.with_suffix(".part")
        part.write_bytes(weights_bytes(network))
        part.replace(file)
    return _calibrate_and_measure(labelled, split, config, spec, file.read_bytes(), place)


def _fit(
    labelled: LabelledSet,
    split: Split,
    config: TrainConfig,
    spec: NetworkSpec,
    name: str,
    place: Workplace,
) -> State:
    recipe = Recipe(
        spec, len(labelled.names), config.network.pretrained, config.fit, config.augment
    )
    return fit_network(
        labelled.images_NSS[split.train_N],
        labelled.labels_N[split.train_N],
        recipe,
        first_weights(config.network.start_from, spec),
        name,
        str(place.folder / "checkpoints"),
        place.folder / f"{name}.jsonl",
        place.num_workers,
        place.use_gpu,
    )


def first_weights(package_uri: str, spec: NetworkSpec) -> State | None:
    """Takes a package's network as a start, all but its head; None without a package.

    Raises:
        UsageError: The package holds no network of the same architecture.
    """
    if not package_uri:
        return None
    package = load_package(package_uri)
    for other in package.networks:
        if other.architecture == spec.architecture and other.channels == spec.channels:
            network = load_network(other, len(package.catalogue), package.files[other.file])
            return {
                key: value
                for key, value in network.state_dict().items()
                if not key.startswith("head.")
            }
    raise UsageError(
        f"The package {package_uri} holds no {spec.architecture} with {spec.channels} channel to "
        f"start from; it holds {', '.join(other.architecture for other in package.networks)}."
    )


def _calibrate_and_measure(
    labelled: LabelledSet,
    split: Split,
    config: TrainConfig,
    spec: NetworkSpec,
    weights: bytes,
    place: Workplace,
) -> Fitted:
    device = "cuda" if place.use_gpu and torch.cuda.is_available() else "cpu"
    parts = (split.train_N, split.calibration_N, split.test_N)
    train, held_out, test = (
        run_networks(spec, weights, len(labelled.names), labelled.images_NSS[part_N], device)
        for part_N in parts
    )
    calibrated = calibrate(
        train,
        labelled.labels_N[split.train_N],
        held_out,
        labelled.labels_N[split.calibration_N],
        config.calibration.coverage,
        config.calibration.known_pass,
    )
    return Fitted(spec, weights, calibrated, measure(test, split.test_N, calibrated))


def class_counts(labelled: LabelledSet, split: Split) -> dict[str, tuple[int, int, int]]:
    """Images of each class in training, calibration and test."""
    counts_K3 = np.column_stack(
        [
            np.bincount(labelled.labels_N[part_N], minlength=len(labelled.names))
            for part_N in (split.train_N, split.calibration_N, split.test_N)
        ]
    )
    return {
        name: (train, calibration, test)
        for name, (train, calibration, test) in zip(labelled.names, counts_K3.tolist(), strict=True)
    }
