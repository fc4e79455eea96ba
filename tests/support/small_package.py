"""A model package with untrained weights: small and quick, for tests of what surrounds a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from implant_model.decode.preprocess import Preprocessing
from implant_model.networks.build import build
from implant_model.networks.spec import GREY_MEAN, NetworkSpec
from implant_model.networks.weights import weights_bytes
from implant_model.novelty import fit_novelty
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.load import ModelPackage
from implant_model.package.manifest import Calibration
from implant_model.package.save import save_package

MAKERS = ("Cofield", "DePuy", "Tornier", "Zimmer")


def save_small_package(
    folder: Path,
    name: str = "small",
    seed: int = 0,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
    class_quantiles: tuple[float, ...] | None = None,
    mean: float = GREY_MEAN,
    gain: float = 1.0,
    record: Mapping[str, object] | None = None,
) -> ModelPackage:
    """Saves a package of four shoulder implants; the same seed gives the same package.

    `notes` are MR-safety notes with their sources, by implant; `class_quantiles` thresholds of the
    candidates, one for each implant; with first weights larger by a `gain` of 1e38 the network
    overflows for every picture that differs from `mean`. `record` is more of its provenance.
    """
    notes = notes or {}
    torch.manual_seed(seed)
    spec = NetworkSpec("net.safetensors", "classifier", "mobilenet_v3_small", mean=mean)
    network = build(spec, len(MAKERS)).eval()
    images_B1HW = torch.rand(32, 1, 64, 64)
    with torch.inference_mode():
        features_NF = network.features(images_B1HW).numpy()  # type: ignore[operator]
    with torch.no_grad():
        network.get_submodule("backbone.features.0.0").get_parameter("weight").mul_(gain)
    labels_N = np.arange(32) % len(MAKERS)
    return save_package(
        folder,
        name=name,
        catalogue=Catalogue(
            tuple(
                Implant(m.lower(), "shoulder", m, None, **notes.get(m.lower(), {})) for m in MAKERS
            )
        ),
        preprocessing=Preprocessing(size_px=64),
        networks={spec: weights_bytes(network)},
        calibration=Calibration(1.0, 0.74, 0.9, class_quantiles),
        novelty=fit_novelty(features_NF, labels_N, len(MAKERS)),
        novelty_threshold=1e6,
        known_pass_rate=0.95,
        metrics={},
        provenance={"made": "untrained, for tests", **(record or {})},
        card="# Untrained\n\nFor tests. Not a medical device.\n",
    )


@pytest.fixture(scope="session")
def small_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small package."""
    folder = tmp_path_factory.mktemp("package") / "small"
    save_small_package(folder)
    return folder
