"""Chooses reference radiographs out of a labelled set, and puts them beside a package."""

import tempfile
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import FILE, MAX_ROWS
from implant_model.storage.uri import is_s3, local_path
from jobs.entry.command import DISCLAIMER, OK
from jobs.entry.ticker import ticking, waiting
from training.data.gather import Gathered, gather, list_images
from training.data.labelled import reason_counts
from training.data.labels import read_table
from training.reference_pictures import choose, write_references


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
    chosen = choose(known, held.patients_N, held.digests, call.per_class)
    if not chosen:
        raise UsageError(
            f"No image shows an implant of {package.id}: {len(held.images):,} were read, with the "
            f"labels {', '.join(sorted({*held.labels})[:8]) or 'none'} ({reason_counts(held)})."
        )
    label_R = np.array([known[at] for at in chosen], np.int64)
    try:
        with waiting("Embeddings are computed"):
            references = write_references(
                folder, package, held.images[np.array(chosen)], label_R, call.source, call.licence
            )
    except OSError as error:
        raise UsageError(f"{folder / FILE} cannot be written: {error.strerror}.") from error
    counts = Counter(package.catalogue.names[label] for label in references.label_R.tolist())
    for name in package.catalogue.names:
        print(f"  {name:<40} {counts[name]:>4}")
    print(f"{folder / FILE}: {len(references):,} references of {package.id}\n{DISCLAIMER}")
    return OK
