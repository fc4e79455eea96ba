"""Letters: N images, F features, C classes."""

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import safetensors.numpy
import torch

from implant_model.errors import PackageError
from implant_model.networks.device_batches import NoveltyScore
from implant_model.novelty import (
    METHODS,
    Gaussian,
    Method,
    NoveltyReference,
    fit_novelty,
    fit_novelty_in_parts,
    shrunk_covariance,
)

LABELS_N = np.arange(240) % 4


def embeddings(seed: int = 0, features: int = 24) -> np.ndarray:
    """Four implants in four corners; axes of very unequal variance that all images share."""
    rng = np.random.default_rng(seed)
    scales_F = np.geomspace(2, 0.05, features)
    centres_CF = 0.6 * np.eye(4, features)[:, ::-1]
    return np.asarray(centres_CF[LABELS_N] + scales_F * rng.standard_normal((240, features)))


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_textbook(method: Method) -> None:
    train, new = embeddings(), embeddings(1)
    reference = fit_novelty(train, LABELS_N, 4, method)
    within, background = (_matrix(g) for g in (reference.within, reference.background))
    placed = new
    if method == "normalised_mahalanobis":
        placed = np.stack([row / math.dist(row, [0] * 24) for row in new - train.mean(axis=0)])
    offsets = placed[:, None] - reference.centres_CF
    nearest = np.einsum("ncf,fg,ncg->nc", offsets, np.linalg.inv(within), offsets).min(axis=1)
    if method == "relative_mahalanobis":
        far = new - reference.mean_F
        nearest -= np.einsum("nf,fg,ng->n", far, np.linalg.inv(background), far)
    np.testing.assert_allclose(reference.score(new), nearest, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_device_scores_as_the_reference(method: Method) -> None:
    new = embeddings(1).astype(np.float32)
    reference = fit_novelty(embeddings(), LABELS_N, 4, method)
    scored = NoveltyScore(reference)(torch.from_numpy(new))
    assert scored.dtype == torch.float32
    np.testing.assert_allclose(scored.numpy(), reference.score(new), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_that_come_in_parts_give_the_same(method: Method) -> None:
    train, new = embeddings(), embeddings(1)
    whole = fit_novelty(train, LABELS_N, 4, method)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 240, 70):
            yield train[start : start + 70].astype(np.float32), LABELS_N[start : start + 70]

    found = fit_novelty_in_parts(parts, 4, method)
    assert found.method == method
    for name in ("within", "background"):
        one, other = getattr(whole, name), getattr(found, name)
        np.testing.assert_allclose(one.variances_K, other.variances_K, rtol=1e-4)
        assert one.rest == pytest.approx(other.rest, rel=1e-4)
    np.testing.assert_allclose(found.score(new), whole.score(new), rtol=1e-3, atol=1e-3)


def test_embeddings_in_parts_are_checked_as_a_whole_is() -> None:
    with pytest.raises(ValueError, match="240 embeddings of 4 implants do not describe 5"):
        fit_novelty_in_parts(lambda: [(embeddings(), LABELS_N)], 5)
    with pytest.raises(ValueError, match="not finite"):
        fit_novelty_in_parts(lambda: [(embeddings() * np.nan, LABELS_N)], 4)


def test_memory_of_a_reference_does_not_follow_its_images() -> None:
    def parts(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, count, 500):
            rng = np.random.default_rng(start)
            yield rng.normal(size=(500, 64)).astype(np.float32), np.arange(500) % 4

    peaks = []
    for count in (2000, 40_000):
        tracemalloc.start()
        fit_novelty_in_parts(lambda count=count: parts(count), 4)  # type: ignore[misc]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 4_000_000  # 40,000 x 64 float64 are 20 MB


def _matrix(gaussian: Gaussian) -> np.ndarray:
    axes = gaussian.axes_KF.astype(np.float64)
    whole = (axes.T * gaussian.variances_K) @ axes
    return np.asarray(whole + gaussian.rest * (np.eye(axes.shape[1]) - axes.T @ axes))


def test_a_stranger_where_known_implants_hardly_vary_is_seen() -> None:
    reference = fit_novelty(embeddings(), LABELS_N, 4, "mahalanobis")
    new = embeddings(1)
    loud, quiet = new.copy(), new.copy()
    loud[:, 0] += 2  # one deviation of the loudest axis
    quiet[:, 12] += 2  # many of a quiet one
    known = reference.score(new)
    assert np.median(reference.score(loud)) < np.median(known) + 2
    assert np.median(reference.score(quiet)) > known.max()


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_between_the_implants_is_seen(method: Method) -> None:
    """All that tells implants apart is loud in one implant's embeddings and missing here."""
    reference = fit_novelty(embeddings(), LABELS_N, 4, method)
    known = reference.score(embeddings(1))
    strange = embeddings(2) - 0.6 * np.eye(4, 24)[LABELS_N, ::-1]
    strange[:, 20:] -= 0.6  # away from every corner
    assert np.median(reference.score(strange)) > np.quantile(known, 0.95)


def test_the_direction_counts_and_not_how_much_an_image_shows() -> None:
    train, new = embeddings(), embeddings(1)
    reference = fit_novelty(train, LABELS_N, 4, "normalised_mahalanobis")
    mean_F = reference.mean_F.astype(np.float64)
    np.testing.assert_allclose(
        reference.score(mean_F + 0.3 * (new - mean_F)), reference.score(new), rtol=1e-4
    )
    assert np.isfinite(reference.score(mean_F[None])).all()


def test_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((15, 6)) * [3, 1, 1, 1, 1, 0.2]
    rows -= rows.mean(axis=0)
    sample = rows.T @ rows / 15
    mean = np.trace(sample) / 6
    # Ledoit and Wolf 2004, by their definitions: no formula shared with the code under test.
    noise = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in rows) / 15**2
    share = min(noise / np.sum((sample - mean * np.eye(6)) ** 2), 1)
    wanted = (1 - share) * sample + share * mean * np.eye(6)
    assert 0.05 < share < 0.95
    np.testing.assert_allclose(_matrix(shrunk_covariance(rows)), wanted, atol=1e-5)


def test_shrinkage_beats_the_sample_when_images_are_few() -> None:
    rng = np.random.default_rng(5)
    true = np.diag(np.linspace(0.5, 2, 40))
    rows = rng.standard_normal((30, 40)) * np.sqrt(np.diag(true))
    sample = rows.T @ rows / 30
    shrunk = _matrix(shrunk_covariance(rows))
    assert np.sum((shrunk - true) ** 2) < 0.3 * np.sum((sample - true) ** 2)
    assert np.linalg.eigvalsh(shrunk).min() > 0.05


def test_many_features_are_held_in_few_axes() -> None:
    rng = np.random.default_rng(6)
    features = rng.standard_normal((300, 2048)).astype(np.float32)
    reference = fit_novelty(features, np.arange(300) % 3, 3)
    assert reference.within.axes_KF.shape == (128, 2048)
    assert len(reference.to_bytes()) < 3_000_000
    total = reference.within.variances_K.sum() + reference.within.rest * (2048 - 128)
    offsets = features - reference.centres_CF[np.arange(300) % 3]
    assert total == pytest.approx((offsets**2).sum() / 300, rel=1e-3)  # cut, yet no variance lost


def test_embeddings_that_are_all_the_same_still_give_finite_scores() -> None:
    reference = fit_novelty(np.ones((6, 5)), np.arange(6) % 2, 2)
    scores = reference.score(np.vstack([np.ones(5), np.zeros(5)]))
    assert np.isfinite(scores).all()


def test_scores_do_not_depend_on_the_others() -> None:
    reference = fit_novelty(embeddings(), LABELS_N, 4)
    new = embeddings(1)
    alone = np.concatenate([reference.score(row[None]) for row in new])
    np.testing.assert_allclose(reference.score(new), alone, rtol=1e-6, atol=1e-6)
    assert reference.score(np.zeros((0, 24))).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_same_scores(method: Method) -> None:
    reference = fit_novelty(embeddings(), LABELS_N, 4, method)
    again = NoveltyReference.from_bytes(reference.to_bytes(), method, 4)
    np.testing.assert_allclose(again.score(embeddings(1)), reference.score(embeddings(1)), 1e-6)


def test_every_implant_must_occur() -> None:
    with pytest.raises(ValueError, match="240 embeddings of 4 implants do not describe 5"):
        fit_novelty(embeddings(), LABELS_N, 5)
    with pytest.raises(ValueError, match="do not describe 3"):
        fit_novelty(embeddings(), LABELS_N, 3)
    with pytest.raises(ValueError, match="more images than implants"):
        fit_novelty(embeddings()[:4], LABELS_N[:4], 4)
    with pytest.raises(ValueError, match="not finite"):
        fit_novelty(embeddings() * math.nan, LABELS_N, 4)


TENSORS = sorted(
    f"{part}.{name}" for part in ("within", "background") for name in ("axes", "variances", "rest")
) + ["centres", "mean"]
DAMAGES = ("missing", "nan", "infinite", "other dtype", "other shape", "no dimension", "zero")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", TENSORS)
def test_damaged_tensors_are_refused(name: str, damage: str) -> None:
    if damage == "zero" and not name.endswith(("variances", "rest")):
        return  # a mean may be zero
    reference = fit_novelty(embeddings(), LABELS_N, 4, "relative_mahalanobis")
    tensors = safetensors.numpy.load(reference.to_bytes())
    whole = tensors.pop(name)
    if damage != "missing":
        tensors[name] = {
            "nan": np.full_like(whole, math.nan),
            "infinite": np.full_like(whole, math.inf),
            "other dtype": whole.astype(np.float64),
            "other shape": np.concatenate([whole, whole]),
            "no dimension": np.zeros((), np.float32),
            "zero": np.zeros_like(whole),
        }[damage]
    data = safetensors.numpy.save(tensors)
    with pytest.raises(PackageError, match="novelty reference"):
        NoveltyReference.from_bytes(data, "mahalanobis", 4)


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 8, (1 << 62).to_bytes(8, "little")])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match="is not safetensors"):
        NoveltyReference.from_bytes(data, "mahalanobis", 4)
