"""Trainings of the `fisher` architectures, from their settings to a package that classifies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from implant_model.classifier import Classifier
from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.networks.lite_trunk import LITE1, LITE2, LiteSize, LiteTrunk
from implant_model.networks.spec import FISHER, FISHER_LITE
from implant_model.package.load import load_package
from implant_model.phantoms.render import render_unknown
from tests.support.package_samples import calibrated_norms
from training.config import from_document
from training.data.divide import divide
from training.data.labelled import LabelledSet, content_digest
from training.data.trained_on import record_of
from training.fit.fitting import Workplace, fit_split
from training.fit.workers import Workers
from training.masks.automatic import find_mask
from training.masks.mask_set import GOOD, MaskSet
from training.packaging import Training, make_package

KINDS = ("humeral-stem", "reverse-shoulder")
NUM = 16


@pytest.fixture(scope="module")
def labelled() -> LabelledSet:
    rng = np.random.default_rng(3)
    labels_N = np.arange(NUM) % len(KINDS)
    images = [
        preprocess(render_unknown(rng, 256, KINDS[label]).pixels_HW, Preprocessing(size_px=224))
        for label in labels_N
    ]
    members = tuple(("a.tar", f"{number}.png") for number in range(NUM))
    sizes_N2, patients_N = np.full((NUM, 2), 256), np.arange(NUM)
    digests = [content_digest(image_SS.tobytes()) for image_SS in images]
    return LabelledSet(
        np.stack(images), labels_N, patients_N, sizes_N2, members, KINDS, (), "f" * 64, digests
    )


@pytest.fixture(scope="module")
def masks(labelled: LabelledSet) -> MaskSet:
    found = [find_mask(image_SS).mask_HW for image_SS in np.asarray(labelled.images_NSS)]
    return MaskSet(np.stack(found), np.full(NUM, GOOD, np.uint8), "d" * 64)


def weights_of(size: LiteSize, folder: Path) -> str:
    """Write a file as the publishers of an EfficientNet-Lite do, of random weights."""
    torch.manual_seed(0)
    trunk = LiteTrunk(size)
    calibrated_norms(trunk)
    colours = trunk.state_dict()["_conv_stem.weight"].expand(-1, 3, -1, -1) / 3
    path = folder / f"{size.name}.pth"
    torch.save({**trunk.state_dict(), "_conv_stem.weight": colours.contiguous()}, path)
    return str(path)


def train(
    network: dict[str, Any], labelled: LabelledSet, masks: MaskSet, folder: Path, most: int = 0
) -> Path:
    split = {"test_each": 2, "calibration_each": 2}
    document = {"network": network, "split": split, "calibration": {"folds": 2}}
    config = from_document(document, "a test")
    place = Workplace(folder, str(folder / "checkpoints"), Workers(1, 1), use_gpu=False)
    division = divide(labelled, config.split, calibrate=False, most=most)
    shipped = fit_split(
        labelled, division.groups_N, division.shipped, config, "shipped", place, masks
    )
    pixels = Preprocessing(size_px=224)
    make_package(
        folder / "model",
        Training(config, pixels, labelled, division, shipped, [], place, ["python"], masks),
    )
    return folder / "model"


@pytest.mark.parametrize("architecture", [FISHER, FISHER_LITE])
def test_a_training_at_once_makes_a_package_that_classifies(
    architecture: str, labelled: LabelledSet, masks: MaskSet, tmp_path: Path
) -> None:
    network: dict[str, Any] = {"architecture": architecture}
    if architecture == FISHER_LITE:
        network["weights"] = [weights_of(size, tmp_path) for size in (LITE2, LITE1)]
    package = load_package(str(train(network, labelled, masks, tmp_path)))
    predicted = Classifier(package).classify(np.asarray(labelled.images_NSS))
    assert (predicted.probabilities_NC.argmax(axis=1) == labelled.labels_N).mean() > 0.8
    assert ("EfficientNet-Lite1.pth" in package.card) == (architecture == FISHER_LITE)
    assert "drawn at random" not in package.card


def test_a_package_states_the_images_that_were_drawn_and_no_others(
    labelled: LabelledSet, masks: MaskSet, tmp_path: Path
) -> None:
    folder = train({"architecture": FISHER}, labelled, masks, tmp_path, most=8)
    package = load_package(str(folder))
    assert len(np.load(tmp_path / "shipped-held-out.npy")) == 8
    assert "fitted to 8 of the 12 images of its training part" in package.card
    assert "What was drawn calibrates, too: a rare class may have" in package.card
    assert "16 images in 16 groups" in package.card
    for name in KINDS:
        assert f"| {name} | not distinguished | 4 | 0 | 2 |" in package.card
    assert "0 masks that were given and 8 automatic ones (0 more" in package.card
    learned = record_of(package)
    assert learned is not None
    assert len(learned) == 8
