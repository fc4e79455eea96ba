"""Batches of one shape give what the networks give image by image; streams need a GPU."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from implant_model.classifier import measure
from implant_model.networks.build import Ensemble
from implant_model.networks.device_batches import SLOTS, DeviceBatches, NoveltyScore, Results, Run
from implant_model.networks.weights import load_networks
from implant_model.novelty import NoveltyReference
from implant_model.package.load import load_package

SIZE_PX = 64


@dataclass(frozen=True)
class Model:
    networks: Ensemble
    reference: NoveltyReference

    def batches(self, batch_size: int | None, device: str = "cpu") -> DeviceBatches:
        place = torch.device(device)
        networks = self.networks.to(place).to(memory_format=torch.channels_last)
        novelty = NoveltyScore(self.reference).to(place)
        return DeviceBatches(networks, novelty, place, SIZE_PX, batch_size)


@pytest.fixture
def model(small_package: Path) -> Model:
    package = load_package(str(small_package))
    networks = load_networks(package.networks, len(package.catalogue), package.files)
    return Model(networks, package.novelty_reference())


def images(count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIZE_PX, SIZE_PX), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 6, 32])
@pytest.mark.parametrize("count", [1, 3, 6, 6 * SLOTS, 6 * SLOTS + 5])
def test_batches_in_flight_keep_the_order_of_the_images(
    count: int, batch_size: int, model: Model
) -> None:
    logs, novelty = model.batches(batch_size).run(images(count))
    wanted_logs, features = measure(model.networks, images(count), 1)
    np.testing.assert_allclose(logs, wanted_logs, atol=1e-4)
    np.testing.assert_allclose(novelty, model.reference.score(features), rtol=1e-3, atol=1e-3)


def test_a_batch_that_is_not_full_takes_the_smallest_shape_that_holds_it(model: Model) -> None:
    batches = model.batches(32)
    ran: list[int] = []

    def noted(size: int, work: Run) -> Results:
        ran.append(size)
        return work()

    for size, work in batches._runs.items():
        batches._runs[size] = partial(noted, size, work)
    for count in (1, 2, 3, 8, 9, 33):
        batches.run(images(count))
    assert ran == [2, 2, 8, 8, 32, 32, 2]


def test_callers_side_by_side_get_their_own_and_never_wait_for_each_other(model: Model) -> None:
    """More callers than slots, each with more batches than slots."""
    batches = model.batches(2)
    calls = [images(2 * SLOTS + 1 + caller, seed=caller) for caller in range(2 * SLOTS)]
    alone = [batches.run(call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        together = list(pool.map(batches.run, calls, timeout=120))
    for (logs, novelty), (wanted_logs, wanted_novelty) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(logs, wanted_logs)
        np.testing.assert_array_equal(novelty, wanted_novelty)


def test_a_call_that_fails_gives_its_slots_back(model: Model) -> None:
    batches = model.batches(2)
    for _ in range(SLOTS + 1):
        with pytest.raises(ValueError, match="broadcast"):
            batches.run(np.zeros((5, SIZE_PX, SIZE_PX + 1), np.uint8))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    caller = threading.Thread(target=lambda: found.append(batches.run(images(5))), daemon=True)
    caller.start()
    caller.join(60)
    assert len(found[0][0]) == 5


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says(model: Model) -> None:
    wanted, features = measure(model.networks, images(600))
    wanted_novelty = model.reference.score(features)
    logs, novelty = model.batches(None, "cuda").run(images(600))
    np.testing.assert_allclose(logs, wanted, atol=1e-3)
    np.testing.assert_allclose(novelty, wanted_novelty, rtol=1e-3)


@pytest.mark.gpu
def test_callers_side_by_side_on_a_gpu_get_their_own(model: Model) -> None:
    batches = model.batches(16, "cuda")
    calls = [images(16 * caller + 7, seed=caller) for caller in range(3 * SLOTS)]
    alone = [batches.run(call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        together = list(pool.map(batches.run, 5 * calls, timeout=120))
    for (logs, novelty), (wanted_logs, wanted_novelty) in zip(together, 5 * alone, strict=True):
        np.testing.assert_array_equal(logs, wanted_logs)
        np.testing.assert_array_equal(novelty, wanted_novelty)
