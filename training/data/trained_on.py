"""Which images a package's networks learned from: the record in its provenance, and its use.

A network that starts from a package has seen what that learned from; an image of it that tests or
calibrates makes figures and thresholds too good. So a package records the SHA-256 of its training
images' files, cut to 64 bits: it names them to who holds them, and gives no information to others.
The same picture in another file is not found, nor is another picture of the same patient.
"""

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator, Set
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import UsageError
from implant_model.package.load import ModelPackage, load_package
from training.data.divide import Division
from training.data.labelled import DIGEST_BYTES, LabelledSet
from training.data.set_columns import digest_values

KEY: Final = "trained_on"
"""Of the record in a package's provenance: base64 of all digests, ascending."""
MAX_RECORDED: Final = 1_000_000
"""Digests of one record: 11 MB of a package.json, which may have 16 MiB. Of more there is none."""


class Digests(Set[str]):
    """A set of digests, 8 bytes each.

    Args:
        digests: Its members; of another such set they are shared.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        if isinstance(digests, Digests):
            self.values_U: NDArray[np.uint64] = digests.values_U
        else:
            self.values_U = np.unique(digest_values(digests))

    @classmethod
    def of_values(cls, values_N: NDArray[np.uint64]) -> "Digests":
        """Return the set of digests by their numbers."""
        found = cls()
        found.values_U = np.unique(values_N)
        return found

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and bool(self.hold(digest_values([digest]))[0])

    def __iter__(self) -> Iterator[str]:
        return (f"{value:016x}" for value in self.values_U)

    def __len__(self) -> int:
        return len(self.values_U)

    def hold(self, values_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return of each digest, by its number, whether it is one of these."""
        if not len(self):
            return np.zeros(len(values_N), np.bool_)
        at_N = np.searchsorted(self.values_U, values_N).clip(max=len(self) - 1)
        return np.asarray(self.values_U[at_N] == values_N)

    def with_values(self, values_N: NDArray[np.uint64]) -> "Digests":
        """Return these and others, by their numbers."""
        return Digests.of_values(np.concatenate([self.values_U, values_N]))


def pack_digests(digests: Collection[str]) -> str:
    """Return the record of those digests, as it is in a provenance; 11 bytes an image."""
    return base64.b64encode(Digests(digests).values_U.astype(">u8").tobytes()).decode()


def record_of(package: ModelPackage) -> Digests | None:
    """Return what the package's networks learned from; None where it has no such record."""
    record = package.provenance.get(KEY)
    try:
        data = base64.b64decode(record, validate=True) if isinstance(record, str) else b""
    except binascii.Error:
        return None
    if not data or len(data) % DIGEST_BYTES:
        return None
    return Digests.of_values(np.frombuffer(data, ">u8").astype(np.uint64))


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
        return Digests()
    before = record_of(load_package(package_uri, weights=False))
    held_out_N = np.zeros(len(labelled), np.bool_)
    for split in chain([division.shipped], division.folds):
        held_out_N[split.calibration_N] = held_out_N[split.test_N] = True
    if not before:
        return before
    seen = int(before.hold(digest_values(labelled.digests)[held_out_N]).sum())
    if seen:
        raise UsageError(
            f"The package {package_uri} of network.start_from was trained on {seen} of the "
            f"{held_out_N.sum()} images that are to calibrate or test, and figures on these would "
            "be too good; leave them out, divide the set as it was divided for that package, or "
            "start from another."
        )
    return before


def all_learned(
    labelled: LabelledSet, train_N: np.ndarray, before: Collection[str] | None
) -> Digests | None:
    """What fitted weights learned from, first weights included; None where it is not known."""
    if before is None or not len(labelled.digests):
        return None
    return Digests(before).with_values(digest_values(labelled.digests)[train_N])
