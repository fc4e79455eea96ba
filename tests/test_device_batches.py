"""Batches of one shape give what the networks give image by image; streams need a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from implant_model.classifier import measure
from implant_model.device_batches import SLOTS, DeviceBatches
from implant_model.networks import Ensemble
from implant_model.package import load_package
from implant_model.weights import load_networks

SIZE_PX = 64


@pytest.fixture
def networks(small_package: Path) -> Ensemble:
    package = load_package(str(small_package))
    return load_networks(package.networks, len(package.catalogue), package.files)


@pytest.mark.parametrize("count", [1, 4, 4 * SLOTS, 4 * SLOTS + 5])
def test_batches_in_flight_keep_the_order_of_the_images(count: int, networks: Ensemble) -> None:
    images = np.random.default_rng(1).integers(0, 256, (count, SIZE_PX, SIZE_PX), np.uint8)
    batches = DeviceBatches(networks, torch.device("cpu"), SIZE_PX, 4)
    logs, features = batches.run(images)
    wanted_logs, wanted_features = measure(networks, images, 1)
    np.testing.assert_allclose(logs, wanted_logs, atol=1e-4)
    np.testing.assert_allclose(features, wanted_features, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says(networks: Ensemble) -> None:
    images = np.random.default_rng(2).integers(0, 256, (600, SIZE_PX, SIZE_PX), np.uint8)
    wanted, _ = measure(networks, images)
    on_gpu = networks.to("cuda").to(memory_format=torch.channels_last)
    batches = DeviceBatches(on_gpu, torch.device("cuda"), SIZE_PX)
    logs, _ = batches.run(images)
    np.testing.assert_allclose(logs, wanted, atol=1e-3)
