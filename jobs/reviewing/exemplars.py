"""Chooses reference radiographs out of a labelled set, and puts them beside a package."""

import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from implant_model import storage
from implant_model.classifier import Classifier, measure
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import FILE, MAX_ROWS, MAX_SIDE_PX, References
from implant_model.storage.local_files import write_whole
from implant_model.storage.uri import is_s3, local_path
from jobs.entry.command import DISCLAIMER, OK
from jobs.entry.ticker import ticking, waiting
from training.data.gather import Gathered, gather, list_images
from training.data.labelled import reason_counts
from training.data.labels import read_table

READABLE: Final = 0o644


def add_references(call: Namespace) -> int:
    """Add references to a package, of `jobs.gallery`.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong, or no image shows an implant of the package.
        PackageError: The package is missing or damaged.
    """
    uri = storage.normalise(call.model)
    if is_s3(uri):
        raise UsageError(
            f"--model is {uri}; a package on this machine is expected. Copy {FILE} beside the "
            "package in the store when it is made."
        )
    folder = Path(local_path(uri))
    package = load_package(call.model, weights=False)
    if call.per_class * len(package.catalogue) > MAX_ROWS:
        raise UsageError(f"--per-class is too large: {MAX_ROWS:,} references are accepted in all.")
    labels = None if call.labels is None else read_table(call.labels, "--labels")
    objects = list_images(call.images, () if labels is None else (labels.uri,))
    with ticking("Images read") as tick, tempfile.TemporaryDirectory() as cache:
        held = gather(objects, labels, package.preprocessing, Limits(), cache, tick)
        return _add(call, folder, package, held)


def _add(call: Namespace, folder: Path, package: ModelPackage, held: Gathered) -> int:
    known = [package.catalogue.find(label) for label in held.labels]
    chosen = choose(known, held, call.per_class)
    if not chosen:
        raise UsageError(
            f"No image shows an implant of {package.id}: {len(held.images):,} were read, with the "
            f"labels {', '.join(sorted({*held.labels})[:8]) or 'none'} ({reason_counts(held)})."
        )
    images_NHW = held.images[np.array(chosen)]
    with waiting("Embeddings are computed"):
        _, features_NF = measure(Classifier(package).networks, images_NHW)
    references = References(
        np.array([known[at] for at in chosen], np.int64),
        features_NF,
        tuple(map(picture_of, images_NHW)),
        (call.source,) * len(chosen),
        (call.licence,) * len(chosen),
    )
    _write(folder / FILE, references.to_bytes(package))
    counts = Counter(package.catalogue.names[label] for label in references.label_R.tolist())
    for name in package.catalogue.names:
        print(f"  {name:<40} {counts[name]:>4}")
    print(f"{folder / FILE}: {len(references):,} references of {package.id}\n{DISCLAIMER}")
    return OK


def choose(known: Sequence[int | None], held: Gathered, per_class: int) -> list[int]:
    """Return places of the images that become references, implant by implant.

    In an order that follows from the images' content, so that the same set gives the same; of
    patients who have several, the others come when each patient has one.
    """
    taken: Counter[tuple[int, int | str]] = Counter()
    ranked: list[tuple[int, int, str, int]] = []
    for at in sorted(range(len(known)), key=lambda at: held.digests[at]):
        label = known[at]
        if label is None:
            continue
        patient = int(held.patients_N[at])
        owner = label, held.digests[at] if patient < 0 else patient
        ranked.append((label, taken[owner], held.digests[at], at))
        taken[owner] += 1
    used: Counter[int] = Counter()
    chosen = []
    for label, _, _, at in sorted(ranked):
        if used[label] < per_class:
            chosen.append(at)
            used[label] += 1
    return chosen


def picture_of(image_HW: npt.NDArray[np.uint8]) -> bytes:
    """Return what the networks see as an 8-bit grey PNG of at most 256 px a side."""
    if max(image_HW.shape) > MAX_SIDE_PX:
        size = (MAX_SIDE_PX, MAX_SIDE_PX)
        image_HW = np.asarray(cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".png", image_HW, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
        path.chmod(READABLE)  # as the package's other files are
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
