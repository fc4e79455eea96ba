"""Phantoms as DICOM files: the CR and DX objects of PS3.3 A.2 and A.26.

Every value is made up: names are those of phantoms, numbers and UIDs come from the caller's
generator, so that the same generator gives the same bytes. The files show the pipeline at work,
they are no evidence about patients.

Shape letters: H rows, W columns.
"""

import io
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
from imagecodecs import jpeg2k_encode
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from implant_model.errors import UsageError
from implant_model.phantoms.film import WHITE
from implant_model.phantoms.render import Phantom

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
Modality = Literal["CR", "DX"]
TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    str(uid)
    for uid in (
        ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless,
        JPEGLSLossless, JPEG2000Lossless,
    )
)  # fmt: skip
# PS3.16 annex L: body part examined > (SNOMED CT code, meaning).
_REGIONS = {
    "HIP": ("29836001", "Hip"),
    "KNEE": ("72696002", "Knee"),
    "PELVIS": ("12921003", "Pelvis"),
    "SHOULDER": ("16982005", "Shoulder"),
}
# PS3.16 CID 4010.
_VIEWS = {"AP": ("399348003", "antero-posterior"), "LL": ("399067008", "lateral")}
_GIVEN = ("Ada", "Bela", "Cleo", "Dion", "Elin", "Finn", "Gita", "Hugo", "Ines", "Juno")
_IMPLEMENTATION = "2.25.159201840937153187239561073245869126301"  # drawn once, this writer's own


@dataclass(frozen=True)
class Patient:
    """A patient who does not exist.

    Attributes:
        identifier: Patient ID.
        name: In DICOM's form, family^given.
        birth_date: Date of birth.
        sex: F, M or O.
    """

    identifier: str
    name: str
    birth_date: date
    sex: str


def draw_patient(rng: np.random.Generator) -> Patient:
    """Make a patient up: the family is called Phantom, the ID starts with PH."""
    return Patient(
        identifier=f"PH{int(rng.integers(10**9)):09d}",
        name=f"Phantom^{rng.choice(_GIVEN)}",
        birth_date=date(1925, 1, 1) + timedelta(days=int(rng.integers(20_000))),
        sex=str(rng.choice(["F", "M", "O"], p=[0.52, 0.46, 0.02])),
    )


def write_dicom(
    phantom: Phantom,
    rng: np.random.Generator,
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    photometric: Photometric = "MONOCHROME2",
    modality: Modality = "DX",
    patient: Patient | None = None,
    study_date: date | None = None,
) -> bytes:
    """Write a phantom as a DICOM file; it is no evidence about patients.

    Args:
        phantom: The picture.
        rng: Draws UIDs, accession number, technique, and what is left out below.
        transfer_syntax: One of `TRANSFER_SYNTAXES`; every one keeps the pixels as they are.
        photometric: MONOCHROME1 stores the inverse, 4095 - value.
        modality: Which object: Computed Radiography, or Digital X-Ray for presentation.
        patient: Whose picture it pretends to be.
        study_date: When it pretends to have been taken.

    Returns:
        The file, 12 bits stored in 16, with a window that holds all its greys.

    Raises:
        UsageError: An argument is not one of those accepted.
    """
    _check(transfer_syntax, photometric, modality)
    stored_HW = phantom.pixels_HW if photometric == "MONOCHROME2" else WHITE - phantom.pixels_HW
    stored_HW = np.ascontiguousarray(stored_HW, dtype="<u2")
    dataset = Dataset()
    _describe_patient(dataset, patient or draw_patient(rng))
    _describe_study(dataset, rng, study_date)
    _describe_view(dataset, phantom, rng, modality)
    _describe_pixels(dataset, phantom, stored_HW, photometric)
    _encode(dataset, stored_HW, transfer_syntax)
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _check(transfer_syntax: str, photometric: str, modality: str) -> None:
    for what, value, accepted in (
        ("transfer syntax", transfer_syntax, TRANSFER_SYNTAXES),
        ("photometric interpretation", photometric, ("MONOCHROME1", "MONOCHROME2")),
        ("modality", modality, ("CR", "DX")),
    ):
        if value not in accepted:
            raise UsageError(
                f"A phantom cannot be written with the {what} {value!r}; "
                f"{', '.join(accepted)} are accepted."
            )


def _draw_uid(rng: np.random.Generator) -> str:
    """Return a UID of 128 random bits under the root 2.25 (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(rng.bytes(16), 'big')}"


def _describe_patient(dataset: Dataset, patient: Patient) -> None:
    dataset.PatientName = patient.name
    dataset.PatientID = patient.identifier
    dataset.PatientBirthDate = f"{patient.birth_date:%Y%m%d}"
    dataset.PatientSex = patient.sex


def _describe_study(dataset: Dataset, rng: np.random.Generator, study_date: date | None) -> None:
    drawn = date(2012, 1, 1) + timedelta(days=int(rng.integers(4_700)))
    day = f"{study_date or drawn:%Y%m%d}"
    second = int(rng.integers(7 * 3600, 19 * 3600))
    time = f"{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.AccessionNumber = f"AC{int(rng.integers(10**10)):010d}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyInstanceUID = _draw_uid(rng)
    dataset.SeriesInstanceUID = _draw_uid(rng)
    dataset.SOPInstanceUID = _draw_uid(rng)
    dataset.StudyID = f"{int(rng.integers(10**6))}"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item


def _describe_view(
    dataset: Dataset, phantom: Phantom, rng: np.random.Generator, modality: Modality
) -> None:
    """Equipment, anatomy, view and technique."""
    dataset.Modality = modality
    dataset.Manufacturer = "Synthetic phantom"
    dataset.BodyPartExamined = phantom.body_part
    dataset.ViewPosition = phantom.view
    dataset.Laterality = phantom.laterality
    dataset.KVP = f"{rng.uniform(65, 85):.0f}"
    dataset.Exposure = f"{rng.uniform(4, 40):.0f}"
    dataset.PatientOrientation = ["L", "F"] if phantom.view == "AP" else ["A", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = "Computed phantom, not a patient"
    dataset.BurnedInAnnotation = "NO"
    if modality == "CR":
        dataset.SOPClassUID = ComputedRadiographyImageStorage
        return
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = phantom.laterality
    dataset.AnatomicRegionSequence = [_code(*_REGIONS[phantom.body_part])]
    dataset.ViewCodeSequence = [_code(*_VIEWS[phantom.view])]
    dataset.AcquisitionContextSequence = []
    dataset.DetectorType = "DIRECT"


def _describe_pixels(
    dataset: Dataset, phantom: Phantom, stored_HW: NDArray[np.uint16], photometric: Photometric
) -> None:
    """The image pixel, display and VOI LUT modules."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = stored_HW.shape
    dataset.PixelSpacing = [f"{phantom.spacing_mm:.5f}"] * 2
    dataset.ImagerPixelSpacing = [f"{phantom.spacing_mm:.5f}"] * 2
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME2" else 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
    dataset.LossyImageCompression = "00"
    low, high = int(stored_HW.min()), int(stored_HW.max())
    dataset.WindowCenter = f"{(low + high + 1) / 2:.1f}"
    dataset.WindowWidth = f"{max(high - low + 1, 2)}"


def _encode(dataset: Dataset, stored_HW: NDArray[np.uint16], transfer_syntax: str) -> None:
    """Put the pixel data in, compressed as the transfer syntax states, and the file meta."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    dataset.file_meta.ImplementationVersionName = "PHANTOM_1"
    if transfer_syntax == JPEG2000Lossless:
        frame = jpeg2k_encode(stored_HW, level=0, codecformat="j2k", bitspersample=12)
        dataset.PixelData = encapsulate([bytes(frame)])
        dataset["PixelData"].VR = "OB"
    elif transfer_syntax in (RLELossless, JPEGLSLossless):
        plugin = "pydicom" if transfer_syntax == RLELossless else "pyjpegls"
        dataset.compress(
            transfer_syntax, stored_HW, encoding_plugin=plugin, generate_instance_uid=False
        )
    else:
        dataset.PixelData = stored_HW.tobytes()
        dataset["PixelData"].VR = "OW"
