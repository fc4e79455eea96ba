"""Letters: N images, B batch, C classes, H height, W width."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from implant_model.calibration import prediction_sets, softmax
from implant_model.classifier import Classifier, measure
from implant_model.errors import Outcome, PackageError
from implant_model.networks.spec import Precision
from implant_model.networks.weights import load_networks
from implant_model.package.load import ModelPackage
from implant_model.package.manifest import Calibration
from implant_model.predictions import decide
from tests.support.package_samples import NAMES, SIZE_PX, SPECS, sample_images, save_sample


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return save_sample(tmp_path_factory.mktemp("package") / "sample")


@pytest.fixture(scope="module")
def classifier(package: ModelPackage) -> Classifier:
    return Classifier(package)


def test_probabilities_are_the_average_at_the_packages_temperature(
    package: ModelPackage, classifier: Classifier
) -> None:
    images = sample_images(5)
    networks = load_networks(SPECS, len(NAMES), package.files)
    assert networks.segmenter is not None
    one, two = networks.members
    x = torch.from_numpy(images)[:, None].float() / 255
    both = torch.cat((x, x * networks.segmenter(x).sigmoid()), dim=1)
    average = (one(x).softmax(1) + two(both).softmax(1)) / 2
    powers = average.double() ** (1 / 1.5)
    predictions = classifier.classify(images)
    wanted = (powers / powers.sum(1, keepdim=True)).numpy()
    np.testing.assert_allclose(predictions.probabilities_NC, wanted, atol=1e-5)
    assert predictions.probabilities_NC.dtype == predictions.novelty_N.dtype == np.float32


def test_outcomes_follow_quantile_and_threshold(classifier: Classifier) -> None:
    predictions = classifier.classify(sample_images(12, seed=3))
    rows = zip(
        predictions.probabilities_NC,
        predictions.novelty_N,
        predictions.candidates,
        predictions.outcomes,
        strict=True,
    )
    for probabilities_C, novelty, candidates, outcome in rows:
        assert [candidates] == prediction_sets(probabilities_C[None], 0.7)
        assert outcome is decide(len(candidates), float(novelty), 12.5)


@pytest.mark.parametrize(
    ("candidates", "novelty", "outcome"),
    [
        (1, 1.0, Outcome.IDENTIFIED),
        (1, 0.5, Outcome.IDENTIFIED),
        (2, 0.5, Outcome.AMBIGUOUS),
        (9, 1.0, Outcome.AMBIGUOUS),
        (0, 0.5, Outcome.UNKNOWN),
        (1, 1.1, Outcome.UNKNOWN),
        (2, 1.1, Outcome.UNKNOWN),
    ],
)
def test_outcome(candidates: int, novelty: float, outcome: Outcome) -> None:
    assert decide(candidates, novelty, 1.0) is outcome


def test_what_is_said_of_an_image_does_not_depend_on_the_others(classifier: Classifier) -> None:
    images = sample_images(37, seed=5)
    whole = classifier.classify(images, 32)
    every = np.arange(37)
    order = np.random.default_rng(0).permutation(37)
    for batch_size, chosen in [(1, every), (7, every), (64, every), (8, order)]:
        other = classifier.classify(images[chosen], batch_size)
        wanted = whole.probabilities_NC[chosen]
        np.testing.assert_allclose(other.probabilities_NC, wanted, atol=1e-5)
        np.testing.assert_allclose(other.novelty_N, whole.novelty_N[chosen], rtol=1e-3, atol=1e-2)
        assert other.outcomes == [whole.outcomes[place] for place in chosen]
        assert other.candidates == [whole.candidates[place] for place in chosen]


def test_a_strange_batch_mate_changes_nothing(classifier: Classifier) -> None:
    images = sample_images(4)
    alone = classifier.classify(images)
    black = np.zeros((1, SIZE_PX, SIZE_PX), np.uint8)
    together = classifier.classify(np.concatenate((black, images, black + 255)))
    np.testing.assert_allclose(together.probabilities_NC[1:5], alone.probabilities_NC, atol=1e-5)
    assert together.outcomes[1:5] == alone.outcomes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_threads_may_classify_at_a_time(
    package: ModelPackage, precision: Precision
) -> None:
    shared = Classifier(package, precision=precision, threads=2)
    blocks = [sample_images(40, seed=seed) for seed in range(8)]
    alone = [shared.classify(images_NHW) for images_NHW in blocks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(shared.classify, blocks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(other.probabilities_NC, one.probabilities_NC)
        np.testing.assert_array_equal(other.novelty_N, one.novelty_N)
        assert other.candidates == one.candidates


def test_classifying_changes_no_global_setting_and_no_image(classifier: Classifier) -> None:
    images = sample_images(3)
    before = images.copy()
    state = torch.random.get_rng_state()
    settings = torch.backends.cudnn.allow_tf32, torch.is_grad_enabled(), torch.get_num_threads()
    first, second = classifier.classify(images), classifier.classify(images)
    np.testing.assert_array_equal(first.probabilities_NC, second.probabilities_NC)
    np.testing.assert_array_equal(images, before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert settings == (
        torch.backends.cudnn.allow_tf32,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )


def test_images_that_are_read_only_or_in_another_order_are_taken(classifier: Classifier) -> None:
    images = sample_images(3)
    wanted = classifier.classify(images).probabilities_NC
    frozen = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
    flipped = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_array_equal(classifier.classify(frozen).probabilities_NC, wanted)
    np.testing.assert_array_equal(classifier.classify(flipped).probabilities_NC, wanted)


def test_no_image_gives_no_prediction(classifier: Classifier) -> None:
    predictions = classifier.classify(np.zeros((0, SIZE_PX, SIZE_PX), np.uint8))
    assert predictions.probabilities_NC.shape == (0, len(NAMES))
    assert (len(predictions.novelty_N), predictions.candidates, predictions.outcomes) == (0, [], [])


@pytest.mark.parametrize("shape", [(1, 64, 63), (1, 128, 128), (64, 64), (1, 1, 64, 64)])
def test_images_of_another_size_are_refused(classifier: Classifier, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"do not fit|uint8, \(N, H, W\)"):
        classifier.classify(np.zeros(shape, np.uint8))


def test_other_dtypes_and_batch_sizes_are_refused(classifier: Classifier) -> None:
    images: Any = sample_images(1).astype(np.float32) / 255
    with pytest.raises(ValueError, match="Images are float32"):
        classifier.classify(images)
    with pytest.raises(ValueError, match="batch_size is 0"):
        classifier.classify(sample_images(1), 0)


def test_networks_that_overflow_are_not_believed(package: ModelPackage) -> None:
    broken = Classifier(package)
    with torch.no_grad():
        broken.networks.members[0].head.bias.fill_(math.inf)
    with pytest.raises(PackageError, match="gave a value that is not finite"):
        broken.classify(sample_images(2))


def test_temperature_flattens_and_keeps_the_order(package: ModelPackage, tmp_path: Path) -> None:
    calibration = Calibration(20.0, 0.7, 0.9)
    warm = replace(package, manifest=replace(package.manifest, calibration=calibration))
    images = sample_images(6)
    flat = Classifier(warm).classify(images).probabilities_NC
    sharp = Classifier(package).classify(images).probabilities_NC
    np.testing.assert_array_equal(flat.argsort(axis=1), sharp.argsort(axis=1))
    assert (flat.max(axis=1) < sharp.max(axis=1)).all()


def test_measure_is_what_classify_starts_from(classifier: Classifier) -> None:
    images = sample_images(9)
    logs, features = measure(classifier.networks, images, 4)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((features[:, :1024] ** 2).sum(axis=1), 1, rtol=1e-5)
    predictions = classifier.classify(images, 4)
    np.testing.assert_allclose(softmax(logs, 1.5), predictions.probabilities_NC, atol=1e-6)


def test_bfloat16_is_near(package: ModelPackage, classifier: Classifier) -> None:
    images = sample_images(4)
    near = Classifier(package, precision="bfloat16").classify(images)
    exact = classifier.classify(images)
    difference = np.abs(near.probabilities_NC - exact.probabilities_NC).max()
    assert 0 < difference < 0.02


def test_a_package_from_another_process_serves(package: ModelPackage) -> None:
    shared = replace(package, files=MappingProxyType(dict(package.files)))
    assert Classifier(shared).classify(sample_images(1)).outcomes


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says(package: ModelPackage, classifier: Classifier) -> None:
    images = sample_images(21)
    on_gpu = Classifier(package, device="cuda").classify(images, 16)
    on_cpu = classifier.classify(images)
    np.testing.assert_allclose(on_gpu.probabilities_NC, on_cpu.probabilities_NC, atol=1e-4)
    assert on_gpu.candidates == on_cpu.candidates
