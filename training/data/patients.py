"""What each image of a set is, and whose: by the rows of a labels file, folders and headers.

A patient is known by a keyed hash alone, see `reading`; a row's goes before a header's.

Letters: N images, B images of a part, M those of which a patient is known, H patients of headers.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.bundles import Bundle
from training.data.label_rows import Label
from training.data.labels import label_of_name
from training.data.reading import PATIENT_BYTES, hash_patient, patient_key
from training.data.set_columns import TextCodes, bytes_of
from training.data.split import renumber

_NO_PATIENT = pa.scalar(bytes(PATIENT_BYTES), pa.binary(PATIENT_BYTES))
_JOINED_AT_ONCE = 1 << 14
"""Images of which there are objects of Python at a time."""


class SetPatients:
    """Labels and patients' numbers of a set, as its images are added.

    Args:
        cache: Whose key hides the patients of headers.
    """

    def __init__(self, cache: str) -> None:
        self.labels = TextCodes()
        self._cache, self._key = cache, b""
        self._of_headers, self._of_rows = _Hidden(), _Hidden()

    def add(
        self, bundle: Bundle, part: pa.Table, rows: Mapping[str, Mapping[str, Label]] | None
    ) -> None:
        """Add the images of a bundle."""
        for start in range(0, part.num_rows, _JOINED_AT_ONCE):
            self._add(bundle, part.slice(start, _JOINED_AT_ONCE), rows)

    def _add(
        self, bundle: Bundle, part: pa.Table, rows: Mapping[str, Mapping[str, Label]] | None
    ) -> None:
        keys_BB = bytes_of(part["patient"].fill_null(_NO_PATIENT))
        self._of_headers.add(part["patient"].is_valid().to_numpy(), keys_BB)
        stated_B, stated_BB = np.zeros(len(keys_BB), np.bool_), np.zeros_like(keys_BB)
        columns = (part[name].to_pylist() for name in ("object", "member"))
        for at, (number, member) in enumerate(zip(*columns, strict=True)):
            wanted = bundle.objects[number]
            if rows is None:
                self.labels.add(str(label_of_name(wanted.name, member)))
                continue
            row = rows[wanted.info.uri][member]
            self.labels.add(row.label)
            if row.patient:
                stated_BB[at] = np.frombuffer(self._hash(row.patient), np.uint8)
                stated_B[at] = True
        self._of_rows.add(stated_B, stated_BB)

    def patients_N(self) -> NDArray[np.int64]:
        """Return each patient's number, in the order of their first images; -1 where unknown.

        A row's patient goes before the header's. An image whose row has none is of the patient
        whom the rows name of all other images with the same patient in their headers: else a
        patient who is in half of the rows alone were two.
        """
        (in_header_N, header_MB), (in_row_N, row_MB) = self._of_headers.take(), self._of_rows.take()
        keys_MB = np.concatenate([row_MB, header_MB])
        codes = renumber(keys_MB.view(np.dtype((np.void, PATIENT_BYTES))).ravel())
        row_N, header_N = np.full((2, len(in_row_N)), -1, np.int64)
        row_N[in_row_N], header_N[in_header_N] = codes[: len(row_MB)], codes[len(row_MB) :]
        found_N = np.where(in_row_N, row_N, _named_elsewhere(row_N, header_N))
        known_N = found_N >= 0
        found_N[known_N] = renumber(found_N[known_N])
        return found_N

    def _hash(self, patient: str) -> bytes:
        self._key = self._key or patient_key(self._cache)
        return hash_patient(patient, self._key)


class _Hidden:
    """Hashes of those patients that are known, as they come."""

    def __init__(self) -> None:
        self._known: list[NDArray[np.bool_]] = []
        self._keys: list[NDArray[np.uint8]] = []

    def add(self, known_B: NDArray[np.bool_], keys_BB: NDArray[np.uint8]) -> None:
        self._known.append(known_B)
        self._keys.append(keys_BB[known_B])

    def take(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Return which images have one, and the hashes of those; its parts are let go."""
        known_N = np.concatenate([np.zeros(0, np.bool_), *self._known])
        keys_MB = np.concatenate([np.zeros((0, PATIENT_BYTES), np.uint8), *self._keys])
        self._known.clear()
        self._keys.clear()
        return known_N, keys_MB


def _named_elsewhere(row_N: NDArray[np.int64], header_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the patient of each header, or the one whom rows of images of that header name.

    Where they name several, as of a header that was made anonymous, it remains the header's.
    """
    count = int(header_N.max(initial=-1)) + 1
    both_N = (row_N >= 0) & (header_N >= 0)
    least_H, most_H = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(least_H, header_N[both_N], row_N[both_N])
    np.maximum.at(most_H, header_N[both_N], row_N[both_N])
    patient_H = np.where(least_H == most_H, most_H, np.arange(count))
    known_N = header_N >= 0
    found_N = np.full(len(header_N), -1, np.int64)
    found_N[known_N] = patient_H[header_N[known_N]]
    return found_N
