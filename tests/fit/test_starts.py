"""Trainings at once, from nothing or from a package: fitted, packed, described, and run."""

from pathlib import Path

import numpy as np
import pytest

from implant_model.classifier import Classifier
from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.networks.shuffle_trunk import STAGE3, ShuffleTrunk
from implant_model.networks.spec import FISHER, FISHER_SHUFFLE
from implant_model.package.load import load_package
from implant_model.phantoms.render import render_unknown
from tests.support.paths import ROOT
from training.config import TrainConfig, from_document
from training.data.divide import divide
from training.data.labelled import LabelledSet
from training.fit.fitting import Workplace, fit_split
from training.fit.starts import first_trunks
from training.fit.workers import Workers
from training.masks.automatic import find_mask
from training.masks.mask_set import GOOD, MaskSet
from training.packaging import Training, make_package
from training.settings import NetworkSettings

KINDS = ("humeral-stem", "reverse-shoulder")
NUM = 24
PHANTOM = str(ROOT / "models" / "phantom")


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
    return LabelledSet(
        np.stack(images), labels_N, patients_N, sizes_N2, members, KINDS, (), "f" * 64
    )


@pytest.fixture(scope="module")
def masks(labelled: LabelledSet) -> MaskSet:
    found = [find_mask(image_SS).mask_HW for image_SS in np.asarray(labelled.images_NSS)]
    return MaskSet(np.stack(found), np.full(NUM, GOOD, np.uint8), "d" * 64)


def config_of(architecture: str) -> TrainConfig:
    network = {"architecture": architecture}
    if architecture == FISHER_SHUFFLE:
        network["start_from"] = PHANTOM
    split = {"test_each": 4, "calibration_each": 4}
    return from_document(
        {"network": network, "split": split, "calibration": {"folds": 3}}, "a test"
    )


@pytest.mark.parametrize("architecture", [FISHER, FISHER_SHUFFLE])
def test_a_training_at_once_makes_a_package_that_classifies(
    architecture: str, labelled: LabelledSet, masks: MaskSet, tmp_path: Path
) -> None:
    config = config_of(architecture)
    place = Workplace(tmp_path, str(tmp_path / "checkpoints"), Workers(1, 1), use_gpu=False)
    division = divide(labelled, config.split, calibrate=False)
    shipped = fit_split(
        labelled, division.groups_N, division.shipped, config, "shipped", place, masks
    )
    pixels = Preprocessing(size_px=224)
    make_package(
        tmp_path / "model",
        Training(config, pixels, labelled, division, shipped, [], place, ["python"]),
    )
    package = load_package(str(tmp_path / "model"))
    predicted = Classifier(package).classify(np.asarray(labelled.images_NSS))
    assert (predicted.probabilities_NC.argmax(axis=1) == labelled.labels_N).mean() > 0.8
    of_package = f"That ShuffleNet is of the package `{PHANTOM}`" in package.card
    assert of_package == (architecture == FISHER_SHUFFLE)


def test_trunks_are_the_packages_fronts() -> None:
    assert first_trunks(NetworkSettings(FISHER)) == ()
    stage2, stage3 = first_trunks(NetworkSettings(FISHER_SHUFFLE, start_from=PHANTOM))
    ShuffleTrunk(STAGE3).load_state_dict(stage3)
    assert stage2.items() <= stage3.items()
