"""`package.json`: what it holds, read with suspicion and written. Touches no file.

The file may come from anywhere, so every field is checked for type and range, a field that is not
known is refused, and a file name can name nothing outside the package's folder.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION, FIRST_DECODE_VERSION
from implant_model.errors import PackageError, UsageError
from implant_model.json_fields import Fields, parse
from implant_model.networks.spec import NetworkSpec, check_specs
from implant_model.novelty import METHODS, Method
from implant_model.package.catalogue import Catalogue

FORMAT = "implant-package"
FORMAT_VERSION = 2
"""Of packages that are written. Version 2 added `decode_version`; version 1 is read, too."""
READABLE_VERSIONS = (1, 2)
MANIFEST = "package.json"
CARD = "MODEL_CARD.md"
MAX_MANIFEST = 16 << 20
MAX_WEIGHTS = 1 << 30  # of all files together: they are held in memory
MAX_CARD = 4 << 20
MAX_NETWORKS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> None:
    """Refuse what no package may be called.

    Raises:
        UsageError: It has other characters, or too many.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"The name {name[:80]!r} is not accepted: letters, digits, '.', '_' and '-', "
            "at most 64, a letter or digit first."
        )


@dataclass(frozen=True)
class Calibration:
    """What makes probabilities and candidates trustworthy.

    Attributes:
        temperature: Divides the logs of the averaged probabilities.
        conformal_quantile: Largest 1 - probability of a candidate.
        coverage: Share of images whose candidates hold the right implant, as it was asked for.
        class_quantiles: The same for each implant by itself, in the catalogue's order; None where
            the coverage is that of all implants together.
    """

    temperature: float
    conformal_quantile: float
    coverage: float
    class_quantiles: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, object]:
        """The fields as they stand in `package.json`; no `class_quantiles` where there are none."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Novelty:
    """How strangers are distinguished from known implants.

    Attributes:
        file: Name of the reference in the package, `*.safetensors`.
        method: Which distance it gives, see `NoveltyReference`.
        threshold: A score above it makes the outcome `unknown`.
        known_pass_rate: Share of held-out known implants that the threshold was set to let pass.
    """

    file: str
    method: Method
    threshold: float
    known_pass_rate: float


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 (64 hex digits) of one file of the package."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that `package.json` states; see `ModelPackage` for the fields.

    Raises:
        UsageError: From the constructor: a name that is not accepted, networks that do not go
            together, or a file that two of them share.
    """

    name: str
    catalogue: Catalogue
    preprocessing: Preprocessing
    networks: tuple[NetworkSpec, ...]
    calibration: Calibration
    novelty: Novelty
    metrics: Mapping[str, object]
    provenance: Mapping[str, object]
    files: Mapping[str, FileFacts]
    decode_version: int = DECODE_VERSION

    def __post_init__(self) -> None:
        check_name(self.name)
        own = self.calibration.class_quantiles
        if own is not None and len(own) != len(self.catalogue):
            raise UsageError(
                f"The calibration has class_quantiles of {len(own)} implants; the catalogue has "
                f"{len(self.catalogue)}."
            )
        check_specs(self.networks)
        _check_file_names(self.weight_files)

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Return the safetensors files: one a network, and the novelty reference."""
        return (*(spec.file for spec in self.networks), self.novelty.file)

    def to_bytes(self) -> bytes:
        """Return `package.json`; the same content gives the same bytes.

        Raises:
            UsageError: A value that JSON cannot hold, such as a NaN among the metrics.
        """
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "implants": self.catalogue.to_json(),
            "decode_version": self.decode_version,
            "preprocessing": self.preprocessing.to_json(),
            "networks": [spec.to_json() for spec in self.networks],
            "calibration": self.calibration.to_json(),
            "novelty": vars(self.novelty),
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
            "files": {
                name: {"bytes": facts.size, "sha256": facts.sha256}
                for name, facts in self.files.items()
            },
        }
        try:
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
            return f"{text}\n".encode()
        except (TypeError, ValueError) as error:
            raise UsageError(f"{MANIFEST} cannot hold a value of the model: {error}.") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read `package.json`.

        Raises:
            PackageError: Not JSON, of another format or version, or a field that is missing,
                unknown, of the wrong type or out of range.
            UsageError: Fields that do not fit each other.
        """
        fields = Fields(parse(data, MANIFEST), MANIFEST)
        version = _check_format(fields)
        networks = fields.items("networks", 1, MAX_NETWORKS)
        manifest = cls(
            name=fields.text("name"),
            catalogue=Catalogue.from_json(fields.take("implants"), f"{MANIFEST}: implants"),
            preprocessing=Preprocessing.from_json(fields.take("preprocessing")),
            networks=tuple(
                NetworkSpec.from_json(item, f"{MANIFEST}: networks[{place}]")
                for place, item in enumerate(networks)
            ),
            calibration=_calibration(fields.nested("calibration")),
            novelty=_novelty(fields.nested("novelty")),
            metrics=fields.mapping("metrics"),
            provenance=fields.mapping("provenance"),
            files=_files(fields.nested("files")),
            decode_version=(
                FIRST_DECODE_VERSION if version == 1 else fields.whole("decode_version", 1, 1 << 20)
            ),
        )
        fields.close()
        manifest.check_files()
        return manifest

    def check_files(self) -> None:
        """Refuse a list of files that are not exactly those of the package.

        Raises:
            PackageError: One is missing or too many, or they are too large.
        """
        wanted = {*self.weight_files, CARD}
        if odd := sorted(wanted ^ self.files.keys()):
            raise PackageError(
                f"{MANIFEST}: files must list {', '.join(sorted(wanted))[:400]} and no other; "
                f"{odd[0][:80]!r} is missing or too many."
            )
        if sum(facts.size for facts in self.files.values()) > MAX_WEIGHTS:
            raise PackageError(f"{MANIFEST}: files have more than {MAX_WEIGHTS} bytes together.")


def _check_file_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not _WEIGHTS.fullmatch(name):
            raise UsageError(
                f"The file name {name[:80]!r} is not accepted: letters, digits, '.', '_' and '-' "
                "and the ending .safetensors, without a folder."
            )
    if len({name.casefold() for name in names}) != len(names):  # some file systems fold case
        raise UsageError(
            f"A file is named twice among {', '.join(names)[:400]}; each network and the novelty "
            "reference need their own."
        )


def _check_format(fields: Fields) -> int:
    if not fields.has("format") or fields.take("format") != FORMAT:
        raise PackageError(f"{MANIFEST} does not say that its format is {FORMAT!r}.")
    version = fields.take("format_version")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise PackageError(
            f"Its format version is {str(version)[:40]}; this software reads versions "
            f"{' and '.join(map(str, READABLE_VERSIONS))}. Use the software that it was made for, "
            "or train it anew."
        )
    return version


def _calibration(fields: Fields) -> Calibration:
    calibration = Calibration(
        fields.number("temperature", 1e-3, 1e3),
        fields.number("conformal_quantile", 0, 1),
        fields.number("coverage", 0, 1),
        tuple(fields.numbers("class_quantiles", 0, 1)) if fields.has("class_quantiles") else None,
    )
    fields.close()
    return calibration


def _novelty(fields: Fields) -> Novelty:
    method = fields.choice("method", METHODS)
    novelty = Novelty(
        fields.text("file"),
        cast(Method, method),
        fields.number("threshold", -1e12, 1e12),
        fields.number("known_pass_rate", 0, 1),
    )
    fields.close()
    return novelty


def _files(fields: Fields) -> dict[str, FileFacts]:
    files = {}
    for name in fields.names()[: MAX_NETWORKS + 3]:  # more of them are left over, and refused
        entry = fields.nested(name)
        most = MAX_CARD if name == CARD else MAX_WEIGHTS
        files[name] = FileFacts(entry.whole("bytes", 0, most), entry.text("sha256"))
        if not _SHA256.fullmatch(files[name].sha256):
            raise PackageError(f"{entry.where}: sha256 is not 64 lower-case hexadecimal digits.")
        entry.close()
    fields.close()
    return files
