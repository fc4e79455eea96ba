"""How far an image's embedding lies from every known implant: Mahalanobis distance. numpy only.

Letters: N images, B images of a part, F features, C classes (implants), K axes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from implant_model.errors import PackageError

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Method = Literal["mahalanobis", "normalised_mahalanobis", "relative_mahalanobis"]

METHODS: tuple[Method, ...] = get_args(Method)
SCORED_AT_ONCE = 64  # images; half a dozen copies in float64 of a block's 1,024 are 100 MB
MAX_AXES = 128  # 128 x 2,048 float32 is 1 MB; later axes of an embedding are noise
Parts = Callable[[], Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]]
"""Goes through embeddings (B, F) and labels (B,) from the first, each time that it is called."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A covariance as its main axes and one variance for all that is left.

    Attributes:
        axes_KF: Orthonormal directions of most variance.
        variances_K: Variance along each, after shrinkage.
        rest: Variance along every other direction.
    """

    axes_KF: Array
    variances_K: Array
    rest: float

    def whitened(self, vectors_NF: npt.ArrayLike) -> Array64:
        """Return vectors whose Euclidean distances are the Mahalanobis distances of the given."""
        vectors = np.asarray(vectors_NF, np.float64)
        axes_KF = self.axes_KF.astype(np.float64)
        ball = 1 / np.sqrt(self.rest)
        gains_K = 1 / np.sqrt(self.variances_K.astype(np.float64)) - ball
        return np.asarray(ball * vectors + ((vectors @ axes_KF.T) * gains_K) @ axes_KF, np.float64)


@dataclass(frozen=True, eq=False)
class NoveltyReference:
    """What is remembered of the training embeddings.

    Attributes:
        centres_CF: Mean embedding of each implant, in the space that distances are measured in.
        within: Covariance around the own implant's centre, one for all implants, in that space.
        mean_F: Mean of all embeddings.
        background: Covariance around that mean; no axes where the method does without.
        method: `mahalanobis`: squared distance to the nearest implant (Lee et al. 2018);
            `normalised_mahalanobis`: that distance between embeddings less their mean, scaled to
            length one, so that their direction counts and not how much an image shows (after
            Mueller and Hein 2025, who scale without a mean);
            `relative_mahalanobis`: squared distance less that to the mean of all (Ren et al. 2021,
            which takes away the directions that vary in every image).
    """

    centres_CF: Array
    within: Gaussian
    mean_F: Array
    background: Gaussian
    method: Method

    def place(self, features_NF: npt.ArrayLike) -> Array64:
        """Return embeddings where Euclidean distance is that by which novelty is measured, NF."""
        features = np.asarray(features_NF, np.float64)
        return self.within.whitened(_placed(features, self.mean_F, self.method))

    def score(self, features_NF: npt.ArrayLike) -> Array:
        """Return the novelty, N float32, of embeddings; higher is stranger."""
        features = np.asarray(features_NF)
        centres_CF = self.within.whitened(self.centres_CF)
        parts = [
            self._scored(features[start : start + SCORED_AT_ONCE].astype(np.float64), centres_CF)
            for start in range(0, len(features), SCORED_AT_ONCE)
        ]
        return np.concatenate(parts or [np.zeros(0)]).astype(np.float32)

    def _scored(self, features_NF: Array64, centres_CF: Array64) -> Array64:
        whitened = self.place(features_NF)
        nearest = np.full(len(features_NF), np.inf)
        for centre_F in centres_CF:
            nearest = np.minimum(nearest, _squared(whitened - centre_F))
        if self.method == "relative_mahalanobis":
            nearest = nearest - _squared(self.background.whitened(features_NF - self.mean_F))
        return nearest

    def to_bytes(self) -> bytes:
        """Return the reference as a safetensors file."""
        return safetensors.numpy.save(
            {
                "centres": self.centres_CF,
                "mean": self.mean_F,
                "within.axes": self.within.axes_KF,
                "within.variances": self.within.variances_K,
                "within.rest": np.array([self.within.rest], np.float32),
                "background.axes": self.background.axes_KF,
                "background.variances": self.background.variances_K,
                "background.rest": np.array([self.background.rest], np.float32),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, method: Method, num_classes: int) -> "NoveltyReference":
        """Read what `to_bytes` wrote.

        Raises:
            PackageError: Not safetensors, or tensors missing, of wrong shape, or not finite.
        """
        try:
            tensors = safetensors.numpy.load(data)
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise PackageError("The novelty reference is not safetensors.") from error
        _check(tensors, num_classes)
        return cls(
            tensors["centres"],
            _gaussian(tensors, "within"),
            tensors["mean"],
            _gaussian(tensors, "background"),
            method,
        )


def fit_novelty(
    features_NF: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    num_classes: int,
    method: Method = "mahalanobis",
) -> NoveltyReference:
    """Describe the embeddings of the training images.

    Args:
        features_NF: Embeddings, finite; more images than classes.
        labels_N: Index of each image's implant; every implant occurs.
        num_classes: Implants of the catalogue.
        method: Which distance `score` gives.

    Returns:
        The reference, covariances shrunk by Ledoit and Wolf's rule and cut to 128 axes.

    Raises:
        ValueError: An implant without an image, or values that are not finite.
    """
    features = np.asarray(features_NF, np.float64)
    labels = np.asarray(labels_N)
    _check_counts(np.bincount(labels, minlength=num_classes), num_classes)
    _check_finite(features)
    mean_F = features.mean(axis=0).astype(np.float32)
    placed = _placed(features, mean_F, method)
    centres = np.stack([placed[labels == index].mean(axis=0) for index in range(num_classes)])
    within = shrunk_covariance(placed - centres[labels])
    background = Gaussian(within.axes_KF[:0], within.variances_K[:0], 1.0)
    if method == "relative_mahalanobis":
        background = shrunk_covariance(features - mean_F)
    return NoveltyReference(centres.astype(np.float32), within, mean_F, background, method)


def fit_novelty_in_parts(
    parts: Parts, num_classes: int, method: Method = "mahalanobis"
) -> NoveltyReference:
    """Describe embeddings of which only a part is in memory at a time, see `fit_novelty`.

    Sums take the place of the embeddings, in two passes, or three of directions; the axes are those
    of the covariance and not of the embeddings themselves, so that numbers differ from those of
    `fit_novelty` by rounding. Memory: F x F float64, half a dozen times.

    Raises:
        ValueError: As of `fit_novelty`.
    """
    counts_C, sums_CF = _sums(parts, num_classes)
    _check_counts(counts_C, num_classes)
    count = int(counts_C.sum())
    mean_F = (sums_CF.sum(axis=0) / count).astype(np.float32)

    def placed() -> Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]:
        for features_BF, labels_B in parts():
            yield _placed(np.asarray(features_BF, np.float64), mean_F, method), labels_B

    if method == "normalised_mahalanobis":
        _, sums_CF = _sums(placed, num_classes)
    centres_CF = sums_CF / counts_C[:, None]
    within = _covariance(
        np.asarray(placed_BF) - centres_CF[np.asarray(labels_B)] for placed_BF, labels_B in placed()
    )
    background = Gaussian(within.axes_KF[:0], within.variances_K[:0], 1.0)
    if method == "relative_mahalanobis":
        background = _covariance(
            np.asarray(features_BF, np.float64) - mean_F for features_BF, _ in parts()
        )
    return NoveltyReference(centres_CF.astype(np.float32), within, mean_F, background, method)


def _sums(parts: Parts, num_classes: int) -> tuple[npt.NDArray[np.int64], Array64]:
    """Return how many images each implant has, and the sums of their embeddings, CF."""
    counts_C, sums_CF = np.zeros(num_classes, np.int64), np.zeros((num_classes, 0))
    for features, labels in parts():
        features_BF, labels_B = np.asarray(features, np.float64), np.asarray(labels)
        _check_finite(features_BF)
        if not sums_CF.shape[1]:
            sums_CF = np.zeros((num_classes, features_BF.shape[1]))
        counts_C += np.bincount(labels_B, minlength=num_classes)
        for index in np.unique(labels_B):
            sums_CF[index] += features_BF[labels_B == index].sum(axis=0)
    return counts_C, sums_CF


def _covariance(parts: Iterable[Array64]) -> Gaussian:
    """Estimate as `shrunk_covariance` does from vectors that come in parts."""
    count, fourth, squares_FF = 0, 0.0, np.zeros((0, 0))
    for offsets_BF in parts:
        if not count:
            squares_FF = np.zeros((offsets_BF.shape[1],) * 2)
        count += len(offsets_BF)
        fourth += _fourth(offsets_BF)
        squares_FF += offsets_BF.T @ offsets_BF
    variances, axes_FF = np.linalg.eigh(squares_FF / count)
    variances = np.maximum(variances[::-1], 0.0)
    return _shrunk(count, variances, axes_FF.T[::-1][:MAX_AXES], fourth, MAX_AXES)


def _check_counts(counts_C: npt.NDArray[np.integer], num_classes: int) -> None:
    count = int(counts_C.sum())
    if len(counts_C) > num_classes or not counts_C.all() or count <= num_classes:
        raise ValueError(
            f"{count} embeddings of {int((counts_C > 0).sum())} implants do not describe "
            f"{num_classes} implants; more images than implants and each implant are needed."
        )


def _check_finite(features: Array64) -> None:
    if not np.isfinite(features).all():
        raise ValueError("An embedding is not finite.")


def _placed(features_NF: Array64, mean_F: Array, method: Method) -> Array64:
    """Return embeddings in the space that a method measures distances in."""
    if method != "normalised_mahalanobis":
        return features_NF
    offsets_NF = features_NF - mean_F
    lengths_N1 = np.linalg.norm(offsets_NF, axis=1, keepdims=True)
    return np.asarray(offsets_NF / np.maximum(lengths_N1, 1e-12), np.float64)


def shrunk_covariance(offsets_NF: Array64, most_axes: int = MAX_AXES) -> Gaussian:
    """Estimate a covariance from centred vectors, shrunk towards a ball.

    Ledoit and Wolf 2004: (1 - a) S + a m I, m the mean variance and a the share that minimises the
    expected squared error, from the data alone. It keeps the axes of S, so only the variances
    change; axes beyond `most_axes` are replaced by their mean variance.
    """
    variances, axes = _main_axes(offsets_NF, most_axes)
    return _shrunk(len(offsets_NF), variances, axes, _fourth(offsets_NF), most_axes)


def _shrunk(
    num_images: int, variances: Array64, axes: Array64, fourth: float, most_axes: int
) -> Gaussian:
    num_features = axes.shape[1]
    mean = float(variances.sum()) / num_features
    share = _shrinkage(num_images, num_features, variances, mean, fourth)
    kept = min(most_axes, int((variances > 1e-12 * variances[0]).sum()), num_features)
    left = num_features - kept
    rest = float(variances[kept:].sum()) / left if left else mean
    floor = max(1e-6 * mean, 1e-12)  # embeddings that are all the same still have a distance
    return Gaussian(
        axes[:kept].astype(np.float32),
        np.maximum((1 - share) * variances[:kept] + share * mean, floor).astype(np.float32),
        max((1 - share) * rest + share * mean, floor),
    )


def _main_axes(offsets_NF: Array64, most_axes: int) -> tuple[Array64, Array64]:
    """Return all variances that are not 0, the greatest first, and the axes of the first of them.

    Of fewer images than features by the images' inner products, in a tenth of the time.
    """
    num_images, num_features = offsets_NF.shape
    if num_images >= num_features:
        _, singular, axes = np.linalg.svd(offsets_NF, full_matrices=False)
        return singular**2 / num_images, axes[:most_axes]
    squares, shares = np.linalg.eigh(offsets_NF @ offsets_NF.T)
    squares, shares = np.maximum(squares[::-1], 0.0), shares[:, ::-1]
    first = shares[:, :most_axes] / np.sqrt(np.maximum(squares[:most_axes], 1e-300))
    return squares / num_images, first.T @ offsets_NF


def _squared(vectors_NF: Array64) -> Array64:
    return np.asarray((vectors_NF**2).sum(axis=1), np.float64)


def _fourth(vectors_NF: Array64) -> float:
    return float(((vectors_NF**2).sum(axis=1) ** 2).sum())


def _shrinkage(
    num_images: int, num_features: int, variances: Array64, mean: float, fourth: float
) -> float:
    square = float((variances**2).sum())
    spread = square - num_features * mean**2  # squared distance of S from the ball
    noise = (fourth / num_images - square) / num_images  # of S from the true covariance
    return min(max(noise / spread, 0.0), 1.0) if spread > 0 else 1.0


def _gaussian(tensors: dict[str, Array], name: str) -> Gaussian:
    return Gaussian(
        tensors[f"{name}.axes"], tensors[f"{name}.variances"], float(tensors[f"{name}.rest"][0])
    )


def _check(tensors: dict[str, Array], num_classes: int) -> None:
    centres = tensors.get("centres")
    if centres is None or centres.ndim != 2 or len(centres) != num_classes:
        raise PackageError(
            f"The novelty reference does not hold the centres of {num_classes} implants."
        )
    shapes: dict[str, tuple[int, ...]] = {"centres": centres.shape, "mean": (centres.shape[1],)}
    for name in ("within", "background"):
        variances = tensors.get(f"{name}.variances", np.zeros(0, np.float32))
        shapes[f"{name}.axes"] = (variances.size, centres.shape[1])
        shapes[f"{name}.variances"] = (variances.size,)
        shapes[f"{name}.rest"] = (1,)
    if tensors.keys() != shapes.keys():
        raise PackageError("The novelty reference holds other tensors than it should.")
    for name, tensor in tensors.items():
        positive = not name.endswith((".variances", ".rest")) or bool((tensor > 0).all())
        whole = tensor.dtype == np.float32 and tensor.shape == shapes[name]
        if not whole or not np.isfinite(tensor).all() or not positive:
            raise PackageError(
                f"The novelty reference's {name} is {tensor.dtype} of shape {tensor.shape}; finite "
                f"float32 of shape {shapes[name]}, variances above 0, is expected."
            )
