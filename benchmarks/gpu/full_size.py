"""A package whose networks are of the size that the method's paper used; untrained, for timing.

Letters: N images, F features.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch

from implant_model.decode.preprocess import Preprocessing
from implant_model.networks.build import ImplantClassifier, build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import weights_bytes
from implant_model.novelty import fit_novelty
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.manifest import Calibration
from implant_model.package.save import save_package

SIZE_PX: Final = 384
NUM_IMPLANTS: Final = 30
SPECS: Final = (
    NetworkSpec("segmenter.safetensors", "segmenter", "unet", width=32, reduction=2),
    NetworkSpec("radiograph.safetensors", "classifier", "resnet50"),
    NetworkSpec("cut-out.safetensors", "classifier", "resnet50", channels=2),
)
"""A U-Net, a network that sees the radiograph, and one that sees it with the cut-out."""


def save_full_size(folder: Path) -> None:
    """Save the package in a folder that is not there yet."""
    torch.manual_seed(0)
    networks = [(spec, build(spec, NUM_IMPLANTS).eval()) for spec in SPECS]
    num_features = sum(
        network.num_features for _, network in networks if isinstance(network, ImplantClassifier)
    )
    features_NF = np.random.default_rng(0).standard_normal((10 * NUM_IMPLANTS, num_features))
    labels_N = np.arange(len(features_NF)) % NUM_IMPLANTS
    save_package(
        folder,
        name="full-size",
        catalogue=Catalogue(
            tuple(Implant(f"implant-{n:02}", "hip", "None", None) for n in range(NUM_IMPLANTS))
        ),
        preprocessing=Preprocessing(size_px=SIZE_PX),
        networks={spec: weights_bytes(network) for spec, network in networks},
        calibration=Calibration(1.0, 0.9, 0.9),
        novelty=fit_novelty(features_NF, labels_N, NUM_IMPLANTS, "relative_mahalanobis"),
        novelty_threshold=1e9,
        known_pass_rate=0.98,
        metrics={},
        provenance={"made": "untrained, for timing"},
        card="# Untrained\n\nFor timing. Not a medical device.\n",
    )
