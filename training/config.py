"""Settings of a training: frozen settings, read from one TOML or JSON file.

Sections: `preprocessing`, `split`, `augment`, `segmenter`, `network`, `fit`, `calibration`,
`card`, `gallery`, and one table `implants.LABEL` for each class with its joint, manufacturer and
product. Everything has a value of its own, so that a file holds only what differs. Library
functions take plain arguments; this module is for the edge.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.networks.spec import BACKBONES, FISHERS, TIMM_BACKBONES
from implant_model.package.catalogue import ORTHONET, Catalogue, Implant
from implant_model.package.manifest import check_name
from training.settings import (
    Augmentation,
    CalibrationSettings,
    CardSettings,
    DataSettings,
    FitSettings,
    GallerySettings,
    NetworkSettings,
    SegmenterSettings,
    SplitSettings,
    check,
    check_together,
)

Section = TypeVar("Section")
_PLACE: Final = re.compile(r"line \d+,? column \d+|end of document(?=\)$)")


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
    data: DataSettings = field(default_factory=DataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    card: CardSettings = field(default_factory=CardSettings)
    gallery: GallerySettings = field(default_factory=GallerySettings)
    implants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        for label, facts in self.implants.items():
            check(isinstance(facts, Mapping), f"implants.{label}", facts, "a table")
            self._implant(label)
        self._check_preprocessing()
        architecture, width = self.network.architecture, self.segmenter.width
        check_together(
            architecture not in FISHERS or not width,
            f"segmenter.width is {width} and network.architecture {architecture!r}, which needs no "
            "segmenter. Set the width to 0, or choose another architecture.",
        )
        taken = self.network.weights and architecture not in FISHERS and not width
        check_together(
            bool(self.fit.epochs or taken),
            "fit.epochs is 0, which takes the weights of a file as they are: name it by "
            "network.weights, with a backbone of torchvision's and no segmenter.",
        )
        folds = self.calibration.folds
        check_together(
            architecture in FISHERS or not folds,
            f"calibration.folds is {folds} and network.architecture {architecture!r}; by folds of "
            f"its training part only {' and '.join(FISHERS)} are calibrated. Set the folds to 0, "
            "or choose one of them.",
        )

    def _check_preprocessing(self) -> None:
        names = [item.name for item in fields(Preprocessing)]
        for name in self.preprocessing:
            if name not in names:
                raise ValueError(
                    f"preprocessing.{name} is no setting; accepted are {', '.join(names)}."
                )
        self.pixels  # noqa: B018  # states what is out of range

    @property
    def pixels(self) -> Preprocessing:
        """`preprocessing`, checked, with its defaults."""
        return Preprocessing(**self.preprocessing)

    @property
    def needs_masks(self) -> bool:
        """Whether the set's masks are needed: to fit a segmenter, or to bring implants upright."""
        return bool(self.segmenter.width) or self.network.architecture in FISHERS

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
        document, weights = asdict(self), self.network.weights
        document["network"]["weights"] = list(weights) if len(weights) > 1 else "".join(weights)
        return document


def as_imported(config: TrainConfig, file: str, architecture: str) -> TrainConfig:
    """Return settings that take the network of a file as it is.

    Args:
        config: All else.
        file: Of weights.
        architecture: Torchvision's or timm's name of the network.

    Raises:
        UsageError: It is none of theirs, or the settings want another network.
    """
    accepted = (*BACKBONES, *TIMM_BACKBONES)
    if architecture not in accepted:
        raise UsageError(f"--architecture is {architecture!r}; accepted are {', '.join(accepted)}.")
    try:
        network = replace(config.network, architecture=architecture, weights=(file,))
        return replace(
            config, network=network, fit=replace(config.fit, epochs=0, patience=0, validation=0.0)
        )
    except (ValueError, UsageError) as error:
        raise UsageError(f"The settings do not fit an imported network: {error}") from error


def load_config(path: str | None) -> TrainConfig:
    """Read a settings file; without one, all settings have their own values.

    Raises:
        UsageError: Not there, neither TOML nor JSON, an unknown setting, or a value out of range.
    """
    if path is None:
        return TrainConfig()
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8-sig")
        document = _json(text, path) if path.endswith(".json") else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(_invalid(path, error)) from error
    return from_document(document, path)


def _json(text: str, path: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        document = dict(pairs)
        if len(document) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"The settings file {path} has {twice!r} twice in a table; leave one.")
        return document

    return json.loads(text, object_pairs_hook=once)


def _invalid(path: str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"The settings file {path} is not UTF-8 at its line {line}."
    kind = "JSON" if path.endswith(".json") else "TOML"
    place = _PLACE.search(str(error))  # the rest of it may show what the file holds
    return f"The settings file {path} is not valid {kind}{f' at its {place[0]}' if place else ''}."


def from_document(document: object, where: str) -> TrainConfig:
    """Check plain values and make settings of them; errors are as of `load_config`."""
    try:
        return _section(TrainConfig, document, "")
    except (ValueError, UsageError) as error:
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
    if hint == tuple[str, ...]:
        return _texts(value, name)
    plain = hint if isinstance(hint, type) else dict
    if type(value) is not plain:
        raise ValueError(f"{name} is {value!r}; a value of type {plain.__name__} is expected.")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    """Return the texts of a list; one alone needs none, and "" is no text."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"{name} is {value!r}; a text, or a list of texts, is expected.")
    return tuple(each for each in listed if each)
