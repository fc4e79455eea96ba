"""Phantoms as files and archives: DICOM, PNG, JPEG; tar, tar.gz, tar.zst, zip.

What is written depends on the generator or the seed alone, to the byte, under one version of the
libraries. The files show the pipeline at work, they are no evidence about patients.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET, Implant
from implant_model.phantoms.archive_files import SUFFIXES, archive_writer
from implant_model.phantoms.dicom_files import TRANSFER_SYNTAXES, Patient, draw_patient, write_dicom
from implant_model.phantoms.picture_files import write_jpeg, write_mask, write_png
from implant_model.phantoms.render import (
    Phantom,
    render,
    render_unknown,
    render_without_implant,
)
from implant_model.storage.local_files import whole_file

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "TRANSFER_SYNTAXES",
    "ManifestRow",
    "Patient",
    "Sample",
    "draw_patient",
    "draw_phantom",
    "sample_archive",
    "sample_archives",
    "write_dicom",
    "write_drawn_dicom",
    "write_jpeg",
    "write_labels",
    "write_mask",
    "write_png",
]

FORMATS = ("dicom", "png16", "png8", "jpeg")
_PATIENTS = 1 << 40  # keeps the patients' generators apart from the pictures'


class ManifestRow(TypedDict):
    """What one member of a sample archive shows; the columns of a labels file."""

    archive: str
    member: str
    label: str
    patient: str


@dataclass(frozen=True)
class Sample:
    """What sample archives hold; phantoms, which are no evidence about patients.

    Attributes:
        implants: They come in turn, patient by patient, so that whole rounds are balanced.
        formats: From `FORMATS`, drawn with equal chance; DICOM files differ in object, transfer
            syntax and photometric interpretation.
        height_px: Rows of each picture.
        images_per_patient: Pictures in a row that show the same patient's implant.
        unknown_rate: Share of pictures of implants outside the catalogue.
        bare_rate: Share of pictures without an implant.
        with_masks: Put the implant's mask beside each picture, as `masks/NNNNN.png`; masks have no
            row in the manifest.

    Raises:
        UsageError: From the constructor: a value is not one of those accepted.
    """

    implants: tuple[Implant, ...] = ORTHONET.implants
    formats: tuple[str, ...] = FORMATS
    height_px: int = 512
    images_per_patient: int = 1
    unknown_rate: float = 0.0
    bare_rate: float = 0.0
    with_masks: bool = False

    def __post_init__(self) -> None:
        if not self.implants or self.images_per_patient < 1:
            raise UsageError(
                f"A sample of {len(self.implants)} implants and {self.images_per_patient} images a "
                "patient was asked for; 1 or more of each are accepted."
            )
        if not self.formats or not set(self.formats) <= set(FORMATS):
            raise UsageError(
                f"A sample in the formats {', '.join(self.formats) or 'none'} was asked for; "
                f"{', '.join(FORMATS)} are accepted."
            )
        rates = (self.unknown_rate, self.bare_rate)
        if not (min(rates) >= 0 and sum(rates) <= 1):
            raise UsageError(
                f"A sample with shares {rates[0]} of unknown implants and {rates[1]} of bare bones "
                "was asked for; two shares >= 0 with a sum <= 1 are accepted."
            )


def sample_archive(
    path: Path, count: int, seed: int, sample: Sample | None = None, first: int = 0
) -> list[ManifestRow]:
    """Write an archive of phantoms; they show the pipeline at work, no evidence about patients.

    Names of members say nothing of what they show.

    Args:
        path: Where; its ending, one of `SUFFIXES`, is the kind of archive. An archive that is there
            is replaced, whole or not at all.
        count: Number of pictures.
        seed: With `sample` and `first` it decides every byte of the members.
        sample: What to show.
        first: Number of the first picture: archives of one seed that go on where the other ended
            hold different pictures of the same made-up population.

    Returns:
        A row for each picture, in the order of the archive; `archive` is the path's name.

    Raises:
        UsageError: The ending is not known, or `count`, `seed` or `first` is negative.
    """
    write = archive_writer(path.name)
    if min(count, seed, first) < 0:
        raise UsageError(
            f"{count} phantoms from number {first} under seed {seed} were asked for; whole numbers "
            ">= 0 are accepted."
        )
    rows: list[ManifestRow] = []
    members = _members(rows, path.name, range(first, first + count), seed, sample or Sample())
    with whole_file(path) as file:
        write(file, members)
    return rows


def sample_archives(
    folder: Path, count: int, seed: int, sample: Sample | None = None
) -> list[ManifestRow]:
    """Write one archive of each kind and `labels.csv` beside them; no evidence about patients.

    Args:
        folder: Where; it is made if need be.
        count: Number of pictures in all archives together.
        seed: As for `sample_archive`.
        sample: What to show.

    Returns:
        The rows of all archives, as they stand in `labels.csv`.

    Raises:
        UsageError: As from `sample_archive`.
    """
    rows: list[ManifestRow] = []
    for place, suffix in enumerate(SUFFIXES):
        share = count * (place + 1) // len(SUFFIXES) - len(rows)
        path = folder / f"radiographs-{place}{suffix}"
        rows += sample_archive(path, share, seed, sample, first=len(rows))
    write_labels(rows, folder / "labels.csv")
    return rows


def write_labels(rows: Iterable[ManifestRow], path: Path) -> None:
    """Write a manifest as a labels file (CSV: archive, member, label, patient)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ManifestRow.__annotations__))
        writer.writeheader()
        writer.writerows(rows)


def _members(
    rows: list[ManifestRow], archive: str, numbers: range, seed: int, sample: Sample
) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of the members, made one at a time; append a row for each picture."""
    for place, number in enumerate(numbers):
        rng = np.random.default_rng([seed, number])
        owner = number // sample.images_per_patient
        patient = draw_patient(np.random.default_rng([seed, _PATIENTS + owner]))
        phantom = draw_phantom(number, rng, sample)
        ending, data = _write(phantom, rng, str(rng.choice(sample.formats)), patient)
        name = f"images/{place:05d}.{ending}"
        label = phantom.implant.name
        rows.append(
            ManifestRow(archive=archive, member=name, label=label, patient=patient.identifier)
        )
        yield name, data
        if sample.with_masks:
            yield f"masks/{place:05d}.png", write_mask(phantom)


def draw_phantom(number: int, rng: np.random.Generator, sample: Sample) -> Phantom:
    """What the picture of a number shows, which is `default_rng([seed, number])`'s first draw."""
    owner = number // sample.images_per_patient
    implant = sample.implants[owner % len(sample.implants)]
    chance = rng.random()
    if chance < sample.unknown_rate:
        return render_unknown(rng, sample.height_px)
    if chance < sample.unknown_rate + sample.bare_rate:
        return render_without_implant(rng, sample.height_px)
    return render(implant, rng, sample.height_px)


def _write(
    phantom: Phantom, rng: np.random.Generator, form: str, patient: Patient
) -> tuple[str, bytes]:
    """Return the ending and the bytes of a phantom in one of `FORMATS`."""
    if form != "dicom":
        if form == "jpeg":
            return "jpg", write_jpeg(phantom)
        return "png", write_png(phantom, 16 if form == "png16" else 8)
    return "dcm", write_drawn_dicom(phantom, rng, patient)


def write_drawn_dicom(phantom: Phantom, rng: np.random.Generator, patient: Patient) -> bytes:
    """A DICOM file in a transfer syntax, photometric interpretation and modality that are drawn."""
    return write_dicom(
        phantom,
        rng,
        transfer_syntax=str(rng.choice(TRANSFER_SYNTAXES)),
        photometric="MONOCHROME1" if rng.random() < 0.4 else "MONOCHROME2",
        modality="CR" if rng.random() < 0.4 else "DX",
        patient=patient,
    )
