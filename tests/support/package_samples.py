"""A small package of random weights: a U-Net, a network on 1 channel and one on 2."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from implant_model.classifier import measure
from implant_model.decode.preprocess import Preprocessing
from implant_model.networks.build import build
from implant_model.networks.lite_trunk import LiteTrunk
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_networks, weights_bytes
from implant_model.novelty import fit_novelty
from implant_model.package.catalogue import Catalogue, Implant
from implant_model.package.load import ModelPackage
from implant_model.package.manifest import Calibration
from implant_model.package.save import save_package

SIZE_PX = 64
NAMES = ("depuy-corail", "zimmer-ml-taper", "stryker-triathlon")
SPECS = (
    NetworkSpec("segmenter.safetensors", "segmenter", "unet", width=2, reduction=2),
    NetworkSpec("whole.safetensors", "classifier", "shufflenet_v2_x0_5"),
    NetworkSpec("both.safetensors", "classifier", "shufflenet_v2_x0_5", channels=2),
)
CARD = "# Sample\n\nFor audit and research; not a medical device.\n"


def sample_images(number: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth random pictures, (number, 64, 64)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (number, 8, 8), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def sample_weights(spec: NetworkSpec, seed: int = 0) -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return weights_bytes(build(spec, len(NAMES)))


def save_sample(folder: Path, **changes: object) -> ModelPackage:
    networks = {spec: sample_weights(spec, place) for place, spec in enumerate(SPECS)}
    files = {spec.file: data for spec, data in networks.items()}
    ensemble = load_networks(SPECS, len(NAMES), files)
    _, features_NF = measure(ensemble, sample_images(30))
    values = {
        "name": "sample",
        "catalogue": Catalogue(tuple(Implant(name, "hip", "a maker") for name in NAMES)),
        "preprocessing": Preprocessing(size_px=SIZE_PX),
        "networks": networks,
        "calibration": Calibration(1.5, 0.7, 0.9),
        "novelty": fit_novelty(features_NF, np.arange(30) % len(NAMES), len(NAMES)),
        "novelty_threshold": 12.5,
        "known_pass_rate": 0.95,
        "metrics": {"test": {"data": "random pictures", "accuracy": 0.31}},
        "provenance": {"seed": 0},
        "card": CARD,
    }
    return save_package(folder, **{**values, **changes})  # type: ignore[arg-type]


def calibrated_norms(trunk: LiteTrunk) -> None:
    """Let batch norms of random weights take their means from noise."""
    trunk.train()
    with torch.no_grad():
        for _ in range(5):
            trunk(torch.randn(2, 1, 96, 96))
    trunk.eval()
