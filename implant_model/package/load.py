"""Reads a model package and checks all of it before any of it is used, see `package`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import AccessDeniedError, NotFoundError, PackageError, UsageError
from implant_model.networks.spec import NetworkSpec
from implant_model.novelty import NoveltyReference
from implant_model.package.catalogue import Catalogue
from implant_model.package.manifest import (
    CARD,
    MANIFEST,
    MAX_MANIFEST,
    FileFacts,
    Manifest,
    Novelty,
)
from implant_model.package.weakness import weaknesses

if TYPE_CHECKING:
    from implant_model.networks.build import Ensemble


@dataclass(frozen=True)
class ModelPackage:
    """A package that was read and found whole.

    Attributes:
        manifest: What package.json states; its fields are here as properties.
        hash: SHA-256 of package.json, in hexadecimal.
        files: Content of every other file, by name.
        uri: Normalised, of the folder or prefix that it was read from.
    """

    manifest: Manifest = field(repr=False)
    hash: str
    files: Mapping[str, bytes] = field(repr=False)
    uri: str = field(default="", repr=False, compare=False)

    @property
    def id(self) -> str:
        """Return what the tables call the model: name and first 12 digits of the hash."""
        return f"{self.name}@{self.hash[:12]}"

    @property
    def name(self) -> str:
        """Of the model, such as `orthonet-phantom`."""
        return self.manifest.name

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Return what its own figures say against it, a sentence each."""
        figures = self.manifest.metrics.get("figures")
        return tuple(weaknesses(figures if isinstance(figures, Mapping) else {}))

    @property
    def catalogue(self) -> Catalogue:
        """Return implants in the order of the outputs."""
        return self.manifest.catalogue

    @property
    def preprocessing(self) -> Preprocessing:
        """Return how pixels become the networks' input."""
        return self.manifest.preprocessing

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """In the order in which they stand in package.json."""
        return self.manifest.networks

    @property
    def temperature(self) -> float:
        """Divide the logs of the averaged probabilities."""
        return self.manifest.calibration.temperature

    @property
    def conformal_quantile(self) -> float:
        """Return largest 1 - probability of a candidate."""
        return self.manifest.calibration.conformal_quantile

    @property
    def quantiles_C(self) -> npt.NDArray[np.float64]:
        """Return largest 1 - probability at which each implant is a candidate."""
        calibration = self.manifest.calibration
        own = calibration.class_quantiles
        return np.array(own or [calibration.conformal_quantile] * len(self.catalogue), np.float64)

    @property
    def coverage(self) -> float:
        """Share of images whose candidates hold the right implant, as it was asked for."""
        return self.manifest.calibration.coverage

    @property
    def novelty(self) -> Novelty:
        """Return file, method and threshold of the novelty score."""
        return self.manifest.novelty

    @property
    def metrics(self) -> Mapping[str, object]:
        """Return figures with the data that they were measured on."""
        return self.manifest.metrics

    @property
    def provenance(self) -> Mapping[str, object]:
        """Return what the package was made from, and by what."""
        return self.manifest.provenance

    @property
    def card(self) -> str:
        """Return the model card, Markdown."""
        return self.files[CARD].decode(errors="replace")

    def novelty_reference(self) -> NoveltyReference:
        """Return the reference that novelty is measured from.

        Raises:
            PackageError: Its file does not hold one for this catalogue.
        """
        data = self.files[self.novelty.file]
        return NoveltyReference.from_bytes(data, self.novelty.method, len(self.catalogue))


def load_package(uri: str, *, weights: bool = True) -> ModelPackage:
    """Read a package and check all of it: hashes, fields, weights.

    Args:
        uri: Folder or prefix: a path, `file://` or `s3://`.
        weights: Also check that the networks take the weights, which needs torch and so some
            seconds; without it, call `check_weights` before the package is used.

    Raises:
        PackageError: Not there, not a package, damaged, or of a version that is not understood.
        StorageError: The store does not answer.
    """
    root = storage.normalise(uri)
    try:
        data = _read(root, MANIFEST, MAX_MANIFEST)
        manifest = Manifest.from_bytes(data)
        files = {name: _read_checked(root, name, facts) for name, facts in manifest.files.items()}
        package = ModelPackage(manifest, sha256(data), files, root)
        if weights:
            _checked_networks(package)
    except NotFoundError:
        raise _not_there(root) from None
    except UsageError as error:
        raise PackageError(f"The model package {root} cannot be used: {error}") from error
    return package


def _not_there(root: str) -> PackageError:
    """Return what is wrong with a root below which there is no package.json."""
    expected = f"a folder or prefix that holds {MANIFEST} and what it lists is expected."
    cannot = f"The model package {root} cannot be used"
    if storage.exists(root) is not None:
        return PackageError(f"{cannot}: it is a file; {expected}")
    try:
        found = next(iter(storage.list_objects(root)), None)
    except NotFoundError:
        return PackageError(str(storage.nothing_there(root, "the model package")))
    has = f"has no {MANIFEST}" if found else "is empty"
    return PackageError(f"{cannot}: it {has}; {expected}")


def _read_checked(root: str, name: str, facts: FileFacts) -> bytes:
    data = _read(root, name, facts.size)
    if len(data) != facts.size or sha256(data) != facts.sha256:
        raise PackageError(_differs(name))
    return data


def _differs(name: str) -> str:
    return (
        f"{name} is not the file that {MANIFEST} lists, its size or SHA-256 differs: it was "
        "changed or damaged. Copy the package again from where it was made."
    )


def _read(root: str, name: str, most: int) -> bytes:
    uri = storage.join(root, name)
    try:
        size = storage.stat(uri).size
        if size > most:
            large = f"{name} has {size} bytes; at most {most} are accepted."
            raise PackageError(large if name == MANIFEST else _differs(name))
        return storage.read_bytes(uri, most)
    except NotFoundError:
        if name == MANIFEST:
            raise
        raise PackageError(
            f"it has no {name}, which {MANIFEST} lists. Copy the package again from where it was "
            "made."
        ) from None
    except AccessDeniedError as error:
        raise PackageError(f"{name} may not be read: {error}") from error


def sha256(data: bytes) -> str:
    """Return the SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_weights(package: ModelPackage) -> None:
    """Check that the networks take their weights, and that the novelty reference fits them.

    Raises:
        PackageError: They do not.
    """
    checked_networks(package)


def checked_networks(package: ModelPackage) -> "Ensemble":
    """Return the networks with their weights, which `check_weights` has nothing against.

    Raises:
        PackageError: They do not fit.
    """
    try:
        return _checked_networks(package)
    except UsageError as error:
        raise PackageError(f"The model package {package.id} cannot be used: {error}") from error


def _checked_networks(package: ModelPackage) -> "Ensemble":
    # Imported here: torch takes seconds, and tasks that only carry a package do without.
    from implant_model.networks.weights import load_networks

    networks = load_networks(package.networks, len(package.catalogue), package.files)
    reference = package.novelty_reference()
    if reference.centres_CF.shape[1] != networks.num_features:
        raise PackageError(
            f"{package.novelty.file} is for embeddings of {reference.centres_CF.shape[1]} values; "
            f"the classifiers give {networks.num_features}."
        )
    return networks
