"""A model package: one folder with all that identification needs, checked before any of it is used.

    package.json         name, implants, preprocessing, networks, calibration, novelty, metrics,
                         provenance, and the size and SHA-256 of every other file
    *.safetensors        the weights of one network each, and the novelty reference
    MODEL_CARD.md        for people

Nothing is unpickled, nothing outside the folder is read, and a file that `package.json` does not
list is not looked at, but for the pictures of `references.py`, which change no answer. Whoever can
change `package.json` can make another package, but not one of the same id: the id in the tables
holds the hash of `package.json`, and that holds all others.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import UsageError
from implant_model.networks.spec import NetworkSpec
from implant_model.novelty import NoveltyReference
from implant_model.package.catalogue import Catalogue
from implant_model.package.load import ModelPackage, load_package, sha256
from implant_model.package.manifest import CARD, MANIFEST, Calibration, FileFacts, Manifest, Novelty

NOTICE = "not a medical device"
NOVELTY_FILE = "novelty.safetensors"


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
    decode_version: int = DECODE_VERSION,
) -> ModelPackage:
    """Write a package: staged beside its place, read back and checked, then moved there.

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
        decode_version: Of the decode on whose pictures it was calibrated.

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
        {file: FileFacts(len(data), sha256(data)) for file, data in files.items()},
        decode_version,
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
    return replace(package, uri=storage.normalise(str(folder)))


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
