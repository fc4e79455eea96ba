"""A model package: one folder with all that identification needs, checked before any of it is used.

    package.json         name, implants, preprocessing, networks, calibration, novelty, metrics,
                         provenance, and the size and SHA-256 of every other file
    *.safetensors        the weights of one network each, and the novelty reference
    MODEL_CARD.md        for people

Nothing is unpickled, nothing outside the folder is read, and a file that `package.json` does not
list is not looked at. Whoever can change `package.json` can make another package, but not one of
the same id: the id in the tables holds the hash of `package.json`, and that holds all others.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from implant_model import storage
from implant_model.catalogue import Catalogue
from implant_model.errors import AccessDeniedError, NotFoundError, PackageError, UsageError
from implant_model.network_spec import NetworkSpec
from implant_model.novelty import NoveltyReference
from implant_model.package_manifest import (
    CARD,
    MANIFEST,
    MOST_MANIFEST,
    Calibration,
    FileFacts,
    Manifest,
    Novelty,
)
from implant_model.preprocess import Preprocessing

__all__ = [
    "CARD",
    "MANIFEST",
    "NOVELTY_FILE",
    "Calibration",
    "ModelPackage",
    "Novelty",
    "load_package",
    "save_package",
]

NOTICE = "not a medical device"
NOVELTY_FILE = "novelty.safetensors"


@dataclass(frozen=True)
class ModelPackage:
    """A package that was read and found whole.

    Attributes:
        manifest: What package.json says; its fields are here as properties.
        hash: SHA-256 of package.json, in hexadecimal.
        files: Content of every other file, by name.
    """

    manifest: Manifest = field(repr=False)
    hash: str
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def id(self) -> str:
        """What the tables call the model: name and first 12 digits of the hash."""
        return f"{self.name}@{self.hash[:12]}"

    @property
    def name(self) -> str:
        """Of the model, such as `orthonet-phantom`."""
        return self.manifest.name

    @property
    def catalogue(self) -> Catalogue:
        """Implants in the order of the outputs."""
        return self.manifest.catalogue

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become the networks' input."""
        return self.manifest.preprocessing

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """In the order in which they stand in package.json."""
        return self.manifest.networks

    @property
    def temperature(self) -> float:
        """Divides the logs of the averaged probabilities."""
        return self.manifest.calibration.temperature

    @property
    def conformal_quantile(self) -> float:
        """Largest 1 - probability of a candidate."""
        return self.manifest.calibration.conformal_quantile

    @property
    def coverage(self) -> float:
        """Share of images whose candidates hold the right implant, as it was asked for."""
        return self.manifest.calibration.coverage

    @property
    def novelty(self) -> Novelty:
        """File, method and threshold of the novelty score."""
        return self.manifest.novelty

    @property
    def metrics(self) -> Mapping[str, object]:
        """Figures with the data that they were measured on."""
        return self.manifest.metrics

    @property
    def provenance(self) -> Mapping[str, object]:
        """What the package was made from, and by what."""
        return self.manifest.provenance

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.files[CARD].decode(errors="replace")

    def novelty_reference(self) -> NoveltyReference:
        """Returns the reference that novelty is measured from.

        Raises:
            PackageError: Its file does not hold one for this catalogue.
        """
        data = self.files[self.novelty.file]
        return NoveltyReference.from_bytes(data, self.novelty.method, len(self.catalogue))


def load_package(uri: str) -> ModelPackage:
    """Reads a package and checks all of it: hashes, fields, weights.

    Args:
        uri: Folder or prefix: a path, `file://` or `s3://`.

    Raises:
        PackageError: Not there, not a package, damaged, or of a version that is not understood.
        StorageError: The store does not answer.
    """
    root = storage.normalise(uri)
    try:
        data = _read(root, MANIFEST, MOST_MANIFEST)
        manifest = Manifest.from_bytes(data)
        files = {name: _read_checked(root, name, facts) for name, facts in manifest.files.items()}
        package = ModelPackage(manifest, _sha256(data), files)
        _check_weights(package)
    except UsageError as error:
        raise PackageError(f"The model package {root} cannot be used: {error}") from error
    return package


def save_package(
    folder: Path,
    *,
    name: str,
    catalogue: Catalogue,
    preprocessing: Preprocessing,
    networks: Mapping[NetworkSpec, bytes],
    calibration: Calibration,
    novelty: NoveltyReference,
    novelty_threshold: float,
    known_pass_rate: float,
    metrics: Mapping[str, object],
    provenance: Mapping[str, object],
    card: str,
) -> ModelPackage:
    """Writes a package: staged beside its place, read back and checked, then moved there.

    Args:
        folder: Where to; must not exist, be empty, or hold this very package.
        name: See `ModelPackage`, as all that is not described here.
        catalogue: Implants in the order of the outputs.
        preprocessing: How pixels become the networks' input.
        networks: Each with its weights from `weights.weights_bytes`.
        calibration: Temperature and conformal quantile.
        novelty: The reference; written to novelty.safetensors.
        novelty_threshold: A score above it is `unknown`.
        known_pass_rate: Share of known implants that the threshold lets pass.
        metrics: JSON values.
        provenance: JSON values.
        card: Text of MODEL_CARD.md; it must say that this is not a medical device.

    Returns:
        The package, as `load_package` gives it.

    Raises:
        PackageError: It could not be read back; nothing is left behind.
        UsageError: The fields do not fit each other, the card lacks its notice, or the folder
            holds something else.
    """
    if NOTICE not in " ".join(card.lower().split()):
        raise UsageError(f"The model card must say that the model is {NOTICE}.")
    files = {spec.file: data for spec, data in networks.items()}
    files |= {NOVELTY_FILE: novelty.to_bytes(), CARD: card.encode()}
    manifest = Manifest(
        name,
        catalogue,
        preprocessing,
        tuple(networks),
        calibration,
        Novelty(NOVELTY_FILE, novelty.method, novelty_threshold, known_pass_rate),
        metrics,
        provenance,
        {file: FileFacts(len(data), _sha256(data)) for file, data in files.items()},
    )
    return _write(Path(folder), {MANIFEST: manifest.to_bytes(), **files})


def _write(folder: Path, files: Mapping[str, bytes]) -> ModelPackage:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, data in files.items():
            with (staged / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        staged.chmod(0o755)  # mkdtemp's own mode shuts out whoever is to use the package
        package = load_package(str(staged))
        _move(staged, folder, files)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return package


def _move(staged: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        manifest = folder / MANIFEST
        if not manifest.is_file() or manifest.read_bytes() != files[MANIFEST]:
            raise UsageError(
                f"{folder} already holds something else; choose another folder for the package, "
                "or remove what is there."
            )
        return
    staged.replace(folder)


def _read_checked(root: str, name: str, facts: FileFacts) -> bytes:
    data = _read(root, name, facts.size)
    if len(data) != facts.size or _sha256(data) != facts.sha256:
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
        raise PackageError(
            f"it has no {name}; a folder or prefix that holds {MANIFEST} and what it lists is "
            "wanted."
        ) from None
    except AccessDeniedError as error:
        raise PackageError(f"{name} may not be read: {error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_weights(package: ModelPackage) -> None:
    # Imported here: torch takes seconds, and tasks that only carry a package do without.
    from implant_model.weights import load_networks

    networks = load_networks(package.networks, len(package.catalogue), package.files)
    reference = package.novelty_reference()
    if reference.centres_CF.shape[1] != networks.num_features:
        raise PackageError(
            f"{package.novelty.file} is for embeddings of {reference.centres_CF.shape[1]} values; "
            f"the classifiers give {networks.num_features}."
        )
