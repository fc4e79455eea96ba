"""Which images a package's networks learned from: the record in its provenance, and its use.

A network that starts from a package has seen what that learned from; an image of it that tests or
calibrates makes figures and thresholds too good. So a package records the SHA-256 of its training
images' files, cut to 64 bits: it names them to who holds them, and gives no information to others.
The same picture in another file is not found, nor is another picture of the same patient.
"""

import base64
import binascii
from collections.abc import Collection
from typing import Final

import numpy as np

from implant_model.errors import UsageError
from implant_model.package.load import ModelPackage, load_package
from training.data.divide import Division
from training.data.labelled import DIGEST_BYTES, LabelledSet

KEY: Final = "trained_on"
"""Of the record in a package's provenance: base64 of all digests, ascending."""
Digests = frozenset[str]


def pack_digests(digests: Collection[str]) -> str:
    """Return the record of those digests, as it is in a provenance; 11 bytes an image."""
    return base64.b64encode(bytes.fromhex("".join(sorted(set(digests))))).decode()


def record_of(package: ModelPackage) -> Digests | None:
    """Return what the package's networks learned from; None where it has no such record."""
    record = package.provenance.get(KEY)
    try:
        data = base64.b64decode(record, validate=True) if isinstance(record, str) else b""
    except binascii.Error:
        return None
    if not data or len(data) % DIGEST_BYTES:
        return None
    digits, width = data.hex(), 2 * DIGEST_BYTES
    return frozenset(digits[at : at + width] for at in range(0, len(digits), width))


def learned_before(package_uri: str, labelled: LabelledSet, division: Division) -> Digests | None:
    """Hold the package that a training starts from against what shall calibrate and test.

    Args:
        package_uri: Of `network.start_from`; "" for none.
        labelled: The set.
        division: Its parts, of folds too.

    Returns:
        What the first weights learned from: nothing without a package, None where it does not say.

    Raises:
        UsageError: They learned from an image that calibrates or tests.
    """
    if not package_uri:
        return frozenset()
    before = record_of(load_package(package_uri, weights=False))
    splits = (division.shipped, *division.folds)
    held_out = np.unique(
        np.concatenate([part_N for x in splits for part_N in (x.calibration_N, x.test_N)])
    )
    seen = [i for i in held_out.tolist() if before and labelled.digests[i] in before]
    if seen:
        raise UsageError(
            f"The package {package_uri} of network.start_from was trained on {len(seen)} of the "
            f"{len(held_out)} images that are to calibrate or test, and figures on these would be "
            "too good; leave them out, divide the set as it was divided for that package, or start "
            "from another."
        )
    return before


def all_learned(
    labelled: LabelledSet, train_N: np.ndarray, before: Digests | None
) -> Digests | None:
    """What fitted weights learned from, first weights included; None where it is not known."""
    if before is None or not labelled.digests:
        return None
    return before | {labelled.digests[i] for i in train_N.tolist()}
