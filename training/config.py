"""Settings of a training: frozen settings, read from one TOML or JSON file.

Sections: `preprocessing`, `split`, `augment`, `segmenter`, `network`, `fit`, `calibration`,
`card`, and one table `implants.LABEL` for each class with its joint, manufacturer and product.
Everything has a value of its own, so that a file holds only what differs. Library functions take
plain arguments; this module is for the edge.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_type_hints

from implant_model.errors import UsageError
from implant_model.networks.spec import FISHER
from implant_model.novelty import METHODS, Method
from implant_model.package.catalogue import ORTHONET, Catalogue, Implant
from implant_model.package.manifest import check_name
from training.fit.augment import Augmentation
from training.fit.segmenter import SegmenterSettings

Section = TypeVar("Section")


_PLACE: Final = re.compile(r"line \d+,? column \d+|end of document")


def _wanted(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; {wanted} is expected.")


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
        _wanted(0 < self.calibration < 1, "split.calibration", self.calibration, "0 < share < 1")
        _wanted(0 < self.test < 1, "split.test", self.test, "0 < share < 1")
        total = self.calibration + self.test
        _wanted(total < 1, "split.calibration + split.test", total, "less than 1")
        both = (self.calibration_each, self.test_each)
        balanced = min(both) > 0 or both == (0, 0)
        _wanted(balanced, "split.calibration_each and test_each", both, "both, or neither,")
        _wanted(self.folds == 0 or self.folds >= 3, "split.folds", self.folds, "0, or 3 or more,")
        _wanted(
            0 <= self.duplicate_bits < 256, "split.duplicate_bits", self.duplicate_bits, "0-255"
        )


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is fitted.

    Attributes:
        architecture: A backbone of torchvision's that `networks.build` builds, fitted by
            epochs, or `fisher`: upright views, local descriptors and a linear layer, fitted at
            once, of which `fit` sets class_balance and seed alone (for a few hundred radiographs).
        pretrained: Whether to start from torchvision's ImageNet weights (downloaded by torch).
        start_from: A model package whose network of the same architecture gives the first weights
            of all but the last layer, and whose U-Net of the same width, if it has one, gives the
            segmenter's; "" for none.
        mean: Grey subtracted, in 0..1.
        std: Grey divided by.
    """

    architecture: str = "resnet18"
    pretrained: bool = False
    start_from: str = ""
    mean: float = 0.449
    std: float = 0.226

    def __post_init__(self) -> None:
        both = self.pretrained and bool(self.start_from)
        _wanted(not both, "network.start_from", self.start_from, "nothing beside pretrained")
        start = self.start_from or self.pretrained
        fits = self.architecture != FISHER or not start
        _wanted(fits, "network.architecture", FISHER, "a torchvision backbone with first weights")
        _wanted(self.std > 0, "network.std", self.std, "more than 0")


@dataclass(frozen=True)
class FitSettings:
    """How it is fitted.

    Attributes:
        epochs: Passes over the training part.
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
        for name in ("epochs", "batch_size", "checkpoint_epochs", "threads"):
            value = getattr(self, name)
            _wanted(value >= 1, f"fit.{name}", value, "a whole number >= 1")
        for name in ("warmup", "label_smoothing", "ema", "half_size", "validation"):
            value = getattr(self, name)
            _wanted(0 <= value < 1, f"fit.{name}", value, "0 <= share < 1")
        _wanted(self.learning_rate > 0, "fit.learning_rate", self.learning_rate, "more than 0")
        _wanted(self.weight_decay >= 0, "fit.weight_decay", self.weight_decay, "0 or more")
        _wanted(0 <= self.class_balance <= 1, "fit.class_balance", self.class_balance, "0 to 1")
        together = self.patience >= 0 and (self.patience > 0) == (self.validation > 0)
        both = (self.patience, self.validation)
        _wanted(together, "fit.patience and fit.validation", both, "both, or neither,")
        _wanted(self.max_failures >= 0, "fit.max_failures", self.max_failures, "0 or more")


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
            images a part is too few for that. For `fisher` alone, of which only the last layer sees
            labels and is fitted anew for each fold.
    """

    coverage: float = 0.9
    known_pass: float = 0.98
    novelty: str = "mahalanobis"
    by_class: bool = False
    folds: int = 0

    def __post_init__(self) -> None:
        for name in ("coverage", "known_pass"):
            value = getattr(self, name)
            _wanted(0.5 <= value < 1, f"calibration.{name}", value, "0.5 <= share < 1")
        _wanted(self.novelty in METHODS, "calibration.novelty", self.novelty, " or ".join(METHODS))
        _wanted(
            self.folds == 0 or self.folds >= 2, "calibration.folds", self.folds, "0, or over 1,"
        )

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
    """

    source: str = "Not stated."
    licence: str = "Not stated."
    synthetic: bool = False
    notes: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one training.

    Attributes:
        name: The package's name.
        preprocessing: Fields of `decode.preprocess.Preprocessing`, as in `package.json`.
        segmenter: With a width, OrthoNet's whole method is fitted: a U-Net, a network of the
            radiograph, another of the radiograph and its cut-out, and their average.
        implants: For each label its joint, manufacturer and product; a label that is missing here
            is OrthoNet's, or gets itself as manufacturer and `unspecified` as joint.
    """

    name: str = "implants"
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    split: SplitSettings = field(default_factory=SplitSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    card: CardSettings = field(default_factory=CardSettings)
    implants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        for label, facts in self.implants.items():
            _wanted(isinstance(facts, Mapping), f"implants.{label}", facts, "a table")
        alone = self.network.architecture != FISHER or not self.segmenter.width
        _wanted(alone, "segmenter.width", self.segmenter.width, f"0 beside a {FISHER} network")
        parted = self.network.architecture == FISHER or not self.calibration.folds
        folds = self.calibration.folds
        _wanted(parted, "calibration.folds", folds, f"0 but for a {FISHER} network")

    @property
    def needs_masks(self) -> bool:
        """Whether the set's masks are needed: to fit a segmenter, or to bring implants upright."""
        return bool(self.segmenter.width) or self.network.architecture == FISHER

    def catalogue(self, labels: tuple[str, ...]) -> Catalogue:
        """Return the implants of the given labels, in their order.

        Raises:
            UsageError: A table `implants.LABEL` has no images, or holds what an implant has not.
        """
        strange = sorted(set(self.implants) - set(labels))
        if strange:
            raise UsageError(
                f"The settings describe the implant {strange[0]!r}, of which there is no image; "
                f"the labels are {', '.join(labels)}."
            )
        return Catalogue(tuple(self._implant(label) for label in labels))

    def _implant(self, label: str) -> Implant:
        usual: dict[str, object] = {"joint": "unspecified", "manufacturer": label}
        if label in ORTHONET.names:
            usual = ORTHONET[ORTHONET.index(label)].to_json()
        facts = {**usual, **self.implants.get(label, {}), "name": label}
        return Implant.from_json(facts, f"the settings' implants.{label}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as `from_document` reads them."""
        return asdict(self)


def load_config(path: str | None) -> TrainConfig:
    """Read a settings file; without one, all settings have their own values.

    Raises:
        UsageError: Not there, neither TOML nor JSON, an unknown setting, or a value out of range.
    """
    if path is None:
        return TrainConfig()
    try:
        data = Path(path).read_bytes()
        text = data.decode()
        document = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.endswith(".json") else "TOML"
        place = _PLACE.search(str(error))  # the rest of it may show what the file holds
        at = f" at its {place[0]}" if place else ""
        raise UsageError(f"The settings file {path} is not valid {kind}{at}.") from error
    return from_document(document, path)


def from_document(document: object, where: str) -> TrainConfig:
    """Check plain values and make settings of them; errors are as of `load_config`."""
    try:
        return _section(TrainConfig, document, "")
    except ValueError as error:
        raise UsageError(f"The settings in {where} cannot be used: {error}") from error


def _section(kind: type[Section], document: object, prefix: str) -> Section:
    if not isinstance(document, dict):
        raise ValueError(f"{prefix or 'the file'} is {document!r}; a table is expected.")
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    for name in document:
        if name not in names:
            raise ValueError(f"{prefix}{name} is no setting; accepted are {', '.join(names)}.")
    values = {key: _value(hints[key], item, prefix + key) for key, item in document.items()}
    return kind(**values)


def _value(hint: Any, value: object, name: str) -> object:
    if is_dataclass(hint) and isinstance(hint, type):
        return _section(hint, value, f"{name}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; a finite number is expected.")
    plain = hint if isinstance(hint, type) else dict
    if type(value) is not plain:
        raise ValueError(f"{name} is {value!r}; a value of type {plain.__name__} is expected.")
    return value
