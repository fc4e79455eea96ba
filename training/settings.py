"""Sections of a training's settings, each with what its values may be.

Every setting has a value of its own; `training.config` puts the sections together and reads them
from a file. A value that cannot be is a ValueError that names the setting.
"""

import math
from dataclasses import asdict, dataclass
from typing import Final, cast

from implant_model.networks.spec import (
    CLASSIFIERS,
    FISHER,
    FISHER_LITE,
    FISHERS,
    GREY_MEAN,
    GREY_STD,
    TIMM_BACKBONES,
    NetworkSpec,
)
from implant_model.novelty import METHODS, Method

MAX_TEXT: Final = 1000
"""Characters of what a gallery states of its pictures."""


def check(holds: bool, name: str, value: object, wanted: str) -> None:
    """Refuse a value that a setting may not have.

    Raises:
        ValueError: It does not hold; names the setting, its value and what is wanted.
    """
    if not holds:
        raise ValueError(f"{name} is {_toml(value)}; {wanted} is expected.")


def check_together(holds: bool, sentence: str) -> None:
    """Refuse settings that are each allowed, and not both.

    Raises:
        ValueError: It does not hold.
    """
    if not holds:
        raise ValueError(sentence)


def check_seed(name: str, value: int) -> None:
    """Refuse a seed that some generator of random numbers does not take.

    Raises:
        ValueError: It is below 0, or has more than 32 bits: epochs and workers multiply it.
    """
    check(0 <= value < 2**32, name, value, "0 to 2^32 - 1")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@dataclass(frozen=True)
class SplitSettings:
    """How the set is divided.

    Attributes:
        calibration: Share kept for calibration; it neither trains nor tests.
        test: Share kept for the test.
        calibration_each: Images of each class kept for calibration instead of a share; 0 for the
            share. OrthoNet's were 10 (Patel et al. 2021).
        test_each: The same for the test; OrthoNet's were 15.
        folds: 0, or the number of cross-validation folds, at least 3. With folds the shares above
            are not used: the figures are those of the folds' networks, and the network that is
            shipped trains on all folds but one, which calibrates it.
        duplicate_bits: Most differing bits of two perceptual hashes (of 256) of near duplicates.
            On 477 shoulders the same picture differs in up to 36, others in 50 or more.
        seed: Order in which groups are dealt.
    """

    calibration: float = 0.2
    test: float = 0.2
    calibration_each: int = 0
    test_each: int = 0
    folds: int = 0
    duplicate_bits: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        check(0 < self.calibration < 1, "split.calibration", self.calibration, "0 < share < 1")
        check(0 < self.test < 1, "split.test", self.test, "0 < share < 1")
        total = self.calibration + self.test
        check(total < 1, "split.calibration + split.test", total, "less than 1")
        both = (self.calibration_each, self.test_each)
        balanced = min(both) > 0 or both == (0, 0)
        check(balanced, "split.calibration_each and test_each", both, "both, or neither,")
        check(self.folds == 0 or self.folds >= 3, "split.folds", self.folds, "0, or 3 or more,")
        check(0 <= self.duplicate_bits < 256, "split.duplicate_bits", self.duplicate_bits, "0-255")
        check_seed("split.seed", self.seed)


@dataclass(frozen=True)
class Augmentation:
    """How far each random change may go; 0 turns one off.

    Attributes:
        rotation_deg: Largest turn to either side.
        scale: Largest zoom, as a factor's logarithm to base 2: 0.25 is 0.84 to 1.19 times.
        aspect: Largest stretch of width against height, as `scale` is given.
        shear: Largest shear, as a tangent.
        shift: Largest move, as a part of the image's side.
        flip: Probability of a mirror image (left for right).
        brightness: Largest grey value added, of a range of 1.
        contrast: Largest change of the contrast about the mean grey, as a factor's log to base 2.
        gamma: Largest exponent, as its logarithm to base 2.
        ramp: Largest grey slope across the image in a random direction, of a range of 1.
        invert: Probability of a negative.
        noise: Largest standard deviation of the noise, of a range of 1.
        blur_px: Largest standard deviation of the blur.
        resolution: Largest loss of resolution, as a factor's logarithm to base 2.
        erase: Largest area left out, as a part of the image's area.
    """

    rotation_deg: float = 15.0
    scale: float = 0.25
    aspect: float = 0.15
    shear: float = 0.1
    shift: float = 0.08
    flip: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.5
    gamma: float = 0.5
    ramp: float = 0.2
    invert: float = 0.0
    noise: float = 0.04
    blur_px: float = 1.0
    resolution: float = 1.0
    erase: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            allowed = math.isfinite(value) and value >= 0
            check(allowed, f"augment.{name}", value, "a number >= 0")
        for name in ("flip", "invert", "erase"):
            value = getattr(self, name)
            check(value <= 1, f"augment.{name}", value, "0 to 1")


@dataclass(frozen=True)
class SegmenterSettings:
    """How the U-Net is fitted.

    Attributes:
        width: Channels of its first level; 0 for no segmenter.
        reduction: Side of the squares that the image is averaged over before it.
        masks: Folder of masks made or corrected by hand, which go before automatic ones; "" for
            none. See `training.masks.mask_files`. Masks that a labels file names lie in it, too;
            with "", beside the labels file.
        epochs: Passes over the images with masks.
        batch_size: Images of one step, over all workers together.
        learning_rate: AdamW's, at its highest; it falls as a cosine to 0.
        weight_decay: AdamW's.
        seed: Of weights, batches and views.
    """

    width: int = 0
    reduction: int = 1
    masks: str = ""
    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {"width": (0, 128), "reduction": (1, 8), "epochs": (1, 10_000)}
        for name, (low, high) in {**ranges, "batch_size": (1, 4096)}.items():
            value = getattr(self, name)
            check(low <= value <= high, f"segmenter.{name}", value, f"{low} to {high}")
        check(self.learning_rate > 0, "segmenter.learning_rate", self.learning_rate, "more than 0")
        check(self.weight_decay >= 0, "segmenter.weight_decay", self.weight_decay, "0 or more")
        check_seed("segmenter.seed", self.seed)

    def spec(self) -> NetworkSpec:
        """Return the network as it is in a package; there must be a width."""
        return NetworkSpec(
            "segmenter.safetensors",
            "segmenter",
            "unet",
            width=self.width,
            reduction=self.reduction,
            mean=GREY_MEAN,
            std=GREY_STD,
        )


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is fitted.

    Attributes:
        architecture: A backbone of torchvision's or timm's that `networks.build` builds, fitted by
            epochs, or `fisher`: upright views, local descriptors and a linear layer, fitted at
            once, of which `fit` sets class_balance and seed alone (for a few hundred radiographs);
            or `fisher_efficientnet_lite`, the same with descriptors of two pretrained networks.
        pretrained: Whether to start from torchvision's ImageNet weights (downloaded by torch).
        start_from: A model package whose network of the same architecture gives the first weights
            of all but the last layer, and whose U-Net of the same width, if it has one, gives the
            segmenter's; "" for none.
        weights: Files of first weights, safetensors, `.pth` or Keras's `.h5`, or hub's folders with
            one: of a backbone of torchvision's, or, for `fisher_efficientnet_lite`, those of
            EfficientNet-Lite1 and -Lite2, which describe views; none for no such weights.
        classes: Where `fit.epochs` is 0, the labels in the order of that file's outputs, with
            commas between; "" for their alphabetical order.
        mean: Grey subtracted, in 0..1.
        std: Grey divided by.
    """

    architecture: str = "resnet18"
    pretrained: bool = False
    start_from: str = ""
    weights: tuple[str, ...] = ()
    classes: str = ""
    mean: float = 0.449
    std: float = 0.226

    def __post_init__(self) -> None:
        known = self.architecture in CLASSIFIERS
        accepted = f"one of {', '.join(CLASSIFIERS)}"
        check(known, "network.architecture", self.architecture, accepted)
        check(-10 <= self.mean <= 10, "network.mean", self.mean, "-10 to 10")
        check(1e-3 <= self.std <= 10, "network.std", self.std, "0.001 to 10")
        stated = [name for name in ("pretrained", "start_from", "weights") if getattr(self, name)]
        check_together(
            len(stated) < 2,
            f"network.{' and network.'.join(stated)} are set; each states the first weights. Leave "
            "all but one out.",
        )
        for name in ("pretrained", "start_from"):
            value = getattr(self, name)
            others = (*FISHERS, *TIMM_BACKBONES) if name == "pretrained" else FISHERS
            check_together(
                self.architecture not in others or not value,
                f"network.{name} is {_toml(value)} and network.architecture {self.architecture!r}, "
                "which has no such first weights. Leave it out, or choose another architecture.",
            )
        most = {FISHER: 0, FISHER_LITE: 2}.get(self.architecture, 1)
        least = most if self.architecture == FISHER_LITE else 0
        check_together(
            least <= len(self.weights) <= most,
            f"network.weights is {list(self.weights)} and network.architecture "
            f"{self.architecture!r}; {FISHER_LITE} needs the files of EfficientNet-Lite1's and "
            f"-Lite2's weights, {FISHER} takes none, and all others one at most.",
        )


@dataclass(frozen=True)
class FitSettings:
    """How it is fitted.

    Attributes:
        epochs: Passes over the training part; 0 fits nothing and takes `network.weights` as they
            are, with their last layer.
        batch_size: Images of one step, over all workers together.
        learning_rate: AdamW's, at its highest.
        weight_decay: AdamW's.
        warmup: Part of the steps in which the rate climbs; it then falls as a cosine to 0.
        label_smoothing: Share of the target given to all classes alike.
        ema: Decay of the average of the weights that is kept as the result; 0 keeps the last.
        class_balance: 0 draws images alike, 1 draws classes alike, between them in proportion to
            the class's count to the power of its negative.
        half_size: Share of the epochs, the first ones, in which views have half the side: a quarter
            of the work while the coarse forms are learned (Tan and Le 2021, progressive learning).
        validation: Share of the training part's groups that early stopping watches; it does not
            train then. 0 for none.
        patience: Epochs without a lower loss there after which the training ends with the best
            weights; 0 trains all epochs.
        mixed_precision: bfloat16 where torch's autocast deems it safe.
        checkpoint_epochs: A checkpoint is written after so many epochs.
        checkpoints: Folder or URI (s3://...) for checkpoints that every worker reaches; "" for the
            training's own working folder.
        max_failures: Restarts after lost workers.
        threads: Threads of each CPU worker.
        seed: Of weights, batches and augmentation.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    label_smoothing: float = 0.1
    ema: float = 0.99
    class_balance: float = 0.5
    half_size: float = 0.0
    validation: float = 0.0
    patience: int = 0
    mixed_precision: bool = True
    checkpoint_epochs: int = 5
    checkpoints: str = ""
    max_failures: int = 2
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "checkpoint_epochs", "threads"):
            value = getattr(self, name)
            check(value >= 1, f"fit.{name}", value, "a whole number >= 1")
        check(self.epochs >= 0, "fit.epochs", self.epochs, "a whole number >= 0")
        for name in ("warmup", "label_smoothing", "ema", "half_size", "validation"):
            value = getattr(self, name)
            check(0 <= value < 1, f"fit.{name}", value, "0 <= share < 1")
        check(self.learning_rate > 0, "fit.learning_rate", self.learning_rate, "more than 0")
        check(self.weight_decay >= 0, "fit.weight_decay", self.weight_decay, "0 or more")
        check(0 <= self.class_balance <= 1, "fit.class_balance", self.class_balance, "0 to 1")
        together = self.patience >= 0 and (self.patience > 0) == (self.validation > 0)
        both = (self.patience, self.validation)
        check(together, "fit.patience and fit.validation", both, "both, or neither,")
        check(self.max_failures >= 0, "fit.max_failures", self.max_failures, "0 or more")
        check_seed("fit.seed", self.seed)


@dataclass(frozen=True)
class CalibrationSettings:
    """What the package promises.

    Attributes:
        coverage: Share of known implants whose candidates hold the right one.
        known_pass: Share of known implants that the novelty threshold lets pass.
        novelty: How far an image is from the known ones, see `implant_model.novelty`, and
            benchmarks/novelty.md. `mahalanobis` serves learned networks best, and
            `normalised_mahalanobis` the embeddings of `fisher`, whose length means little: it told
            phantoms from held-out shoulders with an AUROC of 0.97 against 0.94 and, relative, 0.74.
        by_class: Whether that coverage is promised for each class by itself; one with too few
            calibration images (9 for 0.9) is covered together with all.
        folds: 0: a part of the set calibrates and does not train. Otherwise all but the test part
            trains, and is held out from itself in so many folds to calibrate; of a few hundred
            images a part is too few for that. For the `fisher` architectures alone, of which only
            the last layer sees labels and is fitted anew for each fold.
    """

    coverage: float = 0.9
    known_pass: float = 0.98
    novelty: str = "mahalanobis"
    by_class: bool = False
    folds: int = 0

    def __post_init__(self) -> None:
        for name in ("coverage", "known_pass"):
            value = getattr(self, name)
            check(0.5 <= value < 1, f"calibration.{name}", value, "0.5 <= share < 1")
        check(self.novelty in METHODS, "calibration.novelty", self.novelty, " or ".join(METHODS))
        check(self.folds == 0 or self.folds >= 2, "calibration.folds", self.folds, "0, or over 1,")

    @property
    def method(self) -> Method:
        """`novelty`, checked."""
        return cast(Method, self.novelty)


@dataclass(frozen=True)
class CardSettings:
    """What the model card states of the data, in whole sentences.

    Attributes:
        source: Where the images come from.
        licence: Their licence.
        synthetic: Whether they are phantoms, of which the card then states what they cannot show.
        notes: Anything else a user must know.
        weights: Origin and licence of `network.weights`, if there are any.
    """

    source: str = "Not stated."
    licence: str = "Not stated."
    synthetic: bool = False
    notes: str = ""
    weights: str = ""


@dataclass(frozen=True)
class GallerySettings:
    """Reference radiographs that are put beside the package, see `jobs.gallery`.

    Attributes:
        per_class: Of each implant, out of what trained the networks; 0 for none, since they are
            pictures of patients, which travel with the package.
        source: Where they come from, without identifiers.
        licence: Under which they may be shown.
    """

    per_class: int = 0
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check(self.per_class >= 0, "gallery.per_class", self.per_class, "0 or more")
        for name in ("source", "licence"):
            value = getattr(self, name)
            most, is_asked = MAX_TEXT, self.per_class > 0
            fits = (0 < len(value.strip()) <= most) if is_asked else not value
            wanted = f"a text of 1 to {most:,} characters" if is_asked else 'with per_class, or ""'
            check(fits, f"gallery.{name}", value[:80], wanted)


@dataclass(frozen=True)
class DataSettings:
    """Where the set is kept while it is trained on.

    Attributes:
        cache: Folder or URI (s3://...) for prepared images that every worker reaches; several
            trainings may share one. "" for the training's own working folder.
    """

    cache: str = ""
